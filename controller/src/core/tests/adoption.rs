//! What conditions say, and that a freed address concerns those alone that wait for it.

use super::*;

#[test]
fn the_condition_tells_the_whole_story() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1/32"])]);
    w.put(wants("a", 10));
    w.put(wants("b", 11));
    assert_eq!(
        w.told("a"),
        (
            true,
            "Assigned".into(),
            "192.0.2.1 from pool \"lan\"".into()
        )
    );
    let (met, reason, message) = w.told("b");
    assert_eq!((met, &*reason), (false, "AllocationFailed"));
    assert_eq!(
        message,
        "no address: pool \"lan\": its only IPv4 address is in use; add to its spec.addresses"
    );
    // A restart has nothing to say, to those that wait neither.
    w.restart();
    w.quiet();
    let since = |w: &World| w.services[&id("b")].told.as_ref().unwrap().since;
    let before = since(&w);
    w.put_pool(pool("six", 2, &["2001:db8::/64"]));
    assert!(w.told("b").2.contains("pool \"six\""));
    assert_eq!(since(&w), before);
    w.delete("a");
    assert!(w.told("b").0);
    assert!(since(&w) > before);
    // A condition written by another hand is put right.
    let view = w.services.get_mut(&id("b")).unwrap();
    view.told.as_mut().unwrap().verdict.message = "forged".into();
    let view = view.clone();
    w.feed(Input::Services(Change::Applied(view)));
    assert_eq!(w.told("b").2, "192.0.2.1 from pool \"lan\"");
    // And one that is not ours any more has none.
    w.put(service("b", 11, Demand::Nothing));
    assert_eq!(w.services[&id("b")].told, None);
    assert_eq!(w.shows("b"), [""; 0]);
}

#[test]
fn handling_one_service_writes_to_no_other() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.3"])]);
    for n in 0..20 {
        w.put(wants(&format!("s{n:02}"), n));
    }
    w.writes.clear();
    w.delete("s01");
    let touched: BTreeSet<_> = w
        .writes
        .iter()
        .map(|write| write.key().to_string())
        .collect();
    let expected = ["Service shop/s03", "VirtualIP 192.0.2.2"];
    assert_eq!(touched, expected.map(str::to_owned).into());
}

#[test]
fn requiring_both_families_and_then_one_keeps_the_address() {
    let dual = |policy, families: &[lightship_ipam::Family]| Wish {
        families: families.to_vec(),
        policy,
        ..wish()
    };
    use lightship_ipam::{Family, Policy};
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.0/28", "2001:db8::/120"])]);
    w.put(wants("first", 1));
    let both = dual(Policy::RequireDual, &[Family::V6, Family::V4]);
    w.put(service("a", 10, Demand::Addresses(both)));
    assert_eq!(w.shows("a"), ["2001:db8::", "192.0.2.1"]);
    w.delete("first");
    let one = dual(Policy::Single, &[Family::V4]);
    w.put(service("a", 10, Demand::Addresses(one)));
    assert_eq!(w.shows("a"), ["192.0.2.1"]);
    assert_eq!(w.vip_names(), ["192.0.2.1"]);
}

#[test]
fn requiring_both_families_later_moves_to_a_pool_that_has_them() {
    use lightship_ipam::{Family, Policy};
    let dual = |policy| Wish {
        families: vec![Family::V4, Family::V6],
        policy,
        ..wish()
    };
    let pools = vec![pool("a", 1, &["192.0.2.0/28"])];
    let mut w = World::started(pools);
    w.put(service(
        "s",
        10,
        Demand::Addresses(dual(Policy::PreferDual)),
    ));
    assert_eq!(w.shows("s"), ["192.0.2.0"]);
    assert_eq!(w.told("s").1, "AdditionalAssignFailed");
    w.put(service(
        "s",
        10,
        Demand::Addresses(dual(Policy::RequireDual)),
    ));
    assert_eq!(
        (w.shows("s"), w.told("s").0),
        (vec!["192.0.2.0".into()], false)
    );
    w.put_pool(pool("b", 2, &["198.51.100.0/28", "2001:db8::/120"]));
    assert_eq!(w.shows("s"), ["198.51.100.0", "2001:db8::"]);
}

#[test]
fn preferring_both_is_told_once() {
    use lightship_ipam::{Family, Policy};
    let wish = Wish {
        families: vec![Family::V4, Family::V6],
        policy: Policy::PreferDual,
        ..wish()
    };
    let mut w = World::started(vec![
        pool("a", 1, &["192.0.2.0/28"]),
        pool("b", 2, &["198.51.100.0/28"]),
    ]);
    w.put(service("s", 10, Demand::Addresses(wish)));
    let told = w.heard();
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn a_service_waits_for_the_labels_of_its_namespace() {
    let rules = serde_json::json!({ "namespaceSelectors": [{ "matchLabels": { "tenant": "a" } }] });
    let mut gold = pool("z-gold", 1, &["198.51.100.1/32"]);
    gold.allocation = Some(serde_json::from_value(rules).unwrap());
    gold.spec.pinned = Some(1);
    let mut w = World::started(vec![gold, pool("a-rest", 2, &["192.0.2.0/28"])]);
    let there = ServiceId::new("t1", "web");
    let view = ServiceView {
        id: there.clone(),
        ..wants("web", 10)
    };
    w.services.insert(there.clone(), view.clone());
    w.feed(Input::Services(Change::Applied(view)));
    assert!(w.services[&there].ingress.is_empty() && w.heard().is_empty());
    let labels: BTreeMap<_, _> = [("tenant".to_owned(), "a".to_owned())].into();
    let name = "t1".into();
    w.feed(Input::Namespaces(Change::Applied(NamespaceView {
        name,
        labels,
    })));
    assert_eq!(w.services[&there].ingress, [shown("198.51.100.1")]);
}

#[test]
fn what_another_load_balancer_shows_stays_beside_a_claim() {
    let mut open = pool("open", 1, &["192.0.2.1-192.0.2.9"]);
    open.spec.external_ips = true;
    let mut w = World::started(vec![open]);
    w.put(ServiceView {
        claims: vec!["192.0.2.8".parse().unwrap()],
        ..service("x", 10, Demand::Nothing)
    });
    assert_eq!(w.vip_names(), ["192.0.2.8"]);
    let view = w.services.get_mut(&id("x")).unwrap();
    view.ingress = vec![shown("203.0.113.5")];
    let view = view.clone();
    w.feed(Input::Services(Change::Applied(view)));
    assert_eq!(w.shows("x"), ["203.0.113.5"]);
}

#[test]
fn addresses_of_another_load_balancer_are_kept_once_a_pool_offers_them() {
    let mut w = World::started(vec![]);
    for (name, ip) in [("a", "192.0.2.5"), ("b", "192.0.2.5"), ("c", "203.0.113.9")] {
        let mut view = wants(name, 10);
        view.ingress = vec![shown(ip)];
        w.services.insert(view.id.clone(), view.clone());
        w.feed(Input::Services(Change::Applied(view)));
    }
    w.put_pool(pool("lan", 1, &["192.0.2.0/28"]));
    assert_eq!(
        (w.shows("a"), w.shows("b"), w.shows("c")),
        (
            vec!["192.0.2.5".into()],
            vec!["192.0.2.0".into()],
            vec!["192.0.2.1".into()]
        )
    );
    assert_eq!(w.vips["192.0.2.5"].used_by, "shop/a");
}

#[test]
fn what_another_load_balancer_gave_is_nobody_elses_when_the_pool_comes_late() {
    let rules = serde_json::json!({ "namespaces": ["elsewhere"] });
    let mut gold = pool("gold", 2, &["198.51.100.0/28"]);
    gold.allocation = Some(serde_json::from_value(rules).unwrap());
    let pools = [pool("lan", 1, &["192.0.2.0/28"]), gold];
    let unclear = Demand::Unclear("addresses: no".into());
    let views = [
        wants("oldest", 10),
        ServiceView {
            ingress: vec![shown("192.0.2.0")],
            ..wants("served", 20)
        },
        ServiceView {
            ingress: vec![shown("192.0.2.1")],
            ..service("unclear", 21, unclear)
        },
        ServiceView {
            ingress: vec![shown("198.51.100.3")],
            ..wants("closed", 22)
        },
    ];
    // Before the controller starts, or after.
    for late in [false, true] {
        let mut w = World::default();
        let early = pools.iter().filter(|_| !late);
        w.pools = early
            .map(|pool| (pool.spec.name.clone(), pool.clone()))
            .collect();
        w.services = views
            .iter()
            .map(|view| (view.id.clone(), view.clone()))
            .collect();
        w.restart();
        for pool in pools.iter().rev().filter(|_| late) {
            w.put_pool(pool.clone());
        }
        let shows: Vec<_> = views
            .iter()
            .flat_map(|view| w.shows(&view.id.name))
            .collect();
        assert_eq!(
            shows,
            ["192.0.2.2", "192.0.2.0", "192.0.2.1", "198.51.100.3"],
            "late: {late}"
        );
        assert_eq!(w.told("closed").1, "KeptOutsidePool");
    }
}
