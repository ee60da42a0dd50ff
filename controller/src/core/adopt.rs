//! The first decisions after a start: who holds what already.

use std::collections::HashMap;
use std::net::IpAddr;

use lightship_ipam::ServiceId;

use super::{Core, Seen};
use crate::model::{Clock, Demand};

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
        let mut order: Vec<_> = self
            .services
            .values()
            .map(|entry| (entry.view.created, entry.view.id.clone()))
            .collect();
        order.sort();
        let order: Vec<ServiceId> = order.into_iter().map(|(_, id)| id).collect();

        let records = self.records();
        self.adopt_records(&order, &records, true);
        self.adopt_records(&order, &records, false);
        for id in &order {
            self.adopt_from_status(id);
        }
        for id in &order {
            self.reconcile(id, clock);
            self.clear_former(id, &records);
        }
        self.sync_all_vips();
    }

    /// Address and pool of each VirtualIP, by Service.
    fn records(&self) -> HashMap<ServiceId, Vec<(IpAddr, String)>> {
        let mut records: HashMap<_, Vec<_>> = HashMap::new();
        for Seen { spec, .. } in self.vips.values() {
            let Ok(address) = spec.address.parse() else {
                continue;
            };
            for service in &spec.services {
                let id = ServiceId::new(service.namespace.as_str(), service.name.as_str());
                records
                    .entry(id)
                    .or_default()
                    .push((address, spec.pool.clone()));
            }
        }
        records
    }

    fn adopt_records(
        &mut self,
        order: &[ServiceId],
        records: &HashMap<ServiceId, Vec<(IpAddr, String)>>,
        confirmed: bool,
    ) {
        for id in order {
            let Some(entry) = self.services.get(id) else {
                continue;
            };
            if entry.view.demand == Demand::Nothing {
                continue;
            }
            for (address, pool) in records.get(id).into_iter().flatten() {
                let in_status = entry
                    .view
                    .ingress
                    .iter()
                    .any(|seen| seen.ip == Some(*address));
                if in_status == confirmed {
                    self.allocator.adopt(id, *address, Some(pool));
                }
            }
        }
        self.pools_dirty = true;
    }

    /// Adopts what a Service's status says, as far as a pool covers it and nobody holds it.
    pub(super) fn adopt_from_status(&mut self, id: &ServiceId) {
        let Some(entry) = self.services.get(id) else {
            return;
        };
        if entry.view.demand == Demand::Nothing {
            return;
        }
        let seen: Vec<IpAddr> = entry
            .view
            .ingress
            .iter()
            .filter_map(|seen| seen.ip)
            .collect();
        for address in seen {
            if self.allocator.adopt(id, address, None) {
                self.pools_dirty = true;
                self.sync_vip(address);
            }
        }
    }

    /// A Service that stopped being ours while nobody watched still shows our address.
    fn clear_former(
        &mut self,
        id: &ServiceId,
        records: &HashMap<ServiceId, Vec<(IpAddr, String)>>,
    ) {
        let Some(entry) = self.services.get(id) else {
            return;
        };
        let shown = |address: &IpAddr| {
            entry
                .view
                .ingress
                .iter()
                .any(|seen| seen.ip == Some(*address))
        };
        let recorded = records.get(id).into_iter().flatten();
        if entry.view.demand == Demand::Nothing && recorded.map(|(address, _)| address).any(shown) {
            self.write_ingress(id, Vec::new());
        }
    }
}
