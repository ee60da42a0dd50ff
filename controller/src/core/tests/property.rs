//! Random histories with restarts and crashes in them, against what must hold once quiet.

use std::collections::BTreeSet;

use lightship_ipam::{Backends, OnShrink, Port, Protocol, Sharing};
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    /// A Service, the address it asks for, and key and port by which it shares.
    Put(u8, Option<u8>, Option<u8>, u16),
    /// A Service that claims addresses.
    Claim(u8, Vec<u8>),
    Delete(u8),
    NotOurs(u8),
    /// First address and size; whether it wants addresses back, and whether it takes claims.
    Pool(u8, u8, u8, bool, bool),
    NoPool(u8),
    /// Nodes with these addresses.
    Nodes(Vec<u8>),
    Restart,
    /// A restart after a crash that lost these writes: the status of a Service, a VirtualIP.
    Crash(u8, u8),
}

fn op() -> impl Strategy<Value = Op> {
    let asked = prop::option::weighted(0.3, 0u8..24);
    let key = prop::option::weighted(0.5, 0u8..2);
    let claims = prop::collection::vec(0u8..24, 0..3);
    prop_oneof![
        6 => (0u8..8, asked, key, 1u16..4).prop_map(|(s, a, k, p)| Op::Put(s, a, k, p)),
        2 => (0u8..8, claims).prop_map(|(s, a)| Op::Claim(s, a)),
        2 => (0u8..8).prop_map(Op::Delete),
        1 => (0u8..8).prop_map(Op::NotOurs),
        2 => (0u8..3, 0u8..16, 0u8..8, any::<bool>(), any::<bool>())
            .prop_map(|(p, first, size, back, open)| Op::Pool(p, first, size, back, open)),
        1 => (0u8..3).prop_map(Op::NoPool),
        1 => prop::collection::vec(0u8..24, 0..3).prop_map(Op::Nodes),
        1 => Just(Op::Restart),
        1 => (0u8..8, 0u8..8).prop_map(|(s, v)| Op::Crash(s, v)),
    ]
}

fn address(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn run(w: &mut World, op: &Op) {
    let name = |n: &u8| format!("s{n}");
    match op {
        Op::Put(n, asked, key, port) => {
            let created = i64::from(*n);
            let view = match asked {
                None => wants(&name(n), created),
                Some(a) => asks(&name(n), created, &address(*a).to_string()),
            };
            let number = *port;
            let sharing = key.map(|key| Sharing {
                key: Some(format!("k{key}").into()),
                backends: Backends::Cluster,
                ports: [Port {
                    protocol: Protocol::Tcp,
                    number,
                }]
                .into(),
            });
            w.put(ServiceView {
                sharing: sharing.unwrap_or_default(),
                ..view
            });
        }
        Op::Claim(n, addresses) => {
            let mut claims: Vec<_> = addresses.iter().map(|n| address(*n)).collect();
            claims.dedup();
            w.put(ServiceView {
                claims,
                ..service(&name(n), i64::from(*n), Demand::Nothing)
            });
        }
        Op::Nodes(numbers) => {
            let nodes = numbers.iter().map(|n| NodeView {
                name: format!("n{n}"),
                addresses: vec![address(*n)],
            });
            w.nodes = nodes.collect();
            w.feed(Input::Nodes(Change::Listed(w.nodes.clone())));
        }
        Op::Delete(n) => w.delete(&name(n)),
        Op::NotOurs(n) => w.put(service(&name(n), i64::from(*n), Demand::Nothing)),
        Op::Pool(n, first, size, back, open) => {
            let block = format!("192.0.2.{first}-192.0.2.{}", first + size);
            let mut view = pool(&format!("p{n}"), i64::from(*n), &[&block]);
            if *back {
                view.spec.on_shrink = OnShrink::Reallocate;
            }
            view.spec.external_ips = *open;
            w.put_pool(view);
        }
        Op::NoPool(n) => w.delete_pool(&format!("p{n}")),
        Op::Restart => w.restart(),
        Op::Crash(s, v) => {
            // One of the two records of an address is lost, never both; and that is when it
            // has just come from a pool.
            let covered = |name: &str| {
                let address = name.parse().ok();
                address
                    .is_some_and(|address| w.core.allocator().pools().covering(address).is_some())
            };
            let lost: Vec<_> = w
                .vips
                .keys()
                .filter(|name| covered(name) && name.ends_with(&v.to_string()))
                .cloned()
                .collect();
            let mut spared = Vec::new();
            if let Some(view) = w.services.get_mut(&id(&name(s))) {
                let shown = view.ingress.iter().filter_map(|entry| entry.ip);
                spared = shown.map(virtual_ip_name).collect();
                view.ingress.clear();
            }
            w.vips
                .retain(|name, _| spared.contains(name) || !lost.contains(name));
            w.restart();
        }
    }
}

fn check(w: &World) -> Result<(), TestCaseError> {
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
                prop_assert!(
                    alike && one.ports.is_disjoint(&other.ports),
                    "{address} is held twice"
                );
            }
        }
        // Outside every pool only what was inside one, and whose pool does not want it back, or
        // what two pools claim by mistake.
        let stray = allocator.stray(*address, &BTreeMap::new(), false);
        let kept = allocator.holding(*address).unwrap().on_shrink == OnShrink::Keep;
        let disputed = allocator.pools().is_disputed(*address);
        prop_assert!(stray.is_none() || kept || disputed, "{address}: {stray:?}");
    }
    for view in w.services.values() {
        let Demand::Addresses(wish) = &view.demand else {
            continue;
        };
        if view.ingress.is_empty() && wish.addresses.is_empty() {
            for pool in allocator.pools().iter() {
                let free = (0u8..40).map(address);
                let mut free =
                    free.filter(|a| allocator.offers(pool, *a) && !holders.contains_key(a));
                prop_assert_eq!(free.next(), None, "{} waits beside a free address", view.id);
            }
        }
        if let ([], [asked]) = (&view.ingress[..], &wish.addresses[..]) {
            let pool = allocator.pools().covering(*asked);
            let offered = pool.is_some_and(|pool| allocator.offers(pool, *asked));
            prop_assert!(
                !offered || holders.contains_key(asked),
                "{} waits for {asked}, which is free",
                view.id
            );
        }
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_must_hold_after_every_step(ops in prop::collection::vec(op(), 1..40)) {
        let mut w = World::started(vec![pool("p0", 0, &["192.0.2.0-192.0.2.5"])]);
        for op in &ops {
            let before: BTreeMap<_, _> = w.services.iter().map(|(id, s)| (id.clone(), s.ingress.clone())).collect();
            let touched = match op {
                Op::Put(n, ..) | Op::Claim(n, _) | Op::Delete(n) | Op::NotOurs(n) | Op::Crash(n, _) => Some(id(&format!("s{n}"))),
                _ => None,
            };
            // Where a pool wants addresses back, that is a cause.
            let back = w.core.allocator().holdings().any(|(_, holding)| holding.on_shrink == OnShrink::Reallocate);
            let back = back || w.pools.values().any(|pool| pool.spec.on_shrink == OnShrink::Reallocate);
            let wanted_back = back || matches!(op, Op::Pool(_, _, _, true, _));
            let causes = wanted_back && matches!(op, Op::Pool(..) | Op::NoPool(_) | Op::Nodes(_));
            run(&mut w, op);
            check(&w).map_err(|error| TestCaseError::fail(format!("after {op:?}: {error}")))?;
            for (other, held) in before.iter().filter(|(other, _)| !causes && Some(*other) != touched.as_ref()) {
                let asked = matches!(&w.services[other].demand, Demand::Addresses(wish) if !wish.addresses.is_empty());
                let now = &w.services[other].ingress;
                prop_assert!(held.is_empty() || asked || held == now, "{op:?} moved {other}");
            }
        }
        w.restart();
        check(&w)?;
        let pools_only = w.writes.iter().all(|write| matches!(write, Write::PoolStatus { .. }));
        prop_assert!(pools_only, "a restart wrote {:?}", w.writes);
    }
}
