//! A cluster in which not everybody watches everybody.

use super::*;

/// A bench with 99 peers, one that it watches and one that it does not. All are heard at `now`.
fn large() -> (Bench, String, String) {
    let names: Vec<String> = (1..100).map(|n| format!("node{n}")).collect();
    let bench = Bench::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let watches = |node: &&String| bench.detector.graph.watches(&name(node));
    let watched = names.iter().find(watches).unwrap().clone();
    let distant = names.iter().find(|n| !watches(n)).unwrap().clone();
    (bench, watched, distant)
}

fn changes_of(bench: &Bench, peer: &str) -> Vec<(u64, PeerState)> {
    let changes = bench.events.iter().filter_map(|(at, event)| match event {
        Event::Changed { node, to, .. } if **node == *peer => Some((*at, *to)),
        _ => None,
    });
    changes.collect()
}

fn told(bench: &Bench) -> Vec<(u64, &str)> {
    let told = bench.events.iter().filter_map(|(at, event)| match event {
        Event::Late(node) => Some((*at, &**node)),
        _ => None,
    });
    told.collect()
}

fn late(bench: &mut Bench, by: &str, of: &str, at: u64) {
    bench.run_to(at);
    bench.detector.on_late(&name(by), digest(of), ms(at));
}

#[test]
fn a_watched_node_is_told_to_be_late_before_it_is_given_up() {
    let (mut bench, watched, _) = large();
    bench.beat(&watched, 10);
    bench.run_to(1000);
    assert_eq!(told(&bench), [(310, &*watched)]);
    let expected = [(10, Alive), (210, Suspect), (410, Dead)];
    assert_eq!(changes_of(&bench, &watched), expected);
    // Once for each silence.
    bench.beat(&watched, 1010);
    bench.run_to(2000);
    assert_eq!(told(&bench)[1..], [(1310, &*watched)]);
}

#[test]
fn a_distant_node_is_given_two_of_its_own_intervals() {
    let (mut bench, _, distant) = large();
    bench.beat(&distant, 10);
    bench.run_to(5000);
    let expected = [(10, Alive), (2010, Suspect), (2210, Dead)];
    assert_eq!(changes_of(&bench, &distant), expected);
    assert!(told(&bench).is_empty());
}

#[test]
fn one_alarm_has_it_probed_and_two_halve_the_time_for_an_answer() {
    let (mut bench, _, distant) = large();
    bench.beat(&distant, 10);
    late(&mut bench, "node98", &distant, 500);
    late(&mut bench, "node98", &distant, 520);
    bench.run_to(1000);
    let expected = [(10, Alive), (500, Suspect), (700, Dead)];
    assert_eq!(changes_of(&bench, &distant), expected);

    let (mut bench, _, distant) = large();
    bench.beat(&distant, 10);
    late(&mut bench, "node98", &distant, 500);
    late(&mut bench, "node97", &distant, 501);
    bench.run_to(1000);
    let expected = [(10, Alive), (500, Suspect), (601, Dead)];
    assert_eq!(changes_of(&bench, &distant), expected);
}

#[test]
fn who_answers_is_not_given_up_on_hearsay() {
    let (mut bench, watched, distant) = large();
    bench.beat(&distant, 10);
    bench.beat(&watched, 10);
    late(&mut bench, "node98", &distant, 500);
    late(&mut bench, "node97", &distant, 501);
    bench.beat(&distant, 540);
    // Just heard: no reason to look.
    late(&mut bench, "node96", &distant, 560);
    // Of who is watched the own eyes tell.
    bench.beat(&watched, 500);
    late(&mut bench, "node96", &watched, 560);
    bench.run_to(600);
    let expected = [(10, Alive), (500, Suspect), (540, Alive)];
    assert_eq!(changes_of(&bench, &distant), expected);
    // A kernel that answers is a node whose speaker is gone.
    late(&mut bench, "node98", &distant, 1500);
    bench.reply(&distant, 1550);
    bench.run_to(1710);
    assert_eq!(
        changes_of(&bench, &distant)[3..],
        [(1500, Suspect), (1700, SpeakerLost)]
    );
}

#[test]
fn who_hears_nothing_of_those_it_watches_is_cut_off() {
    let (mut bench, _, _) = large();
    let names: Vec<String> = (1..100).map(|n| format!("node{n}")).collect();
    for node in &names {
        bench.beat(node, 10);
    }
    bench.run_to(150);
    assert!(!bench.detector.cut_off(bench.now));
    let watches = |node: &&String| bench.detector.graph.watches(&name(node));
    let watched: Vec<String> = names.iter().filter(watches).cloned().collect();
    for node in &watched[..4] {
        bench.beat(node, 200);
    }
    bench.run_to(300);
    assert!(!bench.detector.cut_off(bench.now));
    for node in &watched[..3] {
        bench.beat(node, 390);
    }
    bench.run_to(500);
    assert!(bench.detector.cut_off(bench.now));
}
