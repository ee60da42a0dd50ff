//! A cluster in which not everybody watches everybody.

use super::*;
use crate::graph::Shape;

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
fn one_alarm_has_it_probed_and_two_halve_the_time_for_any_answer() {
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

    // The node lives: its speaker has all the time that a late one has.
    let (mut bench, _, distant) = large();
    bench.beat(&distant, 10);
    late(&mut bench, "node98", &distant, 500);
    late(&mut bench, "node97", &distant, 501);
    bench.reply(&distant, 502);
    bench.run_to(1000);
    let expected = [(10, Alive), (500, Suspect), (700, SpeakerLost), (902, Dead)];
    assert_eq!(changes_of(&bench, &distant), expected);

    // What its kernel said before the alarm, to ask for a neighbour, is no answer to it.
    let (mut bench, _, distant) = large();
    bench.beat(&distant, 10);
    bench.reply(&distant, 100);
    late(&mut bench, "node98", &distant, 500);
    late(&mut bench, "node97", &distant, 501);
    bench.run_to(1000);
    let expected = [(10, Alive), (500, Suspect), (601, Dead)];
    assert_eq!(changes_of(&bench, &distant), expected);
}

#[test]
fn who_was_stopped_gives_one_that_is_said_to_be_late_all_its_time_again() {
    let (mut bench, _, distant) = large();
    bench.beat(&distant, 10);
    late(&mut bench, "node98", &distant, 500);
    late(&mut bench, "node97", &distant, 501);
    bench.run_to(590);
    // Stopped for a second, 11 ms before the node would have been given up.
    bench.now = ms(1600);
    let events = bench.detector.on_tick(bench.now);
    bench.keep(events);
    bench.run_to(2000);
    let expected = [(10, Alive), (500, Suspect), (1800, Dead)];
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

fn names(count: usize) -> Vec<String> {
    (1..count).map(|n| format!("node{n}")).collect()
}

/// A cluster grows, and others know of it already: one of them beats as seldom as is agreed in the larger
/// cluster, and answers when it is asked. It is asked, and not given up, until the growth is heard of here too.
fn grows(from: usize, to: usize) {
    let (few, many) = (names(from), names(to));
    let mut bench = Bench::new(&few.iter().map(String::as_str).collect::<Vec<_>>());
    let known = |all: &[String]| all.iter().map(|node| name(node)).collect::<BTreeSet<_>>();
    let late = Graph::new(&Shape::DEFAULT, &name("me"), &known(&many));
    let early = bench.detector.graph.clone();
    // One that nobody relies on this one to watch, neither before nor after.
    let distant = |graph: &Graph, node: &str| !graph.sparse() || !graph.watches(&name(node));
    let mut there = few.iter().filter(|node| distant(&early, node));
    let other = there.find(|node| !late.watches(&name(node))).unwrap();
    let interval = config().interval.as_millis() as u64;
    let round = u64::from(late.round());
    let patience = if early.sparse() {
        u64::from(early.round()) * 2 * interval
    } else {
        config().probe_after.as_millis() as u64
    };
    let mut at = 10;
    bench.beat(other, at);
    // For ten of its rounds. It hears the question after some milliseconds, or that after the next.
    let mut asked = 0;
    for lost in (0..10).map(|n| n % 3) {
        let next = at + round * interval;
        while at + patience < next {
            at += patience + 10 + lost * 25;
            bench.run_to(at - 10);
            assert_eq!(bench.state(other), Suspect, "{at}");
            bench.beat(other, at);
            asked += 1;
        }
        at = next.max(at + 1);
        bench.beat(other, at);
    }
    let wrong = |(_, to): &(u64, PeerState)| !matches!(to, Alive | Suspect);
    let changes = changes_of(&bench, other);
    assert!(!changes.iter().any(wrong), "{changes:?}");
    assert!(
        asked >= 10,
        "its rounds are no longer than is expected here"
    );
    assert!(told(&bench).iter().all(|(_, node)| **node != **other));

    // Now it is heard of here: its pace is the one that is expected.
    bench.detector.set_peers(&known(&many), bench.now);
    for _ in 0..10 {
        at += round * interval;
        bench.beat(other, at);
    }
    assert_eq!(changes_of(&bench, other), changes);
}

#[test]
fn who_knows_of_more_nodes_and_beats_more_seldom_is_asked_and_not_given_up() {
    // From all watch all; from every 14th heartbeat to every 40th, and to every 67th.
    for (from, to) in [(60, 100), (200, 600), (200, 1000)] {
        grows(from, to);
    }
}

/// A cluster shrinks at once. Who was silent for as long as was agreed until then is not given up before it could
/// answer.
#[test]
fn who_beats_more_often_from_now_on_is_given_the_time_for_it() {
    let (many, few) = (names(600), names(200));
    let mut bench = Bench::new(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let known = |all: &[String]| all.iter().map(|node| name(node)).collect::<BTreeSet<_>>();
    let late = Graph::new(&Shape::DEFAULT, &name("me"), &known(&few));
    let early = bench.detector.graph.clone();
    let distant = |node: &&String| !early.watches(&name(node)) && !late.watches(&name(node));
    let other = few.iter().find(distant).unwrap();
    let interval = config().interval.as_millis() as u64;
    let round = |graph: &Graph| u64::from(graph.round()) * interval;
    assert!(round(&late) * 2 + 10 * interval < round(&early));
    bench.beat(other, 10);
    let mut silent = bench.clone();
    bench.run_to(10 + round(&early));
    bench.detector.set_peers(&known(&few), bench.now);
    bench.run_to(10 + round(&early) + round(&late));
    assert_eq!(bench.state(other), Alive);
    // It has died.
    bench.run_to(10 + round(&early) + round(&late) * 2 + 10 * interval);
    assert_eq!(bench.state(other), Dead); // Who is asked already has no more time than it had.
    let asked = 10 + 2 * round(&early);
    silent.run_to(asked + 50);
    assert_eq!(silent.state(other), Suspect);
    silent.detector.set_peers(&known(&few), silent.now);
    silent.run_to(asked + 199);
    assert_eq!(silent.state(other), Suspect);
    silent.run_to(asked + 210);
    assert_eq!(silent.state(other), Dead);
}
