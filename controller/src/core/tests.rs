//! The decisions without a server.

use lightship_crds::{ServiceAllocation, ServiceRef, virtual_ip_name};

use super::*;
use crate::model::{Demand, Ingress, Key, NodeView, VipView, Wish, Write};

mod adoption;
mod cost;
mod handover;
mod invariants;
mod lag;
mod property;
mod sharing;
mod strays;
mod world;

use world::{World, asks, id, pool, service, shown, wants, wish};

#[test]
fn a_service_gets_its_address_a_virtual_ip_and_one_event() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.9"])]);
    w.put(wants("web", 10));
    assert_eq!(w.shows("web"), ["192.0.2.1"]);
    assert_eq!(w.vips["192.0.2.1"].used_by, "shop/web");
    assert_eq!(w.vips["192.0.2.1"].pool, "lan");
    assert_eq!(
        w.heard(),
        ["IPAllocated: assigned 192.0.2.1 from pool \"lan\""]
    );
    let usage = w.pools["lan"].status.clone().unwrap().ipv4;
    assert_eq!((usage.total, usage.assigned, usage.available), (9, 1, 8));
    w.writes.clear();
    w.put(wants("web", 10));
    w.quiet();
}

#[test]
fn deletion_and_type_change_release() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1/32"])]);
    w.put(wants("a", 10));
    w.put(wants("b", 11));
    assert_eq!(w.shows("b"), [""; 0]);
    w.delete("a");
    assert_eq!(w.shows("b"), ["192.0.2.1"]);
    assert_eq!(w.vips["192.0.2.1"].used_by, "shop/b");
    w.heard();
    w.put(service("b", 11, Demand::Nothing));
    assert_eq!(w.shows("b"), [""; 0]);
    assert!(w.vips.is_empty());
    assert_eq!(w.heard(), ["AddressReleased: released 192.0.2.1"]);
}

#[test]
fn refusals_are_told_once_and_again_when_they_change() {
    let mut w = World::started(vec![]);
    w.put(wants("a", 10));
    assert_eq!(
        w.heard(),
        ["AllocationFailed: no address: there is no AddressPool; create one"]
    );
    w.writes.clear();
    w.put(wants("a", 10));
    w.quiet();
    w.put_pool(pool("v6", 1, &["2001:db8::/64"]));
    assert_eq!(
        w.heard(),
        ["AllocationFailed: no address: pool \"v6\": it has no usable IPv4 addresses"]
    );
    w.put_pool(pool("v4", 2, &["192.0.2.1/32"]));
    assert_eq!(w.shows("a"), ["192.0.2.1"]);
    w.heard();
    w.put(asks("b", 11, "192.0.2.1"));
    assert_eq!(
        w.heard(),
        [
            "AllocationFailed: no address: pool \"v4\": 192.0.2.1 is held by Service shop/a; ask for another, or share it by lightship.dev/shared-address-key on both"
        ]
    );
}

#[test]
fn unclear_requests_take_nothing_away() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.9"])]);
    w.put(wants("a", 10));
    w.heard();
    w.put(service("a", 10, Demand::Unclear("addresses: no".into())));
    assert_eq!(w.heard(), ["LoadBalancerFailed: addresses: no"]);
    let six = asks("a", 10, "2001:db8::1");
    w.put(six);
    let heard = w.heard();
    assert!(
        heard[0].starts_with("LoadBalancerFailed: keeps 192.0.2.1")
            && heard[0].contains("not IPv6"),
        "{heard:?}"
    );
    w.put(asks("a", 10, "203.0.113.5"));
    let heard = w.heard();
    assert!(
        heard[0].contains("keeps 192.0.2.1, as what it asks for cannot be had"),
        "{heard:?}"
    );
    assert_eq!(w.shows("a"), ["192.0.2.1"]);
    w.put(asks("a", 10, "192.0.2.7"));
    assert_eq!(w.shows("a"), ["192.0.2.7"]);
    assert_eq!(w.vip_names(), ["192.0.2.7"]);
}

#[test]
fn a_restart_writes_nothing_and_says_nothing() {
    let mut w = World::started(vec![pool(
        "lan",
        1,
        &["192.0.2.1-192.0.2.9", "2001:db8::/64"],
    )]);
    for n in 0..5 {
        w.put(wants(&format!("s{n}"), n));
    }
    w.delete("s1");
    let before = w.services.clone();
    w.restart();
    w.quiet();
    assert_eq!(w.services, before);
}

#[test]
fn any_half_done_write_is_finished_after_a_crash() {
    let pools = || vec![pool("lan", 1, &["192.0.2.1-192.0.2.9"])];
    // The VirtualIP was written, the status was not.
    let mut w = World::started(pools());
    w.put(asks("a", 10, "192.0.2.5"));
    w.services.get_mut(&id("a")).unwrap().ingress.clear();
    w.services.get_mut(&id("a")).unwrap().demand = Demand::Addresses(wish());
    w.restart();
    assert_eq!(w.shows("a"), ["192.0.2.5"]);
    // The status was written, the VirtualIP was not.
    w.vips.clear();
    w.restart();
    assert_eq!(
        (w.shows("a"), w.vip_names()),
        (vec!["192.0.2.5".into()], vec!["192.0.2.5"])
    );
    // The Service went, its VirtualIP did not.
    w.services.clear();
    w.restart();
    assert!(w.vips.is_empty());
    // The Service became another type unseen.
    let mut w = World::started(pools());
    w.put(wants("a", 10));
    w.services.get_mut(&id("a")).unwrap().demand = Demand::Nothing;
    w.restart();
    assert!(w.vips.is_empty() && w.shows("a").is_empty());
}

#[test]
fn of_two_services_with_one_address_at_start_the_older_keeps_it() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.9"])]);
    for (name, created) in [("a-young", 20), ("z-old", 10)] {
        let mut view = wants(name, created);
        view.ingress = vec![shown("192.0.2.4")];
        w.services.insert(view.id.clone(), view);
    }
    w.restart();
    assert_eq!(w.shows("z-old"), ["192.0.2.4"]);
    assert_eq!(w.shows("a-young"), ["192.0.2.1"]);
}

#[test]
fn edits_by_hand_are_undone() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.9"])]);
    w.put(wants("a", 10));
    for forged in [
        vec![],
        vec![shown("192.0.2.9")],
        vec![Ingress {
            ip: None,
            plain: false,
        }],
    ] {
        let view = w.services.get_mut(&id("a")).unwrap();
        view.ingress = forged;
        let view = view.clone();
        w.feed(Input::Services(Change::Applied(view)));
        assert_eq!(w.shows("a"), ["192.0.2.1"]);
    }
    let gone = w.vip("192.0.2.1").unwrap();
    let spec = w.vips.remove("192.0.2.1").unwrap();
    w.feed(Input::Vips(Change::Gone(gone)));
    assert_eq!(w.vip_names(), ["192.0.2.1"]);
    w.vips.insert("mine".into(), spec);
    let stray = w.vip("mine").unwrap();
    w.feed(Input::Vips(Change::Applied(stray)));
    assert_eq!(w.vip_names(), ["192.0.2.1"]);
}

#[test]
fn foreign_services_and_foreign_addresses_are_left_alone() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1/32"])]);
    let mut foreign = service("foreign", 1, Demand::Nothing);
    foreign.ingress = vec![shown("192.0.2.1")];
    w.put(foreign);
    let mut elsewhere = asks("elsewhere", 2, "203.0.113.9");
    elsewhere.ingress = vec![shown("203.0.113.9")];
    w.put(elsewhere);
    assert_eq!(w.shows("foreign"), ["192.0.2.1"]);
    assert_eq!(w.shows("elsewhere"), ["203.0.113.9"]);
    assert!(w.vips.is_empty());
}

#[test]
fn an_overlapping_pool_is_flagged_and_disturbs_nobody() {
    let mut w = World::started(vec![pool("old", 1, &["192.0.2.0/28"])]);
    w.put(wants("a", 10));
    w.heard();
    w.put_pool(pool("new", 2, &["192.0.2.8/29", "198.51.100.0/31"]));
    let (ready, message) = w.ready("new");
    assert_eq!(ready, "False");
    assert!(message.contains("of the older pool \"old\""), "{message}");
    assert_eq!(w.ready("old").0, "True");
    let heard = w.heard();
    assert!(
        heard.len() == 1 && heard[0].starts_with("RangeRefused: "),
        "{heard:?}"
    );
    w.put_pool(pool("new", 2, &["198.51.100.0/31"]));
    assert_eq!(w.ready("new").0, "True");
    // The condition keeps its time stamp as long as its status lasts.
    let stamp = |w: &World| {
        w.pools["new"].status.clone().unwrap().conditions[0]
            .last_transition_time
            .clone()
    };
    let before = stamp(&w);
    w.put(asks("b", 11, "198.51.100.1"));
    assert_eq!(stamp(&w), before);
    w.restart();
    w.quiet();
}

#[test]
fn pools_that_shrink_or_go_keep_their_holders() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.0/28"])]);
    w.put(wants("a", 10));
    w.put_pool(pool("lan", 1, &["192.0.2.8/29"]));
    assert_eq!(w.shows("a"), ["192.0.2.0"]);
    w.delete_pool("lan");
    w.restart();
    assert_eq!(
        (w.shows("a"), w.vip_names()),
        (vec!["192.0.2.0".into()], vec!["192.0.2.0"])
    );
    w.put_pool(pool("other", 5, &["192.0.2.0/30"]));
    assert_eq!(w.vips["192.0.2.0"].pool, "other");
}

#[test]
fn restricted_pools_open_with_the_namespace_labels() {
    let rules = serde_json::json!({ "namespaceSelectors": [{ "matchLabels": { "team": "a" } }] });
    let allocation: ServiceAllocation = serde_json::from_value(rules).unwrap();
    let mut gold = pool("gold", 1, &["192.0.2.1/32"]);
    gold.allocation = Some(allocation);
    gold.spec.pinned = Some(1);
    let mut w = World::started(vec![gold]);
    w.put(wants("a", 10));
    assert_eq!(
        w.heard(),
        [
            "AllocationFailed: no address: pool \"gold\": its serviceAllocation does not include namespace shop"
        ]
    );
    let labels: BTreeMap<_, _> = [("team".to_owned(), "a".to_owned())].into();
    let view = NamespaceView {
        name: "shop".into(),
        labels,
    };
    w.feed(Input::Namespaces(Change::Applied(view)));
    assert_eq!(w.shows("a"), ["192.0.2.1"]);
}

#[test]
fn a_service_deleted_and_created_again_unseen_is_a_new_one() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.9"])]);
    w.put(wants("a", 10));
    w.put(wants("a", 20));
    assert_eq!(w.shows("a"), ["192.0.2.1"]);
    w.delete("a");
    assert!(w.vips.is_empty());
}

#[test]
fn a_new_list_releases_what_is_not_in_it() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.9"])]);
    w.put(wants("a", 10));
    w.put(wants("b", 11));
    w.services.remove(&id("a"));
    let list = w.services.values().cloned().collect();
    w.feed(Input::Services(Change::Listed(list)));
    assert_eq!(w.vip_names(), ["192.0.2.2"]);
}

#[test]
fn an_address_is_shown_only_once_its_virtual_ip_stands() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.9"])]);
    // Another controller has just given the first address to its own Service.
    let theirs = VirtualIPSpec::new(
        "192.0.2.1".parse().unwrap(),
        "lan",
        vec![ServiceRef {
            namespace: "shop".into(),
            name: "theirs".into(),
        }],
    );
    w.vips.insert("192.0.2.1".into(), theirs.clone());
    w.put(wants("a", 10));
    assert_eq!(w.shows("a"), [""; 0]);
    assert_eq!(w.vips["192.0.2.1"], theirs);
    // Asked again before anything is seen, it tries again and fails again.
    w.feed(Input::Recheck(Key::Vip("192.0.2.1".into())));
    assert_eq!(w.vips["192.0.2.1"], theirs);
    // It is ours alone after all: now it is seen, and made ours.
    let seen = w.vip("192.0.2.1").unwrap();
    w.feed(Input::Vips(Change::Applied(seen)));
    assert_eq!(w.shows("a"), ["192.0.2.1"]);
    assert_eq!(w.vips["192.0.2.1"].used_by, "shop/a");
}

#[test]
fn what_was_decided_upon_an_older_state_is_decided_anew() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.9"])]);
    w.put(wants("a", 10));
    // Changed unseen, twice: the write upon the first change fails, the second leads to the next.
    let mut first = w.services[&id("a")].clone();
    first.ingress.clear();
    let second = w.services.get_mut(&id("a")).unwrap();
    second.ingress.clear();
    second.version = "later".into();
    let second = second.clone();
    w.feed(Input::Services(Change::Applied(first)));
    assert_eq!(w.shows("a"), [""; 0]);
    w.feed(Input::Services(Change::Applied(second)));
    assert_eq!(w.shows("a"), ["192.0.2.1"]);
}

#[test]
fn a_virtual_ip_of_another_address_than_its_name_says_is_made_anew() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.9"])]);
    w.put(wants("a", 10));
    w.vips.get_mut("192.0.2.1").unwrap().address = "192.0.2.7".into();
    let forged = w.vip("192.0.2.1").unwrap();
    w.feed(Input::Vips(Change::Applied(forged)));
    assert_eq!(w.vips["192.0.2.1"].address, "192.0.2.1");
    assert_eq!(w.shows("a"), ["192.0.2.1"]);
}

#[test]
fn a_virtual_ip_that_the_api_server_refuses_is_told() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.9"])]);
    w.heard();
    w.refused.insert("192.0.2.1".into());
    w.put(wants("a", 10));
    let said =
        "192.0.2.1 is chosen, but the API server refuses VirtualIP 192.0.2.1: denied by a policy";
    let told = w.told("a");
    assert_eq!(
        (told.0, &*told.1, &*told.2),
        (false, "VirtualIPRefused", said)
    );
    assert!(w.shows("a").is_empty());
    assert_eq!(
        w.heard(),
        [
            "IPAllocated: assigned 192.0.2.1 from pool \"lan\"".to_owned(),
            format!("VirtualIPRefused: {said}")
        ]
    );
    // Another attempt is no news, and nobody else is concerned.
    w.writes.clear();
    w.feed(Input::Refused(
        Key::Vip("192.0.2.1".into()),
        "denied by a policy".into(),
    ));
    w.quiet();
    w.put(wants("b", 11));
    assert_eq!(w.shows("b"), ["192.0.2.2"]);

    w.refused.clear();
    w.feed(Input::Recheck(Key::Vip("192.0.2.1".into())));
    assert_eq!(w.shows("a"), ["192.0.2.1"]);
    assert!(w.told("a").0);
    assert!(w.core.refusals.is_empty());
}
