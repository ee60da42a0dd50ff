//! Addresses that were held a short while ago.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::family::Family;
use crate::request::ServiceId;

/// An address that rests, so that nobody's stale neighbour cache reaches its next holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The pool it was held from.
    pub pool: Arc<str>,
    /// Who held it last.
    pub former: ServiceId,
    /// When it ends, on the caller's clock.
    pub until: Duration,
}

/// All resting addresses, by end and by former holder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resting {
    rests: BTreeMap<IpAddr, Rest>,
    order: BTreeSet<(Duration, IpAddr)>,
    former: HashMap<ServiceId, BTreeSet<IpAddr>>,
    pools: HashMap<Arc<str>, OfPool>,
}

#[derive(Clone, Debug, Default)]
struct OfPool {
    counts: [u128; 2],
    order: BTreeSet<(Duration, IpAddr)>,
}

impl Resting {
    pub(crate) fn insert(&mut self, address: IpAddr, rest: Rest) {
        self.remove(address);
        self.order.insert((rest.until, address));
        let of_pool = self.pools.entry(rest.pool.clone()).or_default();
        of_pool.counts[Family::of(address).index()] += 1;
        of_pool.order.insert((rest.until, address));
        let of_service = self.former.entry(rest.former.clone()).or_default();
        of_service.insert(address);
        self.rests.insert(address, rest);
    }

    pub(crate) fn remove(&mut self, address: IpAddr) -> Option<Rest> {
        let rest = self.rests.remove(&address)?;
        self.order.remove(&(rest.until, address));
        if let Some(of_pool) = self.pools.get_mut(&rest.pool) {
            let count = &mut of_pool.counts[Family::of(address).index()];
            *count = count.saturating_sub(1);
            of_pool.order.remove(&(rest.until, address));
        }
        if let Some(of_service) = self.former.get_mut(&rest.former) {
            of_service.remove(&address);
            if of_service.is_empty() {
                self.former.remove(&rest.former);
            }
        }
        Some(rest)
    }

    /// The next one whose time is over, taken out.
    pub(crate) fn pop_ended(&mut self, now: Duration) -> Option<(IpAddr, Rest)> {
        let (until, address) = self.order.first().copied()?;
        if until > now {
            return None;
        }
        self.remove(address).map(|rest| (address, rest))
    }

    pub(crate) fn next_end(&self) -> Option<Duration> {
        self.order.first().map(|(until, _)| *until)
    }

    /// What this Service held last, lowest first.
    pub(crate) fn of_service(&self, service: &ServiceId) -> impl Iterator<Item = IpAddr> {
        self.former.get(service).into_iter().flatten().copied()
    }

    pub(crate) fn count(&self, pool: &str, family: Family) -> u128 {
        let of_pool = self.pools.get(pool);
        of_pool.map_or(0, |of_pool| of_pool.counts[family.index()])
    }

    /// The rests of a pool, the one that ends last first.
    pub(crate) fn of_pool(&self, pool: &str) -> impl DoubleEndedIterator<Item = (IpAddr, &Rest)> {
        let order = self.pools.get(pool).into_iter();
        let order = order.flat_map(|of_pool| of_pool.order.iter().rev());
        order.filter_map(|(_, address)| Some((*address, self.rests.get(address)?)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, &Rest)> {
        self.rests.iter().map(|(address, rest)| (*address, rest))
    }
}
