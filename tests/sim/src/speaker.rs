//! One speaker process: the pure crates wired as the daemon wires them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use lightship_election::{self as election, Action, Away, Candidates, Election};
use lightship_membership::{
    Claim, Config, Detector, Event, Flags, Heartbeat, Keys, NodeName, PeerState, ReplayGuard, Rota,
    decode, encode,
};

/// What the process wants done.
#[derive(Debug)]
pub enum Out {
    /// Send to all peers whose turn it is: all pages, or one of them.
    Broadcast(Vec<Datagram>, Rota),
    /// Send to one.
    Send(NodeName, Datagram),
    /// ARP request or neighbour solicitation.
    Probe(NodeName),
    /// A peer's state changed.
    Changed {
        /// The peer.
        node: NodeName,
        /// Its state before.
        from: PeerState,
        /// Its state now.
        to: PeerState,
    },
    /// What the election decided.
    Act(Action),
    /// Everything handed over; the process ends.
    Exit,
}

/// What a datagram says, read once for all who get it: by the real decoder, from the bytes that the
/// real encoder wrote. All speakers of a run have the same key.
pub type Datagram = Rc<Heartbeat>;

/// What a process starts with.
#[derive(Debug, Clone)]
pub struct Start {
    /// Its node.
    pub me: NodeName,
    /// All nodes.
    pub nodes: BTreeSet<NodeName>,
    /// VIPs as the node knows them.
    pub vips: BTreeMap<IpAddr, Candidates>,
    /// Detector timing.
    pub config: Config,
    /// How long to listen first.
    pub settle: Duration,
    /// Grows with every start.
    pub boot_id: u64,
    /// What it owned before, from the state on its disk.
    pub resume: Vec<election::Claim>,
    /// The cluster's keys.
    pub keys: Keys,
    /// Carrier and director are fine.
    pub can_own: bool,
    /// Asks late speakers for a heartbeat.
    pub solicit: bool,
    /// Pause between moves that even the spread out.
    pub rebalance: Option<Duration>,
}

/// How long a leaving speaker waits for others to take its VIPs.
const DRAIN: Duration = Duration::from_secs(3);

/// See `Speaker::decide_at`.
const BATCH: Duration = Duration::from_millis(1);

/// A running speaker process.
#[derive(Debug)]
pub struct Speaker {
    me: NodeName,
    interval: Duration,
    keys: Keys,
    boot_id: u64,
    counter: u64,
    next_beat: Duration,
    /// Until then all heartbeats ask for an answer, so a start is settled after a round trip.
    asking_until: Duration,
    leaving_since: Option<Duration>,
    can_own: bool,
    solicit: bool,
    fit_peers: BTreeSet<NodeName>,
    /// Peers that were heard at least once.
    known: BTreeSet<NodeName>,
    /// What the election has to know of the peers changed since it was told.
    stale: bool,
    /// When to decide upon what came in, in a large cluster: the daemon takes all that waits in its
    /// socket before it decides.
    decide_at: Option<Duration>,
    guard: ReplayGuard,
    rota: Rota,
    /// The real detector.
    pub detector: Detector,
    /// The real election.
    pub election: Election,
}

impl Speaker {
    /// Starts the process.
    ///
    /// # Panics
    /// If the timing makes no sense.
    pub fn start(start: Start, now: Duration) -> Self {
        let mut detector = Detector::new(start.config, start.me.clone()).expect("valid timing");
        detector.set_peers(&start.nodes, now);
        let mut election = Election::new(start.me.clone(), start.settle, now);
        if let Some(pause) = start.rebalance {
            election = election.with_rebalancing(pause);
        }
        election.resume(&start.resume);
        election.set_vips(start.vips);
        let mut rota = Rota::new(start.me.clone());
        rota.set_nodes(&start.nodes);
        Self {
            me: start.me,
            interval: start.config.interval,
            keys: start.keys,
            boot_id: start.boot_id,
            counter: 0,
            next_beat: now,
            asking_until: now + start.config.interval,
            leaving_since: None,
            can_own: start.can_own,
            solicit: start.solicit,
            fit_peers: BTreeSet::new(),
            known: BTreeSet::new(),
            stale: true,
            decide_at: None,
            guard: ReplayGuard::new(),
            rota,
            detector,
            election,
        }
    }

    /// A datagram arrived.
    pub fn on_datagram(&mut self, beat: &Heartbeat, now: Duration) -> Vec<Out> {
        if beat.sender == self.me || self.guard.check(beat).is_err() {
            return Vec::new();
        }
        let mut out = Vec::new();
        let events = self
            .detector
            .on_heartbeat(&beat.sender, beat.flags.leaving, now);
        if !self.known.contains(&beat.sender) {
            self.stale |= self.known.insert(beat.sender.clone());
        }
        if beat.flags.can_own != self.fit_peers.contains(&beat.sender) {
            self.stale = true;
            if beat.flags.can_own {
                self.fit_peers.insert(beat.sender.clone());
            } else {
                self.fit_peers.remove(&beat.sender);
            }
        }
        let claims: Vec<_> = beat.claims.iter().map(told).collect();
        for digest in &beat.late {
            self.detector.on_late(&beat.sender, *digest, now);
        }
        self.election.heard(&beat.sender);
        self.election
            .on_claims(&beat.sender, beat.page, beat.pages, &claims);
        self.digest(events, now, &mut out);
        if beat.flags.solicit {
            for datagram in self.beat(false) {
                out.push(Out::Send(beat.sender.clone(), datagram));
            }
        }
        if self.rota.sparse() {
            self.decide_at.get_or_insert(now + BATCH);
        } else {
            self.decide(now, &mut out);
        }
        out
    }

    /// A node's kernel answered a probe.
    pub fn on_probe_reply(&mut self, node: &NodeName, now: Duration) -> Vec<Out> {
        let mut out = Vec::new();
        self.stale = true;
        let events = self.detector.on_probe_reply(node, now);
        self.digest(events, now, &mut out);
        self.decide(now, &mut out);
        out
    }

    /// The time that [`Self::next_wake`] named has come.
    pub fn on_timer(&mut self, now: Duration) -> Vec<Out> {
        let mut out = Vec::new();
        let events = self.detector.on_tick(now);
        self.digest(events, now, &mut out);
        if now >= self.next_beat {
            self.next_beat = (self.next_beat + self.interval).max(now);
            if self.asking(now) || self.leaving_since.is_some() {
                self.rota.tell_all();
            }
            self.broadcast(now, &mut out);
        }
        self.decide(now, &mut out);
        out
    }

    /// When to call [`Self::on_timer`].
    pub fn next_wake(&self, now: Duration) -> Duration {
        let mut wake = self.next_beat.min(self.detector.next_deadline(now));
        if let Some(at) = self.election.next_deadline(now) {
            wake = wake.min(at);
        }
        wake.min(self.decide_at.unwrap_or(Duration::MAX)).max(now)
    }

    /// SIGTERM.
    pub fn terminate(&mut self, now: Duration) -> Vec<Out> {
        let mut out = Vec::new();
        self.leaving_since = Some(now);
        self.stale = true;
        self.election.leave();
        self.rota.tell_all();
        self.broadcast(now, &mut out);
        self.decide(now, &mut out);
        out
    }

    /// Carrier or director came or went.
    pub fn set_can_own(&mut self, can_own: bool, now: Duration) -> Vec<Out> {
        let mut out = Vec::new();
        self.can_own = can_own;
        self.stale = true;
        self.rota.tell_all();
        self.broadcast(now, &mut out);
        self.decide(now, &mut out);
        out
    }

    /// The API told of other VIPs or another policy.
    pub fn set_vips(&mut self, vips: BTreeMap<IpAddr, Candidates>, now: Duration) -> Vec<Out> {
        let mut out = Vec::new();
        self.election.set_vips(vips);
        self.decide(now, &mut out);
        out
    }

    fn asking(&self, now: Duration) -> bool {
        now < self.asking_until
    }

    fn digest(&mut self, events: Vec<Event>, now: Duration, out: &mut Vec<Out>) {
        for event in events {
            match event {
                Event::Changed { node, from, to, .. } => {
                    self.stale = true;
                    if from == PeerState::Dead && to == PeerState::Alive && self.rota.sparse() {
                        for datagram in self.beat(false) {
                            out.push(Out::Send(node.clone(), datagram));
                        }
                    }
                    out.push(Out::Changed { node, from, to });
                }
                Event::Late(node) => {
                    self.rota.tell_late(&node);
                    self.next_beat = now;
                }
                Event::Probe(node) => {
                    out.push(Out::Probe(node.clone()));
                    if !self.solicit {
                        continue;
                    }
                    for datagram in self.beat(true) {
                        out.push(Out::Send(node.clone(), datagram));
                    }
                }
            }
        }
    }

    fn decide(&mut self, now: Duration, out: &mut Vec<Out>) {
        self.decide_at = None;
        if let Some(woken) = self.detector.woken_at(now) {
            self.election
                .listen_until(woken + self.detector.config().timeout());
        }
        if std::mem::take(&mut self.stale) {
            self.tell_election(now);
        }
        let actions = self.election.step(now);
        let next = self.election.next_deadline(now);
        assert!(
            next.is_none_or(|at| now < at),
            "{} would be woken at once, for ever: at {next:?}, now {now:?}",
            self.me
        );
        if !actions.is_empty() {
            out.extend(actions.into_iter().map(Out::Act));
            self.rota.tell_all();
            self.broadcast(now, out);
        }
        let drained = self
            .leaving_since
            .is_some_and(|since| self.election.handed_over() || now >= since + DRAIN);
        if drained {
            out.push(Out::Exit);
        }
    }

    fn tell_election(&mut self, now: Duration) {
        let mut live = BTreeSet::new();
        let mut away = BTreeMap::new();
        for (node, state, _) in self.detector.peers(now) {
            if state.can_own() && self.fit_peers.contains(&node) {
                live.insert(node);
            } else if state.can_own() {
                away.insert(node, Away::NotEligible);
            } else if matches!(state, PeerState::Leaving | PeerState::Left) {
                away.insert(node, Away::Left);
            }
        }
        if self.can_own {
            live.insert(self.me.clone());
        }
        let (mut seen, mut all) = (1, 1);
        for node in &self.known {
            all += 1;
            seen += usize::from(self.detector.in_sight(node));
        }
        let majority = seen * 2 > all && !self.detector.cut_off();
        self.election.set_majority(majority, now);
        self.election.set_away(away);
        self.election.set_live(live);
    }

    fn broadcast(&mut self, now: Duration, out: &mut Vec<Out>) {
        let datagrams = self.beat(self.asking(now));
        out.push(Out::Broadcast(datagrams, self.rota.clone()));
        self.rota.sent();
    }

    fn beat(&mut self, solicit: bool) -> Vec<Datagram> {
        self.counter += 1;
        let claims = self.election.claims();
        let heartbeat = Heartbeat {
            sender: self.me.clone(),
            boot_id: self.boot_id,
            counter: self.counter,
            flags: Flags {
                leaving: self.leaving_since.is_some(),
                can_own: self.can_own,
                solicit,
                hold: false,
                idle: false,
                tests_paths: false,
                director: true,
            },
            uplink_mac: [2, 0, 0, 0, 0, 1],
            director_mac: [2, 0, 0, 0, 0, 2],
            mode: lightship_membership::heartbeat::MODE_DIRECT_ROUTING,
            table_digest: 0,
            page: 0,
            pages: 1,
            interface: "eth0".into(),
            late: self.rota.late(),
            networks: [].into(),
            held_boot: None,
            claims: claims
                .into_iter()
                .map(|claim| Claim {
                    vip: claim.vip,
                    epoch: claim.epoch,
                })
                .collect(),
        };
        let datagrams = encode(&heartbeat, &self.keys);
        let read = |bytes: Vec<u8>| decode(&bytes, &self.keys).expect("the encoder's own bytes");
        datagrams.into_iter().map(read).map(Rc::new).collect()
    }
}

fn told(claim: &Claim) -> election::Claim {
    election::Claim {
        vip: claim.vip,
        epoch: claim.epoch,
    }
}
