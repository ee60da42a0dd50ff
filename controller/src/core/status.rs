//! A Service's status as it should be against what is seen: its ingress is ours alone, and
//! whoever else writes it is undone.

use std::net::IpAddr;

use lightship_ipam::ServiceId;

use super::service::CLAIMED;
use super::{Core, Entry};
use crate::model::{Action, Demand, Revision, Told, Write};

impl Core {
    /// Restores a Service's ingress and condition. One that holds nothing loses only
    /// addresses that are ours to give: others are another load balancer's business.
    pub(super) fn sync_status(&mut self, id: &ServiceId) {
        let Some(entry) = self.services.get(id).filter(|_| self.started) else {
            return;
        };
        let addresses = self.ingress(id, entry);
        let told = self.told(entry);
        let said = entry.view.told.as_ref().map(|told| &told.verdict);
        if addresses.is_none() && said == told.as_ref().map(|told| &told.verdict) {
            return;
        }
        // An address that is not claimed yet might be another's; the VirtualIP leads back here.
        let mut all = self.allocator.held_by(id).iter();
        let mut claims = self.allocator.claimed_by(id).iter();
        if !all.all(|address| self.stands(*address, id))
            || !claims.all(|address| self.stands(*address, id))
        {
            return;
        }
        let seen = Revision {
            uid: entry.view.uid.clone(),
            version: entry.view.version.clone(),
        };
        self.actions.push(Action::Write(Write::ServiceStatus {
            service: id.clone(),
            seen,
            addresses,
            told,
        }));
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
    fn told(&self, entry: &Entry) -> Option<Told> {
        let verdict = entry.verdict.clone()?;
        let seen = entry.view.told.as_ref();
        let since = seen.filter(|seen| seen.verdict.met == verdict.met);
        let since = since.map(|seen| seen.since).or(self.now)?;
        Some(Told { verdict, since })
    }
}
