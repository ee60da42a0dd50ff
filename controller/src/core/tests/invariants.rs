//! What must hold of a quiet state, written as plainly as can be.

use std::collections::BTreeSet;

use lightship_ipam::{Backends, Family, OnShrink, Policy};
use proptest::prelude::*;

use super::*;

/// What must hold once quiet.
pub(super) fn check(w: &World) -> Result<(), TestCaseError> {
    let allocator = w.core.allocator();
    let mut holders: BTreeMap<IpAddr, BTreeSet<&ServiceId>> = BTreeMap::new();
    for (id, view) in &w.services {
        let shown: Vec<_> = view.ingress.iter().filter_map(|entry| entry.ip).collect();
        prop_assert_eq!(
            &shown[..],
            allocator.held_by(id),
            "{} shows other than it holds",
            id
        );
        let claimed = allocator.claimed_by(id);
        prop_assert!(claimed.iter().all(|address| view.claims.contains(address)));
        for address in shown.iter().chain(claimed) {
            holders.entry(*address).or_default().insert(id);
        }
        let ours = view.demand != Demand::Nothing || !claimed.is_empty();
        prop_assert!(view.told.is_some() || !ours, "{id} has no condition");
        let waits = view.demand != Demand::Nothing && shown.is_empty();
        prop_assert!(!waits || view.told.as_ref().is_some_and(|told| !told.verdict.met));
    }
    for (address, together) in &holders {
        let shares: Vec<_> = together.iter().map(|id| &w.services[*id].sharing).collect();
        for (n, one) in shares.iter().enumerate() {
            for other in &shares[..n] {
                let alike = one.key.is_some() && one.key == other.key;
                let blind = one.backends == Backends::Local("".into());
                prop_assert!(
                    alike
                        && one.ports.is_disjoint(&other.ports)
                        && one.backends == other.backends
                        && !blind,
                    "{address} is held twice"
                );
            }
        }
        outside(w, *address, together)?;
    }
    for view in w.services.values() {
        waits_in_vain(w, view, &holders)?;
    }
    let expected: BTreeSet<_> = holders
        .keys()
        .map(|address| virtual_ip_name(*address))
        .collect();
    prop_assert_eq!(expected, w.vips.keys().cloned().collect::<BTreeSet<_>>());
    for (address, together) in holders {
        let spec = &w.vips[&virtual_ip_name(address)];
        let services: BTreeSet<_> = spec.services.iter().map(ToString::to_string).collect();
        prop_assert_eq!(
            services,
            together
                .iter()
                .map(ToString::to_string)
                .collect::<BTreeSet<_>>()
        );
    }
    for (name, view) in &w.pools {
        // Only touched pools are counted anew; a full count has to agree.
        let anew = w.core.pool_status(&w.core.pools[name], w.clock());
        prop_assert_eq!(view.status.as_ref(), Some(&anew), "of pool {}", name);
    }
    Ok(())
}

/// Outside every pool only what was inside one, and whose pool does not want it back, or what
/// two pools claim by mistake, or what a pool cannot be read about; and never in silence.
fn outside(
    w: &World,
    address: IpAddr,
    holders: &BTreeSet<&ServiceId>,
) -> Result<(), TestCaseError> {
    let allocator = w.core.allocator();
    let holding = allocator.holding(address).unwrap();
    for id in holders {
        let view = &w.services[*id];
        let claimed = allocator.claimed_by(id).contains(&address);
        let closed = w.core.closed(view);
        let Some(stray) = allocator.stray(address, &closed, claimed) else {
            continue;
        };
        let kept = holding.on_shrink == OnShrink::Keep;
        let disputed = allocator.pools().is_disputed(address);
        let pool = allocator.pools().get(&holding.pool);
        let misspelt = pool.is_some_and(|pool| !pool.problems.is_empty());
        prop_assert!(kept || disputed || misspelt, "{address}: {stray:?}");
        let verdict = &view.told.as_ref().unwrap().verdict;
        let said = verdict.reason == "KeptOutsidePool" || !verdict.met;
        let story = ["keeps", "kept"]
            .iter()
            .any(|word| verdict.message.contains(word));
        prop_assert!(
            said && story,
            "{id} holds {address} in spite of {stray:?}: {verdict:?}"
        );
        prop_assert!(
            verdict.message.contains(&stray.to_string()),
            "{stray:?}: {verdict:?}"
        );
    }
    Ok(())
}

/// Nobody waits beside what it could have.
fn waits_in_vain(
    w: &World,
    view: &ServiceView,
    holders: &BTreeMap<IpAddr, BTreeSet<&ServiceId>>,
) -> Result<(), TestCaseError> {
    let Demand::Addresses(wish) = &view.demand else {
        return Ok(());
    };
    if !view.ingress.is_empty() {
        return Ok(());
    }
    let allocator = w.core.allocator();
    let closed = w.core.closed(view);
    let may = |pool: &lightship_ipam::Pool| {
        let name = &pool.spec.name;
        let named = wish.pool.as_ref().map(|named| &named.name);
        !closed.contains_key(name) && named.map_or(pool.spec.auto_assign, |named| named == name)
    };
    if let [asked] = wish.addresses[..] {
        let pool = allocator.pools().covering(asked);
        let named = wish.pool.as_ref().map(|named| &named.name);
        let offered = pool.is_some_and(|pool| {
            let name = &pool.spec.name;
            allocator.offers(pool, asked)
                && !closed.contains_key(name)
                && named.is_none_or(|named| named == name)
        });
        let sane = wish.policy != Policy::RequireDual
            && (wish.policy != Policy::Single || wish.families[0] == Family::of(asked));
        prop_assert!(
            !offered || !sane || holders.contains_key(&asked),
            "{} waits for {asked}, which is free",
            view.id
        );
        return Ok(());
    }
    for pool in allocator.pools().iter().filter(|pool| may(pool)) {
        let free = |family: &Family| {
            (0u8..40).any(|n| {
                let address: IpAddr = match family {
                    Family::V4 => [192, 0, 2, n].into(),
                    Family::V6 => [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)].into(),
                };
                allocator.offers(pool, address) && !holders.contains_key(&address)
            })
        };
        let could = match wish.policy {
            Policy::Single => free(&wish.families[0]),
            Policy::PreferDual => wish.families.iter().any(free),
            Policy::RequireDual => wish.families.iter().all(free),
        };
        prop_assert!(!could, "{} waits beside a free address", view.id);
    }
    Ok(())
}
