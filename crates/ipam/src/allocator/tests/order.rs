//! Hashed pools, and rests.

use super::*;

fn hashed(blocks: &[&str]) -> PoolSpec {
    PoolSpec {
        order: Order::Hashed,
        reuse_delay: Duration::from_secs(60),
        ..pool("p", blocks)
    }
}

#[test]
fn a_service_created_again_gets_its_address_again() {
    for blocks in [
        &["192.0.2.0/24"][..],
        &["192.0.2.0-192.0.2.6", "198.51.100.9/32", "203.0.113.0/30"],
    ] {
        let mut a = allocator(vec![hashed(blocks)]);
        let before: Vec<_> = (0..5)
            .map(|n| got(a.assign(&service(&format!("s{n}")), &v4(), T0)))
            .collect();
        // Both during its rest and long after, whatever happened in between.
        for now in [1, 1000] {
            for n in 0..5 {
                a.release(&service(&format!("s{n}")), Duration::from_secs(now));
            }
            let order = if now == 1 {
                [4, 3, 2, 1, 0]
            } else {
                [0, 1, 2, 3, 4]
            };
            for n in order {
                let now = Duration::from_secs(now * 2);
                assert_eq!(
                    got(a.assign(&service(&format!("s{n}")), &v4(), now)),
                    before[n]
                );
            }
        }
    }
}

#[test]
fn a_hashed_pool_is_used_up_to_the_last_address() {
    let mut a = allocator(vec![hashed(&[
        "192.0.2.3-192.0.2.9",
        "198.51.100.1/32",
        "203.0.113.0/30",
    ])]);
    let mut all: Vec<_> = (0..12)
        .map(|n| got(a.assign(&service(&format!("s{n}")), &v4(), T0)).remove(0))
        .collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 12);
    assert!(refused(a.assign(&service("one-more"), &v4(), T0)).contains("all of its 12"));
    // A place is a matter of the name alone, in huge ranges too.
    let mut six = allocator(vec![hashed(&["2001:db8::/32"])]);
    let v6 = want(&[Family::V6], Policy::Single);
    let first = got(six.assign(&service("s"), &v6, T0));
    let mut other = allocator(vec![hashed(&["2001:db8::/32"])]);
    other.assign(&service("t"), &v6, T0).unwrap();
    assert_eq!(got(other.assign(&service("s"), &v6, T0)), first);
}

#[test]
fn rests_are_counted_end_and_survive_a_restart() {
    let spec = || PoolSpec {
        reuse_delay: Duration::from_secs(60),
        ..pool("p", &["192.0.2.0/30"])
    };
    let mut a = allocator(vec![spec()]);
    a.assign(&service("s"), &v4(), T0).unwrap();
    a.release(&service("s"), Duration::from_secs(5));
    let usage = a.usage("p", Family::V4);
    assert_eq!(
        (usage.assigned, usage.available, usage.quarantined),
        (0, 4, 1)
    );
    assert_eq!(a.next_wake(), Some(Duration::from_secs(65)));

    let mut after = allocator(vec![spec()]);
    for (address, rest) in a.resting() {
        after.rest(address, rest.clone());
    }
    assert_eq!(
        got(after.assign(&service("t"), &v4(), Duration::from_secs(6))),
        ["192.0.2.1"]
    );
    after.take_touched();
    after.wake(Duration::from_secs(64));
    assert!(after.take_touched().is_empty());
    after.wake(Duration::from_secs(65));
    assert_eq!(after.take_touched(), [Arc::from("p")].into());
    assert_eq!(after.usage("p", Family::V4).quarantined, 0);
    assert_eq!(
        got(after.assign(&service("u"), &v4(), Duration::from_secs(65))),
        ["192.0.2.0"]
    );
    // What is held does not rest, whatever a record says.
    let rest = a.resting().next().map(|(_, rest)| rest.clone()).unwrap();
    after.rest(ip("192.0.2.0"), rest);
    assert_eq!(after.usage("p", Family::V4).quarantined, 0);
}
