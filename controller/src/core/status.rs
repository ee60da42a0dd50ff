//! A Service's status as it should be against what is seen: its ingress is ours alone, and
//! whoever else writes it is undone.

use std::net::IpAddr;

use lightship_crds::virtual_ip_name;
use lightship_ipam::ServiceId;

use super::service::CLAIMED;
use super::{Core, Entry};
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
        // An address that is not claimed yet might be another's; the VirtualIP leads back here.
        let held = self.allocator.held_by(id).iter();
        let mut all = held.chain(self.allocator.claimed_by(id));
        if let Some(waits) = all.find(|address| !self.stands(**address, id)) {
            self.say_refused(id, *waits);
            return;
        }
        let addresses = self.ingress(id, entry);
        let told = self.told(entry, entry.verdict.clone());
        let said = entry.view.told.as_ref().map(|told| &told.verdict);
        if addresses.is_none() && said == told.as_ref().map(|told| &told.verdict) {
            return;
        }
        let write = status_of(id, entry, addresses, told);
        self.actions.push(Action::Write(write));
    }

    /// Tells a Service why the address that was chosen for it does not come, if the API server
    /// does not take its VirtualIP; returns what it says if that is news. The ingress stays.
    fn say_refused(&mut self, id: &ServiceId, address: IpAddr) -> Option<String> {
        let name = virtual_ip_name(address);
        let entry = self.services.get(id)?;
        let reason = self.refusals.get(&name)?;
        let message =
            format!("{address} is chosen, but the API server refuses VirtualIP {name}: {reason}");
        let verdict = Verdict {
            met: false,
            reason: REFUSED.into(),
            message: message.clone(),
        };
        let said = entry.view.told.as_ref().map(|told| &told.verdict);
        if said == Some(&verdict) {
            return None;
        }
        let told = self.told(entry, Some(verdict));
        let write = status_of(id, entry, None, told);
        self.actions.push(Action::Write(write));
        Some(message)
    }

    /// The same with an event.
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
        if let Some(note) = self.say_refused(id, address) {
            self.notify(subject, true, REFUSED, note);
        }
    }

    /// What the ingress has to become; none if it may stay as it is.
    fn ingress(&self, id: &ServiceId, entry: &Entry) -> Option<Vec<IpAddr>> {
        let seen = &entry.view.ingress;
        let held = self.allocator.held_by(id);
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
