//! Holders: who comes, who goes, and what rests afterwards.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Allocator, Holding};
use crate::family::{Family, number};
use crate::pool::OnShrink;
use crate::request::ServiceId;
use crate::resting::Rest;
use crate::sharing::{Clash, Sharing, clash};

impl Allocator {
    /// Adds a holder; the caller lists the address with the Service.
    pub(super) fn hold(
        &mut self,
        service: &ServiceId,
        address: IpAddr,
        pool: Arc<str>,
        on_shrink: OnShrink,
    ) {
        if let Some(holding) = self.held.get_mut(&address) {
            if !holding.holders.contains(service) {
                holding.holders.push(service.clone());
                self.touched.insert(holding.pool.clone());
                self.note_place(address);
            }
            return;
        }
        self.touched.insert(pool.clone());
        let family = Family::of(address).index();
        self.counts.entry(pool.clone()).or_default()[family] += 1;
        self.taken[family].insert(number(address));
        self.busy[family].insert(number(address));
        if let Some(rest) = self.resting.remove(address) {
            self.touched.insert(rest.pool);
        }
        let holders = vec![service.clone()];
        let holding = Holding {
            pool,
            on_shrink,
            holders,
        };
        self.held.insert(address, holding);
        self.note_place(address);
        self.note_stray(address);
    }

    pub(super) fn drop_holder(&mut self, service: &ServiceId, address: IpAddr, now: Duration) {
        if let Some(held) = self.services.get_mut(service) {
            held.addresses.retain(|held| *held != address);
            held.claims.retain(|held| *held != address);
            if held.addresses.is_empty() && held.claims.is_empty() {
                self.services.remove(service);
            }
        }
        let Some(holding) = self.held.get_mut(&address) else {
            return;
        };
        holding.holders.retain(|holder| holder != service);
        self.touched.insert(holding.pool.clone());
        let alone = holding.holders.is_empty();
        self.note_place(address);
        if alone {
            self.vacate(address, service, now);
        } else {
            self.move_to_pool(address);
        }
    }

    /// Which pool an address in use counts for, and what that says of strays.
    pub(super) fn attributed(&self, address: IpAddr) -> Option<(Arc<str>, OnShrink)> {
        let holding = self.held.get(&address)?;
        let own = self.pools.get(&holding.pool);
        let on_shrink = own.map_or(holding.on_shrink, |pool| pool.spec.on_shrink);
        let names = |holder: &ServiceId| {
            let held = self.services.get(holder);
            let held = held.filter(|held| held.named.as_ref() == Some(&holding.pool));
            held.is_some_and(|held| held.addresses.contains(&address))
        };
        // Another pool that covers it by now was not asked for. If two overlap, that may be a
        // mistake.
        let keeps = on_shrink == OnShrink::Keep || self.pools.is_disputed(address);
        if keeps && holding.holders.iter().any(names) {
            return Some((holding.pool.clone(), on_shrink));
        }
        let covering = self.pools.covering(address);
        let covering = covering.map(|pool| (pool.spec.name.clone(), pool.spec.on_shrink));
        Some(covering.unwrap_or((holding.pool.clone(), on_shrink)))
    }

    /// Counts an address for the pool that it belongs to, as what its holders name has changed.
    pub(super) fn move_to_pool(&mut self, address: IpAddr) {
        if let Some((pool, on_shrink)) = self.attributed(address) {
            self.set_pool(address, pool, on_shrink);
        }
    }

    pub(super) fn set_pool(&mut self, address: IpAddr, pool: Arc<str>, on_shrink: OnShrink) {
        let Some(holding) = self.held.get_mut(&address) else {
            return;
        };
        holding.on_shrink = on_shrink;
        if holding.pool == pool {
            return;
        }
        let before = std::mem::replace(&mut holding.pool, pool.clone());
        let family = Family::of(address).index();
        if let Some(counts) = self.counts.get_mut(&before) {
            counts[family] = counts[family].saturating_sub(1);
        }
        self.counts.entry(pool.clone()).or_default()[family] += 1;
        self.forget_stray(&before, address);
        self.note_stray(address);
        self.touched.extend([before, pool]);
    }

    fn vacate(&mut self, address: IpAddr, former: &ServiceId, now: Duration) {
        let Some(holding) = self.held.remove(&address) else {
            return;
        };
        let family = Family::of(address).index();
        self.taken[family].remove(number(address));
        if let Some(counts) = self.counts.get_mut(&holding.pool) {
            counts[family] = counts[family].saturating_sub(1);
        }
        self.forget_stray(&holding.pool, address);
        let delay = self.delay_of(&holding.pool);
        if delay.is_zero() {
            self.busy[family].remove(number(address));
        } else {
            let rest = Rest {
                pool: holding.pool,
                former: former.clone(),
                until: now + delay,
            };
            self.resting.insert(address, rest);
        }
    }

    /// Puts the holders of an address into this order, those that are not in it last.
    pub fn order_holders(&mut self, address: IpAddr, order: &[ServiceId]) {
        if let Some(holding) = self.held.get_mut(&address) {
            let place = |holder: &ServiceId| order.iter().position(|other| other == holder);
            holding
                .holders
                .sort_by_key(|holder| place(holder).unwrap_or(usize::MAX));
        }
    }

    /// Lets an address that nobody holds rest, as it did before a restart.
    pub fn rest(&mut self, address: IpAddr, rest: Rest) {
        if self.held.contains_key(&address) {
            return;
        }
        self.busy[Family::of(address).index()].insert(number(address));
        self.touched.insert(rest.pool.clone());
        self.resting.insert(address, rest);
    }

    /// Ends a rest.
    pub(super) fn let_in(&mut self, address: IpAddr) {
        if !self.held.contains_key(&address) {
            self.busy[Family::of(address).index()].remove(number(address));
        }
    }

    /// Why a Service cannot hold the address with those who hold it, and with whom it clashes.
    pub(super) fn clash(
        &self,
        service: &ServiceId,
        sharing: &Sharing,
        address: IpAddr,
        across: bool,
    ) -> Option<(ServiceId, Clash)> {
        let none = Sharing::default();
        let others = self.held.get(&address)?.holders.iter();
        others.filter(|other| *other != service).find_map(|other| {
            let theirs = self.services.get(other).map_or(&none, |held| &held.sharing);
            let clash = clash((service, sharing), (other, theirs), across)?;
            Some((other.clone(), clash))
        })
    }

    /// Whether the pool of an address lets different namespaces share it.
    pub(super) fn shares_across(&self, address: IpAddr) -> bool {
        let pool = self.pools.covering(address);
        pool.is_some_and(|pool| pool.spec.sharing_across_namespaces)
    }

    /// Remembers with whom a Service shares from now on.
    pub(super) fn set_sharing(&mut self, service: &ServiceId, sharing: &Sharing) {
        let Some(held) = self.services.get_mut(service) else {
            // Its first address is about to come.
            if sharing.key.is_some() {
                let held = self.services.entry(service.clone()).or_default();
                held.sharing = sharing.clone();
            }
            return;
        };
        if held.sharing == *sharing {
            return;
        }
        held.sharing = sharing.clone();
        let addresses = [&held.addresses[..], &held.claims].concat();
        for address in addresses {
            self.note_place(address);
        }
    }
}
