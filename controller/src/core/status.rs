//! A Service's status as it should be against what is seen: its ingress is ours alone, and
//! whoever else writes it is undone.

use std::net::IpAddr;

use lightship_crds::virtual_ip_name;
use lightship_ipam::ServiceId;

use super::service::CLAIMED;
use super::{Core, Entry, list};
use crate::model::{Action, Demand, Revision, Subject, Told, Verdict, Write};

/// The reason of the condition and event of a Service whose VirtualIP cannot be written.
const REFUSED: &str = "VirtualIPRefused";

impl Core {
    /// Restores a Service's ingress and condition. One that holds nothing loses only
    /// addresses that are ours to give: others are another load balancer's business.
    pub(super) fn sync_status(&mut self, id: &ServiceId) {
        let Some(entry) = self.services.get(id).filter(|_| self.started) else {
            return;
        };
        let held = self.allocator.held_by(id);
        let mut all = held.iter().chain(self.allocator.claimed_by(id));
        let said = entry.view.told.as_ref().map(|told| &told.verdict);
        // An address that is not claimed yet might be another's; the VirtualIP leads back here.
        let waits = all.find(|address| !self.may_show(**address, id, entry));
        let (addresses, verdict) = match waits {
            None => (self.ingress(id, entry, held), entry.verdict.clone()),
            Some(waits) => {
                // What it gave up may be another's before what it waits for comes, if ever.
                let mut seen = entry.view.ingress.iter().filter_map(|seen| seen.ip);
                let gave_up = seen.any(|ip| !held.contains(&ip));
                let standing = held.iter().copied().filter(|ip| self.stands(*ip, id));
                let standing: Vec<_> = standing.collect();
                let addresses = match gave_up {
                    true => self.ingress(id, entry, &standing),
                    false => None,
                };
                let refusal = self.refusal(*waits);
                (addresses, refusal.or_else(|| said.cloned()))
            }
        };
        // A former write that has not come to anything yet is not to come to anything any more.
        let addresses = addresses.or_else(|| {
            let stale = entry.asked.iter().any(|ip| !held.contains(ip));
            let standing = held.iter().copied().filter(|ip| self.stands(*ip, id));
            stale.then(|| standing.collect())
        });
        let asked = addresses.clone();
        let told = self.told(entry, verdict);
        let news = addresses.is_some() || said != told.as_ref().map(|told| &told.verdict);
        let seen = entry.view.ingress.iter().filter_map(|seen| seen.ip);
        let (leaving, staying): (Vec<_>, Vec<_>) =
            seen.partition(|ip| addresses.as_ref().is_some_and(|to| !to.contains(ip)));
        if news {
            let write = status_of(id, entry, addresses, told);
            self.actions.push(Action::Write(write));
        } else {
            self.unwritten.remove(id);
        }
        if let Some((entry, asked)) = self.services.get_mut(id).zip(asked) {
            entry.asked = asked;
        }
        for address in leaving {
            let of_address = self.leaving.entry(address).or_default();
            of_address.insert(id.clone());
        }
        for address in staying {
            self.left(id, address);
        }
    }

    /// Whether a Service's ingress may show this address: its VirtualIP is the Service's, and
    /// no other Service shows it that has given it up and is about to be written.
    fn may_show(&self, address: IpAddr, id: &ServiceId, entry: &Entry) -> bool {
        let mut seen = entry.view.ingress.iter();
        let mut shown = || seen.any(|seen| seen.ip == Some(address));
        let mut leaving = self.leaving.get(&address).into_iter().flatten();
        self.stands(address, id) && (leaving.all(|other| other == id) || shown())
    }

    /// Notes that a Service's status does not show an address that it gave up any longer, or
    /// never will be without; who has it now may have waited for that.
    pub(super) fn left(&mut self, id: &ServiceId, address: IpAddr) {
        let Some(of_address) = self.leaving.get_mut(&address) else {
            return;
        };
        if !of_address.remove(id) || !of_address.is_empty() {
            return;
        }
        self.leaving.remove(&address);
        let holding = self.allocator.holding(address);
        let holders = holding.map(|holding| holding.holders.clone());
        for holder in holders.into_iter().flatten().filter(|holder| holder != id) {
            self.sync_status(&holder);
        }
    }

    /// Why the address that was chosen for a Service does not come, if the API server does not
    /// take its VirtualIP.
    fn refusal(&self, address: IpAddr) -> Option<Verdict> {
        let name = virtual_ip_name(address);
        let reason = self.refusals.get(&name)?;
        Some(Verdict {
            met: false,
            reason: REFUSED.into(),
            message: format!(
                "{address} is chosen, but the API server refuses VirtualIP {name}: {reason}"
            ),
        })
    }

    /// Tells a Service of such a refusal, by its condition and an event.
    pub(super) fn warn_of_refusal(&mut self, id: &ServiceId, address: IpAddr) {
        if self.stands(address, id) {
            return;
        }
        let Some(entry) = self.services.get(id) else {
            return;
        };
        let subject = Subject::Service {
            id: id.clone(),
            uid: entry.view.uid.clone(),
        };
        let said = entry.view.told.as_ref().map(|told| &told.verdict);
        if let Some(verdict) = self.refusal(address).filter(|new| said != Some(new)) {
            self.notify(subject, true, REFUSED, verdict.message);
            self.sync_status(id);
        }
    }

    /// Tells a Service, by an event as nothing else is left, that the API server does not take
    /// its status. Who has an address now that it gave up waits no longer.
    pub(super) fn status_refused(&mut self, id: &ServiceId, reason: String) {
        let Some(entry) = self.services.get(id) else {
            return;
        };
        let subject = Subject::Service {
            id: id.clone(),
            uid: entry.view.uid.clone(),
        };
        let seen = entry.view.ingress.iter().filter_map(|seen| seen.ip);
        for address in seen.collect::<Vec<_>>() {
            self.left(id, address);
        }
        let before = self.unwritten.insert(id.clone(), reason.clone());
        if before.as_ref() != Some(&reason) {
            let held = list(self.allocator.held_by(id));
            let note = match held.is_empty() {
                true => format!("the API server refuses its status: {reason}"),
                false => format!("holds {held}, but the API server refuses its status: {reason}"),
            };
            self.notify(subject, true, "StatusRefused", note);
        }
    }

    /// What the ingress has to become; none if it may stay as it is.
    fn ingress(&self, id: &ServiceId, entry: &Entry, held: &[IpAddr]) -> Option<Vec<IpAddr>> {
        let seen = &entry.view.ingress;
        let agrees = seen.len() == held.len()
            && seen
                .iter()
                .zip(held)
                .all(|(seen, held)| seen.plain && seen.ip == Some(*held));
        if agrees {
            return None;
        }
        // Whose addresses these are can be told by our own word on them, even if their pool is
        // gone.
        let said = entry.view.told.as_ref().map(|told| &told.verdict);
        let assigned = said.is_some_and(|verdict| verdict.met && verdict.reason != CLAIMED);
        let mut addresses = seen.iter().filter_map(|entry| entry.ip);
        let was_ours = entry.gave || assigned || addresses.clone().any(|ip| self.stands(ip, id));
        if entry.view.demand == Demand::Nothing {
            let was_ours = was_ours && seen.iter().all(|entry| entry.plain);
            return was_ours.then(Vec::new);
        }
        let pools = self.allocator.pools();
        let ours = |ip: IpAddr| pools.covering(ip).is_some();
        if held.is_empty() && !was_ours && !addresses.any(ours) {
            return None;
        }
        Some(held.to_vec())
    }

    /// The condition as it should be, with the time of its last change.
    fn told(&self, entry: &Entry, verdict: Option<Verdict>) -> Option<Told> {
        let verdict = verdict?;
        let seen = entry.view.told.as_ref();
        let since = seen.filter(|seen| seen.verdict.met == verdict.met);
        let since = since.map(|seen| seen.since).or(self.now)?;
        Some(Told { verdict, since })
    }
}

fn status_of(
    id: &ServiceId,
    entry: &Entry,
    addresses: Option<Vec<IpAddr>>,
    told: Option<Told>,
) -> Write {
    Write::ServiceStatus {
        service: id.clone(),
        seen: Revision {
            uid: entry.view.uid.clone(),
            version: entry.view.version.clone(),
        },
        addresses,
        told,
    }
}
