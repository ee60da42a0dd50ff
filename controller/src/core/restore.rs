//! Objects as they should be against objects as they are seen: VirtualIPs and ingress are ours
//! alone, and whoever else writes them is undone.

use std::net::IpAddr;

use lightship_crds::{ServiceRef, VirtualIPSpec, virtual_ip_name};
use lightship_ipam::ServiceId;

use super::Core;
use crate::model::{Action, Change, Demand, VipView, Write};

impl Core {
    pub(super) fn vips_changed(&mut self, change: Change<VipView>) {
        match change {
            Change::Applied(view) => {
                self.vips.insert(view.name.clone(), view.spec);
                self.check_vip(&view.name);
            }
            Change::Gone(view) => {
                if let Some(spec) = self.vips.remove(&view.name) {
                    self.sync_vip_named(&view.name, spec.address.parse().ok());
                }
            }
            Change::Listed(views) => {
                self.listed.vips = true;
                self.vips = views
                    .into_iter()
                    .map(|view| (view.name, view.spec))
                    .collect();
                self.sync_all_vips();
            }
        }
    }

    pub(super) fn sync_all_vips(&mut self) {
        let present: Vec<_> = self.vips.keys().cloned().collect();
        for name in present {
            self.check_vip(&name);
        }
        let held: Vec<_> = self
            .allocator
            .holdings()
            .map(|(address, _)| address)
            .collect();
        for address in held {
            self.sync_vip(address);
        }
    }

    /// Looks at a VirtualIP object that exists: it must be of an address in use.
    pub(super) fn check_vip(&mut self, name: &str) {
        let address = self
            .vips
            .get(name)
            .and_then(|spec| spec.address.parse().ok());
        self.sync_vip_named(name, address);
    }

    pub(super) fn sync_vip(&mut self, address: IpAddr) {
        self.sync_vip_named(&virtual_ip_name(address), Some(address));
    }

    pub(super) fn sync_vip_named(&mut self, name: &str, address: Option<IpAddr>) {
        if !self.started {
            return;
        }
        let wanted = address
            .filter(|address| virtual_ip_name(*address) == name)
            .and_then(|address| Some((address, self.allocator.holding(address)?)))
            .map(|(address, holding)| {
                let services = holding.holders.iter().map(|id| ServiceRef {
                    namespace: id.namespace.to_string(),
                    name: id.name.to_string(),
                });
                VirtualIPSpec::new(address, &holding.pool, services.collect())
            });
        let name = name.to_owned();
        match (wanted, self.vips.get(&name)) {
            (Some(spec), seen) if seen != Some(&spec) => {
                self.actions.push(Action::Write(Write::Vip { name, spec }));
            }
            (None, Some(_)) => self.actions.push(Action::Write(Write::DropVip { name })),
            _ => {}
        }
    }

    /// Restores a Service's ingress to what it holds. One that holds nothing loses only
    /// addresses that are ours to give: others are another load balancer's business.
    pub(super) fn sync_ingress(&mut self, id: &ServiceId) {
        let Some(entry) = self.services.get(id) else {
            return;
        };
        if entry.view.demand == Demand::Nothing {
            return;
        }
        let held = self.allocator.held_by(id).to_vec();
        let seen = &entry.view.ingress;
        let agrees = seen.len() == held.len()
            && seen
                .iter()
                .zip(&held)
                .all(|(seen, held)| seen.plain && seen.ip == Some(*held));
        if agrees {
            return;
        }
        let pools = self.allocator.pools();
        let ours = |ip: IpAddr| pools.covering(ip).is_some();
        if held.is_empty() && !seen.iter().any(|entry| entry.ip.is_some_and(ours)) {
            return;
        }
        self.write_ingress(id, held);
    }

    pub(super) fn write_ingress(&mut self, id: &ServiceId, addresses: Vec<IpAddr>) {
        let Some(entry) = self.services.get(id) else {
            return;
        };
        self.actions.push(Action::Write(Write::Ingress {
            service: id.clone(),
            uid: entry.view.uid.clone(),
            addresses,
        }));
    }
}
