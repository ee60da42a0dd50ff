//! The allocator: who holds what, and what to give next.

mod claim;
mod free;
mod hold;
mod places;
mod plan;
mod reserve;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::family::Family;
use crate::intervals::Intervals;
use crate::pool::{OnShrink, Pool, PoolSpec, Pools};
use crate::request::{Considered, Refusal, Request, ServiceId, Why};
use crate::resting::{Rest, Resting};
use crate::sharing::Sharing;

use places::Places;

pub use claim::Claims;

/// The default of `reuseDelaySeconds`.
const USUAL_DELAY: Duration = Duration::from_secs(60);

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The pool that covers the address or, if none does any more, the one that did. If a holder
    /// got it by naming its pool, that one still, as long as its word is [`OnShrink::Keep`].
    pub pool: Arc<str>,
    /// What that pool says, or said, about addresses that it does not offer any more.
    pub on_shrink: OnShrink,
    /// Who holds it, in the order they came; more than one if they share it.
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

/// Counts of one family of a pool; they saturate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// Addresses that can be given out.
    pub total: u128,
    /// Addresses in use, those that the pool does not offer any more included.
    pub assigned: u128,
    /// Addresses left, the resting ones included, as they are given out when nothing else is left.
    pub available: u128,
    /// Addresses that rest.
    pub quarantined: u128,
}

/// What one Service holds.
#[derive(Clone, Debug, Default)]
struct Held {
    /// For its load balancer status, in the order of its families.
    addresses: Vec<IpAddr>,
    /// By `spec.externalIPs`.
    claims: Vec<IpAddr>,
    sharing: Sharing,
    /// The pool that it names.
    named: Option<Arc<str>>,
}

/// All pools and all holdings.
///
/// Costs are logarithmic in the number of addresses held and do not depend on pool sizes.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    pools: Pools,
    /// Addresses that are somebody else's, and whose.
    reserved: BTreeMap<IpAddr, Arc<str>>,
    held: BTreeMap<IpAddr, Holding>,
    services: HashMap<ServiceId, Held>,
    /// How many addresses of each family are attributed to each pool.
    counts: HashMap<Arc<str>, [u128; 2]>,
    /// Addresses in use that their pool does not offer any more.
    strays: BTreeMap<Arc<str>, BTreeSet<IpAddr>>,
    /// Addresses in use that a pool offers but that count for another one.
    guests: BTreeMap<Arc<str>, BTreeSet<IpAddr>>,
    /// Addresses in use that others may join.
    places: Places,
    /// Held numbers per family.
    taken: [Intervals; 2],
    /// Held and resting numbers per family.
    busy: [Intervals; 2],
    resting: Resting,
    /// How long the addresses of each pool rest, those that are gone but have addresses in use
    /// included.
    delays: HashMap<Arc<str>, Duration>,
    touched: BTreeSet<Arc<str>>,
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
        let all: Vec<_> = self.held.keys().copied().collect();
        self.counts.clear();
        for address in all {
            let attributed = self.attributed(address);
            if let Some((holding, (pool, on_shrink))) = self.held.get_mut(&address).zip(attributed)
            {
                let counts = self.counts.entry(pool.clone()).or_default();
                counts[Family::of(address).index()] += 1;
                (holding.pool, holding.on_shrink) = (pool, on_shrink);
            }
        }
        self.find_strays();
        let in_use = &self.counts;
        self.delays.retain(|pool, _| in_use.contains_key(pool));
        let pools = self.pools.iter().map(|pool| &pool.spec);
        let delays = pools.map(|spec| (spec.name.clone(), spec.reuse_delay));
        self.delays.extend(delays);
    }

    /// How long a released address of a pool rests; of one that was never seen, the usual time.
    pub fn delay_of(&self, pool: &str) -> Duration {
        self.delays.get(pool).copied().unwrap_or(USUAL_DELAY)
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

    /// The key under which an address in use is shared, or may be.
    pub fn key_of(&self, address: IpAddr) -> Option<&Arc<str>> {
        let holder = self.held.get(&address)?.holders.first()?;
        self.services.get(holder)?.sharing.key.as_ref()
    }

    /// What a Service was assigned.
    pub fn held_by(&self, service: &ServiceId) -> &[IpAddr] {
        self.services
            .get(service)
            .map_or(&[], |held| &held.addresses)
    }

    /// What a Service claimed by `spec.externalIPs`.
    pub fn claimed_by(&self, service: &ServiceId) -> &[IpAddr] {
        self.services.get(service).map_or(&[], |held| &held.claims)
    }

    /// Counts of a pool.
    pub fn usage(&self, pool: &str, family: Family) -> Usage {
        let found = self.pools.get(pool);
        let total = found.map_or(0, |pool| self.total(pool, family));
        let counts = self.counts.get(pool);
        let assigned = counts.map_or(0, |counts| counts[family.index()]);
        let strays = self.strays_of(pool).filter(|a| Family::of(*a) == family);
        let inside = assigned.saturating_sub(strays.count() as u128);
        let guests = self.guests.get(pool).into_iter().flatten();
        let guests = guests.filter(|a| Family::of(**a) == family).count() as u128;
        Usage {
            total,
            assigned,
            available: total.saturating_sub(inside + guests),
            quarantined: self.resting.count(pool, family),
        }
    }

    /// Takes over what a Service is known to hold, as after a restart. `recorded` is the pool
    /// it is on record to come from and what that said of strays, if there is such a record; without one, a
    /// pool must cover the address. `named` is the pool that the Service names. Several Services have it only if they may share it, the
    /// earlier adopted one first. Returns whether the Service holds the address now.
    pub fn adopt(
        &mut self,
        service: &ServiceId,
        address: IpAddr,
        recorded: Option<(&str, OnShrink)>,
        named: Option<&str>,
        sharing: &Sharing,
        claim: bool,
    ) -> bool {
        if let Some(holding) = self.held.get(&address) {
            if holding.holders.contains(service) {
                return true;
            }
            let across = recorded.is_some() || self.shares_across(address);
            if self.clash(service, sharing, address, across).is_some() {
                return false;
            }
        }
        let (pool, on_shrink) = match (self.pools.covering(address), recorded) {
            (Some(pool), _) => (pool.spec.name.clone(), pool.spec.on_shrink),
            (None, Some((recorded, on_shrink))) => (recorded.into(), on_shrink),
            (None, None) => return false,
        };
        self.set_sharing(service, sharing);
        self.hold(service, address, pool, on_shrink);
        let held = self.services.entry(service.clone()).or_default();
        if claim {
            held.claims.push(address);
        } else {
            held.named = named.map(Arc::from);
            held.addresses.push(address);
            if let Some((pool, on_shrink)) = recorded.filter(|(pool, _)| named == Some(*pool)) {
                // As it was, if it may.
                self.set_pool(address, pool.into(), on_shrink);
                self.move_to_pool(address);
            }
        }
        true
    }

    /// Takes everything from a Service; returns what it held.
    pub fn release(&mut self, service: &ServiceId, now: Duration) -> Vec<IpAddr> {
        let Some(held) = self.services.get(service) else {
            return Vec::new();
        };
        let addresses = [&held.addresses[..], &held.claims].concat();
        for address in &addresses {
            self.drop_holder(service, *address, now);
        }
        addresses
    }

    /// Takes from a Service what it was assigned, but not what it claimed; returns that.
    pub fn unassign(&mut self, service: &ServiceId, now: Duration) -> Vec<IpAddr> {
        let addresses = self.held_by(service).to_vec();
        for address in &addresses {
            self.drop_holder(service, *address, now);
        }
        addresses
    }

    /// Takes from a Service what it may not keep: an address that it shared and, as it is now,
    /// cannot share any longer (whoever changed goes, the others stay), and one that its pool
    /// offers it no more and wants back. To be called before [`Allocator::assign`] and
    /// [`Allocator::claim`] whenever the Service or the pools changed.
    pub fn settle(
        &mut self,
        service: &ServiceId,
        sharing: &Sharing,
        closed: &BTreeMap<Arc<str>, String>,
        now: Duration,
    ) -> Vec<(IpAddr, Considered)> {
        if !self.services.contains_key(service) {
            return Vec::new();
        }
        self.set_sharing(service, sharing);
        let Some(held) = self.services.get(service) else {
            return Vec::new();
        };
        let mut lost = Vec::new();
        for address in held.addresses.iter().chain(&held.claims).copied() {
            let Some(holding) = self.held.get(&address) else {
                continue;
            };
            // The pool was asked about namespaces when they began to share.
            let clash = self.clash(service, sharing, address, true);
            let why = match clash {
                Some((by, clash)) => Some(Why::Taken { address, by, clash }),
                // Two pools that overlap by mistake must not cost their holders anything.
                None if self.pools.is_disputed(address) => None,
                None if holding.on_shrink == OnShrink::Reallocate => {
                    let claimed = held.claims.contains(&address);
                    // Nor must a range that cannot be read.
                    let slip = |why: &Why| {
                        matches!(why, Why::NotInside(_)) && self.pools.is_misspelt(&holding.pool)
                    };
                    self.stray(address, closed, claimed)
                        .filter(|why| !slip(why))
                }
                None => None,
            };
            if let Some(why) = why {
                let pool = holding.pool.clone();
                lost.push((address, Considered { pool, why }));
            }
        }
        for (address, _) in &lost {
            self.drop_holder(service, *address, now);
        }
        lost
    }

    /// Why the pools would not give this address, which a Service holds, to it today.
    pub fn stray(
        &self,
        address: IpAddr,
        closed: &BTreeMap<Arc<str>, String>,
        claimed: bool,
    ) -> Option<Why> {
        let covering = self.pools.covering(address).map(|pool| &pool.spec.name);
        let holding = self.held.get(&address).map(|holding| &holding.pool);
        if holding.is_some() && holding != covering {
            let pool = holding.and_then(|pool| self.pools.get(pool));
            return Some(match pool {
                None => Why::Gone,
                Some(pool) if pool.disputes(address) => Why::Overlapped(address),
                Some(_) => Why::NotInside(address),
            });
        }
        self.fault(address, closed, claimed)
    }

    /// Why the pools would not give this address to a Service that does not hold it.
    pub fn fault(
        &self,
        address: IpAddr,
        closed: &BTreeMap<Arc<str>, String>,
        claimed: bool,
    ) -> Option<Why> {
        let Some(pool) = self.pools.covering(address) else {
            return Some(Why::NotInside(address));
        };
        if let Some(reason) = self.withheld(pool, address) {
            return Some(Why::Withheld(address, reason));
        }
        if claimed && !pool.spec.external_ips {
            return Some(Why::NotExternal);
        }
        let reason = closed.get(&pool.spec.name);
        reason.map(|reason| Why::Closed(reason.clone()))
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
        self.wake(now);
        let before = self.held_by(service).to_vec();
        if let Some(held) = self.services.get_mut(service)
            && held.named != request.pool
        {
            held.named.clone_from(&request.pool);
            for address in &before {
                self.move_to_pool(*address);
            }
        }
        if let Some(fault) = request.fault() {
            return Err(Refusal::Invalid(fault));
        }
        let (plan, unmet) = if request.addresses.is_empty() {
            self.plan_any(service, &before, request)?
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
        self.set_sharing(service, &request.sharing);
        for address in &added {
            // A claim that becomes an assignment changes only its list.
            if let Some(held) = self.services.get_mut(service) {
                held.claims.retain(|claim| claim != address);
            }
            if let Some(pool) = self.pools.covering(*address) {
                let (name, on_shrink) = (pool.spec.name.clone(), pool.spec.on_shrink);
                self.hold(service, *address, name, on_shrink);
            }
        }
        for address in &released {
            self.drop_holder(service, *address, now);
        }
        let held = self.services.entry(service.clone()).or_default();
        held.addresses.clone_from(&plan);
        held.sharing = request.sharing.clone();
        held.named.clone_from(&request.pool);
        Ok(Assignment {
            addresses: plan,
            added,
            released,
            unmet,
        })
    }

    /// Ends the rests whose time is over.
    pub fn wake(&mut self, now: Duration) {
        while let Some((address, rest)) = self.resting.pop_ended(now) {
            self.let_in(address);
            self.touched.insert(rest.pool);
        }
    }

    /// Pools whose holdings or rests have changed since this was last asked; some may be gone.
    pub fn take_touched(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.touched)
    }

    /// When the next rest ends.
    pub fn next_wake(&self) -> Option<Duration> {
        self.resting.next_end()
    }

    /// The addresses of a pool that rest, the one that does so longest first.
    pub fn resting_of(&self, pool: &str) -> impl Iterator<Item = (IpAddr, &Rest)> {
        self.resting.of_pool(pool)
    }

    /// The addresses that rest.
    pub fn resting(&self) -> impl Iterator<Item = (IpAddr, &Rest)> {
        self.resting.iter()
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
}

fn considered(pool: &Pool, why: Why) -> Considered {
    Considered {
        pool: pool.spec.name.clone(),
        why,
    }
}

#[cfg(test)]
mod tests;
