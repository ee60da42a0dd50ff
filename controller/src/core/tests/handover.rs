//! Addresses that pass from one Service to another: never in two statuses at once.

use super::*;
use crate::core::tests::lag::Lag;

const LAN: &[&str] = &["192.0.2.1-192.0.2.9"];

#[test]
fn an_address_given_up_is_not_shown_while_its_successor_is_refused() {
    let mut w = World::started(vec![pool("lan", 1, LAN)]);
    w.put(wants("a", 10));
    w.refused.insert("192.0.2.7".into());
    w.put(asks("a", 10, "192.0.2.7"));
    assert_eq!(w.shows("a"), [""; 0]);
    assert_eq!(w.told("a").1, "VirtualIPRefused");
    w.put(wants("b", 11));
    assert_eq!(w.shows("b"), ["192.0.2.1"]);
    w.refused.clear();
    w.feed(Input::Recheck(Key::Vip("192.0.2.7".into())));
    assert_eq!(w.shows("a"), ["192.0.2.7"]);
    assert_eq!(w.told("a").1, "Assigned");
}

#[test]
fn an_address_that_moves_on_is_never_in_two_statuses() {
    for choices in [[0, 1, 2], [1, 3, 5], [2, 4, 7], [9, 6, 1]] {
        let mut w = World::started(vec![pool("lan", 1, &["192.0.2.1-192.0.2.2"])]);
        w.put(wants("a", 10));
        w.put(wants("b", 11));
        w.lag = Some(Lag::default());
        w.delete("b");
        w.put(asks("a", 10, "192.0.2.2"));
        w.put(wants("c", 12));
        let mut choices = choices.into_iter().cycle();
        while w.step(choices.next().unwrap()) {
            let both = w.shows("a") == w.shows("c") && !w.shows("a").is_empty();
            assert!(!both, "a and c show {:?}", w.shows("a"));
        }
        assert_eq!(
            (w.shows("a"), w.shows("c")),
            (vec!["192.0.2.2".into()], vec!["192.0.2.1".into()])
        );
    }
}

#[test]
fn who_comes_next_waits_for_the_status_of_who_goes() {
    let mut w = World::started(vec![pool("lan", 1, LAN)]);
    w.put(wants("a", 10));
    w.heard();
    w.frozen.insert(id("a"));
    w.lag = Some(Lag::default());
    w.put(asks("a", 10, "192.0.2.7"));
    w.put(wants("b", 11));
    // All else happens before the answer to the write of the status.
    for choice in 0..60 {
        let status = |write: &Write| write.key() == Key::Service(id("a"));
        let kept = w.lag.as_mut().unwrap().take_out(status);
        w.step(choice);
        w.lag.as_mut().unwrap().put_in(kept);
    }
    assert_eq!(w.core.vips["192.0.2.1"].spec.used_by, "shop/b");
    assert_eq!(w.shows("b"), [""; 0]);
    // A status that cannot be written is said once, and does not keep others waiting.
    w.settle(1..);
    assert_eq!(w.shows("b"), ["192.0.2.1"]);
    let refused = w.heard();
    let refused: Vec<_> = refused
        .iter()
        .filter(|text| text.contains("refuses its status"))
        .collect();
    assert_eq!(
        refused,
        ["StatusRefused: holds 192.0.2.7, but the API server refuses its status: frozen"]
    );
}

#[test]
fn a_virtual_ip_that_is_about_to_go_proves_nothing() {
    let mut w = World::started(vec![pool("lan", 1, LAN)]);
    w.put(wants("a", 10));
    let stale = w.vip("192.0.2.1").unwrap();
    w.lag = Some(Lag::default());
    // Deleted and created again before the deletion of the VirtualIP is seen.
    w.delete("a");
    w.step(1);
    w.put(wants("a", 20));
    w.step(1);
    let lag = w.lag.as_mut().unwrap();
    assert_eq!(w.core.vips["192.0.2.1"].revision, stale.revision);
    let shown = |write: &Write| {
        matches!(
            write,
            Write::ServiceStatus {
                addresses: Some(_),
                ..
            }
        )
    };
    assert_eq!(lag.take_out(shown), []);
    w.settle(0..);
    assert_eq!(w.shows("a"), ["192.0.2.1"]);

    // If its turn to be deleted never came, the write that confirms it changes nothing, and
    // no watcher sees anything.
    w.lag = None;
    let clock = w.clock();
    let again = wants("a", 30);
    w.services.insert(id("a"), again.clone());
    let gone = w
        .core
        .apply(Input::Services(Change::Gone(again.clone())), clock);
    assert!(
        gone.iter()
            .any(|action| matches!(action, Action::Write(Write::DropVip { .. })))
    );
    w.core.apply(Input::Services(Change::Applied(again)), clock);
    w.feed(Input::Written(Key::Vip("192.0.2.1".into())));
    assert_eq!(w.shows("a"), ["192.0.2.1"]);
}
