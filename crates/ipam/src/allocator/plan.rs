//! Which addresses a request comes down to.

use std::net::IpAddr;

use super::free::Pick;
use super::{Allocator, considered};
use crate::family::Family;
use crate::pool::Pool;
use crate::request::{Considered, Policy, Refusal, Request, ServiceId, Why};

impl Allocator {
    /// The addresses asked for by name, if the Service can have every one of them.
    pub(super) fn plan_exact(
        &self,
        service: &ServiceId,
        request: &Request,
    ) -> Result<Vec<IpAddr>, Refusal> {
        let mut faults = Vec::new();
        for address in &request.addresses {
            let holding = self.held.get(address);
            let own = holding.filter(|holding| holding.holders.contains(service));
            if let Some(name) = &request.pool
                && own.is_none_or(|holding| holding.pool != *name)
            {
                let pool = self.named(name)?;
                if !pool.covers(*address) {
                    faults.push(considered(pool, Why::NotInside(*address)));
                    continue;
                }
            }
            if own.is_some() {
                continue;
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
            } else if let Some(reason) = self.withheld(pool, *address) {
                faults.push(considered(pool, Why::Withheld(*address, reason)));
            } else if let Some((by, clash)) = self.clash(
                service,
                &request.sharing,
                *address,
                pool.spec.sharing_across_namespaces,
            ) {
                let address = *address;
                faults.push(considered(pool, Why::Taken { address, by, clash }));
            }
        }
        if !faults.is_empty() {
            return Err(Refusal::Considered(faults));
        }
        let mut plan = request.addresses.clone();
        in_order_of(&mut plan, &request.families);
        if let [first, second] = plan[..]
            && !plan
                .iter()
                .all(|address| self.held_by(service).contains(address))
        {
            let name = |address| self.pools.covering(address).map(|pool| &*pool.spec.name);
            if let (Some(one), Some(other)) = (name(first), name(second))
                && one != other
            {
                let fault = format!(
                    "{first} is of pool \"{one}\", but {second} of pool \"{other}\"; ask for addresses of one pool"
                );
                return Err(Refusal::Invalid(fault));
            }
        }
        Ok(plan)
    }

    /// What fits of the addresses held, and free ones for the families still missing.
    #[expect(
        clippy::type_complexity,
        reason = "local to this file, taken apart at once"
    )]
    pub(super) fn plan_any(
        &self,
        service: &ServiceId,
        before: &[IpAddr],
        request: &Request,
    ) -> Result<(Vec<IpAddr>, Option<(Family, Vec<Considered>)>), Refusal> {
        let wanted = request.wanted();
        let fits = |address: &IpAddr| {
            let Some(named) = &request.pool else {
                return true;
            };
            let holding = self.held.get(address);
            let covering = self.pools.covering(*address);
            holding.is_some_and(|holding| holding.pool == *named)
                || covering.is_some_and(|pool| pool.spec.name == *named)
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
            let name = self.held.get(kept).map(|holding| &holding.pool);
            let pool = name.and_then(|name| self.pools.get(name));
            let second = pool.map(|pool| {
                let closed = request.closed.get(&pool.spec.name);
                let address = match closed {
                    Some(reason) => Err(Why::Closed(reason.clone())),
                    None => self
                        .free(pool, family, service, &request.sharing, Pick::Rested)
                        .or_else(|_| self.free(pool, family, service, &request.sharing, Pick::Any)),
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
                None => name
                    .map(|name| Considered {
                        pool: name.clone(),
                        why: Why::Gone,
                    })
                    .into_iter()
                    .collect(),
            };
            if request.policy != Policy::RequireDual {
                return Ok((plan, Some((family, faults))));
            }
            // Both from another pool, before it goes without; then it keeps what it has.
            let pools = self.candidates(request)?;
            let both = self.first_fit(&pools, wanted, service, request);
            return match both {
                Ok(addresses) => Ok((addresses, None)),
                Err(others) => {
                    // Of its own pool the other family is what it lacks, whatever else is used up there.
                    let own = faults.iter().map(|fault| &fault.pool).collect::<Vec<_>>();
                    let others = others.iter().filter(|fault| !own.contains(&&fault.pool));
                    let all = faults.iter().chain(others).cloned().collect();
                    Err(Refusal::Considered(all))
                }
            };
        }

        let pools = self.candidates(request)?;
        let both = self.first_fit(&pools, &missing, service, request);
        match both {
            Ok(addresses) => Ok((addresses, None)),
            Err(faults) if request.policy != Policy::PreferDual || missing.len() < 2 => {
                Err(Refusal::Considered(faults))
            }
            Err(faults) => {
                let mut all = faults.clone();
                for (position, family) in missing.iter().enumerate() {
                    let addresses = match self.first_fit(&pools, &[*family], service, request) {
                        Ok(addresses) => addresses,
                        Err(faults) => {
                            let said: Vec<_> = all.clone();
                            all.extend(faults.into_iter().filter(|fault| !said.contains(fault)));
                            continue;
                        }
                    };
                    // As the other one could come from no other pool than this.
                    let pool = addresses.first().and_then(|a| self.pools.covering(*a));
                    let of_pool =
                        |fault: &Considered| pool.is_some_and(|pool| pool.spec.name == fault.pool);
                    let faults = faults.into_iter().filter(of_pool).collect();
                    return Ok((addresses, Some((missing[1 - position], faults))));
                }
                Err(Refusal::Considered(all))
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

    /// One free address of each family from the first pool that has them all; those that rest
    /// only when no pool has others.
    fn first_fit(
        &self,
        pools: &[(&Pool, Option<Why>)],
        families: &[Family],
        service: &ServiceId,
        request: &Request,
    ) -> Result<Vec<IpAddr>, Vec<Considered>> {
        let mut faults = Vec::new();
        for pick in [Pick::Rested, Pick::Any] {
            faults.clear();
            for (pool, out) in pools {
                let free =
                    |family: &Family| self.free(pool, *family, service, &request.sharing, pick);
                // What no release can mend comes first.
                let lacks = |family: &&Family| pool.ranges(**family).is_empty();
                let found = match (out, families.iter().find(lacks)) {
                    (Some(why), _) => Err(why.clone()),
                    (None, Some(family)) => Err(Why::NoFamily(*family)),
                    (None, None) => families.iter().map(free).collect(),
                };
                match found {
                    Ok(addresses) => return Ok(addresses),
                    Err(why) => faults.push(considered(pool, why)),
                }
            }
        }
        Err(faults)
    }
}

fn in_order_of(addresses: &mut [IpAddr], families: &[Family]) {
    addresses.sort_by_key(|address| families.iter().position(|f| *f == Family::of(*address)));
}
