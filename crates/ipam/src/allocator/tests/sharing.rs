//! Sharing and claims.

use super::*;
use crate::sharing::{Backends, Port, Protocol};

fn sharing(key: &str, ports: &[u16]) -> Sharing {
    Sharing {
        key: Some(key.into()),
        backends: Backends::Cluster,
        ports: ports
            .iter()
            .map(|number| Port {
                protocol: Protocol::Tcp,
                number: *number,
            })
            .collect(),
    }
}

fn shares(key: &str, ports: &[u16]) -> Request {
    Request {
        sharing: sharing(key, ports),
        ..v4()
    }
}

fn settle(a: &mut Allocator, name: &str, request: &Request) -> Vec<String> {
    let lost = a.settle(&service(name), &request.sharing, &request.closed, T0);
    lost.iter()
        .map(|(address, why)| format!("{address}: {why}"))
        .collect()
}

#[test]
fn the_lowest_address_that_is_free_or_can_be_shared() {
    let mut a = allocator(vec![pool("p", &["192.0.2.0/29"])]);
    assert_eq!(got(a.assign(&service("plain"), &v4(), T0)), ["192.0.2.0"]);
    assert_eq!(
        got(a.assign(&service("web"), &shares("k", &[80]), T0)),
        ["192.0.2.1"]
    );
    assert_eq!(
        got(a.assign(&service("tls"), &shares("k", &[443]), T0)),
        ["192.0.2.1"]
    );
    assert_eq!(
        got(a.assign(&service("web2"), &shares("k", &[80]), T0)),
        ["192.0.2.2"]
    );
    assert_eq!(
        got(a.assign(&service("other"), &shares("l", &[25]), T0)),
        ["192.0.2.3"]
    );
    // Both could have it: one address, counted once.
    assert_eq!(
        got(a.assign(&service("dns"), &shares("k", &[53]), T0)),
        ["192.0.2.1"]
    );
    let holders = &a.holding(ip("192.0.2.1")).unwrap().holders;
    assert_eq!(
        holders[..],
        [service("web"), service("tls"), service("dns")]
    );
    assert_eq!(a.usage("p", Family::V4).assigned, 4);
    // The address stays in use until the last one leaves.
    a.release(&service("web"), T0);
    assert_eq!(
        got(a.assign(&service("web3"), &shares("k", &[80]), T0)),
        ["192.0.2.1"]
    );
    for name in ["tls", "dns", "web3"] {
        a.release(&service(name), T0);
    }
    assert!(a.holding(ip("192.0.2.1")).is_none());
    assert_eq!(
        got(a.assign(&service("last"), &shares("k", &[80]), T0)),
        ["192.0.2.1"]
    );
}

#[test]
fn a_full_pool_still_has_room_to_share() {
    let mut a = allocator(vec![pool("p", &["192.0.2.7/32"])]);
    assert_eq!(
        got(a.assign(&service("a"), &shares("k", &[80]), T0)),
        ["192.0.2.7"]
    );
    assert_eq!(
        got(a.assign(&service("b"), &shares("k", &[81]), T0)),
        ["192.0.2.7"]
    );
    assert!(refused(a.assign(&service("c"), &shares("k", &[81]), T0)).contains("in use"));
}

#[test]
fn a_named_address_is_shared_or_the_clash_is_named() {
    let mut a = allocator(vec![pool("p", &["192.0.2.0/24"])]);
    let exact = |key: &str, ports: &[u16]| Request {
        addresses: vec![ip("192.0.2.9")],
        ..shares(key, ports)
    };
    a.assign(&service("a"), &exact("k", &[80]), T0).unwrap();
    for (request, part) in [
        (exactly(&["192.0.2.9"]), "held by Service default/a"),
        (exact("l", &[81]), "shares under the key \"k\" only"),
        (exact("k", &[80]), "default/a, which uses TCP port 80 too"),
    ] {
        let text = refused(a.assign(&service("b"), &request, T0));
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(
        got(a.assign(&service("b"), &exact("k", &[81]), T0)),
        ["192.0.2.9"]
    );
}

#[test]
fn who_changes_so_that_it_clashes_goes_and_the_others_stay() {
    let mut a = allocator(vec![pool("p", &["192.0.2.0/29"])]);
    for (name, port) in [("a", 80), ("b", 81)] {
        a.assign(&service(name), &shares("k", &[port]), T0).unwrap();
    }
    assert_eq!(settle(&mut a, "a", &shares("k", &[82])), [""; 0]);
    let lost = settle(&mut a, "a", &shares("k", &[81]));
    assert!(
        lost.len() == 1 && lost[0].contains("default/b, which uses TCP port 81 too"),
        "{lost:?}"
    );
    assert_eq!(
        got(a.assign(&service("a"), &shares("k", &[81]), T0)),
        ["192.0.2.1"]
    );
    assert_eq!(a.held_by(&service("b")), [ip("192.0.2.0")]);
    // Alone on its address it may change as it likes.
    assert_eq!(settle(&mut a, "b", &shares("other", &[1])), [""; 0]);
    assert_eq!(
        got(a.assign(&service("c"), &shares("other", &[2]), T0)),
        ["192.0.2.0"]
    );
    assert_eq!(settle(&mut a, "c", &v4()).len(), 1);
}

#[test]
fn adoption_settles_clashes_by_who_comes_first() {
    let mut a = allocator(vec![pool("p", &["192.0.2.0/29"])]);
    let mut adopt = |name: &str, request: &Request| {
        a.adopt(
            &service(name),
            ip("192.0.2.3"),
            None,
            None,
            &request.sharing,
            false,
        )
    };
    assert!(adopt("old", &shares("k", &[80])));
    assert!(!adopt("clash", &shares("k", &[80])));
    assert!(adopt("fits", &shares("k", &[81])));
    assert!(!adopt("keyless", &v4()));
    assert_eq!(
        got(a.assign(&service("clash"), &shares("k", &[80]), T0)),
        ["192.0.2.0"]
    );
}

#[test]
fn other_namespaces_share_where_the_pool_says_so() {
    let far = ServiceId::new("far", "b");
    for (across, expected) in [(false, "192.0.2.1"), (true, "192.0.2.0")] {
        let mut a = allocator(vec![PoolSpec {
            sharing_across_namespaces: across,
            ..pool("p", &["192.0.2.0/29"])
        }]);
        a.assign(&service("a"), &shares("k", &[80]), T0).unwrap();
        assert_eq!(got(a.assign(&far, &shares("k", &[81]), T0)), [expected]);
        // Taking the permission back separates nobody.
        a.set_pools(vec![pool("p", &["192.0.2.0/29"])]);
        let lost = a.settle(&far, &sharing("k", &[81]), &BTreeMap::new(), T0);
        assert_eq!(lost, []);
    }
}

#[test]
fn claims_are_taken_one_by_one_where_a_pool_allows_them() {
    let mut a = allocator(vec![
        PoolSpec {
            external_ips: true,
            ..pool("open", &["192.0.2.0/29", "2001:db8::/64"])
        },
        pool("shut", &["198.51.100.0/24"]),
    ]);
    a.assign(&service("a"), &v4(), T0).unwrap();
    let none = Sharing::default();
    let wanted: Vec<_> = [
        "192.0.2.0",
        "192.0.2.5",
        "2001:db8::5",
        "192.0.2.6",
        "198.51.100.1",
        "203.0.113.9",
    ]
    .map(ip)
    .into();
    let claims = a.claim(&service("x"), &wanted, &none, &BTreeMap::new(), T0);
    assert_eq!(
        claims.added,
        [ip("192.0.2.5"), ip("2001:db8::5"), ip("192.0.2.6")]
    );
    assert_eq!(claims.refused.len(), 1);
    assert!(
        claims.refused[0]
            .to_string()
            .contains("192.0.2.0 is held by Service default/a")
    );
    assert!(a.held_by(&service("x")).is_empty());
    let again = a.claim(&service("x"), &wanted, &none, &BTreeMap::new(), T0);
    assert_eq!((again.added, again.released), (vec![], vec![]));
    let fewer = a.claim(&service("x"), &wanted[1..2], &none, &BTreeMap::new(), T0);
    assert_eq!(fewer.released, [ip("2001:db8::5"), ip("192.0.2.6")]);
    assert_eq!(a.release(&service("x"), T0), [ip("192.0.2.5")]);
}

#[test]
fn a_claim_and_an_assignment_of_one_service_are_one_holding() {
    let mut a = allocator(vec![PoolSpec {
        external_ips: true,
        ..pool("p", &["192.0.2.0/29"])
    }]);
    let wanted = [ip("192.0.2.3")];
    let none = Sharing::default();
    a.claim(&service("x"), &wanted, &none, &BTreeMap::new(), T0);
    assert_eq!(
        got(a.assign(&service("x"), &exactly(&["192.0.2.3"]), T0)),
        ["192.0.2.3"]
    );
    assert!(a.claimed_by(&service("x")).is_empty());
    assert_eq!(a.usage("p", Family::V4).assigned, 1);
    let claims = a.claim(&service("x"), &wanted, &none, &BTreeMap::new(), T0);
    assert_eq!(claims, Claims::default());
    assert_eq!(a.unassign(&service("x"), T0), wanted);
    assert!(a.holding(wanted[0]).is_none());
}
