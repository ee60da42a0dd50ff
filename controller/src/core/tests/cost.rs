//! What an event costs must not depend on how many other Services there are.

use std::time::Instant;

use lightship_ipam::{Backends, Family, Port, Protocol, Sharing};

use super::*;

/// Microseconds for a Service to come, get its address and go again, among `others`: the
/// median, and the number of writes.
fn among(others: i64) -> (f64, usize) {
    let mut w = World::started(vec![pool("lan", 1, &["2001:db8::/64"])]);
    let wants = |name: &str, created| {
        let wish = Wish {
            families: vec![Family::V6],
            ..wish()
        };
        service(name, created, Demand::Addresses(wish))
    };
    for n in 0..others {
        w.put(wants(&format!("s{n:05}"), n));
        w.writes.clear();
        w.notices.clear();
    }
    let mut writes = 0;
    let mut times: Vec<_> = (0..50)
        .map(|_| {
            let start = Instant::now();
            w.put(wants("one-more", others));
            w.delete("one-more");
            let took = start.elapsed();
            let concerned = |write: &&Write| match write {
                Write::ServiceStatus { service, .. } => *service != id("one-more"),
                Write::Vip { spec, .. } => spec.used_by != "shop/one-more",
                Write::DropVip { .. } | Write::PoolStatus { .. } => false,
            };
            assert_eq!(w.writes.iter().find(concerned), None);
            writes = w.writes.len();
            w.writes.clear();
            took
        })
        .collect();
    times.sort();
    (times[25].as_secs_f64() * 1e6, writes)
}

#[test]
fn an_event_costs_the_same_among_many_services() {
    let [few, some, many] = [100, 1000, 10_000].map(among);
    println!("among 100, 1000, 10000 Services: {few:?}, {some:?}, {many:?} µs and writes");
    assert_eq!((few.1, some.1), (many.1, many.1));
    // Trees get deeper and caches colder, but a look at every Service would be a hundredfold.
    assert!(many.0 < 10.0 * few.0, "{few:?} {some:?} {many:?}");
}

/// The same where all share by one key and use one port, so that each needs an address of its own
/// although it might share, and as many more wait for one. The one that comes with a port of its own
/// finds a place beside the first, and neither that nor its leaving helps those that wait.
fn among_sharers(others: i64) -> f64 {
    let shares = |name: &str, created, port| ServiceView {
        sharing: Sharing {
            key: Some("k".into()),
            backends: Backends::Cluster,
            ports: [Port {
                protocol: Protocol::Tcp,
                number: port,
            }]
            .into(),
        },
        ..wants(name, created)
    };
    let first = u32::from(std::net::Ipv4Addr::new(10, 0, 0, 0));
    let last = first + u32::try_from(others).unwrap() - 1;
    let range = format!("10.0.0.0-{}", std::net::Ipv4Addr::from(last));
    let mut w = World::started(vec![pool("lan", 1, &[&range])]);
    let calm = |w: &mut World| {
        w.writes.clear();
        w.notices.clear();
    };
    for n in 0..others {
        w.put(shares(&format!("s{n:05}"), n, 80));
        calm(&mut w);
    }
    w.put(shares("other", others, 81));
    for n in 0..others {
        w.put(shares(&format!("w{n:05}"), others + n, 80));
        calm(&mut w);
    }
    let mut times: Vec<_> = (0..50)
        .map(|_| {
            let start = Instant::now();
            w.put(shares("one-more", 3 * others, 82));
            w.delete("one-more");
            let took = start.elapsed();
            let concerned = |write: &&Write| match write {
                Write::ServiceStatus { service, .. } => *service != id("one-more"),
                Write::Vip { .. } | Write::DropVip { .. } | Write::PoolStatus { .. } => false,
            };
            assert_eq!(w.writes.iter().find(concerned), None);
            calm(&mut w);
            took
        })
        .collect();
    // As soon as there is a place, the oldest of those that wait has it.
    assert_eq!(w.shows("w00000"), [""; 0]);
    w.delete("s00000");
    assert_eq!(w.shows("w00000"), ["10.0.0.0"]);
    times.sort();
    times[25].as_secs_f64() * 1e6
}

#[test]
fn an_event_costs_the_same_among_many_that_share_and_many_that_wait() {
    let [few, some, many] = [100, 1000, 10_000].map(among_sharers);
    println!(
        "among 100, 1000, 10000 sharers, and as many that wait: {few:.1}, {some:.1}, {many:.1} µs"
    );
    assert!(many < 10.0 * few, "{few} {some} {many}");
}
