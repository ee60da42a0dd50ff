//! Addresses that pools do not offer (any more), and addresses that rest.

use std::time::Duration;

use super::*;
use crate::model::{NamedPool, SpeakerView};

fn wants_back(blocks: &[&str]) -> PoolView {
    let mut view = pool("lan", 1, blocks);
    view.spec.on_shrink = lightship_ipam::OnShrink::Reallocate;
    view
}

fn condition(w: &World, pool: &str, kind: &str) -> Option<String> {
    let status = w.pools[pool].status.as_ref().unwrap();
    let found = status.conditions.iter().find(|c| c.type_ == kind)?;
    assert_eq!(found.status, "True");
    Some(found.message.clone())
}

#[test]
fn a_shrunk_pool_keeps_and_flags() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.0/28"])]);
    w.put(wants("a", 10));
    w.put_pool(pool("lan", 1, &["192.0.2.8/29"]));
    assert_eq!(w.shows("a"), ["192.0.2.0"]);
    let message = condition(&w, "lan", "AddressesOutside").unwrap();
    assert!(message.contains("192.0.2.0 (shop/a)"), "{message}");
    let kept =
        "keeps 192.0.2.0, although pool \"lan\": its spec.addresses do not contain 192.0.2.0";
    assert_eq!(w.told("a"), (true, "KeptOutsidePool".into(), kept.into()));
    assert!(w.heard().contains(&format!("KeptOutsidePool: {kept}")));
    w.restart();
    w.quiet();
    w.put_pool(pool("lan", 1, &["192.0.2.0/28"]));
    assert_eq!(condition(&w, "lan", "AddressesOutside"), None);
    assert_eq!(w.told("a").1, "Assigned");
    // A pool that is gone leaves its holders alone, too, and another may cover them.
    w.delete_pool("lan");
    assert_eq!(w.told("a").1, "KeptOutsidePool");
    w.put_pool(pool("other", 5, &["192.0.2.0/30"]));
    assert_eq!(w.told("a").2, "192.0.2.0 from pool \"other\"");
}

#[test]
fn a_pool_may_have_its_holders_move() {
    let mut w = World::started(vec![
        wants_back(&["192.0.2.0/28"]),
        pool("next", 2, &["198.51.100.0/30"]),
    ]);
    w.put(wants("a", 10));
    w.put(asks("b", 11, "192.0.2.1"));
    w.heard();
    w.put_pool(wants_back(&["192.0.2.8/29"]));
    assert_eq!(
        (w.shows("a"), w.shows("b")),
        (vec!["192.0.2.8".into()], vec![])
    );
    let heard = w.heard();
    assert!(
        heard
            .iter()
            .any(|text| text.starts_with("ClearAssignment: took 192.0.2.0 back")),
        "{heard:?}"
    );
    assert!(!w.told("b").0);
    w.delete_pool("lan");
    assert_eq!(w.shows("a"), ["198.51.100.0"]);
}

#[test]
fn a_pool_that_wanted_its_addresses_back_and_went_unseen() {
    let mut w = World::started(vec![wants_back(&["192.0.2.0/28"])]);
    w.put(wants("a", 10));
    w.pools.clear();
    w.restart();
    assert_eq!(w.shows("a"), [""; 0]);
    assert!(w.vips.is_empty());
}

#[test]
fn addresses_of_nodes_routers_and_networks_are_not_given_away() {
    let mut w = World {
        nodes: vec![NodeView {
            name: "n1".into(),
            addresses: vec!["192.0.2.2".parse().unwrap()],
        }],
        speakers: vec![SpeakerView {
            name: "n1".into(),
            networks: vec![
                "192.0.2.2/24".parse().unwrap(),
                "2001:db8::2/64".parse().unwrap(),
            ],
            gateways: vec!["192.0.2.1".parse().unwrap()],
        }],
        ..World::default()
    };
    let lan = pool("lan", 1, &["192.0.2.0/29"]);
    w.pools.insert(lan.spec.name.clone(), lan);
    w.restart();
    w.put(wants("a", 10));
    assert_eq!(w.shows("a"), ["192.0.2.3"]);
    assert_eq!(w.pools["lan"].status.as_ref().unwrap().ipv4.total, 5);
    let message = condition(&w, "lan", "AddressesWithheld").unwrap();
    assert_eq!(
        message,
        "never given out are 192.0.2.0: the network address of 192.0.2.0/24; \
         192.0.2.1: the nodes' default gateway; 192.0.2.2: an address of node n1"
    );
    assert_eq!(w.heard()[0], format!("AddressesWithheld: {message}"));
    w.restart();
    w.quiet();
    // A node that comes and has an address that is in use: said, not taken.
    let node = NodeView {
        name: "n2".into(),
        addresses: vec!["192.0.2.3".parse().unwrap()],
    };
    w.feed(Input::Nodes(Change::Applied(node.clone())));
    assert_eq!(w.shows("a"), ["192.0.2.3"]);
    assert!(
        w.told("a")
            .2
            .contains("192.0.2.3 is kept out of use: an address of node n2")
    );
    w.heard();
    w.writes.clear();
    w.feed(Input::Nodes(Change::Applied(node)));
    w.quiet();
}

#[test]
fn rests_survive_a_restart_and_end() {
    let mut lan = pool("lan", 1, &["192.0.2.0/30"]);
    lan.spec.reuse_delay = Duration::from_secs(60);
    let mut w = World::started(vec![lan]);
    w.put(wants("a", 10));
    w.delete("a");
    let status = w.pools["lan"].status.clone().unwrap();
    assert_eq!((status.ipv4.quarantined, status.ipv4.available), (1, 4));
    assert_eq!(status.resting[0].service, "shop/a");
    w.restart();
    w.quiet();
    w.put(wants("b", 11));
    assert_eq!(w.shows("b"), ["192.0.2.1"]);
    w.wait(100);
    let status = w.pools["lan"].status.clone().unwrap();
    assert_eq!((status.ipv4.quarantined, status.resting.len()), (0, 0));
    w.put(wants("c", 12));
    assert_eq!(w.shows("c"), ["192.0.2.0"]);
}

#[test]
fn hashed_pools_give_a_service_its_address_again() {
    let mut lan = pool("lan", 1, &["192.0.2.0/24"]);
    lan.spec.order = lightship_ipam::Order::Hashed;
    lan.spec.reuse_delay = Duration::from_secs(60);
    let mut w = World::started(vec![lan]);
    w.put(wants("a", 10));
    let before = w.shows("a");
    w.delete("a");
    w.restart();
    w.put(wants("a", 20));
    assert_eq!(w.shows("a"), before);
}

#[test]
fn a_mistake_in_an_older_pool_costs_the_holders_of_another_nothing() {
    let mut newer = wants_back(&["198.51.100.0/28"]);
    newer.spec.created = 9;
    let mut w = World::started(vec![pool("old", 1, &["192.0.2.0/28"]), newer]);
    let mut wish = wish();
    wish.pool = Some(NamedPool {
        name: "lan".into(),
        by: "lightship.dev/pool",
    });
    w.put(service("a", 10, Demand::Addresses(wish)));
    assert_eq!(w.shows("a"), ["198.51.100.0"]);
    w.put_pool(pool(
        "old",
        1,
        &["192.0.2.0/28", "198.51.100.8-198.51.100.20"],
    ));
    assert_eq!(w.shows("a"), ["198.51.100.0"]);
    assert_eq!(w.ready("lan").0, "False");
}

#[test]
fn an_address_rests_while_another_pool_has_one_that_does_not() {
    let mut first = pool("a", 1, &["192.0.2.1/32"]);
    first.spec.reuse_delay = Duration::from_secs(60);
    let mut w = World::started(vec![first, pool("b", 2, &["198.51.100.1/32"])]);
    w.put(wants("one", 10));
    w.delete("one");
    w.put(wants("two", 11));
    w.put(wants("three", 12));
    assert_eq!(
        (w.shows("two"), w.shows("three")),
        (vec!["198.51.100.1".into()], vec!["192.0.2.1".into()])
    );
}

fn of_pool(name: &str, created: i64, pool: &str) -> ServiceView {
    let mut wish = wish();
    wish.pool = Some(NamedPool {
        name: pool.into(),
        by: "lightship.dev/pool",
    });
    service(name, created, Demand::Addresses(wish))
}

#[test]
fn a_service_that_names_its_pool_stays_when_another_one_covers_its_address() {
    let lan = pool("lan", 9, &["192.0.2.9/32", "198.51.100.0/28"]);
    let mut w = World::started(vec![pool("old", 1, &["203.0.113.0/28"]), lan]);
    w.put(of_pool("a", 10, "lan"));
    for pools in [
        // An overlap, and a range that goes over to another pool.
        [
            pool("old", 1, &["192.0.2.0/28"]),
            pool("lan", 9, &["192.0.2.9/32", "198.51.100.0/28"]),
        ],
        [
            pool("old", 1, &["192.0.2.0/28"]),
            pool("lan", 9, &["198.51.100.0/28"]),
        ],
    ] {
        for pool in pools {
            w.put_pool(pool);
        }
        assert_eq!(w.shows("a"), ["192.0.2.9"]);
        assert_eq!(w.told("a").1, "KeptOutsidePool");
        assert!(condition(&w, "lan", "AddressesOutside").is_some());
        assert_eq!(w.vips["192.0.2.9"].pool, "lan");
        w.restart();
        w.quiet();
    }
    // An unclear request has not asked for another pool, over a restart neither.
    let unclear = Demand::Unclear("addresses: no".into());
    w.put(service("a", 10, unclear));
    w.restart();
    w.put(of_pool("a", 10, "lan"));
    assert_eq!(w.shows("a"), ["192.0.2.9"]);
    w.put(of_pool("a", 10, "old"));
    assert_eq!(
        (w.shows("a"), w.told("a").1),
        (vec!["192.0.2.9".into()], "Assigned".into())
    );
    assert_eq!(w.vips["192.0.2.9"].pool, "old");
    w.put(of_pool("a", 10, "lan"));
    assert_eq!(w.shows("a"), ["198.51.100.0"]);
}

#[test]
fn a_slip_of_the_pen_does_not_make_anybody_move() {
    let mut w = World::started(vec![
        wants_back(&["192.0.2.0-192.0.2.9"]),
        pool("next", 2, &["198.51.100.0/28"]),
    ]);
    w.put(wants("a", 10));
    w.put_pool(wants_back(&["192.0.2.9-192.0.2.0"]));
    assert_eq!(w.shows("a"), ["192.0.2.0"]);
    assert_eq!(w.told("a").1, "KeptOutsidePool");
}

#[test]
fn what_is_kept_outside_its_pool_is_flagged_whatever_else_is_amiss() {
    use lightship_ipam::{Family, Policy};
    let dual = Wish {
        families: vec![Family::V4, Family::V6],
        policy: Policy::PreferDual,
        ..wish()
    };
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.0/28"])]);
    w.put(service("both", 10, Demand::Addresses(dual)));
    w.put(wants("one", 11));
    assert_eq!(w.told("both").1, "AdditionalAssignFailed");
    w.put_pool(pool("lan", 1, &["198.51.100.0/28"]));
    let kept = "keeps 192.0.2.0, although pool \"lan\": its spec.addresses do not contain 192.0.2.0; \
                no IPv6 address beside 192.0.2.0: pool \"lan\": it has no usable IPv6 addresses";
    assert_eq!(
        w.told("both"),
        (true, "KeptOutsidePool".into(), kept.into())
    );
    w.delete_pool("lan");
    let kept = "keeps 192.0.2.0, although pool \"lan\": it was deleted; create it again, or another with \
                its addresses; no IPv6 address beside 192.0.2.0: pool \"lan\": it was deleted; \
                create it again, or another with its addresses";
    assert_eq!(w.told("both").2, kept);
    w.restart();
    w.quiet();
    for (view, why) in [
        (asks("one", 11, "192.0.2.9"), "AllocationFailed"),
        (
            service("one", 11, Demand::Unclear("addresses: no".into())),
            "LoadBalancerFailed",
        ),
    ] {
        w.put(view);
        let (met, reason, message) = w.told("one");
        assert_eq!((met, &*reason), (false, why));
        assert!(
            message.contains("; kept, although pool \"lan\": it was deleted"),
            "{message}"
        );
    }
}

#[test]
fn what_was_released_while_no_controller_acted_rests() {
    let mut lan = pool("lan", 1, &["192.0.2.0/30"]);
    lan.spec.reuse_delay = Duration::from_secs(60);
    let mut w = World::started(vec![lan]);
    w.put(wants("a", 10));
    w.services.clear();
    let waits = wants("b", 11);
    w.services.insert(waits.id.clone(), waits);
    w.restart();
    assert_eq!(w.shows("b"), ["192.0.2.1"]);
    assert_eq!(w.vip_names(), ["192.0.2.1"]);
    let status = w.pools["lan"].status.clone().unwrap();
    assert_eq!(
        (status.resting.len(), &*status.resting[0].service),
        (1, "shop/a")
    );
    w.restart();
    w.quiet();
    w.wait(100);
    w.put(wants("c", 12));
    assert_eq!(w.shows("c"), ["192.0.2.0"]);
}

#[test]
fn a_pool_that_is_closed_to_a_holder_keeps_and_flags() {
    let rules =
        serde_json::json!({ "serviceSelectors": [{ "matchLabels": { "expose": "public" } }] });
    let allocation: ServiceAllocation = serde_json::from_value(rules).unwrap();
    let mut gold = pool("gold", 1, &["192.0.2.0/28"]);
    gold.allocation = Some(allocation);
    let mut w = World::started(vec![gold.clone()]);
    let labelled = |name: &str, value: &str| ServiceView {
        labels: [("expose".to_owned(), value.to_owned())].into(),
        ..wants(name, 10)
    };
    w.put(labelled("a", "public"));
    w.put(labelled("b", "public"));
    assert_eq!(condition(&w, "gold", "AddressesOutside"), None);
    // A label is taken away.
    w.put(labelled("a", "private"));
    assert_eq!(w.shows("a"), ["192.0.2.0"]);
    assert_eq!(w.told("a").1, "KeptOutsidePool");
    let said = condition(&w, "gold", "AddressesOutside").unwrap();
    assert_eq!(
        said,
        "Services hold addresses of this pool, which is closed to them: 192.0.2.0 (shop/a: its \
         serviceAllocation.serviceSelectors do not match the Service's labels); let it include \
         them, or give those Services others"
    );
    // It offers the address still, to others.
    let usage = w.pools["gold"].status.clone().unwrap().ipv4;
    assert_eq!((usage.total, usage.assigned, usage.available), (16, 2, 14));
    w.restart();
    w.quiet();
    w.put(labelled("a", "public"));
    assert_eq!(condition(&w, "gold", "AddressesOutside"), None);
    // The selector changes, and holders leave one by one.
    let rules = serde_json::json!({ "namespaces": ["elsewhere"] });
    gold.allocation = Some(serde_json::from_value(rules).unwrap());
    w.put_pool(gold.clone());
    let said = condition(&w, "gold", "AddressesOutside").unwrap();
    assert!(
        said.contains("shop/a: ") && said.contains("shop/b: "),
        "{said}"
    );
    w.delete("b");
    let said = condition(&w, "gold", "AddressesOutside").unwrap();
    assert!(
        said.contains("shop/a: ") && !said.contains("shop/b"),
        "{said}"
    );
    // A pool that wants its addresses back has nothing to flag.
    gold.spec.on_shrink = lightship_ipam::OnShrink::Reallocate;
    w.put_pool(gold);
    assert_eq!(w.shows("a"), [""; 0]);
    assert_eq!(condition(&w, "gold", "AddressesOutside"), None);
}
