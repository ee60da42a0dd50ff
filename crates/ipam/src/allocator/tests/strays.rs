//! Addresses that a pool does not offer (any more).

use super::*;

fn wants_back(blocks: &[&str]) -> PoolSpec {
    PoolSpec {
        on_shrink: OnShrink::Reallocate,
        ..pool("p", blocks)
    }
}

fn settle(a: &mut Allocator, name: &str) -> Vec<String> {
    let lost = a.settle(&service(name), &Sharing::default(), &BTreeMap::new(), T0);
    lost.iter().map(|(_, why)| why.to_string()).collect()
}

#[test]
fn reserved_addresses_are_not_given_and_not_counted() {
    let mut a = allocator(vec![pool("p", &["192.0.2.0/29"])]);
    let whose = [
        ("192.0.2.0", "the network address of 192.0.2.0/24"),
        ("192.0.2.1", "the gateway"),
        ("192.0.2.3", "node n1"),
    ];
    a.set_reserved(
        whose
            .map(|(address, whose)| (ip(address), Arc::from(whose)))
            .into(),
    );
    assert_eq!(a.usage("p", Family::V4).total, 5);
    assert_eq!(got(a.assign(&service("a"), &v4(), T0)), ["192.0.2.2"]);
    assert_eq!(got(a.assign(&service("b"), &v4(), T0)), ["192.0.2.4"]);
    let text = refused(a.assign(&service("c"), &exactly(&["192.0.2.3"]), T0));
    assert!(
        text.contains("192.0.2.3 is kept out of use: node n1"),
        "{text}"
    );
    assert_eq!(a.reserved_of("p").len(), 3);
    // A node that comes later takes nothing away, but it is said.
    a.set_reserved([(ip("192.0.2.2"), Arc::from("node n2"))].into());
    assert_eq!(settle(&mut a, "a"), [""; 0]);
    assert_eq!(a.strays_of("p").collect::<Vec<_>>(), [ip("192.0.2.2")]);
    a.release(&service("a"), T0);
    assert_eq!(a.strays_of("p").count(), 0);
}

#[test]
fn what_a_pool_lost_is_kept_and_does_not_use_up_what_it_has() {
    let mut a = allocator(vec![pool("p", &["192.0.2.0/30"])]);
    a.assign(&service("a"), &v4(), T0).unwrap();
    a.set_pools(vec![pool("p", &["192.0.2.2/31"])]);
    assert_eq!(settle(&mut a, "a"), [""; 0]);
    let usage = a.usage("p", Family::V4);
    assert_eq!((usage.total, usage.assigned, usage.available), (2, 1, 2));
    assert_eq!(a.strays_of("p").collect::<Vec<_>>(), [ip("192.0.2.0")]);
    a.set_pools(vec![pool("p", &["192.0.2.0/30"])]);
    assert_eq!(a.strays_of("p").count(), 0);
}

#[test]
fn a_pool_may_want_its_addresses_back() {
    let mut a = allocator(vec![wants_back(&["192.0.2.0/30"])]);
    for name in ["a", "b"] {
        a.assign(&service(name), &v4(), T0).unwrap();
    }
    a.set_pools(vec![wants_back(&["192.0.2.1-192.0.2.3"])]);
    let lost = settle(&mut a, "a");
    assert!(
        lost.len() == 1 && lost[0].contains("do not contain 192.0.2.0"),
        "{lost:?}"
    );
    assert_eq!(settle(&mut a, "b"), [""; 0]);
    assert_eq!(got(a.assign(&service("a"), &v4(), T0)), ["192.0.2.2"]);
    // Also when it goes altogether, and when Services are shut out.
    a.set_pools(vec![]);
    assert_eq!(settle(&mut a, "a").len(), 1);
    a.set_pools(vec![wants_back(&["192.0.2.0/30"])]);
    let closed = [(Arc::from("p"), "no".to_owned())].into();
    let lost = a.settle(&service("b"), &Sharing::default(), &closed, T0);
    assert_eq!(lost.len(), 1);
}

#[test]
fn a_named_pool_that_another_one_overlaps_keeps_its_holder() {
    let lan = || pool("lan", &["192.0.2.8/30", "198.51.100.0/30"]);
    let old = |blocks: &[&str]| PoolSpec {
        created: -1,
        ..pool("old", blocks)
    };
    let mut a = allocator(vec![lan()]);
    let s = service("s");
    assert_eq!(got(a.assign(&s, &named("lan"), T0)), ["192.0.2.8"]);
    // By mistake or not: it did not ask for another.
    for (pools, why) in [
        (
            vec![old(&["192.0.2.0/24"]), lan()],
            "out of use by an overlap",
        ),
        (
            vec![old(&["192.0.2.8/32"]), pool("lan", &["198.51.100.0/30"])],
            "its spec.addresses do not contain 192.0.2.8",
        ),
        (vec![old(&["192.0.2.8/32"])], "it was deleted"),
    ] {
        a.set_pools(pools);
        assert_eq!(got(a.assign(&s, &named("lan"), T0)), ["192.0.2.8"]);
        assert_eq!(&*a.holding(ip("192.0.2.8")).unwrap().pool, "lan");
        let told = a.stray(ip("192.0.2.8"), &BTreeMap::new(), false).unwrap();
        assert!(told.to_string().contains(why), "{told}");
        assert_eq!(a.strays_of("lan").collect::<Vec<_>>(), [ip("192.0.2.8")]);
        let usage = a.usage("old", Family::V4);
        assert_eq!((usage.assigned, usage.available), (0, usage.total - 1));
    }
    // A restart finds it as it was.
    let mut after = allocator(vec![old(&["192.0.2.8/32"]), lan()]);
    let (recorded, none) = (Some(("lan", OnShrink::Keep)), Sharing::default());
    assert!(after.adopt(&s, ip("192.0.2.8"), recorded, Some("lan"), &none, false));
    assert_eq!(got(after.assign(&s, &named("lan"), T0)), ["192.0.2.8"]);
    assert_eq!(after.usage("lan", Family::V4).assigned, 1);
    // Who asks for nothing or for another pool is of the pool that has it now.
    assert_eq!(got(after.assign(&s, &v4(), T0)), ["192.0.2.8"]);
    assert_eq!(&*after.holding(ip("192.0.2.8")).unwrap().pool, "old");
    assert_eq!(after.usage("lan", Family::V4).assigned, 0);
    assert_eq!(after.strays_of("lan").count(), 0);
    assert_eq!(got(after.assign(&s, &named("old"), T0)), ["192.0.2.8"]);
    assert_eq!(got(after.assign(&s, &named("lan"), T0)), ["198.51.100.0"]);
}

#[test]
fn a_named_pool_that_wants_its_addresses_back_gives_another() {
    let back = |blocks: &[&str]| PoolSpec {
        on_shrink: OnShrink::Reallocate,
        ..pool("lan", blocks)
    };
    let mut a = allocator(vec![back(&["192.0.2.8/30"])]);
    let s = service("s");
    a.assign(&s, &named("lan"), T0).unwrap();
    a.set_pools(vec![
        pool("old", &["192.0.2.8/30"]),
        back(&["198.51.100.0/30"]),
    ]);
    assert_eq!(got(a.assign(&s, &named("lan"), T0)), ["198.51.100.0"]);
}

#[test]
fn a_range_that_cannot_be_read_costs_nobody_anything() {
    let mut a = allocator(vec![wants_back(&["192.0.2.0-192.0.2.3"])]);
    a.assign(&service("a"), &v4(), T0).unwrap();
    a.set_pools(vec![wants_back(&["192.0.2.3-192.0.2.0"])]);
    assert_eq!(settle(&mut a, "a"), [""; 0]);
    a.set_pools(vec![wants_back(&["192.0.2.1-192.0.2.3"])]);
    assert_eq!(settle(&mut a, "a").len(), 1);
}

#[test]
fn a_missing_second_family_is_explained_when_the_pool_is_gone() {
    let mut a = allocator(vec![pool("p", &["192.0.2.0/30"])]);
    let s = service("s");
    a.assign(&s, &dual(Policy::PreferDual), T0).unwrap();
    a.set_pools(vec![]);
    let (family, faults) = a
        .assign(&s, &dual(Policy::PreferDual), T0)
        .unwrap()
        .unmet
        .unwrap();
    assert_eq!(family, Family::V6);
    assert!(faults[0].to_string().contains("pool \"p\": it was deleted"));
}

#[test]
fn an_address_and_a_pool_that_contradict_each_other_are_refused_in_any_order() {
    let both = Request {
        pool: Some("q".into()),
        ..exactly(&["192.0.2.7"])
    };
    let mut a = allocator(vec![
        pool("p", &["192.0.2.0/28"]),
        pool("q", &["198.51.100.0/28"]),
    ]);
    let said = "pool \"q\": its spec.addresses do not contain 192.0.2.7";
    assert_eq!(refused(a.assign(&service("at-once"), &both, T0)), said);
    let s = service("later");
    a.assign(&s, &exactly(&["192.0.2.7"]), T0).unwrap();
    assert_eq!(refused(a.assign(&s, &both, T0)), said);
    assert_eq!(a.held_by(&s), [ip("192.0.2.7")]);
    // Of the pool that it names it may be and go with.
    let of_p = Request {
        pool: Some("p".into()),
        ..exactly(&["192.0.2.7"])
    };
    assert_eq!(got(a.assign(&s, &of_p, T0)), ["192.0.2.7"]);
    a.set_pools(vec![]);
    assert_eq!(got(a.assign(&s, &of_p, T0)), ["192.0.2.7"]);
}

#[test]
fn what_a_pool_that_is_gone_gave_rests_all_the_same() {
    let delayed = PoolSpec {
        reuse_delay: Duration::from_secs(90),
        ..pool("p", &["192.0.2.0/30"])
    };
    let mut a = allocator(vec![delayed]);
    a.assign(&service("a"), &v4(), T0).unwrap();
    a.set_pools(vec![]);
    a.release(&service("a"), Duration::from_secs(1));
    let rests: Vec<_> = a
        .resting()
        .map(|(address, rest)| (address, rest.until))
        .collect();
    assert_eq!(rests, [(ip("192.0.2.0"), Duration::from_secs(91))]);
    a.set_pools(vec![pool("q", &["192.0.2.0/30"])]);
    assert_eq!(got(a.assign(&service("b"), &v4(), T0)), ["192.0.2.1"]);
}
