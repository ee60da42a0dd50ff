//! Random sequences of pools, requests and releases against what must always hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use lightship_ipam::{
    Allocator, Backends, Family, OnShrink, Order, Policy, PoolSpec, Port, Protocol, Request,
    ServiceId, Sharing,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Pools(Vec<PoolSpec>),
    Assign(u8, Request),
    Claim(u8, Vec<IpAddr>, Sharing),
    Release(u8),
    Reserve(Vec<u8>),
}

fn pool() -> impl Strategy<Value = PoolSpec> {
    let block = prop_oneof![
        (0u8..24, 0u8..6).prop_map(|(a, n)| format!("192.0.2.{a}-192.0.2.{}", a + n)),
        (0u8..24, 0u8..6).prop_map(|(a, n)| format!("2001:db8::{a:x}-2001:db8::{:x}", a + n)),
        Just("192.0.2.9-192.0.2.1".to_owned()),
    ];
    (
        0u8..4,
        0i64..3,
        prop::collection::vec(block, 0..4),
        any::<bool>(),
        any::<bool>(),
        prop::option::of(0u32..3),
        (
            0u64..3,
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
        ),
    )
        .prop_map(
            |(
                name,
                created,
                blocks,
                auto_assign,
                avoid_buggy,
                pinned,
                (delay, hashed, back, across, external),
            )| PoolSpec {
                name: format!("p{name}").into(),
                created,
                blocks,
                auto_assign,
                avoid_buggy,
                pinned,
                reuse_delay: Duration::from_secs(delay),
                order: if hashed { Order::Hashed } else { Order::Lowest },
                on_shrink: if back {
                    OnShrink::Reallocate
                } else {
                    OnShrink::Keep
                },
                sharing_across_namespaces: across,
                external_ips: external,
            },
        )
}

fn pools() -> impl Strategy<Value = Vec<PoolSpec>> {
    prop::collection::vec(pool(), 0..4).prop_map(|pools| {
        let unique: BTreeMap<_, _> = pools.into_iter().map(|p| (p.name.clone(), p)).collect();
        unique.into_values().collect()
    })
}

fn sharing() -> impl Strategy<Value = Sharing> {
    let key = prop::option::weighted(0.6, 0u8..2);
    let backends = prop_oneof![
        3 => Just(Backends::Cluster),
        1 => (0u8..2).prop_map(|n| Backends::Local(format!("app={n}").into())),
        1 => Just(Backends::Local("".into())),
    ];
    let port = (1u16..5).prop_map(|number| Port {
        protocol: Protocol::Tcp,
        number,
    });
    (key, backends, prop::collection::btree_set(port, 1..3)).prop_map(|(key, backends, ports)| {
        Sharing {
            key: key.map(|n| format!("k{n}").into()),
            backends,
            ports,
        }
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    (0u8..30).prop_map(|n| IpAddr::V4(Ipv4Addr::new(192, 0, 2, n)))
}

fn request() -> impl Strategy<Value = Request> {
    let families = prop_oneof![
        Just(vec![Family::V4]),
        Just(vec![Family::V6]),
        Just(vec![Family::V4, Family::V6]),
        Just(vec![Family::V6, Family::V4]),
    ];
    let policy = prop_oneof![
        Just(Policy::Single),
        Just(Policy::PreferDual),
        Just(Policy::RequireDual)
    ];
    (
        families,
        policy,
        prop::collection::vec(address(), 0..2),
        prop::option::weighted(0.2, 0u8..4),
        prop::collection::btree_map(
            (0u8..4).prop_map(|n| format!("p{n}").into()),
            Just("closed".to_owned()),
            0..2,
        ),
        sharing(),
    )
        .prop_map(
            |(families, policy, addresses, pool, closed, sharing)| Request {
                families,
                policy,
                addresses,
                pool: pool.map(|n| format!("p{n}").into()),
                closed,
                sharing,
            },
        )
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        1 => pools().prop_map(Op::Pools),
        8 => (0u8..12, request()).prop_map(|(s, r)| Op::Assign(s, r)),
        2 => (0u8..12, prop::collection::vec(address(), 0..3), sharing()).prop_map(|(n, a, s)| Op::Claim(n, a, s)),
        3 => (0u8..12).prop_map(Op::Release),
        1 => prop::collection::vec(0u8..30, 0..4).prop_map(Op::Reserve),
    ];
    (pools(), prop::collection::vec(op, 0..60)).prop_map(|(first, mut ops)| {
        ops.insert(0, Op::Pools(first));
        ops
    })
}

fn service(n: u8) -> ServiceId {
    ServiceId::new(
        if n.is_multiple_of(3) {
            "far"
        } else {
            "default"
        },
        format!("s{n}"),
    )
}

fn holdings(allocator: &Allocator) -> BTreeMap<IpAddr, Vec<ServiceId>> {
    allocator
        .holdings()
        .map(|(address, h)| (address, h.holders.clone()))
        .collect()
}

/// What each Service said last about sharing.
type Said = BTreeMap<ServiceId, Sharing>;

/// The pool that each Service named last.
type Named = BTreeMap<ServiceId, Arc<str>>;

fn run(ops: &[Op]) -> Result<(Allocator, Said, Named), TestCaseError> {
    let mut allocator = Allocator::default();
    let mut said = Said::new();
    let mut named = Named::new();
    for (step, op) in ops.iter().enumerate() {
        let now = Duration::from_millis(step as u64 * 700);
        let before = holdings(&allocator);
        match op {
            Op::Pools(specs) => {
                allocator.set_pools(specs.clone());
                prop_assert_eq!(&before, &holdings(&allocator), "pools moved an address");
            }
            Op::Release(n) => {
                let released = allocator.release(&service(*n), now);
                prop_assert!(allocator.held_by(&service(*n)).is_empty());
                for address in released {
                    let others = allocator.holding(address).map_or(&[][..], |h| &h.holders);
                    prop_assert!(!others.contains(&service(*n)));
                }
            }
            Op::Reserve(numbers) => {
                let reserved = numbers
                    .iter()
                    .map(|n| (IpAddr::from([192, 0, 2, *n]), "node".into()));
                allocator.set_reserved(reserved.collect());
                prop_assert_eq!(&before, &holdings(&allocator), "a node moved an address");
            }
            Op::Claim(n, addresses, sharing) => {
                let id = service(*n);
                let none = BTreeMap::new();
                allocator.settle(&id, sharing, &none, now);
                said.insert(id.clone(), sharing.clone());
                allocator.claim(&id, addresses, sharing, &none, now);
                let again = allocator.claim(&id, addresses, sharing, &none, now);
                prop_assert!(again.added.is_empty() && again.released.is_empty());
                prop_assert!(
                    allocator
                        .claimed_by(&id)
                        .iter()
                        .all(|held| addresses.contains(held))
                );
            }
            Op::Assign(n, request) => {
                let id = service(*n);
                allocator.settle(&id, &request.sharing, &request.closed, now);
                said.insert(id.clone(), request.sharing.clone());
                named.remove(&id);
                named.extend(request.pool.clone().map(|pool| (id.clone(), pool)));
                let before = holdings(&allocator);
                assign(&mut allocator, &id, request, now, &before)?;
            }
        }
        consistent(&allocator, &said)?;
    }
    Ok((allocator, said, named))
}

fn assign(
    allocator: &mut Allocator,
    service: &ServiceId,
    request: &Request,
    now: Duration,
    before: &BTreeMap<IpAddr, Vec<ServiceId>>,
) -> Result<(), TestCaseError> {
    let held = allocator.held_by(service).to_vec();
    let result = allocator.assign(service, request, now);
    let Ok(assignment) = result else {
        prop_assert_eq!(before, &holdings(allocator), "a refusal changed something");
        return Ok(());
    };
    prop_assert!(!assignment.addresses.is_empty());
    let families: Vec<_> = assignment
        .addresses
        .iter()
        .map(|a| Family::of(*a))
        .collect();
    prop_assert!(families.iter().collect::<BTreeSet<_>>().len() == families.len());
    prop_assert!(
        families
            .iter()
            .all(|family| request.families.contains(family))
    );
    if request.policy == Policy::Single {
        prop_assert_eq!(&families, &request.families[..1]);
    }
    if !request.addresses.is_empty() {
        let asked: BTreeSet<_> = request.addresses.iter().collect();
        prop_assert_eq!(asked, assignment.addresses.iter().collect::<BTreeSet<_>>());
    }
    for added in &assignment.added {
        let shared = before
            .get(added)
            .is_none_or(|_| request.sharing.key.is_some());
        let claimed = before
            .get(added)
            .is_some_and(|holders| holders.contains(service));
        prop_assert!(shared || claimed, "{added} was held");
        if claimed {
            continue;
        }
        let pool = allocator.pools().covering(*added);
        let pool =
            pool.ok_or_else(|| TestCaseError::fail(format!("{added} is outside every pool")))?;
        prop_assert!(allocator.offers(pool, *added));
        prop_assert!(!request.closed.contains_key(&pool.spec.name));
        prop_assert!(
            request
                .pool
                .as_ref()
                .is_none_or(|name| *name == pool.spec.name)
        );
    }
    for other in before
        .iter()
        .filter(|(_, holders)| !holders.contains(service))
    {
        let now = allocator.holding(*other.0).map_or(&[][..], |h| &h.holders);
        let others: Vec<_> = now.iter().filter(|holder| *holder != service).collect();
        prop_assert_eq!(others, other.1.iter().collect::<Vec<_>>());
    }
    prop_assert!(
        held.iter()
            .all(|a| assignment.addresses.contains(a) || assignment.released.contains(a))
    );
    let again = allocator.assign(service, request, now);
    let again = again.map_err(|refusal| TestCaseError::fail(format!("then refused: {refusal}")))?;
    prop_assert_eq!(again.addresses, assignment.addresses);
    prop_assert!(again.added.is_empty() && again.released.is_empty());
    Ok(())
}

/// Written once more, as plainly as can be, to judge the allocator by.
fn may_share(one: &ServiceId, mine: &Sharing, other: &ServiceId, theirs: &Sharing) -> bool {
    let local = mine.backends != Backends::Cluster;
    mine.key.is_some()
        && mine.key == theirs.key
        && mine.backends == theirs.backends
        && mine.ports.is_disjoint(&theirs.ports)
        && !(local && one.namespace != other.namespace)
        && mine.backends != Backends::Local("".into())
}

fn consistent(allocator: &Allocator, said: &Said) -> Result<(), TestCaseError> {
    let mut counts: BTreeMap<(String, Family), u128> = BTreeMap::new();
    for (address, holding) in allocator.holdings() {
        prop_assert!(!holding.holders.is_empty());
        for (position, one) in holding.holders.iter().enumerate() {
            let lists = [allocator.held_by(one), allocator.claimed_by(one)];
            prop_assert_eq!(
                lists.iter().filter(|list| list.contains(&address)).count(),
                1
            );
            for other in &holding.holders[..position] {
                prop_assert!(
                    may_share(one, &said[one], other, &said[other]),
                    "{} and {} share {}",
                    one,
                    other,
                    address
                );
            }
        }
        *counts
            .entry((holding.pool.to_string(), Family::of(address)))
            .or_default() += 1;
    }
    for pool in allocator.pools().iter() {
        for family in Family::ALL {
            let name = pool.spec.name.to_string();
            let counted = counts.get(&(name.clone(), family)).copied().unwrap_or(0);
            prop_assert_eq!(allocator.usage(&name, family).assigned, counted);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_and_runs_repeat(ops in ops()) {
        let (first, ..) = run(&ops)?;
        let (second, ..) = run(&ops)?;
        prop_assert_eq!(holdings(&first), holdings(&second));
    }

    #[test]
    fn releasing_everything_restores_the_pools(ops in ops()) {
        let (mut allocator, ..) = run(&ops)?;
        for n in 0..12 {
            allocator.release(&service(n), Duration::from_secs(1000));
        }
        for pool in allocator.pools().iter() {
            for family in Family::ALL {
                let usage = allocator.usage(&pool.spec.name, family);
                prop_assert_eq!((usage.assigned, usage.available), (0, usage.total));
            }
        }
    }

    /// A restart: what everyone held is adopted in any order, and asking again moves nothing.
    #[test]
    fn adoption_keeps_every_address(ops in ops(), seed in any::<u64>()) {
        let (before, said, named) = run(&ops)?;
        let mut order: Vec<_> = before.holdings().map(|(a, h)| (a, h.clone())).collect();
        order.sort_by_key(|(address, _)| {
            let IpAddr::V4(v4) = address else { return seed };
            u64::from(v4.to_bits()).wrapping_mul(seed | 1)
        });
        let mut after = Allocator::default();
        after.set_pools(before.pools().iter().map(|pool| pool.spec.clone()).collect());
        for (address, holding) in &order {
            for holder in &holding.holders {
                let recorded = Some((&*holding.pool, holding.on_shrink));
                let claim = before.claimed_by(holder).contains(address);
                let named = named.get(holder).map(|pool| &**pool);
                prop_assert!(after.adopt(holder, *address, recorded, named, &said[holder], claim));
            }
        }
        prop_assert_eq!(holdings(&before), holdings(&after));
        for (address, holding) in before.holdings() {
            prop_assert_eq!(&after.holding(address).unwrap().pool, &holding.pool);
        }
        consistent(&after, &said)?;
    }
}
