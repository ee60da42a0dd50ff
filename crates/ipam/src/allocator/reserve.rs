//! Addresses that pools contain and yet do not give away, and those in use that they no longer
//! offer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Allocator;
use crate::family::Family;
use crate::pool::Pool;

impl Allocator {
    /// Replaces the addresses that belong to somebody else: nodes, gateways, subnets. Each with
    /// whose it is. No holding changes.
    pub fn set_reserved(&mut self, reserved: BTreeMap<IpAddr, Arc<str>>) {
        self.reserved = reserved;
        self.find_strays();
    }

    /// The addresses of a pool that it does not give away because they are somebody else's.
    pub fn reserved_of(&self, pool: &str) -> Vec<(IpAddr, &str)> {
        let Some(pool) = self.pools.get(pool) else {
            return Vec::new();
        };
        Family::ALL
            .iter()
            .flat_map(|family| self.reserved_in(pool, *family))
            .collect()
    }

    fn reserved_in<'a>(
        &'a self,
        pool: &'a Pool,
        family: Family,
    ) -> impl Iterator<Item = (IpAddr, &'a str)> {
        pool.ranges(family).iter().flat_map(|range| {
            let reserved = self.reserved.range(range.first()..=range.last());
            reserved.map(|(address, whose)| (*address, &**whose))
        })
    }

    /// How many addresses a pool gives out at most.
    pub(super) fn total(&self, pool: &Pool, family: Family) -> u128 {
        let reserved = self.reserved_in(pool, family);
        let reserved = reserved.filter(|(address, _)| !pool.is_buggy(*address));
        pool.size(family).saturating_sub(reserved.count() as u128)
    }

    /// Why a pool that covers the address does not give it away.
    pub(super) fn withheld(&self, pool: &Pool, address: IpAddr) -> Option<Arc<str>> {
        if pool.is_buggy(address) {
            return Some("avoidBuggyIPs".into());
        }
        self.reserved.get(&address).cloned()
    }

    /// Whether a pool gives this address out.
    pub fn offers(&self, pool: &Pool, address: IpAddr) -> bool {
        pool.covers(address) && self.withheld(pool, address).is_none()
    }

    /// Addresses in use that count for this pool although it does not offer them any more.
    pub fn strays_of(&self, pool: &str) -> impl Iterator<Item = IpAddr> {
        self.strays.get(pool).into_iter().flatten().copied()
    }

    pub(super) fn find_strays(&mut self) {
        self.strays.clear();
        self.guests.clear();
        let all: Vec<_> = self.held.keys().copied().collect();
        for address in all {
            self.note_stray(address);
        }
    }

    pub(super) fn note_stray(&mut self, address: IpAddr) {
        let Some(holding) = self.held.get(&address) else {
            return;
        };
        let covering = self.pools.covering(address);
        let offering = covering.filter(|pool| self.withheld(pool, address).is_none());
        let offering = offering.map(|pool| pool.spec.name.clone());
        if offering.as_ref() == Some(&holding.pool) {
            return;
        }
        let of_pool = self.strays.entry(holding.pool.clone()).or_default();
        of_pool.insert(address);
        if let Some(host) = offering {
            self.touched.insert(host.clone());
            self.guests.entry(host).or_default().insert(address);
        }
    }

    pub(super) fn forget_stray(&mut self, pool: &Arc<str>, address: IpAddr) {
        if let Some(of_pool) = self.strays.get_mut(pool) {
            of_pool.remove(&address);
            if of_pool.is_empty() {
                self.strays.remove(pool);
            }
        }
        let host = self.pools.covering(address);
        let Some(host) = host.map(|host| host.spec.name.clone()) else {
            return;
        };
        if let Some(of_host) = self.guests.get_mut(&host)
            && of_host.remove(&address)
        {
            if of_host.is_empty() {
                self.guests.remove(&host);
            }
            self.touched.insert(host);
        }
    }
}
