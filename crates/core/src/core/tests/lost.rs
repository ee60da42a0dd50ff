//! Which dead nodes a speaker reports.

use super::*;

fn lost(lan: &Lan, by: u8) -> Vec<NodeName> {
    lan.reports[&by].lost.iter().cloned().collect()
}

#[test]
fn a_dead_node_is_reported_by_all_of_few_and_withdrawn_when_it_is_heard() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    assert!((1..=3).all(|n| lost(&lan, n).is_empty()));
    lan.cores.remove(&3);
    let died = lan.now;
    while lost(&lan, 1).is_empty() || lost(&lan, 2).is_empty() {
        lan.run(5 * MS);
        assert!(lan.now - died < 1_000 * MS, "nobody reports it");
    }
    assert_eq!(lost(&lan, 1), [name(3)]);
    assert_eq!(lost(&lan, 2), [name(3)]);
    let back = core(3, world(1), &Saved::default(), lan.now);
    lan.cores.insert(3, back);
    lan.run(1_000 * MS);
    assert!((1..=3).all(|n| lost(&lan, n).is_empty()));
}

#[test]
fn a_speaker_that_ended_on_a_node_that_lives_is_not_reported() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    lan.cores.remove(&3);
    lan.kernels.insert(3);
    for _ in 0..40 {
        lan.run(100 * MS);
        assert!((1..=2).all(|n| lost(&lan, n).is_empty()));
    }
    // Now the node dies as well.
    lan.kernels.remove(&3);
    lan.run(1_000 * MS);
    assert_eq!(lost(&lan, 1), [name(3)]);
}

#[test]
fn who_is_cut_off_accuses_nobody() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    lan.cut = Some(3);
    for _ in 0..20 {
        lan.run(100 * MS);
        assert_eq!(lost(&lan, 3), Vec::<NodeName>::new());
    }
    assert_eq!(lost(&lan, 1), [name(3)]);
    assert_eq!(lost(&lan, 2), [name(3)]);
}

#[test]
fn a_node_that_was_never_heard_is_not_reported() {
    let mut lan = Lan::with(1);
    lan.cores.remove(&3);
    lan.run(2_000 * MS);
    assert!((1..=2).all(|n| lost(&lan, n).is_empty()));
}

#[test]
fn who_stops_has_nothing_more_to_say() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    lan.cores.remove(&3);
    lan.run(1_000 * MS);
    assert_eq!(lost(&lan, 1), [name(3)]);
    let now = lan.now;
    lan.cores.get_mut(&1).unwrap().leave(now);
    lan.run(300 * MS);
    assert_eq!(lost(&lan, 1), Vec::<NodeName>::new());
}
