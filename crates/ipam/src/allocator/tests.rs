mod order;
mod sharing;
mod strays;

use super::*;
use crate::{Order, Policy};

const T0: Duration = Duration::ZERO;

fn pool(name: &str, blocks: &[&str]) -> PoolSpec {
    PoolSpec {
        name: name.into(),
        created: 0,
        blocks: blocks.iter().map(ToString::to_string).collect(),
        auto_assign: true,
        avoid_buggy: false,
        pinned: None,
        reuse_delay: Duration::ZERO,
        order: Order::Lowest,
        on_shrink: OnShrink::Keep,
        sharing_across_namespaces: false,
        external_ips: false,
    }
}

fn allocator(pools: Vec<PoolSpec>) -> Allocator {
    let mut allocator = Allocator::default();
    allocator.set_pools(pools);
    allocator
}

fn service(name: &str) -> ServiceId {
    ServiceId::new("default", name)
}

fn want(families: &[Family], policy: Policy) -> Request {
    Request {
        families: families.to_vec(),
        policy,
        addresses: vec![],
        pool: None,
        closed: BTreeMap::new(),
        sharing: Sharing::default(),
    }
}

fn v4() -> Request {
    want(&[Family::V4], Policy::Single)
}

fn dual(policy: Policy) -> Request {
    want(&[Family::V6, Family::V4], policy)
}

fn exactly(addresses: &[&str]) -> Request {
    Request {
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        ..v4()
    }
}

fn named(pool: &str) -> Request {
    Request {
        pool: Some(pool.into()),
        ..v4()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn got(result: Result<Assignment, Refusal>) -> Vec<String> {
    result
        .unwrap()
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn adopt(a: &mut Allocator, name: &str, address: &str, recorded: Option<&str>) -> bool {
    let recorded = recorded.map(|pool| (pool, OnShrink::Keep));
    a.adopt(
        &service(name),
        ip(address),
        recorded,
        None,
        &Sharing::default(),
        false,
    )
}

fn refused(result: Result<Assignment, Refusal>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn lowest_free_address_first_and_asking_again_changes_nothing() {
    let mut a = allocator(vec![pool("p", &["192.0.2.8/30", "192.0.2.2-192.0.2.3"])]);
    assert_eq!(got(a.assign(&service("a"), &v4(), T0)), ["192.0.2.2"]);
    assert_eq!(got(a.assign(&service("b"), &v4(), T0)), ["192.0.2.3"]);
    assert_eq!(got(a.assign(&service("c"), &v4(), T0)), ["192.0.2.8"]);
    let again = a.assign(&service("a"), &v4(), T0).unwrap();
    assert_eq!(again.addresses, [ip("192.0.2.2")]);
    assert!(again.added.is_empty() && again.released.is_empty());
    a.release(&service("b"), T0);
    assert_eq!(got(a.assign(&service("d"), &v4(), T0)), ["192.0.2.3"]);
}

#[test]
fn order_is_pinned_by_priority_then_the_rest_by_name() {
    let pinned = |name: &str, priority, block: &str| PoolSpec {
        pinned: Some(priority),
        ..pool(name, &[block])
    };
    let mut a = allocator(vec![
        pool("a", &["192.0.2.1/32"]),
        pool("b", &["192.0.2.2/32"]),
        pinned("x", 0, "192.0.2.3/32"),
        pinned("y", 2, "192.0.2.4/32"),
        pinned("z", 1, "192.0.2.5/32"),
        pinned("other", 1, "192.0.2.6/32"),
        PoolSpec {
            auto_assign: false,
            ..pool("c", &["192.0.2.7/32"])
        },
    ]);
    let request = Request {
        closed: [(
            Arc::from("other"),
            "its namespaces do not include default".to_owned(),
        )]
        .into(),
        ..v4()
    };
    let order: Vec<_> = (0..5)
        .flat_map(|n| got(a.assign(&service(&format!("s{n}")), &request, T0)))
        .collect();
    assert_eq!(
        order,
        [
            "192.0.2.5",
            "192.0.2.4",
            "192.0.2.3",
            "192.0.2.1",
            "192.0.2.2"
        ]
    );
    let text = refused(a.assign(&service("late"), &request, T0));
    for part in [
        "pool \"other\": its namespaces do not include default",
        "pool \"c\": autoAssign is false",
        "pool \"a\": its only IPv4 address is in use",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn dual_stack_comes_from_one_pool_in_the_order_asked() {
    let mut a = allocator(vec![
        pool("a", &["192.0.2.1-192.0.2.9"]),
        pool("b", &["192.0.2.11/32", "2001:db8::1/128"]),
        pool("c", &["2001:db8::2/128"]),
    ]);
    let first = a.assign(&service("1"), &dual(Policy::RequireDual), T0);
    assert_eq!(got(first), ["2001:db8::1", "192.0.2.11"]);
    let text = refused(a.assign(&service("2"), &dual(Policy::RequireDual), T0));
    assert!(
        text.contains("pool \"a\": it has no usable IPv6 addresses"),
        "{text}"
    );
    assert!(
        text.contains("pool \"b\": its only IPv6 address is in use"),
        "{text}"
    );
    // Prefer falls back to one family, the first one asked for first.
    let third = a
        .assign(&service("3"), &dual(Policy::PreferDual), T0)
        .unwrap();
    assert_eq!(third.addresses, [ip("2001:db8::2")]);
    assert_eq!(third.unmet.unwrap().0, Family::V4);
    assert_eq!(
        got(a.assign(&service("4"), &dual(Policy::PreferDual), T0)),
        ["192.0.2.1"]
    );
}

#[test]
fn who_prefers_both_families_and_gets_none_is_told_of_each() {
    let mut a = allocator(vec![pool("p", &["192.0.2.1/32"])]);
    a.assign(&service("other"), &v4(), T0).unwrap();
    assert_eq!(
        refused(a.assign(&service("s"), &dual(Policy::PreferDual), T0)),
        "pool \"p\": it has no usable IPv6 addresses; \
         pool \"p\": its only IPv4 address is in use; add to its spec.addresses"
    );
}

/// What it waits for is told by that.
#[test]
fn who_has_one_family_and_requires_both_is_told_of_the_one_that_it_lacks() {
    let mut a = allocator(vec![
        pool("p", &["192.0.2.1/32", "2001:db8::1/128"]),
        pool("q", &["192.0.2.11/32"]),
    ]);
    let v6 = want(&[Family::V6], Policy::Single);
    a.assign(&service("other"), &v6, T0).unwrap();
    let both = |policy| want(&[Family::V4, Family::V6], policy);
    let one = a.assign(&service("s"), &both(Policy::PreferDual), T0);
    assert_eq!(got(one), ["192.0.2.1"]);
    assert_eq!(
        refused(a.assign(&service("s"), &both(Policy::RequireDual), T0)),
        "pool \"p\": its only IPv6 address is in use; add to its spec.addresses; \
         pool \"q\": it has no usable IPv6 addresses"
    );
    assert_eq!(a.release(&service("other"), T0), [ip("2001:db8::1")]);
    assert_eq!(
        got(a.assign(&service("s"), &both(Policy::RequireDual), T0)),
        ["192.0.2.1", "2001:db8::1"]
    );
}

#[test]
fn changing_the_policy_keeps_the_address() {
    let mut a = allocator(vec![pool("p", &["192.0.2.1-192.0.2.9", "2001:db8::/120"])]);
    let s = service("s");
    assert_eq!(got(a.assign(&s, &v4(), T0)), ["192.0.2.1"]);
    assert_eq!(
        got(a.assign(&s, &dual(Policy::PreferDual), T0)),
        ["2001:db8::", "192.0.2.1"]
    );
    assert_eq!(
        got(a.assign(&s, &dual(Policy::RequireDual), T0)),
        ["2001:db8::", "192.0.2.1"]
    );
    let back = a.assign(&s, &v4(), T0).unwrap();
    assert_eq!(back.addresses, [ip("192.0.2.1")]);
    assert_eq!(back.released, [ip("2001:db8::")]);
}

#[test]
fn explicit_addresses() {
    let mut a = allocator(vec![
        PoolSpec {
            auto_assign: false,
            avoid_buggy: true,
            ..pool("p", &["192.0.2.0/24"])
        },
        pool("q", &["198.51.100.0/24"]),
    ]);
    assert_eq!(
        got(a.assign(&service("a"), &exactly(&["192.0.2.7"]), T0)),
        ["192.0.2.7"]
    );
    for (request, reason) in [
        (
            exactly(&["192.0.2.7"]),
            "192.0.2.7 is held by Service default/a",
        ),
        (
            exactly(&["192.0.2.0"]),
            "192.0.2.0 is kept out of use: avoidBuggyIPs",
        ),
        (
            exactly(&["203.0.113.9"]),
            "pool \"q\": its spec.addresses do not contain 203.0.113.9",
        ),
        (exactly(&["2001:db8::1"]), "the Service is not IPv6"),
        (
            exactly(&["192.0.2.7", "192.0.2.8"]),
            "at most one per family",
        ),
        (
            Request {
                pool: Some("q".into()),
                ..exactly(&["192.0.2.8"])
            },
            "pool \"q\": its spec.addresses do not contain 192.0.2.8",
        ),
    ] {
        let text = refused(a.assign(&service("b"), &request, T0));
        assert!(text.contains(reason), "{text}");
    }
    // Who asks for another address keeps the old one until the new one can be had.
    a.assign(&service("b"), &v4(), T0).unwrap();
    refused(a.assign(&service("b"), &exactly(&["192.0.2.7"]), T0));
    assert_eq!(a.held_by(&service("b")), [ip("198.51.100.0")]);
    a.release(&service("a"), T0);
    let moved = a
        .assign(&service("b"), &exactly(&["192.0.2.7"]), T0)
        .unwrap();
    assert_eq!(moved.released, [ip("198.51.100.0")]);
}

#[test]
fn named_pools() {
    let mut a = allocator(vec![
        pool("a", &["192.0.2.1/32"]),
        PoolSpec {
            auto_assign: false,
            ..pool("b", &["192.0.2.2/32"])
        },
    ]);
    let s = service("s");
    assert_eq!(got(a.assign(&s, &v4(), T0)), ["192.0.2.1"]);
    assert_eq!(got(a.assign(&s, &named("b"), T0)), ["192.0.2.2"]);
    let text = refused(a.assign(&s, &named("nope"), T0));
    assert_eq!(
        text,
        "there is no AddressPool \"nope\"; create it, or name one of: a, b"
    );
    assert_eq!(a.held_by(&s), [ip("192.0.2.2")]);
    let closed = Request {
        closed: [(Arc::from("a"), "not for you".to_owned())].into(),
        ..named("a")
    };
    assert!(refused(a.assign(&service("t"), &closed, T0)).contains("not for you"));
}

#[test]
fn no_pool_at_all_is_said() {
    let mut a = allocator(vec![]);
    assert_eq!(
        refused(a.assign(&service("a"), &v4(), T0)),
        "there is no AddressPool; create one"
    );
    assert_eq!(
        refused(a.assign(&service("a"), &exactly(&["192.0.2.1"]), T0)),
        "there is no AddressPool; create one"
    );
    assert!(refused(a.assign(&service("a"), &named("p"), T0)).contains("nor any other"));
}

#[test]
fn a_released_address_rests_unless_nothing_else_is_free() {
    let mut a = allocator(vec![PoolSpec {
        reuse_delay: Duration::from_secs(60),
        ..pool("p", &["192.0.2.1-192.0.2.3"])
    }]);
    let at = Duration::from_secs;
    a.assign(&service("a"), &v4(), at(0)).unwrap();
    a.release(&service("a"), at(10));
    assert_eq!(got(a.assign(&service("b"), &v4(), at(11))), ["192.0.2.2"]);
    assert_eq!(got(a.assign(&service("c"), &v4(), at(12))), ["192.0.2.3"]);
    assert_eq!(got(a.assign(&service("d"), &v4(), at(13))), ["192.0.2.1"]);
    a.release(&service("d"), at(20));
    a.release(&service("c"), at(30));
    assert_eq!(got(a.assign(&service("e"), &v4(), at(80))), ["192.0.2.1"]);
}

#[test]
fn overlaps_are_refused_on_the_later_pool_only() {
    let mut old = pool("z-old", &["192.0.2.0/28"]);
    old.created = 1;
    let mut new = pool(
        "a-new",
        &["192.0.2.8/29", "198.51.100.0/31", "198.51.100.1/32", "x"],
    );
    new.created = 2;
    let mut a = allocator(vec![new, old]);
    let problems: Vec<_> = a
        .pools()
        .get("a-new")
        .unwrap()
        .problems
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(problems.len(), 3);
    assert!(problems[0].contains("192.0.2.8-192.0.2.15 is out of use: it overlaps 192.0.2.0-192.0.2.15 of the older pool \"z-old\""));
    assert!(problems[1].contains("of this same pool"));
    assert!(problems[2].contains("neither a CIDR nor a range"));
    assert!(a.pools().get("z-old").unwrap().problems.is_empty());
    assert_eq!(a.usage("a-new", Family::V4).total, 2);
    assert_eq!(got(a.assign(&service("s"), &v4(), T0)), ["198.51.100.0"]);
}

#[test]
fn pools_that_shrink_or_go_take_nothing_away() {
    let mut a = allocator(vec![pool("p", &["192.0.2.0/24"])]);
    a.assign(&service("s"), &v4(), T0).unwrap();
    a.set_pools(vec![pool("p", &["198.51.100.0/24"])]);
    assert_eq!(got(a.assign(&service("s"), &v4(), T0)), ["192.0.2.0"]);
    assert_eq!(a.usage("p", Family::V4).assigned, 1);
    a.set_pools(vec![]);
    assert_eq!(got(a.assign(&service("s"), &v4(), T0)), ["192.0.2.0"]);
    a.set_pools(vec![pool("q", &["192.0.2.0/30"])]);
    assert_eq!(&*a.holding(ip("192.0.2.0")).unwrap().pool, "q");
    assert_eq!(
        a.usage("q", Family::V4),
        Usage {
            total: 4,
            assigned: 1,
            available: 3,
            quarantined: 0,
        }
    );
    assert_eq!(a.usage("p", Family::V4).assigned, 0);
}

#[test]
fn adoption_keeps_and_the_first_one_wins() {
    let mut a = allocator(vec![pool("p", &["192.0.2.0/28"])]);
    assert!(adopt(&mut a, "old", "192.0.2.5", None));
    assert!(!adopt(&mut a, "young", "192.0.2.5", None));
    assert!(adopt(&mut a, "old", "192.0.2.5", None));
    assert!(!adopt(&mut a, "alien", "203.0.113.1", None));
    assert!(adopt(&mut a, "orphan", "203.0.113.1", Some("gone")));
    assert_eq!(got(a.assign(&service("old"), &v4(), T0)), ["192.0.2.5"]);
    assert_eq!(
        got(a.assign(&service("orphan"), &v4(), T0)),
        ["203.0.113.1"]
    );
    assert_eq!(got(a.assign(&service("young"), &v4(), T0)), ["192.0.2.0"]);
}

#[test]
fn the_whole_ipv6_space_is_no_burden() {
    let mut a = allocator(vec![pool(
        "p",
        &["2001:db8::/32", "2001:db7::-2001:db7::5"],
    )]);
    let v6 = want(&[Family::V6], Policy::Single);
    for n in 0..10_000 {
        a.assign(&service(&n.to_string()), &v6, T0).unwrap();
    }
    assert_eq!(a.usage("p", Family::V6).assigned, 10_000);
    assert_eq!(a.usage("p", Family::V6).total, (1 << 96) + 6);
}

#[test]
fn buggy_addresses_are_skipped() {
    let mut a = allocator(vec![PoolSpec {
        avoid_buggy: true,
        ..pool("p", &["192.0.2.254-192.0.3.1"])
    }]);
    assert_eq!(got(a.assign(&service("a"), &v4(), T0)), ["192.0.2.254"]);
    assert_eq!(got(a.assign(&service("b"), &v4(), T0)), ["192.0.3.1"]);
    let text = refused(a.assign(&service("c"), &v4(), T0));
    assert!(
        text.contains("all of its 2 IPv4 addresses are in use"),
        "{text}"
    );
}
