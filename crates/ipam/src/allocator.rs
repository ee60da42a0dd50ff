//! The allocator: who holds what, and what to give next.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::family::{Family, number};
use crate::intervals::Intervals;
use crate::pool::{Pool, PoolSpec, Pools};
use crate::request::{Considered, Policy, Refusal, Request, ServiceId, Why};

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The pool that covers the address or, if none does any more, the one that did.
    pub pool: Arc<str>,
    /// Who holds it, in the order they came. More than one only once sharing is allowed.
    pub holders: Vec<ServiceId>,
}

/// What a Service got.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Assignment {
    /// All it holds now, in the order of the families it asked for.
    pub addresses: Vec<IpAddr>,
    /// Those it did not hold before.
    pub added: Vec<IpAddr>,
    /// Those it held before and does not now.
    pub released: Vec<IpAddr>,
    /// The family it would have liked as well, and why no pool gave it.
    pub unmet: Option<(Family, Vec<Considered>)>,
}

/// Counts of one family of a pool; `total` saturates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// Addresses that can be given out.
    pub total: u128,
    /// Addresses held, those in ranges that the pool lost included.
    pub assigned: u128,
    /// Addresses left.
    pub available: u128,
}

/// An address that was held a short while ago.
#[derive(Clone, Debug, Default)]
struct Resting {
    until: HashMap<IpAddr, Duration>,
    order: BTreeSet<(Duration, IpAddr)>,
}

/// All pools and all holdings.
///
/// Costs are logarithmic in the number of addresses held and do not depend on pool sizes.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    pools: Pools,
    held: BTreeMap<IpAddr, Holding>,
    services: HashMap<ServiceId, Vec<IpAddr>>,
    /// How many addresses of each family are attributed to each pool.
    counts: HashMap<Arc<str>, [u128; 2]>,
    /// Held numbers per family.
    taken: [Intervals; 2],
    /// Held and resting numbers per family.
    busy: [Intervals; 2],
    resting: Resting,
}

impl Allocator {
    /// The pools as they were sorted out.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Replaces all pools. No holding changes: an address that no pool covers any more stays
    /// with its Service and counts for the pool it came from.
    pub fn set_pools(&mut self, specs: Vec<PoolSpec>) {
        self.pools = Pools::new(specs);
        self.counts.clear();
        for (address, holding) in &mut self.held {
            if let Some(pool) = self.pools.covering(*address) {
                holding.pool = pool.spec.name.clone();
            }
            let counts = self.counts.entry(holding.pool.clone()).or_default();
            counts[Family::of(*address).index()] += 1;
        }
    }

    /// Who holds the address.
    pub fn holding(&self, address: IpAddr) -> Option<&Holding> {
        self.held.get(&address)
    }

    /// All addresses in use.
    pub fn holdings(&self) -> impl Iterator<Item = (IpAddr, &Holding)> {
        self.held
            .iter()
            .map(|(address, holding)| (*address, holding))
    }

    /// What a Service holds.
    pub fn held_by(&self, service: &ServiceId) -> &[IpAddr] {
        self.services.get(service).map_or(&[], Vec::as_slice)
    }

    /// Counts of a pool.
    pub fn usage(&self, pool: &str, family: Family) -> Usage {
        let total = self.pools.get(pool).map_or(0, |pool| pool.total(family));
        let assigned = self
            .counts
            .get(pool)
            .map_or(0, |counts| counts[family.index()]);
        Usage {
            total,
            assigned,
            available: total.saturating_sub(assigned),
        }
    }

    /// Takes over what a Service is known to hold, as after a restart. `recorded` is the pool
    /// it is on record to come from, if there is such a record; without one, a pool must cover
    /// the address. Returns whether the Service holds the address now.
    pub fn adopt(&mut self, service: &ServiceId, address: IpAddr, recorded: Option<&str>) -> bool {
        if let Some(holding) = self.held.get(&address) {
            return holding.holders.contains(service);
        }
        let pool = match (self.pools.covering(address), recorded) {
            (Some(pool), _) => pool.spec.name.clone(),
            (None, Some(recorded)) => recorded.into(),
            (None, None) => return false,
        };
        self.hold(service, address, pool);
        true
    }

    /// Takes everything from a Service; returns what it held.
    pub fn release(&mut self, service: &ServiceId, now: Duration) -> Vec<IpAddr> {
        let addresses = self.held_by(service).to_vec();
        for address in &addresses {
            self.drop_holder(service, *address, now);
        }
        addresses
    }

    /// Gives a Service what it asks for, keeping as much of what it holds as the request
    /// allows. Doing it twice changes nothing.
    ///
    /// # Errors
    /// A [`Refusal`] if the request cannot be met in full; then nothing has changed, and what
    /// the Service held before it still holds.
    pub fn assign(
        &mut self,
        service: &ServiceId,
        request: &Request,
        now: Duration,
    ) -> Result<Assignment, Refusal> {
        if let Some(fault) = request.fault() {
            return Err(Refusal::Invalid(fault));
        }
        self.wake(now);
        let before = self.held_by(service).to_vec();
        let (plan, unmet) = if request.addresses.is_empty() {
            self.plan_any(&before, request)?
        } else {
            (self.plan_exact(service, request)?, None)
        };

        let released: Vec<_> = before
            .iter()
            .copied()
            .filter(|held| !plan.contains(held))
            .collect();
        let added: Vec<_> = plan
            .iter()
            .copied()
            .filter(|next| !before.contains(next))
            .collect();
        for address in &released {
            self.drop_holder(service, *address, now);
        }
        for address in &added {
            if let Some(pool) = self.pools.covering(*address) {
                let pool = pool.spec.name.clone();
                self.hold(service, *address, pool);
            }
        }
        if !plan.is_empty() {
            self.services.insert(service.clone(), plan.clone());
        }
        Ok(Assignment {
            addresses: plan,
            added,
            released,
            unmet,
        })
    }

    /// The addresses asked for by name, if the Service can have every one of them.
    fn plan_exact(&self, service: &ServiceId, request: &Request) -> Result<Vec<IpAddr>, Refusal> {
        let mut faults = Vec::new();
        for address in &request.addresses {
            let holding = self.held.get(address);
            if holding.is_some_and(|holding| holding.holders.contains(service)) {
                continue;
            }
            if let Some(name) = &request.pool {
                let pool = self.named(name)?;
                if !pool.covers(*address) {
                    faults.push(considered(pool, Why::NotInside(*address)));
                    continue;
                }
            }
            let Some(pool) = self.pools.covering(*address) else {
                if self.pools.is_empty() {
                    return Err(Refusal::NoPool);
                }
                let outside = |pool| considered(pool, Why::NotInside(*address));
                faults.extend(self.pools.iter().map(outside));
                continue;
            };
            if let Some(reason) = request.closed.get(&pool.spec.name) {
                faults.push(considered(pool, Why::Closed(reason.clone())));
            } else if pool.withholds(*address) {
                faults.push(considered(pool, Why::Withheld(*address)));
            } else if let Some(by) = holding.and_then(|holding| holding.holders.first()) {
                let (address, by) = (*address, by.clone());
                faults.push(considered(pool, Why::Taken { address, by }));
            }
        }
        if !faults.is_empty() {
            return Err(Refusal::Considered(faults));
        }
        let mut plan = request.addresses.clone();
        in_order_of(&mut plan, &request.families);
        Ok(plan)
    }

    /// What fits of the addresses held, and free ones for the families still missing.
    #[expect(
        clippy::type_complexity,
        reason = "local to this file, taken apart at once"
    )]
    fn plan_any(
        &self,
        before: &[IpAddr],
        request: &Request,
    ) -> Result<(Vec<IpAddr>, Option<(Family, Vec<Considered>)>), Refusal> {
        let wanted = request.wanted();
        let fits = |address: &IpAddr| {
            let named = request.pool.as_ref();
            let pool = self.held.get(address).map(|holding| &holding.pool);
            named.is_none() || named == pool
        };
        let mut plan: Vec<IpAddr> = Vec::new();
        for family in wanted {
            let of_family = |address: &&IpAddr| Family::of(**address) == *family && fits(address);
            plan.extend(before.iter().find(of_family));
        }
        let missing: Vec<Family> = wanted
            .iter()
            .copied()
            .filter(|family| !plan.iter().any(|address| Family::of(*address) == *family))
            .collect();

        if missing.is_empty() {
            return Ok((plan, None));
        }
        if let Some(kept) = plan.first() {
            // The second address comes from the pool of the first, or not at all: a Service
            // with addresses of two pools would be announced by two sets of rules.
            let family = missing[0];
            let pool = self
                .held
                .get(kept)
                .and_then(|held| self.pools.get(&held.pool));
            let second = pool.map(|pool| {
                let closed = request.closed.get(&pool.spec.name);
                let address = match closed {
                    Some(reason) => Err(Why::Closed(reason.clone())),
                    None => self.free(pool, family),
                };
                address.map_err(|why| considered(pool, why))
            });
            let faults = match second {
                Some(Ok(address)) => {
                    plan.push(address);
                    in_order_of(&mut plan, wanted);
                    return Ok((plan, None));
                }
                Some(Err(fault)) => vec![fault],
                None => Vec::new(),
            };
            return match request.policy {
                Policy::RequireDual if faults.is_empty() => {
                    let name = self.held.get(kept).map(|held| held.pool.clone());
                    Err(self.unknown(&name.unwrap_or_default()))
                }
                Policy::RequireDual => Err(Refusal::Considered(faults)),
                _ => Ok((plan, Some((family, faults)))),
            };
        }

        let pools = self.candidates(request)?;
        let both = self.first_fit(&pools, &missing);
        match both {
            Ok(addresses) => Ok((addresses, None)),
            Err(faults) if request.policy != Policy::PreferDual || missing.len() < 2 => {
                Err(Refusal::Considered(faults))
            }
            Err(faults) => {
                for (position, family) in missing.iter().enumerate() {
                    if let Ok(addresses) = self.first_fit(&pools, &[*family]) {
                        return Ok((addresses, Some((missing[1 - position], faults))));
                    }
                }
                Err(Refusal::Considered(faults))
            }
        }
    }

    /// All pools in the order of choice, with the reason against those that are out.
    fn candidates(&self, request: &Request) -> Result<Vec<(&Pool, Option<Why>)>, Refusal> {
        if let Some(name) = &request.pool {
            let pool = self.named(name)?;
            let closed = request.closed.get(name).cloned().map(Why::Closed);
            return Ok(vec![(pool, closed)]);
        }
        if self.pools.is_empty() {
            return Err(Refusal::NoPool);
        }
        let mut pools: Vec<_> = self
            .pools
            .iter()
            .map(|pool| {
                let why = match request.closed.get(&pool.spec.name) {
                    Some(reason) => Some(Why::Closed(reason.clone())),
                    None if !pool.spec.auto_assign => Some(Why::NotAutomatic),
                    None => None,
                };
                (pool, why)
            })
            .collect();
        // Pinned before unpinned; 1 before 2 before 0, which stands for none. Names are in
        // order already and the sort is stable.
        pools.sort_by_key(|(pool, _)| match pool.spec.pinned {
            Some(0) => (0, u32::MAX),
            Some(priority) => (0, priority),
            None => (1, 0),
        });
        Ok(pools)
    }

    /// One free address of each family from the first pool that has them all.
    fn first_fit(
        &self,
        pools: &[(&Pool, Option<Why>)],
        families: &[Family],
    ) -> Result<Vec<IpAddr>, Vec<Considered>> {
        let mut faults = Vec::new();
        for (pool, out) in pools {
            let found = match out {
                Some(why) => Err(why.clone()),
                None => families
                    .iter()
                    .map(|family| self.free(pool, *family))
                    .collect(),
            };
            match found {
                Ok(addresses) => return Ok(addresses),
                Err(why) => faults.push(considered(pool, why)),
            }
        }
        Err(faults)
    }

    /// The lowest free address of a pool that does not rest, else the lowest that does.
    fn free(&self, pool: &Pool, family: Family) -> Result<IpAddr, Why> {
        let ranges = pool.ranges(family);
        if ranges.is_empty() {
            return Err(Why::NoFamily(family));
        }
        for set in [&self.busy, &self.taken] {
            for range in ranges {
                let (mut from, to) = range.bounds();
                // At most two addresses in a row are withheld: .255 and the .0 after it.
                while let Some(gap) = set[family.index()].first_gap(from, to) {
                    let address = family.address(gap);
                    if !pool.withholds(address) {
                        return Ok(address);
                    }
                    let Some(next) = gap.checked_add(1) else {
                        break;
                    };
                    from = next;
                }
            }
        }
        let total = pool.total(family);
        Err(Why::Exhausted { family, total })
    }

    fn named(&self, name: &Arc<str>) -> Result<&Pool, Refusal> {
        self.pools.get(name).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &Arc<str>) -> Refusal {
        Refusal::UnknownPool {
            name: name.clone(),
            existing: self
                .pools
                .iter()
                .map(|pool| pool.spec.name.clone())
                .collect(),
        }
    }

    fn hold(&mut self, service: &ServiceId, address: IpAddr, pool: Arc<str>) {
        let family = Family::of(address).index();
        self.counts.entry(pool.clone()).or_default()[family] += 1;
        self.taken[family].insert(number(address));
        self.busy[family].insert(number(address));
        if let Some(until) = self.resting.until.remove(&address) {
            self.resting.order.remove(&(until, address));
        }
        let holders = vec![service.clone()];
        self.held.insert(address, Holding { pool, holders });
        self.services
            .entry(service.clone())
            .or_default()
            .push(address);
    }

    fn drop_holder(&mut self, service: &ServiceId, address: IpAddr, now: Duration) {
        if let Some(addresses) = self.services.get_mut(service) {
            addresses.retain(|held| *held != address);
            if addresses.is_empty() {
                self.services.remove(service);
            }
        }
        let Some(holding) = self.held.get_mut(&address) else {
            return;
        };
        holding.holders.retain(|holder| holder != service);
        if !holding.holders.is_empty() {
            return;
        }
        let family = Family::of(address).index();
        let pool = holding.pool.clone();
        self.held.remove(&address);
        self.taken[family].remove(number(address));
        if let Some(counts) = self.counts.get_mut(&pool) {
            counts[family] = counts[family].saturating_sub(1);
        }
        let delay = self
            .pools
            .get(&pool)
            .map_or(Duration::ZERO, |pool| pool.spec.reuse_delay);
        if delay.is_zero() {
            self.busy[family].remove(number(address));
        } else {
            let until = now + delay;
            self.resting.until.insert(address, until);
            self.resting.order.insert((until, address));
        }
    }

    /// Ends the rest of the addresses whose time is over.
    fn wake(&mut self, now: Duration) {
        while let Some((until, address)) = self.resting.order.first().copied() {
            if until > now {
                return;
            }
            self.resting.order.remove(&(until, address));
            self.resting.until.remove(&address);
            self.busy[Family::of(address).index()].remove(number(address));
        }
    }
}

fn considered(pool: &Pool, why: Why) -> Considered {
    Considered {
        pool: pool.spec.name.clone(),
        why,
    }
}

fn in_order_of(addresses: &mut [IpAddr], families: &[Family]) {
    addresses.sort_by_key(|address| families.iter().position(|f| *f == Family::of(*address)));
}

#[cfg(test)]
mod tests;
