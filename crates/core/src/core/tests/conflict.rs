//! Other machines that use a VIP, and nodes that flap.

use super::*;

const STRANGER: Mac = Mac([2, 9, 9, 9, 9, 9]);

/// How often the VIP was probed for.
fn probes(lan: &Lan, since: Duration) -> usize {
    let asks = |frame: &[u8]| {
        matches!(neighbours::read(frame), Ok(neighbours::Heard::Question { target, asker, .. })
            if target == vip(1) && asker.is_unspecified())
    };
    let frames = lan.frames.iter().filter(|(_, at, _)| *at >= since);
    frames.filter(|(_, _, frame)| asks(frame)).count()
}

fn claim(lan: &mut Lan, mac: Mac) {
    let now = lan.now;
    let IpAddr::V4(address) = vip(1) else {
        unreachable!()
    };
    let frame = lightship_frames::arp::gratuitous_reply(mac, address);
    for (n, core) in &mut lan.cores {
        // Whoever may have to take the VIP over hears of it too.
        assert!(lan.listens[n].vips.contains(&vip(1)), "unheard");
        core.on_frame(&Via::Main, &frame, now);
    }
}

#[test]
fn a_new_address_is_probed_for_and_announced_soon() {
    let mut lan = Lan::with(0);
    lan.run(1_000 * MS);
    let since = lan.now;
    for core in lan.cores.values_mut() {
        core.on_world(world(1), since);
    }
    lan.run(35 * MS);
    assert_eq!(probes(&lan, since), 2);
    assert_eq!((1..=3).map(|n| lan.announced(n, since)).sum::<usize>(), 0);
    lan.run(25 * MS);
    let owner = lan.owner(vip(1));
    assert!(lan.announced(owner, since) > 0);
    // Who takes over does not ask again.
    lan.cores.remove(&owner);
    let since = lan.now;
    lan.run(1_000 * MS);
    assert_eq!(probes(&lan, since), 0);
    assert!(lan.announced(lan.owner(vip(1)), since) > 0);
}

#[test]
fn an_address_in_use_elsewhere_is_not_announced_until_it_is_free() {
    let mut lan = Lan::with(0);
    lan.run(1_000 * MS);
    for core in lan.cores.values_mut() {
        core.on_world(world(1), lan.now);
    }
    let since = lan.now;
    lan.run(20 * MS);
    claim(&mut lan, STRANGER);
    lan.run(9_000 * MS);
    assert_eq!((1..=3).map(|n| lan.announced(n, since)).sum::<usize>(), 0);
    let conflict = lan
        .reports
        .values()
        .find_map(|r| r.vips.get(&vip(1))?.conflict);
    assert_eq!(conflict, Some(STRANGER));
    // The stranger is gone: the next round of probes meets silence.
    lan.run(3_000 * MS);
    let owner = lan.owner(vip(1));
    assert!(lan.announced(owner, since) > 0);
    assert_eq!(lan.reports[&owner].vips[&vip(1)].conflict, None);
}

#[test]
fn a_stranger_that_claims_an_announced_address_is_answered_but_rarely() {
    let mut lan = Lan::with(1);
    lan.run(10_000 * MS);
    let owner = lan.owner(vip(1));
    let since = lan.now;
    // Announcements and answers of our own nodes are no conflict.
    for n in 1..=3 {
        claim(&mut lan, director(n));
        claim(&mut lan, uplink(n));
    }
    lan.run(200 * MS);
    assert_eq!(lan.reports[&owner].vips[&vip(1)].conflict, None);
    assert_eq!(lan.announced(owner, since), 0);
    for _ in 0..80 {
        claim(&mut lan, STRANGER);
        lan.run(100 * MS);
    }
    // One announcement in its two forms, and no burst.
    assert_eq!(lan.announced(owner, since), 2);
    for _ in 0..80 {
        claim(&mut lan, STRANGER);
        lan.run(100 * MS);
    }
    // Another one after 10 s.
    assert_eq!(lan.announced(owner, since), 4);
    assert_eq!(lan.reports[&owner].vips[&vip(1)].conflict, Some(STRANGER));
    lan.run(125_000 * MS);
    assert_eq!(lan.reports[&owner].vips[&vip(1)].conflict, None);
}

/// As a speaker does that starts while the API server is away: from what it kept.
#[test]
fn who_resumes_a_vip_defends_it_as_before() {
    let mut lan = Lan::with(1);
    lan.run(10_000 * MS);
    let owner = lan.owner(vip(1));
    let mut saved = Saved::default();
    lan.cores[&owner].save(&mut saved);
    let resumed = core(owner, world(1), &saved, lan.now);
    lan.cores.insert(owner, resumed);
    // Between two of the repeats that a resumed VIP has as well.
    lan.run(3_500 * MS);
    assert_eq!(lan.owner(vip(1)), owner);
    let since = lan.now;
    claim(&mut lan, STRANGER);
    lan.run(200 * MS);
    assert_eq!(lan.announced(owner, since), 2);
    assert_eq!(lan.reports[&owner].vips[&vip(1)].conflict, Some(STRANGER));
}

#[test]
fn a_node_that_flaps_is_given_nothing_for_ever_longer() {
    let mut lan = Lan::with(6);
    for core in lan.cores.values_mut() {
        core.election = Election::new(core.setup.me.clone(), 500 * MS, Duration::ZERO)
            .with_rebalancing(Duration::from_secs(5));
    }
    lan.run(1_000 * MS);
    let has = |lan: &Lan| lan.cores[&1].owned.len();
    assert_eq!(has(&lan), 2);
    for hold in [60, 120] {
        lan.cores.remove(&1);
        lan.run(1_000 * MS);
        let mut fresh = core(1, world(6), &Saved::default(), lan.now);
        fresh.election =
            Election::new(name(1), 500 * MS, lan.now).with_rebalancing(Duration::from_secs(5));
        lan.cores.insert(1, fresh);
        lan.run(Duration::from_secs(hold - 1));
        assert_eq!(has(&lan), 0, "{hold}");
        lan.run(Duration::from_secs(20));
        assert_eq!(has(&lan), 2, "{hold}");
    }
}
