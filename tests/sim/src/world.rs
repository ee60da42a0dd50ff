//! The simulated cluster: an event queue in virtual time, nodes and what befalls them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lightship_core::core::HANDOVER;
use lightship_core::core::{Core, Output, Ownership};
use lightship_core::further::Via;
use lightship_core::world::World as Api;
use lightship_membership::{Config, Heartbeat, Keys, NodeName, PeerState, decode};

use crate::api;
pub use crate::api::vip;
use crate::net::{Net, Quality};
use crate::rng::Rng;
use crate::speaker::{Common, Node, Speaker};
use crate::watch::{Accusation, Move, Watch, reason_of};

mod causes;
mod faults;
pub(crate) mod lan;
pub use faults::Fault;
use lan::Frames;

/// A late timer of a healthy process.
const TIMER_SLACK: Duration = Duration::from_millis(1);
/// Datagrams and frames that a stopped process's sockets hold before the kernel drops more.
const SOCKET_BUFFER: usize = 256;
/// From so many nodes on a process decides upon what came in within [`BATCH`] at once: the daemon
/// takes all that waits in its socket before it decides.
const LARGE: usize = 65;
/// See [`LARGE`].
const BATCH: Duration = Duration::from_millis(1);

/// What a run starts from.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Decides all chance.
    pub seed: u64,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of VIPs; every node may own each.
    pub vips: usize,
    /// Heartbeat interval and misses, and who beats to whom; the core derives the rest.
    pub config: Config,
    /// The network.
    pub quality: Quality,
    /// Nodes start within this time of each other.
    pub stagger: Duration,
    /// Late speakers are asked for a heartbeat, and answer, beside the probe of their kernel.
    pub solicit: bool,
    /// Pause between moves that even the spread out, if there are to be any.
    pub rebalance: Option<Duration>,
    /// How long the LAN is asked for another user of a new address.
    pub conflict_wait: Duration,
    /// Nodes have directors.
    pub direct_routing: bool,
    /// A director takes up to so long to do what it is told.
    pub director_delay: Duration,
    /// Heartbeats go by another network than the one of the VIPs, so that they outlive its carrier.
    pub apart: bool,
    /// The API's news reach the nodes within this time of each other.
    pub api_skew: Duration,
}

impl Setup {
    /// A speaker that fell silent is given up by all within this time, also by those that it beats to only now and then
    /// and if none of its watchers is left.
    pub fn noticed(&self) -> Duration {
        self.config.timeout_unaided(self.nodes)
    }

    /// What a node says without haste reaches some so much later than in a cluster in which all beat to all.
    pub fn round(&self) -> Duration {
        self.config.interval * (self.config.shape.round(self.nodes) - 1)
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 5,
            vips: 10,
            config: Config::default(),
            quality: Quality::default(),
            stagger: Duration::from_millis(200),
            solicit: true,
            rebalance: None,
            conflict_wait: Duration::from_millis(20),
            direct_routing: true,
            director_delay: Duration::from_millis(3),
            apart: false,
            api_skew: Duration::from_millis(50),
        }
    }
}

/// Something that happens to a node, or to all.
pub(crate) enum Happening {
    /// What a datagram says is read once for all who get it: by the real decoder, from the bytes of
    /// the real encoder. All speakers of a run have the same key.
    Datagram {
        to: usize,
        from: usize,
        beat: Rc<Heartbeat>,
    },
    Frames {
        to: usize,
        frames: Frames,
    },
    Wake {
        node: usize,
        at: Duration,
    },
    /// The director has done what it was told by this process.
    Directed {
        node: usize,
        process: u64,
    },
    Api {
        node: usize,
        api: Arc<Api>,
    },
    Fault(Fault),
}

impl Happening {
    /// The node whose process it is for.
    fn node(&self) -> Option<usize> {
        match self {
            Self::Datagram { to: node, .. }
            | Self::Frames { to: node, .. }
            | Self::Wake { node, .. }
            | Self::Directed { node, .. }
            | Self::Api { node, .. } => Some(*node),
            Self::Fault(_) => None,
        }
    }
}

struct Queued {
    at: Duration,
    order: u64,
    what: Happening,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The simulated cluster.
pub struct World {
    /// Virtual time.
    pub now: Duration,
    /// The machines.
    pub nodes: Vec<Node>,
    /// The LAN.
    pub net: Net,
    /// The record.
    pub watch: Watch,
    /// What the API server says.
    pub api: Arc<Api>,
    /// What should not have happened, the first of it.
    pub wrong: Option<String>,
    setup: Setup,
    keys: Keys,
    rng: Rng,
    queue: BinaryHeap<Reverse<Queued>>,
    order: u64,
    questions: BTreeMap<IpAddr, Rc<[u8]>>,
    /// When the API server last had news that all nodes know by now, or will then.
    api_changed: Duration,
    /// The last time something befell the cluster, and all nodes knew what is to be known of it.
    disturbed: Duration,
}

impl World {
    /// A cluster whose nodes start one after the other.
    pub fn new(setup: Setup) -> Self {
        let nodes = (0..setup.nodes).map(|node| Node::new(api::name(node)));
        let mut world = Self {
            now: Duration::ZERO,
            nodes: nodes.collect(),
            net: Net::new(setup.quality),
            watch: Watch::new(setup.nodes),
            api: Arc::new(api::cluster(setup.nodes, setup.vips)),
            wrong: None,
            keys: Keys::new(b"simulated secret", None),
            rng: Rng::new(setup.seed),
            queue: BinaryHeap::new(),
            order: 0,
            questions: BTreeMap::new(),
            api_changed: Duration::ZERO,
            disturbed: Duration::ZERO,
            setup,
        };
        for node in 0..world.nodes.len() {
            let at = world.rng.up_to(world.setup.stagger);
            world.at(at, Fault::StartSpeaker { node });
        }
        world
    }

    /// What the run started from.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Plans a fault.
    pub fn at(&mut self, at: Duration, fault: Fault) {
        self.push(at, Happening::Fault(fault));
    }

    /// Runs until `until`.
    pub fn run_until(&mut self, until: Duration) {
        while self
            .queue
            .peek()
            .is_some_and(|Reverse(next)| next.at <= until)
        {
            let Some(Reverse(next)) = self.queue.pop() else {
                break;
            };
            self.now = next.at;
            self.happen(next.what);
        }
        self.now = until;
    }

    /// The VIPs that the API server tells of.
    pub fn vips(&self) -> Vec<IpAddr> {
        self.api.vips.keys().copied().collect()
    }

    /// The nodes whose speaker claims `vip` in its heartbeats.
    pub fn claimants(&self, vip: &IpAddr) -> Vec<usize> {
        let claims = |node: &usize| {
            let speaker = self.nodes[*node].speaker.as_ref();
            speaker.is_some_and(|speaker| speaker.core.claims().iter().any(|c| c.vip == *vip))
        };
        (0..self.nodes.len()).filter(claims).collect()
    }

    /// VIPs held per node.
    pub fn load(&self) -> Vec<usize> {
        let held = |node: &Node| node.speaker.as_ref().map_or(0, |s| s.core.claims().len());
        self.nodes.iter().map(held).collect()
    }

    pub(crate) fn push(&mut self, at: Duration, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Queued {
            at,
            order: self.order,
            what,
        }));
    }

    fn happen(&mut self, what: Happening) {
        if let Happening::Fault(fault) = what {
            return self.befall(fault);
        }
        if let Happening::Frames { to, frames } = &what {
            self.heed(*to, frames);
        }
        let Some(to) = what.node() else { return };
        let node = &mut self.nodes[to];
        if node.speaker.is_none() {
            return;
        }
        if node.paused {
            let sockets = matches!(what, Happening::Datagram { .. } | Happening::Frames { .. });
            if !sockets || node.inbox.len() < SOCKET_BUFFER {
                node.inbox.push(what);
            }
            return;
        }
        self.take_in(what);
    }

    /// What a running process makes of what has come.
    fn take_in(&mut self, what: Happening) {
        let now = self.now;
        match what {
            Happening::Fault(_) => {}
            Happening::Datagram { to, from, beat } => {
                let sparse = |speaker: &Speaker| speaker.core.is_sparse();
                if !self.nodes[to].speaker.as_ref().is_some_and(sparse) {
                    let Some(address) = self.address_of(from) else {
                        return;
                    };
                    return self.feed(to, |core| core.on_heartbeat(address, &beat, now));
                }
                self.nodes[to].waiting.push((from, beat));
                match self.nodes[to].read_at {
                    at if at > now => self.wake_at(to, at),
                    _ => self.read_socket(to),
                }
            }
            Happening::Frames { to, frames } => {
                let frames = self.wanted(to, &frames);
                if self.nodes[to].carrier && !frames.is_empty() {
                    self.feed(to, |core| {
                        let frames = frames.iter();
                        frames.for_each(|frame| core.on_frame(&Via::Main, frame, now));
                    });
                }
            }
            Happening::Wake { node, at } => {
                if self.nodes[node].wake == Some(at) {
                    self.nodes[node].wake = None;
                    self.tick(node);
                    // Who is awake anyway need not be woken for them later.
                    if !self.nodes[node].waiting.is_empty() {
                        self.read_socket(node);
                    }
                }
            }
            Happening::Directed { node, process } => {
                if self.nodes[node].process == process {
                    let director = &mut self.nodes[node].director;
                    if !director.broken {
                        director.holds = director.wanted.clone();
                    }
                    let report = director.report();
                    self.feed(node, |core| core.on_director(report));
                }
            }
            Happening::Api { node, api } => {
                if let Some((_, saved)) = self.nodes[node].saved.last_mut() {
                    saved.world = api.clone();
                }
                self.feed(node, |core| core.on_world(api, now));
            }
        }
    }

    /// The address that a node's heartbeats come from.
    fn address_of(&self, node: usize) -> Option<IpAddr> {
        self.api.nodes.get(&self.nodes[node].name)?.main_address()
    }

    /// Reads the heartbeats that wait in the socket, and lets the process decide; the next ones gather for a while.
    fn read_socket(&mut self, node: usize) {
        let now = self.now;
        for (from, beat) in std::mem::take(&mut self.nodes[node].waiting) {
            let address = self.address_of(from);
            let speaker = self.nodes[node].speaker.as_mut();
            if let Some((speaker, address)) = speaker.zip(address) {
                speaker.core.on_heartbeat(address, &beat, now);
            }
        }
        let Some(speaker) = &self.nodes[node].speaker else {
            return;
        };
        self.nodes[node].read_at = now + speaker.core.gather();
        self.tick(node);
    }

    /// Gives the process something, and lets it decide.
    fn feed(&mut self, node: usize, call: impl FnOnce(&mut Core)) {
        let large = self.nodes.len() >= LARGE;
        let Some(speaker) = &mut self.nodes[node].speaker else {
            return;
        };
        call(&mut speaker.core);
        if !large {
            return self.tick(node);
        }
        let outputs = speaker.core.outputs();
        self.carry_out(node, outputs);
        self.wake_at(node, self.now + BATCH);
    }

    /// The loop of the process comes round.
    fn tick(&mut self, node: usize) {
        let now = self.now;
        let Some(speaker) = &mut self.nodes[node].speaker else {
            return;
        };
        speaker.core.tick(now);
        let outputs = speaker.core.outputs();
        self.carry_out(node, outputs);
        let Some(speaker) = &self.nodes[node].speaker else {
            return;
        };
        let gone = |since| speaker.core.handed_over() || now - since >= HANDOVER;
        if speaker.leaving_since.is_some_and(gone) {
            let name = &self.nodes[node].name;
            self.watch.say(now, || format!("{name} exits"));
            self.stop_speaker(node);
            return self.look(Some(node));
        }
        let mut next = speaker.core.next_deadline(now);
        if let Some(since) = speaker.leaving_since {
            next = next.min(since + HANDOVER);
        }
        assert!(
            now < next,
            "{} would be woken at once, for ever: now {now:?}",
            self.nodes[node].name
        );
        self.wake_at(node, next);
    }

    /// Has the node wake then, or sooner if that is planned already.
    fn wake_at(&mut self, node: usize, at: Duration) {
        if self.nodes[node].wake.is_some_and(|planned| planned <= at) {
            return;
        }
        let at = at + self.rng.up_to(TIMER_SLACK);
        self.nodes[node].wake = Some(at);
        self.push(at, Happening::Wake { node, at });
    }

    fn carry_out(&mut self, node: usize, outputs: Vec<Output>) {
        let mut beats: Vec<(Arc<[u8]>, Rc<Heartbeat>)> = Vec::new();
        let mut frames = Vec::new();
        let mut report = None;
        for output in outputs {
            match output {
                Output::Heartbeat(to, bytes) => {
                    let Some(to) = api::node_at(to) else { continue };
                    let read = beats.iter().find(|(read, _)| Arc::ptr_eq(read, &bytes));
                    let beat = match read {
                        Some((_, beat)) => beat.clone(),
                        None => {
                            let beat = self.read(&bytes);
                            beats.push((bytes, beat.clone()));
                            beat
                        }
                    };
                    self.send(node, to, &beat);
                }
                Output::Frame(_, frame) => frames.push(frame),
                Output::Director(intent) => self.direct(node, intent),
                Output::Report(latest) => report = Some(latest),
                Output::Groups(groups) => {
                    if let Some(speaker) = &mut self.nodes[node].speaker {
                        speaker.groups = groups.into_iter().map(|(_, vip)| vip).collect();
                    }
                }
                Output::Listen(listen) => {
                    if let Some(speaker) = &mut self.nodes[node].speaker {
                        speaker.listen = listen;
                    }
                }
                // No frame of a director is dropped on this LAN.
                Output::Paths(_) | Output::Uplinks(_) => {}
                // It grows with the cluster, and each of many nodes that start has one of each other.
                Output::Save if self.nodes.len() >= LARGE => {}
                Output::Save => self.nodes[node].save(self.now),
                Output::Peer(of, from, to) => self.note_change(node, &of, from, to),
            }
        }
        self.send_frames(node, &frames);
        if let Some(report) = report {
            self.note_report(node, report);
        }
    }

    fn read(&self, bytes: &[u8]) -> Rc<Heartbeat> {
        let mut beat = decode(bytes, &self.keys).expect("the encoder's own bytes");
        beat.flags.solicit &= self.setup.solicit;
        Rc::new(beat)
    }

    fn send(&mut self, from: usize, to: usize, beat: &Rc<Heartbeat>) {
        let dead = |node: &Node| !node.carrier;
        if !self.setup.apart && (dead(&self.nodes[from]) || dead(&self.nodes[to])) {
            return;
        }
        for delay in self.net.carry(from, to, &mut self.rng) {
            let beat = beat.clone();
            self.push(self.now + delay, Happening::Datagram { to, from, beat });
        }
    }

    fn direct(&mut self, node: usize, intent: Arc<lightship_core::core::DirectorIntent>) {
        if !self.setup.direct_routing {
            return;
        }
        self.nodes[node].director.wanted = intent;
        let at = self.now + self.rng.up_to(self.setup.director_delay);
        let process = self.nodes[node].process;
        self.push(at, Happening::Directed { node, process });
    }

    /// What a speaker says of itself tells when to ask it for its VIPs, and why they moved.
    fn note_report(&mut self, node: usize, report: Arc<Ownership>) {
        let Some(speaker) = &mut self.nodes[node].speaker else {
            return;
        };
        let before = std::mem::replace(&mut speaker.report, report.clone());
        let mut changed = Vec::new();
        for (vip, now) in &report.vips {
            let was = before.vips.get(vip);
            if was.is_none_or(|was| was.epoch != now.epoch) {
                let moved = now.moved.as_ref();
                let reason = moved.map_or("Resumed", |moved| moved.reason.as_str());
                self.note_move(Move {
                    at: self.now,
                    vip: *vip,
                    node,
                    epoch: now.epoch,
                    from: moved.and_then(|moved| moved.from.clone()),
                    reason: reason_of(reason),
                    raised: was.is_some(),
                });
            }
            let mac = |r: &lightship_core::core::VipReport| (r.announced, r.direct_routing);
            if was.map(mac) != Some(mac(now)) {
                changed.push(*vip);
            }
        }
        for vip in before
            .vips
            .keys()
            .filter(|vip| !report.vips.contains_key(*vip))
        {
            let name = &self.nodes[node].name;
            self.watch
                .say(self.now, || format!("{name} releases {vip}"));
            changed.push(*vip);
        }
        if !changed.is_empty() {
            self.ask(node, &changed);
            self.look_at(&changed, Some(node));
        }
    }

    fn note_change(&mut self, by: usize, of: &NodeName, from: PeerState, to: PeerState) {
        let name = &self.nodes[by].name;
        self.watch
            .say(self.now, || format!("{name} sees {of} {from} -> {to}"));
        if matches!(to, PeerState::SpeakerLost | PeerState::Dead) && from.can_own() {
            let Some(of) = self.nodes.iter().position(|node| node.name == *of) else {
                return;
            };
            let wrong = self.reachable_for(by, of, self.setup.config.timeout());
            let accusation = Accusation {
                at: self.now,
                by,
                of,
                to,
                wrong,
            };
            self.watch.accusations.push(accusation);
        }
    }

    /// Looks which VIPs are answered for now. `by` is who gave them up, if it was a speaker.
    fn look(&mut self, by: Option<usize>) {
        let vips = self.vips();
        self.look_at(&vips, by);
    }

    fn look_at(&mut self, vips: &[IpAddr], by: Option<usize>) {
        let nodes = &self.nodes;
        let served = vips.iter().filter(|vip| self.api.vips.contains_key(*vip));
        let lost = self
            .watch
            .look(served, self.now, |node| nodes[node].serving());
        if let Some(by) = by {
            for vip in lost {
                self.gave_up(vip, by);
            }
        }
    }

    fn start(&mut self, node: usize, age: Duration) {
        let now = self.now;
        let saved = self.nodes[node].found(age, now);
        let with = Common {
            config: &self.setup.config,
            rebalance: self.setup.rebalance,
            conflict_wait: self.setup.conflict_wait,
            direct_routing: self.setup.direct_routing,
            keys: &self.keys,
            api: &self.api,
        };
        self.nodes[node].start(node, &with, &saved, now);
        if !Arc::ptr_eq(&saved.world, &self.api) {
            self.tell_api(node);
        }
        self.tick(node);
    }
}
