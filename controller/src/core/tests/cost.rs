//! What an event costs must not depend on how many other Services there are.

use std::time::Instant;

use lightship_ipam::Family;

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
