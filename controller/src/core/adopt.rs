//! The first decisions after a start: who holds what already.

use std::collections::HashMap;
use std::net::IpAddr;

use lightship_ipam::{OnShrink, Rest, ServiceId};

use super::{Core, Entry, Seen};
use crate::model::{Clock, Demand};

/// An address, its pool, and what that says of strays.
type Record = (IpAddr, String, OnShrink);

impl Core {
    /// Adopts what is on record, then serves all Services, oldest first, and clears away
    /// what belongs to nobody.
    ///
    /// The record of an address is its VirtualIP and the Service's status. Where both agree
    /// there is no doubt; a VirtualIP alone was written before the status was, or the
    /// status was emptied by hand; a status alone counts if a pool covers the address, and of
    /// several Services that claim one address the oldest has it.
    pub(super) fn start(&mut self, clock: Clock) {
        self.rebuild_pools();
        self.reserve();
        let order = self.oldest_first();
        let records = self.records();
        self.adopt_records(&order, &records, true);
        self.adopt_records(&order, &records, false);
        for id in &order {
            self.adopt_from_status(id);
        }
        // Nothing is being deleted yet: what is seen can be relied upon.
        self.stale_vips.clear();
        self.pending.clear();
        self.restore_order();
        self.rest_ownerless(clock);
        self.adopt_rests();
        for id in &order {
            self.reconcile(id, clock);
        }
        self.revisit = false;
        self.sync_all_vips();
    }

    /// Address, pool and the pool's word on strays of each VirtualIP, by Service.
    fn records(&self) -> HashMap<ServiceId, Vec<Record>> {
        let mut records: HashMap<_, Vec<_>> = HashMap::new();
        for Seen { spec, .. } in self.vips.values() {
            let Ok(address) = spec.address.parse() else {
                continue;
            };
            let on_shrink = match spec.on_shrink {
                Some(lightship_crds::OnShrink::Reallocate) => OnShrink::Reallocate,
                _ => OnShrink::Keep,
            };
            for service in &spec.services {
                let id = ServiceId::new(service.namespace.as_str(), service.name.as_str());
                let record = (address, spec.pool.clone(), on_shrink);
                records.entry(id).or_default().push(record);
            }
        }
        records
    }

    fn adopt_records(
        &mut self,
        order: &[ServiceId],
        records: &HashMap<ServiceId, Vec<Record>>,
        confirmed: bool,
    ) {
        for id in order {
            let Some(view) = self.services.get(id).map(|entry| &entry.view) else {
                continue;
            };
            // In the order of the status, which a request that is unclear does not tell.
            let place = |address: IpAddr| {
                let mut seen = view.ingress.iter();
                seen.position(|seen| seen.ip == Some(address))
            };
            let records = records.get(id).into_iter().flatten();
            let mut records: Vec<_> = records.collect();
            records.sort_by_key(|(address, ..)| place(*address));
            for (address, pool, on_shrink) in records {
                let in_status = place(*address).is_some();
                let assigned = view.demand != Demand::Nothing;
                let claim = view.claims.contains(address) && !(assigned && in_status);
                if (in_status || claim) != confirmed || !(assigned || claim) {
                    continue;
                }
                let record = Some((&**pool, *on_shrink));
                let named = match &view.demand {
                    Demand::Addresses(wish) => wish.pool.as_ref().map(|pool| &*pool.name),
                    // Whatever it will turn out to be: it has not asked for another.
                    Demand::Unclear(_) => Some(&**pool),
                    Demand::Nothing => None,
                };
                self.allocator
                    .adopt(id, *address, record, named, &view.sharing, claim);
            }
        }
    }

    /// Lets Services that another load balancer served before keep their addresses, once a pool
    /// covers them, as a start does: all of them before any other is given an address.
    pub(super) fn take_over(&mut self, order: &[ServiceId]) {
        for id in order {
            let served = |entry: &Entry| !entry.gave && !entry.view.ingress.is_empty();
            if !self.services.get(id).is_some_and(served) || !self.allocator.held_by(id).is_empty()
            {
                continue;
            }
            self.adopt_from_status(id);
        }
    }

    /// Adopts what a Service's status says, as far as a pool covers it and its holders, if any,
    /// share it.
    pub(super) fn adopt_from_status(&mut self, id: &ServiceId) {
        let Some(view) = self.services.get(id).map(|entry| &entry.view) else {
            return;
        };
        if view.demand == Demand::Nothing {
            return;
        }
        let mut adopted = Vec::new();
        for address in view.ingress.iter().filter_map(|seen| seen.ip) {
            if self.allocator.held_by(id).contains(&address) {
                continue;
            }
            let sharing = &view.sharing;
            if self
                .allocator
                .adopt(id, address, None, None, sharing, false)
            {
                adopted.push(address);
            }
        }
        for address in adopted {
            self.claim_vip(address);
        }
    }

    /// Lets rest what was released while no controller acted, of which the VirtualIP alone tells.
    fn rest_ownerless(&mut self, clock: Clock) {
        for Seen { spec, .. } in self.vips.values() {
            let Some(former) = spec.services.first() else {
                continue;
            };
            let delay = self.allocator.delay_of(&spec.pool);
            let rest = Rest {
                pool: spec.pool.as_str().into(),
                former: ServiceId::new(former.namespace.as_str(), former.name.as_str()),
                until: clock.mono + delay,
            };
            if let Some(address) = spec.address.parse().ok().filter(|_| !delay.is_zero()) {
                self.allocator.rest(address, rest);
            }
        }
    }

    /// Who shares an address keeps the place that the VirtualIP gives it.
    fn restore_order(&mut self) {
        for Seen { spec, .. } in self.vips.values() {
            if spec.services.len() < 2 {
                continue;
            }
            let services = spec.services.iter();
            let order: Vec<_> = services
                .map(|service| ServiceId::new(service.namespace.as_str(), service.name.as_str()))
                .collect();
            if let Ok(address) = spec.address.parse() {
                self.allocator.order_holders(address, &order);
            }
        }
    }
}
