//! Random histories with restarts and crashes in them, against what must hold once quiet.

use std::collections::BTreeSet;

use lightship_ipam::Family;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Put(u8, Option<u8>),
    Delete(u8),
    NotOurs(u8),
    Pool(u8, u8, u8),
    NoPool(u8),
    Restart,
    /// A restart after a crash that lost these writes: the status of a Service, a VirtualIP.
    Crash(u8, u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0u8..8, prop::option::weighted(0.3, 0u8..24)).prop_map(|(s, a)| Op::Put(s, a)),
        2 => (0u8..8).prop_map(Op::Delete),
        1 => (0u8..8).prop_map(Op::NotOurs),
        2 => (0u8..3, 0u8..16, 0u8..8).prop_map(|(p, first, size)| Op::Pool(p, first, size)),
        1 => (0u8..3).prop_map(Op::NoPool),
        1 => Just(Op::Restart),
        1 => (0u8..8, 0u8..8).prop_map(|(s, v)| Op::Crash(s, v)),
    ]
}

fn run(w: &mut World, op: &Op) {
    let name = |n: &u8| format!("s{n}");
    match op {
        Op::Put(n, None) => w.put(wants(&name(n), i64::from(*n))),
        Op::Put(n, Some(a)) => w.put(asks(&name(n), i64::from(*n), &format!("192.0.2.{a}"))),
        Op::Delete(n) => w.delete(&name(n)),
        Op::NotOurs(n) => w.put(service(&name(n), i64::from(*n), Demand::Nothing)),
        Op::Pool(n, first, size) => {
            let block = format!("192.0.2.{first}-192.0.2.{}", first + size);
            w.put_pool(pool(&format!("p{n}"), i64::from(*n), &[&block]));
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
    let mut holders: BTreeMap<IpAddr, &ServiceId> = BTreeMap::new();
    for (id, view) in &w.services {
        let shown: Vec<_> = view.ingress.iter().filter_map(|entry| entry.ip).collect();
        prop_assert_eq!(
            &shown[..],
            w.core.allocator().held_by(id),
            "{} shows other than it holds",
            id
        );
        for address in shown {
            prop_assert!(
                holders.insert(address, id).is_none(),
                "{address} is held twice"
            );
        }
    }
    for view in w.services.values() {
        let Demand::Addresses(wish) = &view.demand else {
            continue;
        };
        if view.ingress.is_empty() && wish.addresses.is_empty() {
            for pool in w.core.allocator().pools().iter() {
                let free = (0u8..40).map(|n| IpAddr::from([192, 0, 2, n]));
                let mut free = free
                    .filter(|a| w.core.allocator().offers(pool, *a) && !holders.contains_key(a));
                prop_assert_eq!(free.next(), None, "{} waits beside a free address", view.id);
            }
        }
    }
    let expected: BTreeSet<_> = holders
        .keys()
        .map(|address| virtual_ip_name(*address))
        .collect();
    prop_assert_eq!(expected, w.vips.keys().cloned().collect::<BTreeSet<_>>());
    for (address, holder) in holders {
        let spec = &w.vips[&virtual_ip_name(address)];
        prop_assert_eq!(&spec.used_by, &holder.to_string());
    }
    for (name, view) in &w.pools {
        let usage = w.core.allocator().usage(name, Family::V4);
        let status = view.status.as_ref().map(|status| status.ipv4.assigned);
        prop_assert_eq!(status, Some(usage.assigned as i64));
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
                Op::Put(n, _) | Op::Delete(n) | Op::NotOurs(n) | Op::Crash(n, _) => Some(id(&format!("s{n}"))),
                _ => None,
            };
            run(&mut w, op);
            check(&w).map_err(|error| TestCaseError::fail(format!("after {op:?}: {error}")))?;
            for (other, held) in before.iter().filter(|(other, _)| Some(*other) != touched.as_ref()) {
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
