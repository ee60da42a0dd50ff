//! Shared addresses, and claims by `spec.externalIPs`.

use lightship_ipam::{Backends, Port, Protocol, Sharing};

use super::*;

fn sharing(key: &str, port: u16) -> Sharing {
    Sharing {
        key: Some(key.into()),
        backends: Backends::Cluster,
        ports: [Port {
            protocol: Protocol::Tcp,
            number: port,
        }]
        .into(),
    }
}

fn shares(name: &str, created: i64, key: &str, port: u16) -> ServiceView {
    ServiceView {
        sharing: sharing(key, port),
        ..wants(name, created)
    }
}

fn claims(name: &str, created: i64, addresses: &[&str]) -> ServiceView {
    ServiceView {
        claims: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ..service(name, created, Demand::Nothing)
    }
}

#[test]
fn services_share_one_virtual_ip_until_the_last_leaves() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.9"])]);
    w.put(shares("tls", 12, "k", 443));
    w.put(shares("web", 10, "k", 80));
    assert_eq!(
        (w.shows("web"), w.shows("tls")),
        (vec!["192.0.2.1".into()], vec!["192.0.2.1".into()])
    );
    assert_eq!(w.vips["192.0.2.1"].used_by, "shop/tls +1");
    assert_eq!(w.pools["lan"].status.as_ref().unwrap().ipv4.assigned, 1);
    // The one that came first leads, also after a restart, which writes nothing.
    w.restart();
    w.quiet();
    w.delete("tls");
    assert_eq!(w.vips["192.0.2.1"].used_by, "shop/web");
    assert_eq!(w.shows("web"), ["192.0.2.1"]);
    w.delete("web");
    assert!(w.vips.is_empty());
}

#[test]
fn who_changes_into_a_clash_moves_and_says_so() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.9"])]);
    w.put(shares("a", 10, "k", 80));
    w.put(shares("b", 11, "k", 81));
    w.heard();
    w.put(shares("a", 10, "k", 81));
    assert_eq!(
        (w.shows("a"), w.shows("b")),
        (vec!["192.0.2.2".into()], vec!["192.0.2.1".into()])
    );
    assert_eq!(
        w.heard(),
        [
            "ClearAssignment: took 192.0.2.1 back: pool \"lan\": 192.0.2.1 is held by Service shop/b, which uses TCP port 81 too",
            "IPAllocated: assigned 192.0.2.2 from pool \"lan\"",
        ]
    );
    assert_eq!(w.vips["192.0.2.1"].used_by, "shop/b");
}

#[test]
fn clashes_made_while_nobody_watched_are_settled_by_age() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.9"])]);
    w.put(shares("young", 20, "k", 80));
    w.put(shares("old", 10, "k", 81));
    w.services.get_mut(&id("old")).unwrap().sharing = sharing("k", 80);
    w.restart();
    assert_eq!(
        (w.shows("old"), w.shows("young")),
        (vec!["192.0.2.1".into()], vec!["192.0.2.2".into()])
    );
}

#[test]
fn a_change_of_a_holder_lets_a_waiting_one_in() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1/32"])]);
    w.put(shares("a", 10, "k", 80));
    w.put(shares("b", 11, "k", 80));
    assert_eq!(w.shows("b"), [""; 0]);
    w.put(shares("a", 10, "k", 81));
    assert_eq!(w.shows("b"), ["192.0.2.1"]);
    assert_eq!(w.vips["192.0.2.1"].used_by, "shop/a +1");
}

#[test]
fn claims_of_any_service_become_virtual_ips() {
    let mut open = pool("open", 1, &["192.0.2.1-192.0.2.9"]);
    open.spec.external_ips = true;
    let mut w = World::started(vec![open.clone(), pool("shut", 2, &["198.51.100.0/24"])]);
    w.put(wants("lb", 9));
    w.put(claims(
        "x",
        10,
        &["192.0.2.5", "198.51.100.5", "203.0.113.5"],
    ));
    assert_eq!(w.vip_names(), ["192.0.2.1", "192.0.2.5"]);
    assert_eq!(w.vips["192.0.2.5"].used_by, "shop/x");
    assert_eq!(w.shows("x"), [""; 0]);
    assert_eq!(
        w.told("x"),
        (
            true,
            "Claimed".into(),
            "192.0.2.5 claimed by spec.externalIPs".into()
        )
    );
    w.restart();
    w.quiet();
    // Of two claims to one address, the one that has it keeps it; the other waits for it.
    w.put(claims("y", 5, &["192.0.2.5", "192.0.2.1"]));
    let (met, reason, message) = w.told("y");
    assert_eq!((met, &*reason), (false, "ExternalIPRefused"));
    assert!(
        message.contains("192.0.2.5 is held by Service shop/x")
            && message.contains("192.0.2.1 is held by Service shop/lb"),
        "{message}"
    );
    w.delete("x");
    assert_eq!(w.vips["192.0.2.5"].used_by, "shop/y");
    w.put(claims("y", 5, &[]));
    assert_eq!(w.vip_names(), ["192.0.2.1"]);
    assert_eq!(w.services[&id("y")].told, None);
    // A pool that opens later serves those that were there before.
    w.put(claims("z", 30, &["198.51.100.7"]));
    assert_eq!(w.services[&id("z")].told, None);
    let mut opened = pool("shut", 2, &["198.51.100.0/24"]);
    opened.spec.external_ips = true;
    w.put_pool(opened);
    assert_eq!(w.vips["198.51.100.7"].used_by, "shop/z");
    w.put_pool(pool("shut", 2, &["198.51.100.0/24"]));
    assert_eq!(w.told("z").1, "KeptOutsidePool");
}

#[test]
fn a_load_balancer_may_claim_more_addresses() {
    let mut open = pool("open", 1, &["192.0.2.1-192.0.2.9"]);
    open.spec.external_ips = true;
    let mut w = World::started(vec![open]);
    w.put(ServiceView {
        claims: vec!["192.0.2.8".parse().unwrap()],
        ..wants("a", 10)
    });
    assert_eq!(w.shows("a"), ["192.0.2.1"]);
    assert_eq!(
        w.told("a").2,
        "192.0.2.1 from pool \"open\"; 192.0.2.8 claimed by spec.externalIPs"
    );
    w.restart();
    w.quiet();
    assert_eq!(w.vip_names(), ["192.0.2.1", "192.0.2.8"]);
    w.put(claims("a", 10, &["192.0.2.8"]));
    assert_eq!((w.shows("a"), w.vip_names()), (vec![], vec!["192.0.2.8"]));
}

#[test]
fn who_waits_longest_is_served_first_whatever_it_waits_for() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1/32"])]);
    w.put(wants("holder", 1));
    // Queues for an address, for a key and for anything.
    w.put(shares("oldest", 10, "k", 80));
    w.put(asks("middle", 11, "192.0.2.1"));
    w.put(wants("youngest", 12));
    for next in ["oldest", "middle", "youngest"] {
        let before = if next == "oldest" {
            "holder"
        } else {
            w.vips["192.0.2.1"].used_by.split('/').nth(1).unwrap()
        };
        let before = before.to_owned();
        w.delete(&before);
        assert_eq!(w.shows(next), ["192.0.2.1"]);
    }
}

#[test]
fn who_waits_with_a_key_gets_a_place_beside_another_that_waited() {
    let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1/32"])]);
    w.put(wants("holder", 1));
    w.put(shares("first", 10, "k", 80));
    w.put(shares("same-port", 11, "k", 80));
    w.put(shares("second", 12, "k", 81));
    w.put(shares("stranger", 13, "l", 82));
    w.delete("holder");
    assert_eq!(w.vips["192.0.2.1"].used_by, "shop/first +1");
    assert_eq!(w.shows("second"), ["192.0.2.1"]);
    assert!(w.shows("same-port").is_empty() && w.shows("stranger").is_empty());
    w.delete("first");
    assert_eq!(w.shows("same-port"), ["192.0.2.1"]);
}
