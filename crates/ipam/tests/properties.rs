//! Random sequences of pools, requests and releases against what must always hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lightship_ipam::{Allocator, Family, Policy, PoolSpec, Request, ServiceId};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Pools(Vec<PoolSpec>),
    Assign(u8, Request),
    Release(u8),
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
        0u64..3,
    )
        .prop_map(
            |(name, created, blocks, auto_assign, avoid_buggy, pinned, delay)| PoolSpec {
                name: format!("p{name}").into(),
                created,
                blocks,
                auto_assign,
                avoid_buggy,
                pinned,
                reuse_delay: Duration::from_secs(delay),
            },
        )
}

fn pools() -> impl Strategy<Value = Vec<PoolSpec>> {
    prop::collection::vec(pool(), 0..4).prop_map(|pools| {
        let unique: BTreeMap<_, _> = pools.into_iter().map(|p| (p.name.clone(), p)).collect();
        unique.into_values().collect()
    })
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
    let address = (0u8..30).prop_map(|n| IpAddr::V4(Ipv4Addr::new(192, 0, 2, n)));
    (
        families,
        policy,
        prop::collection::vec(address, 0..2),
        prop::option::weighted(0.2, 0u8..4),
        prop::collection::btree_map(
            (0u8..4).prop_map(|n| format!("p{n}").into()),
            Just("closed".to_owned()),
            0..2,
        ),
    )
        .prop_map(|(families, policy, addresses, pool, closed)| Request {
            families,
            policy,
            addresses,
            pool: pool.map(|n| format!("p{n}").into()),
            closed,
        })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        1 => pools().prop_map(Op::Pools),
        8 => (0u8..12, request()).prop_map(|(s, r)| Op::Assign(s, r)),
        3 => (0u8..12).prop_map(Op::Release),
    ];
    (pools(), prop::collection::vec(op, 0..60)).prop_map(|(first, mut ops)| {
        ops.insert(0, Op::Pools(first));
        ops
    })
}

fn service(n: u8) -> ServiceId {
    ServiceId::new("default", format!("s{n}"))
}

fn holdings(allocator: &Allocator) -> BTreeMap<IpAddr, Vec<ServiceId>> {
    allocator
        .holdings()
        .map(|(address, h)| (address, h.holders.clone()))
        .collect()
}

fn run(ops: &[Op]) -> Result<Allocator, TestCaseError> {
    let mut allocator = Allocator::default();
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
                    prop_assert!(allocator.holding(address).is_none());
                }
            }
            Op::Assign(n, request) => assign(&mut allocator, &service(*n), request, now, &before)?,
        }
        consistent(&allocator)?;
    }
    Ok(allocator)
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
        prop_assert!(!before.contains_key(added), "{added} was held");
        let pool = allocator.pools().covering(*added);
        let pool =
            pool.ok_or_else(|| TestCaseError::fail(format!("{added} is outside every pool")))?;
        prop_assert!(pool.offers(*added));
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
        prop_assert_eq!(
            allocator.holding(*other.0).map(|h| &h.holders),
            Some(other.1)
        );
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

fn consistent(allocator: &Allocator) -> Result<(), TestCaseError> {
    let mut counts: BTreeMap<(String, Family), u128> = BTreeMap::new();
    for (address, holding) in allocator.holdings() {
        prop_assert_eq!(holding.holders.len(), 1, "{} has several holders", address);
        prop_assert!(allocator.held_by(&holding.holders[0]).contains(&address));
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
        let first = run(&ops)?;
        let second = run(&ops)?;
        prop_assert_eq!(holdings(&first), holdings(&second));
    }

    #[test]
    fn releasing_everything_restores_the_pools(ops in ops()) {
        let mut allocator = run(&ops)?;
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
        let before = run(&ops)?;
        let mut order: Vec<_> = before.holdings().map(|(a, h)| (a, h.clone())).collect();
        order.sort_by_key(|(address, _)| {
            let IpAddr::V4(v4) = address else { return seed };
            u64::from(v4.to_bits()).wrapping_mul(seed | 1)
        });
        let mut after = Allocator::default();
        after.set_pools(before.pools().iter().map(|pool| pool.spec.clone()).collect());
        for (address, holding) in &order {
            prop_assert!(after.adopt(&holding.holders[0], *address, Some(&holding.pool)));
        }
        prop_assert_eq!(holdings(&before), holdings(&after));
        consistent(&after)?;
    }
}
