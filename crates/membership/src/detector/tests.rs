use proptest::prelude::*;

use super::*;

mod large;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn name(name: &str) -> NodeName {
    name.into()
}

/// Round numbers, so that the times in the tests can be read.
fn config() -> Config {
    Config {
        probe_interval: ms(25),
        ..Config::new(ms(100), 4)
    }
}

/// A detector and its clock, ticked at every deadline.
#[derive(Clone)]
struct Bench {
    detector: Detector,
    now: Duration,
    events: Vec<(u64, Event)>,
}

impl Bench {
    fn new(peers: &[&str]) -> Self {
        let mut detector = Detector::new(config(), name("me")).unwrap();
        let now = ms(0);
        detector.set_peers(&peers.iter().map(|peer| name(peer)).collect(), now);
        Self {
            detector,
            now,
            events: Vec::new(),
        }
    }

    fn keep(&mut self, events: Vec<Event>) {
        let at = self.now.as_millis() as u64;
        self.events
            .extend(events.into_iter().map(|event| (at, event)));
    }

    fn run_to(&mut self, until: u64) {
        while self.detector.next_deadline(self.now) <= ms(until) {
            self.now = self.detector.next_deadline(self.now).max(self.now);
            let events = self.detector.on_tick(self.now);
            self.keep(events);
        }
        self.now = ms(until);
    }

    fn beat(&mut self, peer: &str, at: u64) {
        self.run_to(at);
        let events = self.detector.on_heartbeat(&name(peer), false, self.now);
        self.keep(events);
    }

    fn goodbye(&mut self, peer: &str, at: u64) {
        self.run_to(at);
        let events = self.detector.on_heartbeat(&name(peer), true, self.now);
        self.keep(events);
    }

    fn reply(&mut self, peer: &str, at: u64) {
        self.run_to(at);
        let events = self.detector.on_probe_reply(&name(peer), self.now);
        self.keep(events);
    }

    fn state(&self, peer: &str) -> PeerState {
        self.detector.state(&name(peer))
    }

    /// Changes as (time in ms, to).
    fn changes(&self) -> Vec<(u64, PeerState)> {
        let changes = self.events.iter().filter_map(|(at, event)| match event {
            Event::Changed { to, .. } => Some((*at, *to)),
            Event::Probe(_) | Event::Late(_) => None,
        });
        changes.collect()
    }

    fn probes(&self) -> Vec<u64> {
        let probes = self
            .events
            .iter()
            .filter(|(_, event)| matches!(event, Event::Probe(_)));
        probes.map(|(at, _)| *at).collect()
    }
}

use PeerState::*;

#[test]
fn a_crash_is_seen_after_the_timeout_and_the_silence_told() {
    let mut bench = Bench::new(&["a"]);
    for at in [10, 110, 210] {
        bench.beat("a", at);
    }
    bench.run_to(700);
    assert_eq!(bench.changes(), [(10, Alive), (410, Suspect), (610, Dead)]);
    let dead = bench.events.iter().find(|(at, _)| *at == 610).unwrap();
    let expected = Event::Changed {
        node: name("a"),
        from: Suspect,
        to: Dead,
        silent_for: ms(400),
    };
    assert_eq!(dead.1, expected);
}

#[test]
fn beats_of_few_peers_put_the_next_tick_off() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.beat("a", 0);
    bench.beat("b", 0);
    for at in (25..1_000).step_by(25) {
        bench.run_to(at);
        let peer = if at % 50 == 0 { "a" } else { "b" };
        assert!(bench.detector.on_beat_of_live(&name(peer), ms(at)));
        // Never further than an interval, by which our own lateness is told.
        assert_eq!(bench.detector.next_deadline(bench.now), ms(at + 100));
    }
    assert_eq!(bench.changes(), [(0, Alive), (0, Alive)]);
}

#[test]
fn a_peer_that_beats_puts_off_nothing_that_is_due_of_another() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.beat("b", 0);
    for at in (0..500).step_by(5) {
        bench.beat("a", at);
    }
    let due: Vec<u64> = (0..8).map(|n| 200 + n * 25).collect();
    assert_eq!(bench.probes()[..8], due);
    let of_b = [(0, Alive), (0, Alive), (200, Suspect), (400, Dead)];
    assert_eq!(bench.changes(), of_b);
}

#[test]
fn a_process_that_others_may_have_given_up_says_so() {
    for (stopped, missed) in [(199, false), (200, true)] {
        let mut bench = Bench::new(&["a"]);
        bench.beat("a", 1_000);
        bench.run_to(1_099);
        // It should have run at 1,100; its own last heartbeat may be of 1,000, or a little after 900.
        bench.now = ms(1_100 + stopped);
        bench.detector.on_tick(bench.now);
        assert_eq!(bench.detector.was_missed(), missed, "{stopped}");
    }
}

#[test]
fn a_late_node_is_probed_at_once_and_then_steadily() {
    let mut bench = Bench::new(&["a"]);
    bench.beat("a", 0);
    bench.run_to(399);
    assert_eq!(bench.probes(), [200, 225, 250, 275, 300, 325, 350, 375]);
    bench.beat("a", 399);
    bench.run_to(598);
    assert_eq!(bench.state("a"), Alive);
    assert_eq!(bench.probes().len(), 8);
}

#[test]
fn a_silent_speaker_on_a_living_node_loses_its_vips_but_stays_a_backend() {
    let mut bench = Bench::new(&["a"]);
    bench.beat("a", 0);
    for at in [201, 301, 401, 501, 601] {
        bench.reply("a", at);
    }
    bench.run_to(1000);
    assert_eq!(
        bench.changes(),
        [(0, Alive), (200, Suspect), (400, SpeakerLost)]
    );
    assert!(!bench.state("a").can_own() && bench.state("a").node_alive());
    // The last sign of life was at 601.
    bench.run_to(1001);
    assert_eq!(bench.state("a"), Dead);
    assert!(!bench.state("a").node_alive());
}

#[test]
fn an_answer_from_before_the_last_heartbeat_does_not_count() {
    let mut bench = Bench::new(&["a"]);
    bench.beat("a", 0);
    bench.reply("a", 201);
    bench.beat("a", 250);
    bench.run_to(650);
    assert_eq!(bench.state("a"), Dead);
}

#[test]
fn a_lost_speaker_that_beats_again_is_alive_at_once() {
    let mut bench = Bench::new(&["a"]);
    bench.beat("a", 0);
    bench.reply("a", 201);
    bench.run_to(420);
    assert_eq!(bench.state("a"), SpeakerLost);
    bench.beat("a", 430);
    assert_eq!(bench.state("a"), Alive);
    assert!(bench.state("a").can_own());
}

#[test]
fn a_dead_node_that_boots_answers_first_and_beats_later() {
    let mut bench = Bench::new(&["a"]);
    bench.beat("a", 0);
    bench.run_to(5000);
    assert_eq!(bench.state("a"), Dead);
    bench.reply("a", 5000);
    assert_eq!(bench.state("a"), SpeakerLost);
    bench.run_to(5400);
    assert_eq!(bench.state("a"), Dead);
    bench.beat("a", 6000);
    assert_eq!(bench.state("a"), Alive);
}

#[test]
fn a_dead_node_is_probed_ever_more_rarely() {
    let mut bench = Bench::new(&["a"]);
    bench.run_to(400);
    bench.events.clear();
    bench.run_to(60_000);
    let gaps: Vec<u64> = bench.probes().windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(gaps[..7], [200, 400, 800, 1600, 3200, 6400, 6400]);
    assert!(gaps[6..].iter().all(|gap| *gap == 6400), "{gaps:?}");
}

#[test]
fn goodbye_takes_the_vips_at_once_and_leaves_the_backend() {
    let mut bench = Bench::new(&["a"]);
    bench.beat("a", 0);
    bench.goodbye("a", 50);
    assert_eq!(bench.state("a"), Leaving);
    assert!(!bench.state("a").can_own() && bench.state("a").node_alive());
    for at in [251, 351, 451, 551] {
        bench.reply("a", at);
    }
    bench.run_to(950);
    assert_eq!(bench.changes(), [(0, Alive), (50, Leaving), (250, Left)]);
    assert!(!bench.state("a").can_own() && bench.state("a").node_alive());
    bench.run_to(951);
    assert_eq!(bench.state("a"), Dead);
}

#[test]
fn a_speaker_that_left_and_starts_again_is_alive() {
    let mut bench = Bench::new(&["a"]);
    bench.goodbye("a", 0);
    bench.run_to(300);
    assert_eq!(bench.state("a"), Left);
    bench.beat("a", 310);
    assert_eq!(bench.state("a"), Alive);
}

#[test]
fn a_peer_never_heard_is_dead_or_without_speaker_after_the_timeout() {
    let mut bench = Bench::new(&["silent", "answers"]);
    assert_eq!(bench.state("silent"), Unknown);
    assert!(!Unknown.can_own() && Unknown.node_alive());
    bench.reply("answers", 210);
    bench.run_to(399);
    assert!(bench.changes().is_empty());
    bench.run_to(400);
    assert_eq!(
        (bench.state("silent"), bench.state("answers")),
        (Dead, SpeakerLost)
    );
}

#[test]
fn only_listed_peers_count() {
    let mut bench = Bench::new(&["a", "me"]);
    bench.beat("stranger", 10);
    bench.reply("stranger", 10);
    assert_eq!(bench.state("stranger"), Unknown);
    assert!(bench.events.is_empty());
    bench.beat("a", 20);
    bench.run_to(50);
    let peers: Vec<_> = bench.detector.peers(bench.now).collect();
    assert_eq!(peers, [(name("a"), Alive, ms(30))]);
    bench.detector.set_peers(&[name("b")].into(), ms(50));
    bench.run_to(1000);
    assert_eq!(bench.state("a"), Unknown);
    assert!(
        !bench
            .events
            .iter()
            .any(|(at, e)| *at > 50 && format!("{e:?}").contains("\"a\""))
    );
}

#[test]
fn keeping_a_peer_on_the_list_keeps_what_is_known_of_it() {
    let mut bench = Bench::new(&["a"]);
    bench.beat("a", 0);
    bench
        .detector
        .set_peers(&[name("a"), name("b")].into(), ms(50));
    assert_eq!(bench.state("a"), Alive);
}

#[test]
fn a_process_that_was_stopped_listens_for_a_full_timeout_first() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.beat("a", 1000);
    bench.beat("b", 1000);
    bench.run_to(1350);
    // Stopped for 5 s while both were 350 ms silent already.
    bench.now = ms(6350);
    let events = bench.detector.on_tick(bench.now);
    assert!(
        events.iter().all(|e| matches!(e, Event::Probe(_))),
        "{events:?}"
    );
    assert_eq!(bench.detector.woken_at(bench.now), Some(ms(6350)));
    bench.beat("a", 6600);
    bench.run_to(6749);
    assert_eq!(bench.state("b"), Suspect);
    bench.run_to(6750);
    assert_eq!((bench.state("a"), bench.state("b")), (Alive, Dead));
}

#[test]
fn a_stopped_process_that_finds_a_heartbeat_first_is_as_patient_with_the_others() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.beat("a", 0);
    bench.beat("b", 0);
    bench.run_to(50);
    bench.now = ms(5050);
    bench.detector.on_heartbeat(&name("a"), false, bench.now);
    bench.run_to(5449);
    assert_ne!(bench.state("b"), Dead);
    bench.run_to(5450);
    assert_eq!(bench.state("b"), Dead);
}

#[test]
fn a_small_delay_of_our_own_is_taken_off_the_silence() {
    let mut bench = Bench::new(&["a"]);
    bench.beat("a", 0);
    bench.run_to(199);
    // The tick due at 200 comes at 260.
    bench.now = ms(260);
    let events = bench.detector.on_tick(bench.now);
    bench.keep(events);
    assert_eq!(bench.detector.own_lateness(), ms(60));
    assert_eq!(bench.detector.woken_at(bench.now), None);
    bench.run_to(459);
    assert_eq!(bench.state("a"), Suspect);
    bench.run_to(460);
    assert_eq!(bench.state("a"), Dead);
}

#[test]
fn the_imprecision_of_timers_does_not_add_up() {
    let mut detector = Detector::new(config(), name("me")).unwrap();
    detector.set_peers(&[name("a")].into(), ms(0));
    let mut now = ms(0);
    while detector.state(&name("a")) != Dead {
        now = detector.next_deadline(now) + ms(5);
        detector.on_tick(now);
        assert!(now <= ms(405), "{now:?}");
    }
}

#[test]
fn refuses_timing_that_cannot_work() {
    let with = |change: fn(&mut Config)| {
        let mut config = config();
        change(&mut config);
        Detector::new(config, name("me")).map(|_| ()).unwrap_err()
    };
    assert_eq!(with(|c| c.interval = ms(9)), ConfigError::Interval(ms(9)));
    assert_eq!(with(|c| c.misses = 1), ConfigError::Misses(1));
    let probe_after = ConfigError::ProbeAfter {
        got: ms(400),
        min: ms(100),
        timeout: ms(400),
    };
    assert_eq!(with(|c| c.probe_after = ms(400)), probe_after);
    assert_eq!(
        probe_after.to_string(),
        "probes must start after 100ms or later but before 400ms, not 400ms"
    );
    assert_eq!(
        with(|c| c.probe_interval = ms(101)),
        ConfigError::ProbeInterval(ms(101))
    );
    assert_eq!(
        with(|c| c.leave_linger = ms(99)),
        ConfigError::LeaveLinger(ms(99))
    );
}

#[derive(Debug, Clone)]
enum Step {
    Beat(bool),
    Reply,
    Tick,
    Stop(u64),
}

fn any_step() -> impl Strategy<Value = (u64, Step)> {
    let step = prop_oneof![
        1 => any::<bool>().prop_map(Step::Beat),
        1 => Just(Step::Reply),
        4 => Just(Step::Tick),
        1 => (100u64..9000).prop_map(Step::Stop),
    ];
    (0u64..150, step)
}

proptest! {
    /// Whatever happens: no verdict of silence before the timeout was really listened through,
    /// changes chain, and the next deadline lies ahead but not far.
    #[test]
    fn never_accuses_before_it_listened(steps in proptest::collection::vec(any_step(), 0..80)) {
        let timeout = config().timeout();
        let mut bench = Bench::new(&["a"]);
        // Own time spent listening since the last sign of life of any kind, and of the speaker.
        let (mut heard, mut beaten) = (ms(0), ms(0));
        let mut state = Unknown;
        for (pause, step) in steps {
            let until = bench.now.as_millis() as u64 + pause;
            bench.run_to(until);
            let mut at = bench.now;
            match step {
                Step::Beat(leaving) => {
                    let events = bench.detector.on_heartbeat(&name("a"), leaving, at);
                    bench.keep(events);
                }
                Step::Reply => {
                    let events = bench.detector.on_probe_reply(&name("a"), at);
                    bench.keep(events);
                }
                Step::Tick => {
                    let events = bench.detector.on_tick(at);
                    bench.keep(events);
                }
                Step::Stop(time) => {
                    at = bench.detector.next_deadline(at).max(at) + ms(time);
                    bench.now = at;
                    let events = bench.detector.on_tick(at);
                    bench.keep(events);
                }
            }
            for (when, event) in std::mem::take(&mut bench.events) {
                let Event::Changed { from, to, .. } = event else { continue };
                prop_assert_eq!(from, state);
                state = to;
                let when = ms(when);
                if to == Dead {
                    prop_assert!(when >= heard + timeout, "{when:?} {heard:?}");
                }
                if to == SpeakerLost && from != Dead {
                    prop_assert!(when >= beaten + timeout, "{when:?} {beaten:?}");
                }
            }
            match step {
                Step::Beat(_) => (heard, beaten) = (at, at),
                Step::Reply => heard = at,
                Step::Stop(_) => (heard, beaten) = (at, at),
                Step::Tick => {}
            }
            prop_assert_eq!(bench.state("a"), state);
            let next = bench.detector.next_deadline(bench.now);
            prop_assert!(next <= bench.now + config().interval);
        }
    }
}

#[test]
fn a_late_peer_is_in_sight_until_it_has_left_some_probes_without_an_answer() {
    let mut bench = Bench::new(&["a"]);
    let in_sight = |bench: &Bench| bench.detector.in_sight(&name("a"), bench.now);
    assert!(!in_sight(&bench));
    bench.beat("a", 10);
    // Late after 200 ms, gone after 400; three probes take 75.
    bench.run_to(284);
    assert_eq!(bench.detector.state(&name("a")), PeerState::Suspect);
    assert!(in_sight(&bench));
    bench.run_to(286);
    assert_eq!(bench.detector.state(&name("a")), PeerState::Suspect);
    assert!(!in_sight(&bench));
    bench.reply("a", 290);
    assert!(in_sight(&bench));
    bench.beat("a", 300);
    bench.run_to(600);
    assert!(!in_sight(&bench));
    bench.beat("a", 610);
    assert!(in_sight(&bench));
}
