//! What follows for the cluster from what a node's path test says, and from another address of a node.

use super::*;
use crate::path::{Fault, Verdict};

fn says(lan: &mut Lan, n: u8, fault: Option<Fault>) {
    let verdict = Verdict {
        fault,
        known: 2,
        proven: fault.is_none(),
        ..Verdict::default()
    };
    let now = lan.now;
    lan.cores.get_mut(&n).unwrap().on_path(&verdict, now);
}

/// The node's weight in each director.
fn weights_of(lan: &Lan, n: u8) -> Vec<u32> {
    let tables = lan.directors.values();
    let of = tables.map(|t| t.virtuals.values().next().unwrap().weights[&address(n)]);
    of.collect()
}

#[test]
fn a_node_whose_replies_are_dropped_owns_and_serves_only_while_no_other_can() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let mute = lan.owner(vip(1));
    for n in 1..=3 {
        says(&mut lan, n, None);
    }
    lan.run(300 * MS);
    says(&mut lan, mute, Some(Fault::ForeignSourceDropped));
    lan.run(300 * MS);
    let heir = lan.owner(vip(1));
    assert_ne!(heir, mute);
    assert_eq!(weights_of(&lan, mute), [0, 0, 0]);
    assert_eq!(weights_of(&lan, heir), [1, 1, 1]);
    // If nothing is better elsewhere, nothing moves, and all serve.
    for n in 1..=3 {
        says(&mut lan, n, Some(Fault::ForeignSourceDropped));
    }
    lan.run(300 * MS);
    assert_eq!(lan.owner(vip(1)), heir);
    assert!((1..=3).all(|n| weights_of(&lan, n) == [1, 1, 1]));
    for n in 1..=3 {
        says(&mut lan, n, None);
    }
    lan.run(300 * MS);
    assert_eq!(lan.owner(vip(1)), heir);
    assert!((1..=3).all(|n| weights_of(&lan, n) == [1, 1, 1]));
}

#[test]
fn where_all_ports_are_alike_a_node_that_has_not_been_tested_takes_nothing() {
    let mut lan = Lan::with(3);
    lan.run(1_000 * MS);
    let owners = lan.owners();
    for n in 1..=3 {
        says(&mut lan, n, Some(Fault::ForeignSourceDropped));
        lan.run(300 * MS);
    }
    assert_eq!(lan.owners(), owners);
    // One boots anew; what it had goes to the two others meanwhile.
    let world = lan.cores[&1].world.clone();
    lan.cores.remove(&1);
    lan.run(1_000 * MS);
    let owners = lan.owners();
    let booted = core(1, world, &Saved::default(), lan.now);
    lan.cores.insert(1, booted);
    lan.run(2_000 * MS);
    assert_eq!(lan.owners(), owners);
    says(&mut lan, 1, Some(Fault::ForeignSourceDropped));
    lan.run(300 * MS);
    assert_eq!(lan.owners(), owners);
}

#[test]
fn a_node_whose_director_cannot_be_used_goes_on_to_own_and_to_serve() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let owner = lan.owner(vip(1));
    says(&mut lan, owner, Some(Fault::FramesFromDirectorDropped));
    lan.run(300 * MS);
    assert_eq!(lan.owner(vip(1)), owner);
    assert_eq!(weights_of(&lan, owner), [1, 1, 1]);
}

#[test]
fn a_node_with_another_address_is_followed_and_not_taken_for_gone() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let owner = lan.owner(vip(1));
    lan.judged.clear();
    let (before, after) = (address(2), IpAddr::from([192, 0, 2, 99]));
    let mut next = (*lan.cores[&1].world).clone();
    next.nodes.get_mut(&name(2)).unwrap().v4 = Some([192, 0, 2, 99].into());
    let next = Arc::new(next);
    // The node itself hears of it last.
    for n in [1, 3, 2] {
        let now = lan.now;
        lan.cores.get_mut(&n).unwrap().on_world(next.clone(), now);
        lan.run(50 * MS);
    }
    lan.run(1_000 * MS);
    assert_eq!(lan.owner(vip(1)), owner);
    assert!(
        lan.judged.iter().all(|(.., to)| to.can_own()),
        "{:?}",
        lan.judged
    );
    for n in [1, 3] {
        assert_eq!(lan.cores[&n].detector.state(&name(2)), PeerState::Alive);
        let table = &lan.directors[&n];
        assert_eq!(table.peers.get(&after), Some(&uplink(2)));
        assert_eq!(table.peers.get(&before), None);
        let weights = &table.virtuals.values().next().unwrap().weights;
        assert_eq!(weights.get(&after), Some(&1));
        assert!(lan.listens[&n].nodes.contains(&after));
    }
}
