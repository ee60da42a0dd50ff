//! What a speaker makes of peers whose clock, network or machine misbehaves.

use super::*;

/// The node with the clock that went back, and its peers' guards.
#[test]
fn a_node_whose_clock_went_back_over_a_reboot_is_heard_after_a_round_trip() {
    let mut lan = Lan::with(3);
    lan.run(6_000 * MS);
    let before = lan.cores[&1].setup.boot_id;
    lan.cores.remove(&1);
    lan.run(1_000 * MS);
    // Its state was on a tmpfs, and its clock starts at the epoch.
    let mut back = core(1, world(3), &Saved::default(), lan.now);
    back.setup.boot_id = before - 1;
    lan.cores.insert(1, back);
    lan.run(50 * MS);
    assert_eq!(lan.cores[&1].setup.boot_id, before + 1);
    assert!(lan.cores[&1].out.is_empty());
    for n in 2..=3 {
        let peer = &lan.cores[&n];
        assert_eq!(peer.detector.state(&name(1)), PeerState::Alive);
        // Refused once or twice: the answer came at once.
        assert!(peer.refused()["old_boot"] <= 2, "{:?}", peer.refused());
    }
    // The new number is kept, so the next start goes on above it.
    let mut saved = Saved::default();
    lan.cores[&1].save(&mut saved);
    assert_eq!(saved.boot_id, before + 1);
}

#[test]
fn an_old_datagram_that_is_replayed_makes_no_storm_and_no_new_boot() {
    let mut lan = Lan::with(1);
    let old = lan.cores.get_mut(&1).unwrap().heartbeat(true, false, None);
    let mut later = core(1, world(1), &Saved::default(), 1_000 * MS);
    later.next_beat = Duration::ZERO;
    lan.cores.insert(1, later);
    lan.run(1_000 * MS);
    let boot = lan.cores[&1].setup.boot_id;
    lan.cores.get_mut(&2).unwrap().outputs();
    let mut answers = 0;
    for _ in 0..1_000 {
        let target = lan.cores.get_mut(&2).unwrap();
        target.on_datagram(address(1), &old[0], lan.now);
        let outputs = target.outputs();
        for output in &outputs {
            assert!(matches!(output, Output::Heartbeat(to, _) if *to == address(1)));
        }
        answers += outputs.len();
        lan.carry(2, outputs);
    }
    assert_eq!(answers, 1);
    assert_eq!(lan.cores[&1].setup.boot_id, boot);
}

#[test]
fn what_was_heard_before_a_restart_cannot_be_replayed_after_it() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let said = lan.cores.get_mut(&2).unwrap().heartbeat(false, false, None);
    let one = lan.cores.get_mut(&1).unwrap();
    one.on_datagram(address(2), &said[0], lan.now);
    let mut saved = Saved::default();
    one.save(&mut saved);
    let mut again = core(1, world(1), &saved, lan.now);
    again.on_datagram(address(2), &said[0], lan.now);
    assert_eq!(*again.refused(), [("replayed", 1)].into());
    let next = lan.cores.get_mut(&2).unwrap().heartbeat(false, false, None);
    again.on_datagram(address(2), &next[0], lan.now);
    assert_eq!(again.detector.state(&name(2)), PeerState::Alive);
}

#[test]
fn a_node_that_was_cut_off_holds_nobody_off_and_alone_is_not_obeyed() {
    let mut lan = Lan::with(3);
    lan.run(1_000 * MS);
    for _ in 0..4 {
        lan.cut = Some(3);
        lan.run(1_000 * MS);
        lan.cut = None;
        lan.run(1_000 * MS);
    }
    let held = |lan: &Lan, by: u8| lan.cores[&by].held(lan.now);
    // The others saw it go, and it obeys them.
    for by in 1..=3 {
        assert_eq!(held(&lan, by), [name(3)].into(), "{by}");
    }
    // Even if it took the others for those that flap, they would not.
    let now = lan.now;
    for other in [1, 2] {
        let flaps = &mut lan.cores.get_mut(&3).unwrap().flaps;
        flaps.lost(&name(other), now);
    }
    lan.run(500 * MS);
    assert_eq!(held(&lan, 1), [name(3)].into());
    assert!(lan.cores[&1].peers[&name(3)].holds_us);
}

#[test]
fn of_two_nodes_the_one_that_comes_and_goes_is_held_off() {
    let mut two = World::clone(&world(1));
    two.nodes.remove(&name(3));
    let two = Arc::new(two);
    let mut lan = Lan::default();
    for n in 1..=2 {
        let core = core(n, two.clone(), &Saved::default(), Duration::ZERO);
        lan.cores.insert(n, core);
    }
    lan.run(1_000 * MS);
    lan.cores.remove(&2);
    lan.run(1_000 * MS);
    let back = core(2, two, &Saved::default(), lan.now);
    lan.cores.insert(2, back);
    lan.run(1_000 * MS);
    for by in 1..=2 {
        assert_eq!(lan.cores[&by].held(lan.now), [name(2)].into());
    }
}

/// The node that owns the VIP, and its peers' view of it once `happens` there.
fn after(happens: impl Fn(&mut Core, Duration)) -> (u8, Lan) {
    let mut lan = Lan::with(1);
    lan.run(1_030 * MS);
    let owner = lan.owner(vip(1));
    happens(lan.cores.get_mut(&owner).unwrap(), lan.now);
    // Much less than an interval.
    lan.run(20 * MS);
    (owner, lan)
}

#[test]
fn a_director_that_fails_is_told_at_once_and_so_is_a_lost_address() {
    let broken = |core: &mut Core, _: Duration| {
        let report = DirectorReport {
            error: Some("IPVS is gone".into()),
            ..core.director.clone()
        };
        core.on_director(DirectorReport {
            healthy: false,
            ..report
        });
    };
    let address_lost = |core: &mut Core, now: Duration| {
        let state = UplinkState {
            address: false,
            ..UplinkState::FINE
        };
        core.on_uplink(state, now);
    };
    let (owner, lan) = after(broken);
    assert_ne!(lan.owner(vip(1)), owner);
    assert!(
        lan.cores[&owner]
            .trouble()
            .unwrap()
            .contains("IPVS is gone")
    );
    let (owner, mut lan) = after(address_lost);
    assert_ne!(lan.owner(vip(1)), owner);
    // As long as that lasts the node takes nothing, not even from the dead.
    for n in (1..=3).filter(|n| *n != owner) {
        lan.cores.remove(&n);
    }
    lan.run(2_000 * MS);
    assert!(lan.cores[&owner].owned.is_empty());
    let now = lan.now;
    let left = lan.cores.get_mut(&owner).unwrap();
    left.on_uplink(UplinkState::FINE, now);
    lan.run(1_000 * MS);
    assert_eq!(lan.owner(vip(1)), owner);
}

#[test]
fn nodes_that_left_the_cluster_are_forgotten() {
    let mut lan = Lan::with(3);
    lan.run(1_000 * MS);
    let gone = lan.owner(vip(1));
    let stays = 1 + gone % 3;
    let mut fewer = World::clone(&world(3));
    fewer.nodes.remove(&name(gone));
    let now = lan.now;
    let core = lan.cores.get_mut(&stays).unwrap();
    assert_eq!(core.guard.newest().count(), 2);
    assert_eq!(core.election.claimants(&vip(1)).count(), 1);
    core.on_world(Arc::new(fewer), now);
    assert_eq!(core.guard.newest().count(), 1);
    assert_eq!(core.election.claimants(&vip(1)).count(), 0);
    assert!(!core.peers.contains_key(&name(gone)));
}

/// Every speaker that hears both names them, and no more than them; one that is dead clashes with nobody.
#[test]
fn two_nodes_with_one_director_mac_are_told() {
    let mut lan = Lan::with(1);
    lan.cores.get_mut(&2).unwrap().setup.director_mac = director(1);
    lan.run(1_000 * MS);
    let told = BTreeMap::from([(director(1), BTreeSet::from([name(1), name(2)]))]);
    for n in 1..=3 {
        assert_eq!(lan.reports[&n].clashes, told, "node {n}");
        assert_eq!(lan.cores[&n].snapshot().mac_clashes, 1);
    }
    lan.cores.remove(&2);
    lan.run(2_000 * MS);
    assert_eq!(lan.reports[&3].clashes, BTreeMap::new());
}
