use super::*;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn failed(vips: &[u8]) -> BTreeMap<IpAddr, String> {
    vips.iter().map(|n| (ip(*n), format!("no {n}"))).collect()
}

#[test]
fn a_refused_vip_waits_longer_each_time_and_alone() {
    let wanted = BTreeSet::from([ip(1), ip(2)]);
    let mut failing = Failing::default();
    let mut now = Instant::now();
    let (new, mended) = failing.tried(&wanted, failed(&[1]), now);
    assert_eq!((new.len(), mended.len()), (1, 0));
    assert_eq!(failing.waiting(now), BTreeSet::from([ip(1)]));
    let mut waits = Vec::new();
    for _ in 0..8 {
        let next = failing.next().unwrap();
        waits.push((next - now).as_millis());
        now = next;
        assert!(failing.waiting(now).is_empty());
        let (new, _) = failing.tried(&wanted, failed(&[1]), now);
        assert!(new.is_empty(), "said again: {new:?}");
    }
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
}

#[test]
fn a_vip_that_waits_is_not_mended_by_the_success_of_others() {
    let wanted = BTreeSet::from([ip(1), ip(2)]);
    let mut failing = Failing::default();
    let now = Instant::now();
    failing.tried(&wanted, failed(&[1]), now);
    let (_, mended) = failing.tried(&wanted, failed(&[]), now);
    assert!(mended.is_empty());
    assert_eq!(failing.reasons(), failed(&[1]));
    let (_, mended) = failing.tried(&wanted, failed(&[]), now + WAIT.0);
    assert_eq!(mended, [ip(1)]);
    assert!(failing.reasons().is_empty());
}

#[test]
fn what_is_not_wanted_any_more_is_forgotten_unless_its_removal_failed() {
    let mut failing = Failing::default();
    let now = Instant::now();
    failing.tried(&BTreeSet::from([ip(1), ip(2)]), failed(&[1, 2]), now);
    failing.tried(&BTreeSet::new(), failed(&[2]), now);
    assert_eq!(failing.reasons(), failed(&[2]));
    failing.tried(&BTreeSet::new(), failed(&[]), now + WAIT.1);
    assert!(failing.next().is_none());
}
