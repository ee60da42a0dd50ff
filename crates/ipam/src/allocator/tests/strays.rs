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
