//! Nodes on a network that drops what it is told to.

use super::*;
use crate::path::verdict::Fault;

const MAC_OF: fn(u8, u8) -> Mac = |node, kind| Mac([2, 0, 0, 0, kind, node]);

fn host(node: u8, director: bool) -> Host {
    Host {
        v4: Some(Ipv4Addr::new(192, 0, 2, node)),
        v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, node.into())),
        uplink: MAC_OF(node, 0),
        director: director.then(|| MAC_OF(node, 1)),
    }
}

fn heard(host: Host) -> Peer {
    Peer {
        host,
        heard: true,
        directs: host.director.is_some(),
    }
}

fn name(node: u8) -> NodeName {
    format!("node{node}").into()
}

/// Says whether the network drops a frame.
type Rule = Box<dyn Fn(&Shot) -> bool>;

struct Lan {
    testers: BTreeMap<u8, Tester>,
    rule: Rule,
    now: Duration,
    sent: Vec<(Duration, u8)>,
}

impl Lan {
    fn new(nodes: u8, rule: impl Fn(&Shot) -> bool + 'static) -> Lan {
        let hosts: BTreeMap<u8, Host> = (1..=nodes).map(|n| (n, host(n, true))).collect();
        let mut testers = BTreeMap::new();
        for (node, own) in &hosts {
            let mut tester = Tester::new(&name(*node), 7, *own, &Kept::default(), Duration::ZERO);
            let peers = hosts.iter().filter(|(other, _)| *other != node);
            let peers = peers.map(|(other, host)| (name(*other), heard(*host)));
            tester.set_peers(peers.collect(), Duration::ZERO);
            testers.insert(*node, tester);
        }
        Lan {
            testers,
            rule: Box::new(rule),
            now: Duration::ZERO,
            sent: Vec::new(),
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            for node in self.testers.keys().copied().collect::<Vec<_>>() {
                let shots = self.testers.get_mut(&node).unwrap().tick(self.now);
                for shot in shots {
                    self.sent.push((self.now, node));
                    self.deliver(&shot);
                }
            }
            self.now += Duration::from_millis(10);
        }
    }

    /// To the port of the MAC that the frame is for; the answer goes the same way.
    fn deliver(&mut self, shot: &Shot) {
        if (self.rule)(shot) {
            return;
        }
        let node = shot.eth.1.0[5];
        let family = Family::of(shot.ip.1);
        let tester = self.testers.get_mut(&node).unwrap();
        if let Some(answer) = tester.on_probe(&shot.probe, family, self.now) {
            self.deliver(&answer);
        }
    }

    /// Its speaker starts anew with these addresses and what was kept, as it came out of a file, and has
    /// heard nobody yet.
    fn restart(&mut self, node: u8, own: Host) -> BTreeMap<NodeName, Peer> {
        let before = &self.testers[&node];
        let peers = before.peers.clone();
        let text = serde_json::to_string(&before.kept(&self.verdict(node), self.now)).unwrap();
        let kept = serde_json::from_str(&text).unwrap();
        let tester = Tester::new(&name(node), 8, own, &kept, self.now);
        self.testers.insert(node, tester);
        peers
    }

    fn hear(&mut self, node: u8, peers: BTreeMap<NodeName, Peer>) {
        let now = self.now;
        self.testers.get_mut(&node).unwrap().set_peers(peers, now);
    }

    fn verdict(&self, node: u8) -> Verdict {
        self.testers[&node].verdict(self.now)
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn of_node(mac: Mac, node: u8) -> bool {
    mac.0[5] == node
}

fn is_director(mac: Mac) -> bool {
    mac.0[4] == 1
}

fn own_source(shot: &Shot) -> bool {
    let own = host(shot.eth.0.0[5], true);
    [Family::V4, Family::V6]
        .iter()
        .any(|family| own.address(*family) == Some(shot.ip.0))
}

#[test]
fn where_all_frames_pass_all_is_known_within_seconds_and_fine() {
    let mut lan = Lan::new(3, |_| false);
    assert_eq!(lan.verdict(1).reason(), "NotTested");
    lan.run(seconds(3));
    for node in 1..=3 {
        let verdict = lan.verdict(node);
        assert!(verdict.fine(), "{verdict:?}");
        assert_eq!((verdict.known, verdict.reason()), (4, "Passed"));
    }
    // Who was asked asked back, and then it is silent for minutes.
    lan.run(seconds(15));
    let before = lan.sent.len();
    lan.run(seconds(500));
    assert_eq!(lan.sent.len(), before);
    lan.run(seconds(200));
    assert!(lan.sent.len() > before);
}

/// Nobody starts a speaker or moves a cable: the time alone has all ways asked for again.
#[test]
fn a_rule_that_comes_later_is_found_within_ten_minutes() {
    let mut lan = Lan::new(3, |_| false);
    lan.run(seconds(60));
    assert!(lan.verdict(2).fine());
    lan.rule = Box::new(|shot| of_node(shot.eth.0, 2) && is_director(shot.eth.0));
    lan.run(seconds(500));
    assert!(lan.verdict(2).fine());
    lan.run(seconds(120));
    let fault = lan.verdict(2).fault;
    assert_eq!(fault, Some(Fault::FramesFromDirectorDropped));
}

/// Until a node's verdict says that it was judged, which takes so long.
fn until_judged(lan: &mut Lan, node: u8) -> Duration {
    let begin = lan.now;
    while !lan.verdict(node).judged {
        assert!(lan.now < begin + seconds(60), "never judged");
        lan.run(Duration::from_millis(10));
    }
    lan.now - begin
}

#[test]
fn a_node_that_boots_is_judged_when_a_loss_on_either_end_is_known() {
    let no_director_receives = |shot: &Shot| of_node(shot.eth.1, 2) && !own_source(shot);
    let no_director_sends = |shot: &Shot| of_node(shot.eth.0, 2) && is_director(shot.eth.0);
    let filters = [no_director_receives, no_director_sends];
    for (filter, nodes) in filters
        .iter()
        .flat_map(|filter| [5, 20].map(|n| (*filter, n)))
    {
        let mut lan = Lan::new(nodes, |_| false);
        lan.run(seconds(60));
        lan.rule = Box::new(filter);
        let peers = lan.restart(2, host(2, true));
        lan.run(seconds(20));
        assert!(!lan.verdict(2).judged, "nobody was heard");
        lan.hear(2, peers);
        let took = until_judged(&mut lan, 2);
        let verdict = lan.verdict(2);
        assert!(verdict.deaf || verdict.fault.is_some(), "{verdict:?}");
        // Where frames are lost, each of the ways that are enough takes eight turns.
        assert!(
            took <= seconds(if nodes == 5 { 16 } else { 40 }),
            "{took:?}"
        );
    }
    // One that does not answer at all is given up.
    let mut lan = Lan::new(2, |shot| of_node(shot.eth.0, 2));
    assert!(until_judged(&mut lan, 1) <= JUDGED + seconds(1));
}

#[test]
fn a_port_that_lets_only_its_own_mac_send_is_blamed_alone() {
    let mut lan = Lan::new(3, |shot| of_node(shot.eth.0, 2) && is_director(shot.eth.0));
    lan.run(seconds(15));
    let verdict = lan.verdict(2);
    assert_eq!(verdict.fault, Some(Fault::FramesFromDirectorDropped));
    assert_eq!(verdict.with, [name(1), name(3)].into());
    let text = verdict.to_string();
    assert!(
        text.contains("node1, node3") && text.contains("forged transmits"),
        "{text}"
    );
    for node in [1, 3] {
        let verdict = lan.verdict(node);
        assert_eq!((verdict.fault, verdict.deaf), (None, false), "{verdict:?}");
    }
}

#[test]
fn a_port_that_gets_only_frames_for_its_own_mac_is_blamed_by_what_the_others_say() {
    let mut lan = Lan::new(3, |shot| of_node(shot.eth.1, 2) && is_director(shot.eth.1));
    lan.run(seconds(20));
    assert_eq!(lan.verdict(2).fault, Some(Fault::FramesToDirectorDropped));
    for node in [1, 3] {
        assert_eq!(lan.verdict(node).fault, None);
        assert_eq!(lan.verdict(node).reason(), "Passed");
    }
}

#[test]
fn a_port_that_lets_only_its_own_address_send_is_told_from_one_that_lets_only_its_mac() {
    let mut lan = Lan::new(3, |shot| of_node(shot.eth.0, 2) && !own_source(shot));
    lan.run(seconds(20));
    assert_eq!(lan.verdict(2).fault, Some(Fault::ForeignSourceDropped));
    assert_eq!(lan.verdict(1).fault, None);
    assert!(!lan.verdict(1).deaf);
    assert!(lan.verdict(1).proven && !lan.verdict(2).proven);
}

#[test]
fn a_port_that_gets_nothing_from_foreign_sources_is_deaf_and_the_others_are_not_to_blame() {
    let mut lan = Lan::new(4, |shot| of_node(shot.eth.1, 2) && !own_source(shot));
    lan.run(seconds(20));
    let verdict = lan.verdict(2);
    assert_eq!((verdict.fault, verdict.deaf), (None, true), "{verdict:?}");
    for node in [1, 3, 4] {
        let verdict = lan.verdict(node);
        assert_eq!((verdict.fault, verdict.deaf), (None, false), "{verdict:?}");
        assert_eq!(verdict.reason(), "SomePathsFail");
        assert_eq!(verdict.with, [name(2)].into());
    }
}

#[test]
fn a_port_that_gets_nothing_from_directors_macs_is_deaf_too() {
    let mut lan = Lan::new(4, |shot| of_node(shot.eth.1, 2) && is_director(shot.eth.0));
    lan.run(seconds(20));
    let verdict = lan.verdict(2);
    assert_eq!((verdict.fault, verdict.deaf), (None, true), "{verdict:?}");
    assert_eq!(verdict.reason(), "ForwardedFramesDropped");
    for node in [1, 3, 4] {
        let verdict = lan.verdict(node);
        assert_eq!((verdict.fault, verdict.deaf), (None, false), "{verdict:?}");
    }
}

#[test]
fn who_does_not_forward_says_nothing_of_what_reaches_others() {
    let mut lan = Lan::new(2, |shot| of_node(shot.eth.0, 1) && !own_source(shot));
    lan.run(seconds(20));
    assert_eq!(lan.verdict(1).fault, Some(Fault::ForeignSourceDropped));
    // Of two the other could be to blame as well, until it is known that this one does not forward any more.
    assert!(lan.verdict(2).deaf);
    let now = lan.now;
    let peer = Peer {
        directs: false,
        ..heard(host(1, true))
    };
    let tester = lan.testers.get_mut(&2).unwrap();
    tester.set_peers([(name(1), peer)].into(), now);
    assert_eq!((lan.verdict(2).fault, lan.verdict(2).deaf), (None, false));
    // So much is not known of it, though, that all should go there.
    assert!(!lan.verdict(2).proven);
}

#[test]
fn a_filter_of_odd_sources_alone_proves_nothing() {
    let odd: IpAddr = FOREIGN_V4[0].into();
    let mut lan = Lan::new(3, move |shot| shot.ip.0 == odd);
    lan.run(seconds(20));
    for node in 1..=3 {
        assert_eq!(lan.verdict(node).fault, None);
        assert!(!lan.verdict(node).deaf);
    }
}

#[test]
fn a_port_with_both_faults_has_both_told() {
    let mut lan = Lan::new(3, |shot| {
        let to = of_node(shot.eth.1, 2);
        to && (is_director(shot.eth.1) || !own_source(shot))
    });
    lan.run(seconds(20));
    let verdict = lan.verdict(2);
    assert_eq!(verdict.fault, Some(Fault::FramesToDirectorDropped));
    assert!(verdict.deaf);
    let text = verdict.to_string();
    assert!(
        text.contains("promiscuous mode") && text.contains("new connections go to other nodes")
    );
}

#[test]
fn a_rule_of_the_whole_network_makes_all_announce_and_nobody_deaf() {
    let mut lan = Lan::new(3, |shot| !own_source(shot));
    lan.run(seconds(20));
    for node in 1..=3 {
        let verdict = lan.verdict(node);
        assert_eq!(verdict.fault, Some(Fault::ForeignSourceDropped));
        assert!(!verdict.deaf);
    }
    let mut lan = Lan::new(3, |shot| is_director(shot.eth.0));
    lan.run(seconds(20));
    for node in 1..=3 {
        let verdict = lan.verdict(node);
        assert_eq!(verdict.fault, Some(Fault::FramesFromDirectorDropped));
        assert!(!verdict.deaf);
    }
}

#[test]
fn where_not_even_plain_frames_pass_nothing_is_concluded() {
    let mut lan = Lan::new(3, |shot| of_node(shot.eth.1, 2) || of_node(shot.eth.0, 2));
    lan.run(seconds(60));
    assert_eq!(lan.verdict(2).reason(), "NotTested");
    assert_eq!(lan.verdict(1).reason(), "Passed");
    assert_eq!(lan.verdict(1).known, 2);
}

#[test]
fn what_works_again_is_fine_after_three_good_rounds() {
    let mut lan = Lan::new(3, |shot| is_director(shot.eth.0));
    lan.run(seconds(15));
    assert!(lan.verdict(1).fault.is_some());
    lan.rule = Box::new(|_| false);
    lan.run(seconds(60));
    for node in 1..=3 {
        assert!(lan.verdict(node).fine(), "{:?}", lan.verdict(node));
    }
}

#[test]
fn a_changed_uplink_is_asked_for_at_once_and_the_old_verdict_holds_until_then() {
    let mut lan = Lan::new(3, |_| false);
    lan.run(seconds(5));
    lan.rule = Box::new(|shot| of_node(shot.eth.0, 1) && is_director(shot.eth.0));
    let now = lan.now;
    lan.testers.get_mut(&1).unwrap().again(now);
    assert!(lan.verdict(1).fine());
    lan.run(seconds(15));
    assert!(lan.verdict(1).fault.is_some());
}

#[test]
fn a_speaker_that_is_new_is_asked_back_by_the_others() {
    let mut lan = Lan::new(3, |_| false);
    lan.run(seconds(60));
    lan.rule = Box::new(|shot| of_node(shot.eth.1, 2) && is_director(shot.eth.1));
    // Only the others can find that, and theirs was the last round.
    let now = lan.now;
    lan.testers.get_mut(&2).unwrap().again(now);
    lan.run(seconds(20));
    assert_eq!(lan.verdict(2).fault, Some(Fault::FramesToDirectorDropped));
}

#[test]
fn two_changes_in_a_row_are_both_asked_back() {
    let mut lan = Lan::new(3, |_| false);
    lan.run(seconds(60));
    for _ in 0..2 {
        let now = lan.now;
        lan.testers.get_mut(&2).unwrap().again(now);
        lan.run(seconds(2));
    }
    lan.rule = Box::new(|shot| of_node(shot.eth.1, 2) && is_director(shot.eth.1));
    let now = lan.now;
    lan.testers.get_mut(&2).unwrap().again(now);
    lan.run(seconds(30));
    assert_eq!(lan.verdict(2).fault, Some(Fault::FramesToDirectorDropped));
}

#[test]
fn a_lossy_network_blames_nobody() {
    let state = std::cell::Cell::new(1_u64);
    // Every fifth frame or so is lost.
    let mut lan = Lan::new(4, move |_| {
        let mut x = state.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        x.is_multiple_of(5)
    });
    for _ in 0..20 {
        lan.run(seconds(600));
        for node in 1..=4 {
            assert_eq!(lan.verdict(node).fault, None);
            assert!(!lan.verdict(node).deaf);
        }
    }
}

#[test]
fn recorded_and_foreign_answers_count_for_nothing() {
    let mut lan = Lan::new(2, |shot| is_director(shot.eth.0));
    let shots = lan
        .testers
        .get_mut(&1)
        .unwrap()
        .tick(Duration::from_millis(300));
    let asked = shots.iter().find(|shot| shot.by_director).unwrap().probe;
    lan.run(seconds(20));
    assert!(lan.verdict(1).fault.is_some());
    let answer = Probe {
        answer: true,
        ..asked
    };
    let tester = lan.testers.get_mut(&1).unwrap();
    tester.on_probe(&answer, Family::V4, seconds(20));
    let earlier = Probe {
        boot_id: 6,
        ..answer
    };
    tester.on_probe(&earlier, Family::V4, seconds(20));
    assert!(lan.verdict(1).fault.is_some());
}

#[test]
fn no_more_than_25_frames_a_second_are_sent() {
    let mut lan = Lan::new(30, |shot| is_director(shot.eth.1));
    lan.run(seconds(60));
    let mut per_node: BTreeMap<u8, Vec<Duration>> = BTreeMap::new();
    for (at, node) in &lan.sent {
        per_node.entry(*node).or_default().push(*at);
    }
    for times in per_node.values() {
        for (first, start) in times.iter().enumerate() {
            let within = times[first..]
                .iter()
                .take_while(|t| **t - *start < seconds(1));
            assert!(within.count() <= 25);
        }
    }
    assert!(per_node.len() == 30);
}

#[test]
fn a_node_without_a_director_asks_only_for_the_ways_to_others() {
    let mut tester = Tester::new(
        &name(1),
        7,
        host(1, false),
        &Kept::default(),
        Duration::ZERO,
    );
    tester.set_peers([(name(2), heard(host(2, true)))].into(), Duration::ZERO);
    let shots = tester.tick(seconds(1));
    let asked: Vec<_> = shots.iter().map(|shot| shot.probe.question).collect();
    assert_eq!(asked, [Question::Plain, Question::ToDirector]);
    assert!(shots.iter().all(|shot| !shot.by_director));
}

/// Two of three ways of each kind fail, so that the first answer alone would say that all is well.
#[test]
fn a_verdict_outlives_a_restart_until_it_is_known_anew() {
    let rules: [(Rule, Option<Fault>, bool); 3] = [
        (
            Box::new(|shot| {
                of_node(shot.eth.0, 2) && is_director(shot.eth.0) && !of_node(shot.eth.1, 1)
            }),
            Some(Fault::FramesFromDirectorDropped),
            false,
        ),
        (
            Box::new(|shot| {
                of_node(shot.eth.1, 2) && is_director(shot.eth.1) && !of_node(shot.eth.0, 1)
            }),
            Some(Fault::FramesToDirectorDropped),
            false,
        ),
        (
            Box::new(|shot| {
                of_node(shot.eth.1, 2) && is_director(shot.eth.0) && !of_node(shot.eth.0, 1)
            }),
            None,
            true,
        ),
    ];
    for (rule, fault, deaf) in rules {
        let mut lan = Lan::new(4, rule);
        let seen = |lan: &Lan| (lan.verdict(2).fault, lan.verdict(2).deaf);
        lan.run(seconds(20));
        assert_eq!(seen(&lan), (fault, deaf));
        let before = Verdict {
            judged: false,
            ..lan.verdict(2)
        };
        let peers = lan.restart(2, host(2, true));
        assert_eq!(lan.verdict(2), before);
        lan.run(Duration::from_millis(500));
        // One after another is heard.
        let first = peers
            .iter()
            .take(1)
            .map(|(name, peer)| (name.clone(), *peer));
        lan.hear(2, first.collect());
        for _ in 0..10 {
            assert_eq!(seen(&lan), (fault, deaf));
            lan.run(Duration::from_millis(50));
        }
        lan.hear(2, peers);
        for _ in 0..200 {
            assert_eq!(seen(&lan), (fault, deaf));
            lan.run(Duration::from_millis(100));
        }
        // What was set right meanwhile is seen, too.
        lan.rule = Box::new(|_| false);
        let peers = lan.restart(2, host(2, true));
        lan.hear(2, peers);
        assert_eq!(seen(&lan), (fault, deaf));
        lan.run(seconds(20));
        assert!(lan.verdict(2).fine(), "{:?}", lan.verdict(2));
        assert_eq!(
            lan.testers[&2].kept(&lan.verdict(2), lan.now),
            Kept::default()
        );
    }
}

#[test]
fn what_was_known_of_other_addresses_or_of_nodes_that_are_gone_does_not_outlive_a_restart() {
    let mut lan = Lan::new(3, |shot| is_director(shot.eth.0));
    lan.run(seconds(15));
    let kept = lan.testers[&2].kept(&lan.verdict(2), lan.now);
    assert!(lan.verdict(2).fault.is_some());
    let other = Host {
        uplink: MAC_OF(2, 3),
        ..host(2, true)
    };
    lan.restart(2, other);
    assert!(lan.verdict(2).fine());

    let tester = || Tester::new(&name(2), 8, host(2, true), &kept, Duration::ZERO);
    let mut moved = tester();
    let peers = [1, 3].map(|node| {
        let host = Host {
            v4: Some(Ipv4Addr::new(192, 0, 2, 90 + node)),
            ..host(node, true)
        };
        (name(node), heard(host))
    });
    moved.set_peers(peers.into(), Duration::ZERO);
    assert!(moved.verdict(Duration::ZERO).fine());

    let mut alone = tester();
    assert!(alone.verdict(Duration::ZERO).fault.is_some());
    assert_eq!(alone.next_deadline(), Some(REMEMBERED));
    assert_eq!(alone.tick(REMEMBERED), []);
    assert!(alone.verdict(REMEMBERED).fine());
    assert_eq!(alone.next_deadline(), None);
}

/// Its path test is heard of in heartbeats, but does not answer.
#[test]
fn what_was_known_before_a_restart_has_to_be_confirmed_within_a_round() {
    // What the other one had said counts for a minute, what was found here for a round.
    let rules: [(Rule, Fault, [u64; 2]); 2] = [
        (
            Box::new(|shot| of_node(shot.eth.1, 2) && is_director(shot.eth.1)),
            Fault::FramesToDirectorDropped,
            [20, 60],
        ),
        (
            Box::new(|shot| of_node(shot.eth.0, 2) && is_director(shot.eth.0)),
            Fault::FramesFromDirectorDropped,
            [3, 10],
        ),
    ];
    for (rule, fault, [holds, then]) in rules {
        let mut lan = Lan::new(2, rule);
        lan.run(seconds(20));
        assert_eq!(lan.verdict(2).fault, Some(fault));
        let peers = lan.restart(2, host(2, true));
        lan.rule = Box::new(|_| true);
        lan.hear(2, peers);
        lan.run(seconds(holds));
        assert!(lan.verdict(2).fault.is_some(), "{fault:?}");
        lan.run(seconds(then));
        assert_eq!(lan.verdict(2).reason(), "NotTested");
    }
}
