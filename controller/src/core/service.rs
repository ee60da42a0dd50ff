//! Services: what each gets, keeps and gives back.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use lightship_ipam::{Assignment, Claims, Considered, Refusal, Request, ServiceId};

use super::waiting::{Kind, Lack, lacks, lacks_of};
use super::{Core, Entry, list};
use crate::adapter;
use crate::model::{Change, Clock, Demand, ServiceView, Subject, Verdict, Wish};

/// The reason of a condition on a Service that holds nothing but what it claimed: its ingress
/// is not ours.
pub(super) const CLAIMED: &str = "Claimed";

/// The reason if the request cannot be read or contradicts itself, whatever the pools have; MetalLB's.
const UNCLEAR: &str = "LoadBalancerFailed";

/// A verdict on a Service, and the event that a change to it is worth.
pub(super) struct Judgement {
    verdict: Verdict,
    /// Reason and whether it is a warning.
    event: Option<(&'static str, bool)>,
}

impl Judgement {
    fn new(met: bool, reason: &'static str, message: String) -> Self {
        let verdict = Verdict {
            met,
            reason: reason.into(),
            message,
        };
        Self {
            verdict,
            event: None,
        }
    }

    fn told(self, warning: bool) -> Self {
        let reason = match self.verdict.reason {
            std::borrow::Cow::Borrowed(reason) => reason,
            std::borrow::Cow::Owned(_) => return self,
        };
        Self {
            event: Some((reason, warning)),
            ..self
        }
    }
}

/// A text, and that what is held besides is not as it should be either.
fn also(text: String, strays: &[String]) -> String {
    match strays {
        [] => text,
        strays => format!("{text}; kept, although {}", strays.join("; ")),
    }
}

impl Core {
    pub(super) fn services_changed(&mut self, change: Change<ServiceView>, clock: Clock) {
        match change {
            Change::Applied(view) => self.service_applied(view, clock),
            Change::Gone(view) => self.service_gone(&view.id, clock),
            Change::Listed(views) => {
                self.listed.services = true;
                let present: BTreeSet<_> = views.iter().map(|view| view.id.clone()).collect();
                let gone: Vec<_> = self
                    .services
                    .keys()
                    .filter(|id| !present.contains(id))
                    .cloned()
                    .collect();
                for id in gone {
                    self.service_gone(&id, clock);
                }
                let mut views = views;
                views.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
                for view in views {
                    self.service_applied(view, clock);
                }
            }
        }
    }

    fn service_applied(&mut self, view: ServiceView, clock: Clock) {
        let id = view.id.clone();
        let before = self.services.remove(&id);
        // Of a Service that was deleted and created again unseen, the verdict is news.
        let same = before.as_ref().filter(|before| before.view.uid == view.uid);
        let verdict = same.and_then(|before| before.verdict.clone());
        let gave = same.is_some_and(|before| before.gave) && !view.ingress.is_empty();
        let asked = same.map(|before| before.asked.clone()).unwrap_or_default();
        let first_sight = before
            .as_ref()
            .is_none_or(|before| before.view.demand == Demand::Nothing);
        let shares = before
            .as_ref()
            .is_some_and(|before| before.view.sharing != view.sharing);
        let seen = before.iter().flat_map(|before| &before.view.ingress);
        let mut unshown: Vec<_> = seen.filter_map(|seen| seen.ip).collect();
        unshown.retain(|ip| !view.ingress.iter().any(|seen| seen.ip == Some(*ip)));
        self.services.insert(
            id.clone(),
            Entry {
                view,
                verdict,
                gave,
                asked,
            },
        );
        if !self.started {
            return;
        }
        if first_sight {
            self.adopt_from_status(&id);
        }
        self.reconcile(&id, clock);
        for address in unshown {
            self.left(&id, address);
        }
        if shares {
            // Another may fit beside it now.
            for address in self.all_of(&id) {
                self.wake_for(address);
            }
        }
    }

    fn service_gone(&mut self, id: &ServiceId, clock: Clock) {
        let Some(entry) = self.services.remove(id) else {
            return;
        };
        self.waiting.set(id, 0, Vec::new());
        self.unwritten.remove(id);
        for address in self.allocator.release(id, clock.mono) {
            self.released(address);
        }
        self.note_shut(id, &BTreeMap::new());
        for address in entry.view.ingress.iter().filter_map(|seen| seen.ip) {
            self.left(id, address);
        }
    }

    /// What a Service holds, by whichever way.
    fn all_of(&self, id: &ServiceId) -> Vec<IpAddr> {
        [self.allocator.held_by(id), self.allocator.claimed_by(id)].concat()
    }

    /// Gives one Service what it asks for, or says why not.
    pub(super) fn reconcile(&mut self, id: &ServiceId, clock: Clock) {
        // Taken out meanwhile, as much is read from it while the rest changes.
        let Some(mut entry) = self.services.remove(id) else {
            return;
        };
        entry.gave |= !self.allocator.held_by(id).is_empty();
        let view = &entry.view;
        if view.demand == Demand::Nothing && view.claims.is_empty() && self.all_of(id).is_empty() {
            self.waiting.set(id, view.created, Vec::new());
            self.services.insert(id.clone(), entry);
            self.judge(id, None);
            return;
        }
        if !self.namespaces.contains_key(&*id.namespace) && self.all_of(id).is_empty() {
            // Its labels decide which pools are open. They come next, by another watch.
            self.services.insert(id.clone(), entry);
            return;
        }
        let subject = Subject::Service {
            id: id.clone(),
            uid: view.uid.clone(),
        };
        let closed = self.closed(view);
        let lost = self
            .allocator
            .settle(id, &view.sharing, &closed, clock.mono);
        for (address, why) in lost {
            let note = format!("took {address} back: {why}");
            self.notify(subject.clone(), true, "ClearAssignment", note);
            self.released(address);
        }
        let (mut judgement, mut lacks) = match &view.demand {
            Demand::Nothing => {
                self.let_go(id, &subject, clock);
                (None, Vec::new())
            }
            // What it holds it keeps: a slip of the pen must not cut a running Service off.
            Demand::Unclear(fault) => {
                let strays = self.strays(id, &closed);
                let note = also(fault.clone(), &strays);
                let judgement = Judgement::new(false, UNCLEAR, note);
                (Some(judgement.told(true)), Vec::new())
            }
            Demand::Addresses(wish) => {
                let (judgement, lacks) = self.assign(id, &subject, view, wish, &closed, clock);
                (Some(judgement), lacks)
            }
        };
        let claims = self
            .allocator
            .claim(id, &view.claims, &view.sharing, &closed, clock.mono);
        lacks.extend(self.claimed(&subject, &claims));
        judgement = self.judge_claims(id, judgement, &claims, &closed);
        self.note_shut(id, &closed);
        self.waiting.set(id, view.created, lacks);
        self.services.insert(id.clone(), entry);
        self.judge(id, judgement);
    }

    fn assign(
        &mut self,
        id: &ServiceId,
        subject: &Subject,
        view: &ServiceView,
        wish: &Wish,
        closed: &BTreeMap<Arc<str>, String>,
        clock: Clock,
    ) -> (Judgement, Vec<Lack>) {
        let request = Request {
            families: wish.families.clone(),
            policy: wish.policy,
            addresses: wish.addresses.clone(),
            pool: wish.pool.as_ref().map(|pool| pool.name.clone()),
            closed: closed.clone(),
            sharing: view.sharing.clone(),
        };
        let result = self.allocator.assign(id, &request, clock.mono);
        let kind = Kind::of(id, &view.sharing);
        // What it names has a say in which pool an address counts for.
        for address in self.allocator.held_by(id).to_vec() {
            self.sync_vip(address);
        }
        match result {
            Ok(assignment) => {
                self.assigned(subject, &assignment);
                let addresses = &assignment.addresses;
                let strays = self.strays(id, closed);
                let Some((family, pools)) = assignment.unmet else {
                    return (self.kept(addresses, &strays), Vec::new());
                };
                let texts: Vec<_> = pools.iter().map(ToString::to_string).collect();
                let note = format!(
                    "no {family} address beside {}: {}",
                    list(addresses),
                    texts.join("; ")
                );
                let judgement = if strays.is_empty() {
                    Judgement::new(true, "AdditionalAssignFailed", note).told(false)
                } else {
                    let mut judgement = self.kept(addresses, &strays);
                    let message = &mut judgement.verdict.message;
                    *message = format!("{message}; {note}");
                    judgement
                };
                (judgement, lacks(&pools, kind.as_ref()))
            }
            Err(refusal) => {
                let text = match (&refusal, &wish.pool) {
                    (Refusal::UnknownPool { .. }, Some(pool)) => {
                        format!("{}: {refusal}", pool.by)
                    }
                    _ => refusal.to_string(),
                };
                let strays = self.strays(id, closed);
                let note = also(self.refused(id, &text), &strays);
                let reason = match refusal {
                    Refusal::Invalid(_) => UNCLEAR,
                    _ => "AllocationFailed",
                };
                let judgement = Judgement::new(false, reason, note);
                (judgement.told(true), lacks_of(&refusal, kind.as_ref()))
            }
        }
    }

    /// Why the pools would not give a Service what it was assigned, if so, as text per address.
    fn strays(&self, id: &ServiceId, closed: &BTreeMap<Arc<str>, String>) -> Vec<String> {
        let held = self.allocator.held_by(id).iter();
        held.filter_map(|address| {
            let why = self.allocator.stray(*address, closed, false)?;
            let pool = self.allocator.holding(*address)?.pool.clone();
            Some(Considered { pool, why }.to_string())
        })
        .collect()
    }

    /// All is well, but for addresses that their pool would not give any more.
    fn kept(&self, addresses: &[IpAddr], strays: &[String]) -> Judgement {
        if strays.is_empty() {
            let holding = addresses.first().and_then(|a| self.allocator.holding(*a));
            let pool = holding.map(|holding| &*holding.pool).unwrap_or_default();
            let message = format!("{} from pool \"{pool}\"", list(addresses));
            return Judgement::new(true, "Assigned", message);
        }
        let message = format!("keeps {}, although {}", list(addresses), strays.join("; "));
        Judgement::new(true, "KeptOutsidePool", message).told(true)
    }

    fn judge_claims(
        &self,
        id: &ServiceId,
        judgement: Option<Judgement>,
        claims: &Claims,
        closed: &BTreeMap<Arc<str>, String>,
    ) -> Option<Judgement> {
        let refused: Vec<_> = claims.refused.iter().map(Considered::to_string).collect();
        let mut parts = Vec::new();
        let claimed = self.allocator.claimed_by(id);
        if !claimed.is_empty() {
            parts.push(format!("{} claimed by spec.externalIPs", list(claimed)));
        }
        let kept: Vec<_> = claimed
            .iter()
            .filter_map(|address| self.allocator.stray(*address, closed, true))
            .map(|why| why.to_string())
            .collect();
        if !kept.is_empty() {
            parts.push(format!("kept, although its pool: {}", kept.join("; ")));
        }
        if !refused.is_empty() {
            parts.push(format!("spec.externalIPs refused: {}", refused.join("; ")));
        }
        if parts.is_empty() {
            return judgement;
        }
        let text = parts.join("; ");
        let well = refused.is_empty();
        match judgement {
            None if well && kept.is_empty() => Some(Judgement::new(true, CLAIMED, text)),
            None if well => Some(Judgement::new(true, "KeptOutsidePool", text).told(true)),
            None => Some(Judgement::new(false, "ExternalIPRefused", text).told(true)),
            Some(mut judgement) => {
                let message = &mut judgement.verdict.message;
                *message = format!("{message}; {text}");
                if well && !kept.is_empty() && judgement.verdict.met {
                    judgement.verdict.reason = "KeptOutsidePool".into();
                    judgement = judgement.told(true);
                }
                if !well && judgement.verdict.met {
                    judgement.verdict.met = false;
                    judgement.verdict.reason = "ExternalIPRefused".into();
                    judgement = judgement.told(true);
                }
                Some(judgement)
            }
        }
    }

    fn claimed(&mut self, subject: &Subject, claims: &Claims) -> Vec<Lack> {
        for address in &claims.released {
            self.released(*address);
        }
        for address in &claims.added {
            self.claim_vip(*address);
            self.wake_sharers(*address);
        }
        if !claims.added.is_empty() {
            let note = format!("claims {} by spec.externalIPs", list(&claims.added));
            self.notify(subject.clone(), false, "IPAllocated", note);
        }
        lacks(&claims.refused, None)
    }

    /// Restricted pools that are not for this Service.
    pub(super) fn closed(&self, view: &ServiceView) -> BTreeMap<Arc<str>, String> {
        let none = BTreeMap::new();
        let labels = self.namespaces.get(&*view.id.namespace).unwrap_or(&none);
        let pools = self.pools.values().map(|entry| &entry.view);
        adapter::closed(pools, view, labels)
    }

    /// Takes everything assigned from a Service that is not ours any more.
    fn let_go(&mut self, id: &ServiceId, subject: &Subject, clock: Clock) {
        let released = self.allocator.unassign(id, clock.mono);
        if released.is_empty() {
            return;
        }
        for address in &released {
            self.released(*address);
        }
        let note = format!("released {}", list(&released));
        self.notify(subject.clone(), false, "AddressReleased", note);
    }

    fn assigned(&mut self, subject: &Subject, assignment: &Assignment) {
        for address in &assignment.released {
            self.released(*address);
        }
        if !assignment.released.is_empty() {
            let note = format!("released {}", list(&assignment.released));
            self.notify(subject.clone(), false, "AddressReleased", note);
        }
        for address in &assignment.added {
            self.claim_vip(*address);
            self.wake_sharers(*address);
        }
        if let Some(pool) = assignment
            .added
            .first()
            .and_then(|first| self.allocator.holding(*first))
        {
            let note = format!(
                "assigned {} from pool \"{}\"",
                list(&assignment.added),
                pool.pool
            );
            self.notify(subject.clone(), false, "IPAllocated", note);
        }
    }

    fn refused(&self, id: &ServiceId, refusal: &str) -> String {
        match self.allocator.held_by(id) {
            [] => format!("no address: {refusal}"),
            held => format!(
                "keeps {}, as what it asks for cannot be had: {refusal}",
                list(held)
            ),
        }
    }

    /// Remembers a verdict, tells of it if it is news, and has it written.
    fn judge(&mut self, id: &ServiceId, judgement: Option<Judgement>) {
        let Some(entry) = self.services.get_mut(id) else {
            return;
        };
        let known = entry.verdict.take();
        let known = known.or_else(|| entry.view.told.as_ref().map(|told| told.verdict.clone()));
        let uid = entry.view.uid.clone();
        let mut event = None;
        if let Some(judgement) = judgement {
            if known.as_ref() != Some(&judgement.verdict) {
                event = judgement
                    .event
                    .map(|event| (event, judgement.verdict.message.clone()));
            }
            entry.verdict = Some(judgement.verdict);
        }
        if let Some(((reason, warning), note)) = event {
            let subject = Subject::Service {
                id: id.clone(),
                uid,
            };
            self.notify(subject, warning, reason, note);
        }
        self.sync_status(id);
    }

    /// A Service has let go of an address, which others may hold still.
    pub(super) fn released(&mut self, address: IpAddr) {
        self.wake_for(address);
        self.sync_vip(address);
    }
}
