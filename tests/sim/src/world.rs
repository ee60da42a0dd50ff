//! The simulated cluster: an event queue in virtual time, nodes and what befalls them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use lightship_election::{Action, Candidates, Claim};
use lightship_membership::{Config, Keys, NodeName, PeerState, Rota, Share};

use crate::net::{Net, Quality};
use crate::rng::Rng;
use crate::speaker::{Datagram, Out, Speaker, Start};
use crate::watch::{Accusation, Move, Watch};

mod faults;
pub use faults::Fault;

/// A late timer of a healthy process.
const TIMER_SLACK: Duration = Duration::from_millis(1);
/// Datagrams that a stopped process's socket holds before the kernel drops more.
const SOCKET_BUFFER: usize = 256;

/// What a run starts from.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Decides all chance.
    pub seed: u64,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of VIPs; every node may own each.
    pub vips: usize,
    /// Detector timing.
    pub config: Config,
    /// How long a fresh speaker listens.
    pub settle: Duration,
    /// The network.
    pub quality: Quality,
    /// Nodes start within this time of each other.
    pub stagger: Duration,
    /// A late speaker is asked for a heartbeat, beside the probe of its kernel.
    pub solicit: bool,
    /// Pause between moves that even the spread out, if there are to be any.
    pub rebalance: Option<Duration>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 5,
            vips: 10,
            config: Config::default(),
            settle: Duration::from_secs(1),
            quality: Quality::default(),
            stagger: Duration::from_millis(200),
            solicit: true,
            rebalance: None,
        }
    }
}

enum Happening {
    Datagram {
        to: usize,
        beat: Datagram,
    },
    ProbeReply {
        to: usize,
        of: usize,
    },
    Wake {
        node: usize,
        at: Duration,
    },
    Fault(Fault),
    Vips {
        node: usize,
        vips: Rc<BTreeMap<IpAddr, Candidates>>,
    },
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

/// One machine.
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its kernel runs.
    pub up: bool,
    /// Its speaker process, if it runs.
    pub speaker: Option<Speaker>,
    /// The process is stopped (SIGSTOP).
    pub paused: bool,
    /// Its uplink and director are fine.
    pub can_own: bool,
    /// Since when it has been running undisturbed.
    steady_since: Duration,
    paused_at: Duration,
    /// When the process last went on after it had been stopped for long.
    woken_at: Duration,
    inbox: Vec<Happening>,
    /// When it is planned to wake. Another time in the queue is of no effect.
    wake: Option<Duration>,
    boots: u64,
    /// What it owns, as written to its disk.
    saved: Vec<Claim>,
}

impl Node {
    /// Does it answer for what it holds?
    pub fn serving(&self) -> bool {
        self.up && self.speaker.is_some() && !self.paused && self.can_own
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
    /// VIPs as the API has them.
    pub vips: BTreeMap<IpAddr, Candidates>,
    /// A node took a VIP in the instant in which its process went on after a long stop.
    pub hasty: Option<String>,
    setup: Setup,
    names: BTreeMap<NodeName, usize>,
    keys: Keys,
    rng: Rng,
    queue: BinaryHeap<Reverse<Queued>>,
    order: u64,
}

impl World {
    /// A cluster whose nodes start one after the other.
    pub fn new(setup: Setup) -> Self {
        let names: Vec<NodeName> = (1..=setup.nodes)
            .map(|n| format!("node{n}").into())
            .collect();
        let nodes = names.iter().cloned().map(|name| Node {
            name,
            up: true,
            speaker: None,
            paused: false,
            can_own: true,
            steady_since: Duration::ZERO,
            paused_at: Duration::ZERO,
            woken_at: Duration::ZERO,
            inbox: Vec::new(),
            wake: None,
            boots: 0,
            saved: Vec::new(),
        });
        let candidates = Candidates::equal(names.iter().cloned());
        let vips = (0..setup.vips)
            .map(|n| (vip(n), candidates.clone()))
            .collect();
        let mut world = Self {
            now: Duration::ZERO,
            nodes: nodes.collect(),
            net: Net::new(setup.quality),
            watch: Watch::default(),
            vips,
            hasty: None,
            names: names.into_iter().zip(0..).collect(),
            keys: Keys::new(b"simulated secret", None),
            rng: Rng::new(setup.seed),
            queue: BinaryHeap::new(),
            order: 0,
            setup,
        };
        for node in 0..world.nodes.len() {
            let at = world.rng.up_to(world.setup.stagger);
            world.at(at, Fault::StartSpeaker { node });
        }
        world
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

    /// The nodes whose running, not stopped speaker claims `vip`.
    pub fn claimants(&self, vip: &IpAddr) -> Vec<usize> {
        let claims = |node: &usize| {
            let speaker = self.nodes[*node].speaker.as_ref();
            speaker.is_some_and(|speaker| speaker.election.claim(vip).is_some())
        };
        (0..self.nodes.len()).filter(claims).collect()
    }

    /// The time within which the nodes start.
    pub fn stagger(&self) -> Duration {
        self.setup.stagger
    }

    /// Do nodes even the spread out?
    pub fn rebalances(&self) -> bool {
        self.setup.rebalance.is_some()
    }

    /// Does the network lose frames?
    pub fn loses(&self) -> bool {
        self.setup.quality.loss > 0
    }

    /// VIPs held per node.
    pub fn load(&self) -> Vec<usize> {
        let held = |node: &Node| {
            node.speaker
                .as_ref()
                .map_or(0, |s| s.election.claims().len())
        };
        self.nodes.iter().map(held).collect()
    }

    fn push(&mut self, at: Duration, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Queued {
            at,
            order: self.order,
            what,
        }));
    }

    fn happen(&mut self, what: Happening) {
        let (node, out) = match what {
            Happening::Fault(fault) => return self.befall(fault),
            Happening::Datagram { to, .. }
            | Happening::ProbeReply { to, .. }
            | Happening::Vips { node: to, .. }
            | Happening::Wake { node: to, .. }
                if self.nodes[to].paused =>
            {
                let node = &mut self.nodes[to];
                if node.inbox.len() < SOCKET_BUFFER {
                    node.inbox.push(what);
                }
                return;
            }
            Happening::Datagram { to, beat } => {
                let out = self.with(to, |speaker, now| speaker.on_datagram(&beat, now));
                (to, out)
            }
            Happening::ProbeReply { to, of } => {
                let name = self.nodes[of].name.clone();
                (
                    to,
                    self.with(to, |speaker, now| speaker.on_probe_reply(&name, now)),
                )
            }
            Happening::Wake { node, at } => {
                if self.nodes[node].wake != Some(at) {
                    return;
                }
                self.nodes[node].wake = None;
                let now = self.now;
                let speaker = self.nodes[node].speaker.as_ref();
                if speaker.is_some_and(|speaker| now < speaker.next_wake(now)) {
                    // What it was to wake for is put off.
                    return self.schedule_wake(node);
                }
                (node, self.with(node, Speaker::on_timer))
            }
            Happening::Vips { node, vips } => {
                let vips = BTreeMap::clone(&vips);
                (
                    node,
                    self.with(node, |speaker, now| speaker.set_vips(vips, now)),
                )
            }
        };
        self.carry_out(node, out);
    }

    fn with(
        &mut self,
        node: usize,
        call: impl FnOnce(&mut Speaker, Duration) -> Vec<Out>,
    ) -> Vec<Out> {
        let now = self.now;
        let speaker = self.nodes[node].speaker.as_mut();
        speaker.map_or_else(Vec::new, |speaker| call(speaker, now))
    }

    fn carry_out(&mut self, node: usize, out: Vec<Out>) {
        let mut acted = false;
        for out in out {
            match out {
                Out::Broadcast(pages, rota) => self.broadcast(node, &pages, &rota),
                Out::Send(name, beat) => {
                    let to = self.names[&name];
                    self.send(node, to, &beat);
                }
                Out::Probe(name) => self.probe(node, self.names[&name]),
                Out::Changed { node: of, from, to } => self.note_change(node, &of, from, to),
                Out::Act(action) => {
                    acted = true;
                    self.act(node, &action);
                }
                Out::Exit => {
                    self.stop_speaker(node);
                    return self.look();
                }
            }
        }
        if acted {
            self.save(node);
            self.look();
        }
        self.schedule_wake(node);
    }

    fn broadcast(&mut self, from: usize, pages: &[Datagram], rota: &Rota) {
        for to in 0..self.nodes.len() {
            match rota.share(&self.nodes[to].name) {
                None => {}
                Some(Share::All) => pages.iter().for_each(|page| self.send(from, to, page)),
                Some(Share::Page(page)) => {
                    let page = &pages[page as usize % pages.len()];
                    self.send(from, to, page);
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, beat: &Datagram) {
        if from == to {
            return;
        }
        for delay in self.net.carry(from, to, &mut self.rng) {
            let beat = beat.clone();
            self.push(self.now + delay, Happening::Datagram { to, beat });
        }
    }

    /// The target's kernel answers at once, whatever its processes do.
    fn probe(&mut self, from: usize, of: usize) {
        for there in self.net.carry(from, of, &mut self.rng) {
            if !self.nodes[of].up {
                continue;
            }
            for back in self.net.carry(of, from, &mut self.rng) {
                self.push(
                    self.now + there + back,
                    Happening::ProbeReply { to: from, of },
                );
            }
        }
    }

    /// Has the node wake when its speaker wants to, or sooner if that is planned already.
    fn schedule_wake(&mut self, node: usize) {
        let now = self.now;
        let target = &mut self.nodes[node];
        let Some(speaker) = &target.speaker else {
            return;
        };
        let wanted = speaker.next_wake(now);
        if target.wake.is_some_and(|planned| planned <= wanted) {
            return;
        }
        let at = wanted + self.rng.up_to(TIMER_SLACK);
        target.wake = Some(at);
        self.push(at, Happening::Wake { node, at });
    }

    fn act(&mut self, node: usize, action: &Action) {
        let (now, name) = (self.now, self.nodes[node].name.clone());
        match action {
            Action::Take {
                vip,
                epoch,
                from,
                reason,
            } => {
                self.watch.holders.entry(*vip).or_default().insert(node);
                self.watch.moves.push(Move {
                    at: now,
                    vip: *vip,
                    node,
                    reason: *reason,
                });
                let from = from.as_deref().unwrap_or("nobody");
                if now > Duration::ZERO && now == self.nodes[node].woken_at {
                    self.hasty = Some(format!("{name} takes {vip}"));
                }
                self.watch.say(now, || {
                    format!("{name} takes {vip} from {from}, epoch {epoch}: {reason:?}")
                });
            }
            Action::Release { vip, to, reason } => {
                if let Some(holders) = self.watch.holders.get_mut(vip) {
                    holders.remove(&node);
                }
                let to = to.as_deref().unwrap_or("nobody");
                self.watch
                    .say(now, || format!("{name} releases {vip} to {to}: {reason:?}"));
            }
        }
    }

    /// What the speaker owns is written to its node's disk.
    fn save(&mut self, node: usize) {
        let speaker = self.nodes[node].speaker.as_ref();
        let claims = speaker.map(|speaker| speaker.election.claims());
        self.nodes[node].saved = claims.unwrap_or_default();
    }

    fn note_change(&mut self, by: usize, of: &NodeName, from: PeerState, to: PeerState) {
        let name = &self.nodes[by].name;
        self.watch
            .say(self.now, || format!("{name} sees {of} {from} -> {to}"));
        if matches!(to, PeerState::SpeakerLost | PeerState::Dead) && from.can_own() {
            let of = self.names[of];
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

    /// Was `of` running, and the way between the two open, all the last `time`?
    fn reachable_for(&self, by: usize, of: usize, time: Duration) -> bool {
        let accused = &self.nodes[of];
        let ways = [self.net.open_since(of, by), self.net.open_since(by, of)];
        let since = ways
            .into_iter()
            .try_fold(accused.steady_since, |since, way| {
                way.map(|way| way.max(since))
            });
        let running = accused.up && accused.speaker.is_some() && !accused.paused;
        running && since.is_some_and(|since| since + time < self.now)
    }

    fn look(&mut self) {
        let nodes = &self.nodes;
        self.watch
            .look(self.vips.keys(), self.now, |node| nodes[node].serving());
    }

    fn start(&self, node: usize, resume: bool) -> Start {
        let machine = &self.nodes[node];
        Start {
            me: machine.name.clone(),
            nodes: self.names.keys().cloned().collect(),
            vips: self.vips.clone(),
            config: self.setup.config,
            settle: self.setup.settle,
            boot_id: machine.boots,
            resume: if resume {
                machine.saved.clone()
            } else {
                Vec::new()
            },
            keys: self.keys.clone(),
            can_own: machine.can_own,
            solicit: self.setup.solicit,
            rebalance: self.setup.rebalance,
        }
    }
}

/// The `n`-th VIP: the two families by turns, as long as the IPv4 prefix lasts.
pub fn vip(n: usize) -> IpAddr {
    let half = (n / 2) as u16;
    match u8::try_from(half) {
        Ok(low) if n.is_multiple_of(2) => IpAddr::from([198, 51, 100, low]),
        _ => IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, n as u16 % 2, half]),
    }
}
