//! Objects as they should be against objects as they are seen: VirtualIPs and ingress are ours
//! alone, and whoever else writes them is undone.

use std::net::IpAddr;

use lightship_crds::{OnShrink, ServiceRef, VirtualIPSpec, virtual_ip_name};
use lightship_ipam::ServiceId;

use super::{Core, Seen};
use crate::model::{Action, Change, Key, Revision, VipView, Write};

impl Core {
    pub(super) fn vips_changed(&mut self, change: Change<VipView>) {
        match change {
            Change::Applied(view) => {
                let users = view.spec.services.clone();
                let (name, seen) = seen(view);
                let same = |before: &Seen| before.spec == seen.spec;
                let known = self.vips.get(&name).is_some_and(same);
                let newer = |old: &Option<Revision>| old.as_ref() != Some(&seen.revision);
                let proven = self.pending.get(&name).is_some_and(newer);
                if proven {
                    self.pending.remove(&name);
                }
                self.vips.insert(name.clone(), seen);
                self.sync_vip_named(&name);
                // Their status may have waited for it. Most changes are the speakers', though.
                for user in users.into_iter().filter(|_| !known || proven) {
                    self.sync_status(&ServiceId::new(user.namespace, user.name));
                }
            }
            Change::Gone(view) => {
                self.vips.remove(&view.name);
                let address = address_of(&view.name);
                if address.is_some_and(|address| self.allocator.holding(address).is_some()) {
                    self.sync_vip_named(&view.name);
                }
            }
            Change::Listed(views) => {
                self.listed.vips = true;
                self.vips = views.into_iter().map(seen).collect();
                self.sync_all_vips();
                self.sync_all_status();
            }
        }
    }

    /// What was seen of a VirtualIP is what counts again, as our write of it is done.
    fn proven(&mut self, name: &str) {
        if self.pending.remove(name).is_none() {
            return;
        }
        let holding = address_of(name).and_then(|address| self.allocator.holding(address));
        let holders = holding.map(|holding| holding.holders.clone());
        for id in holders.into_iter().flatten() {
            self.sync_status(&id);
        }
    }

    /// Takes in that a write succeeded.
    pub(super) fn written(&mut self, key: &Key) {
        if let Key::Vip(name) = key {
            self.proven(name);
        }
    }

    /// Looks again at an object that a write failed to change.
    pub(super) fn recheck(&mut self, key: &Key) {
        match key {
            Key::Vip(name) => {
                self.proven(name);
                self.sync_vip_named(name);
            }
            Key::Service(id) => self.sync_status(id),
            Key::Pool(name) => {
                if let Some(entry) = self.pools.get_mut(name) {
                    entry.reported.clone_from(&entry.view.status);
                    self.stale_pools.insert(name.clone());
                }
            }
        }
    }

    /// Tells those who wait for a VirtualIP that the API server does not take it.
    pub(super) fn refused_by_server(&mut self, key: &Key, reason: String) {
        let name = match key {
            Key::Vip(name) => name,
            Key::Service(id) => return self.status_refused(id, reason),
            Key::Pool(_) => return,
        };
        let Some(address) = address_of(name) else {
            return;
        };
        let before = self.refusals.insert(name.clone(), reason.clone());
        if before.as_ref() == Some(&reason) {
            return;
        }
        let holding = self.allocator.holding(address);
        let holders = holding.map(|holding| holding.holders.clone());
        for id in holders.into_iter().flatten() {
            self.warn_of_refusal(&id, address);
        }
    }

    pub(super) fn sync_all_vips(&mut self) {
        let present: Vec<_> = self.vips.keys().cloned().collect();
        for name in present {
            self.sync_vip_named(&name);
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

    fn sync_all_status(&mut self) {
        if !self.started {
            return;
        }
        let ids: Vec<_> = self.services.keys().cloned().collect();
        for id in ids {
            self.sync_status(&id);
        }
    }

    pub(super) fn sync_vip(&mut self, address: IpAddr) {
        self.sync_vip_named(&virtual_ip_name(address));
    }

    /// Has the VirtualIP of an address that somebody got just now written even if it is seen to
    /// be as it should: its deletion may be under way, or wait for its turn.
    pub(super) fn claim_vip(&mut self, address: IpAddr) {
        let name = virtual_ip_name(address);
        let seen = self.vips.get(&name).map(|seen| seen.revision.clone());
        self.pending.insert(name.clone(), seen);
        self.stale_vips.insert(name, true);
    }

    /// Has a VirtualIP looked at once everything is decided: an address may pass from one hand
    /// to another, and back, within one decision.
    pub(super) fn sync_vip_named(&mut self, name: &str) {
        if self.started {
            self.stale_vips.entry(name.to_owned()).or_insert(false);
        }
    }

    /// Brings VirtualIPs in line with the holdings of the addresses that their names say.
    pub(super) fn write_vips(&mut self) {
        for (name, anew) in std::mem::take(&mut self.stale_vips) {
            let wanted = address_of(&name).and_then(|address| self.wanted(address));
            let seen = self.vips.get(&name);
            if wanted.is_none() {
                self.pending.remove(&name);
            }
            if wanted.is_none() || seen.map(|seen| &seen.spec) == wanted.as_ref() {
                self.refusals.remove(&name);
            }
            let revision = seen.map(|seen| seen.revision.clone());
            let write = match (wanted, seen) {
                (Some(spec), Some(seen)) if seen.spec == spec && !anew => continue,
                // The address of an object cannot be changed: it is made anew once this one is gone.
                (Some(spec), Some(seen)) if seen.spec.address != spec.address => Write::DropVip {
                    name,
                    seen: revision,
                },
                (Some(spec), _) => Write::Vip {
                    name,
                    seen: revision,
                    spec,
                },
                // Even if nothing is seen: it may be about to be written.
                (None, _) => Write::DropVip {
                    name,
                    seen: revision,
                },
            };
            self.actions.push(Action::Write(write));
        }
    }

    /// What the VirtualIP of an address in use has to say.
    fn wanted(&self, address: IpAddr) -> Option<VirtualIPSpec> {
        let holding = self.allocator.holding(address)?;
        let services = holding.holders.iter().map(|id| ServiceRef {
            namespace: id.namespace.to_string(),
            name: id.name.to_string(),
        });
        let mut spec = VirtualIPSpec::new(address, &holding.pool, services.collect());
        if holding.on_shrink == lightship_ipam::OnShrink::Reallocate {
            spec.on_shrink = Some(OnShrink::Reallocate);
        }
        Some(spec)
    }

    /// Whether the VirtualIP of an address has been seen to be this Service's.
    pub(super) fn stands(&self, address: IpAddr, id: &ServiceId) -> bool {
        let name = virtual_ip_name(address);
        let pending = self.pending.get(&name).and_then(Option::as_ref);
        let seen = self.vips.get(&name);
        let seen = seen.filter(|seen| pending != Some(&seen.revision));
        seen.is_some_and(|seen| {
            let mut users = seen.spec.services.iter();
            users.any(|user| *user.namespace == *id.namespace && *user.name == *id.name)
        })
    }
}

fn seen(view: VipView) -> (String, Seen) {
    let VipView {
        name,
        revision,
        spec,
    } = view;
    (name, Seen { revision, spec })
}

/// The address whose VirtualIP has this name.
fn address_of(name: &str) -> Option<IpAddr> {
    let parsed = name.parse().or_else(|_| name.replace('-', ":").parse());
    parsed
        .ok()
        .filter(|address| virtual_ip_name(*address) == name)
}
