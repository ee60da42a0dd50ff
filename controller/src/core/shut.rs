//! Addresses that their pool offers, but not to the Service that holds them: `serviceAllocation`
//! or a label has closed it, or it takes no claims any more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lightship_ipam::{ServiceId, Why};

use super::Core;

/// Who holds what from a pool that is closed to it, and why it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Shut {
    of_pool: BTreeMap<Arc<str>, BTreeMap<(IpAddr, ServiceId), String>>,
    /// Where to find a Service's.
    of_service: BTreeMap<ServiceId, Vec<(Arc<str>, IpAddr)>>,
}

impl Shut {
    /// Sets what is so of a Service; returns the pools of which something else is to be said now.
    fn set(&mut self, id: &ServiceId, now: Vec<(Arc<str>, IpAddr, String)>) -> BTreeSet<Arc<str>> {
        let mut changed = BTreeSet::new();
        let before = self.of_service.remove(id).unwrap_or_default();
        for (pool, address) in before {
            let still =
                |(name, other, _): &(Arc<str>, IpAddr, String)| (name, *other) == (&pool, address);
            if now.iter().any(still) {
                continue;
            }
            if let Some(of_pool) = self.of_pool.get_mut(&pool) {
                of_pool.remove(&(address, id.clone()));
                if of_pool.is_empty() {
                    self.of_pool.remove(&pool);
                }
            }
            changed.insert(pool);
        }
        for (pool, address, why) in now {
            let of_service = self.of_service.entry(id.clone()).or_default();
            of_service.push((pool.clone(), address));
            let of_pool = self.of_pool.entry(pool.clone()).or_default();
            let before = of_pool.insert((address, id.clone()), why.clone());
            if before.as_ref() != Some(&why) {
                changed.insert(pool);
            }
        }
        changed
    }

    /// What Services hold of a pool that is closed to them.
    pub(super) fn of(&self, pool: &str) -> impl Iterator<Item = (IpAddr, &ServiceId, &str)> {
        let all = self.of_pool.get(pool).into_iter().flatten();
        all.map(|((address, id), why)| (*address, id, &**why))
    }

    /// How many those are.
    pub(super) fn count(&self, pool: &str) -> usize {
        self.of_pool.get(pool).map_or(0, BTreeMap::len)
    }
}

impl Core {
    /// Notes which of its addresses a Service would not get from their pools any more, as those
    /// are not for it.
    pub(super) fn note_shut(&mut self, id: &ServiceId, closed: &BTreeMap<Arc<str>, String>) {
        let assigned = self.allocator.held_by(id).iter().map(|ip| (*ip, false));
        let claimed = self.allocator.claimed_by(id).iter().map(|ip| (*ip, true));
        let shut = assigned.chain(claimed).filter_map(|(address, claim)| {
            let why = self.allocator.stray(address, closed, claim)?;
            if !matches!(why, Why::Closed(_) | Why::NotExternal) {
                // That is so of every Service.
                return None;
            }
            let pool = self.allocator.holding(address)?.pool.clone();
            Some((pool, address, why.to_string()))
        });
        let shut = shut.collect();
        self.stale_pools.extend(self.shut.set(id, shut));
    }
}
