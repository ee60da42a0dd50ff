//! The heart of the speaker: everything it decides, without a socket or a clock.
//!
//! A [`Core`] owns what this node believes: which peers live, who owns each VIP, what the
//! director should hold and what has to be said on the LAN. The shell (the speaker's `node`)
//! feeds it datagrams, frames, worlds and reports together with the time since the
//! speaker's start, asks [`Core::next_deadline`] when to come back, and carries out the
//! [`Output`]s.

mod conflicts;
mod detour;
mod fitness;
mod flaps;
mod heartbeats;
mod neighbours;
mod news;
mod nominated;
mod ownership;
mod paths;
mod refusals;
mod report;
mod retiring;
mod sight;
mod snapshot;
mod telling;
#[cfg(test)]
mod tests;
mod uplinks;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use lightship_election::Election;
use lightship_frames::Mac;
use lightship_membership::graph::Shape;
use lightship_membership::{ConfigError, Detector, Keys, PeerState, ReplayGuard, Rota, Turns};

use crate::cache::{Saved, SavedPeer};
use crate::eligibility::Policy;
use crate::further::{Own, Via};
use crate::grace::Grace;
use crate::intent::{Intent, Memo, PortKey, Virtual};
use crate::pace::{Kind, Pace};
use crate::path::{Fault, Peers};
use crate::schedule::{Schedule, Urgency};
use crate::world::{Node, NodeName, World};

use conflicts::Conflicts;
use flaps::Flaps;
use refusals::Refusals;
pub use report::{Move, OffLink, Ownership, Placement, Unowned, VipReport};
pub use snapshot::{Said, Snapshot};

/// What a core is made of and never changes while it runs.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The own node.
    pub me: NodeName,
    /// Grows with every start, so that peers tell a restart from a replay: nanoseconds
    /// since the epoch at the start.
    pub boot_id: u64,
    /// Time between two heartbeats.
    pub interval: Duration,
    /// Silent intervals after which a peer is gone.
    pub misses: u32,
    /// Who beats to whom.
    pub shape: Shape,
    /// The main uplink's own MAC: where peers' directors send this node's share.
    pub uplink_mac: Mac,
    /// The director's MAC there, which directed VIPs are announced with.
    pub director_mac: Mac,
    /// Whether this node has a director.
    pub direct_routing: bool,
    /// The main uplink's name.
    pub interface: Arc<str>,
    /// The further uplinks that were found at the start, so that what is in use before a restart stays in
    /// use.
    pub further: Arc<[Own]>,
    /// What is decided for the whole cluster.
    pub policy: Policy,
    /// How long all must have been calm before one VIP is moved to even the spread out; `None`:
    /// none ever is.
    pub rebalance: Option<Duration>,
    /// How long a node that is unwanted stays in the table at weight 0.
    pub removal_grace: Duration,
    /// How long the LAN is asked for another user of an address before it is announced for the
    /// first time ever.
    pub conflict_wait: Duration,
}

/// Whether the uplink can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UplinkState {
    /// It is there, up and has a carrier.
    pub carrier: bool,
    /// It carries the node's own address, if it is the one that should.
    pub address: bool,
}

impl UplinkState {
    /// All is well.
    pub const FINE: UplinkState = UplinkState {
        carrier: true,
        address: true,
    };
}

/// What the director should hold, as far as the core decides it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectorIntent {
    /// Grows by one with every change, from 1; see [`DirectorReport::applied`].
    pub revision: u64,
    /// The own node's addresses: its share leaves by the veth pair.
    pub own: BTreeSet<IpAddr>,
    /// The other nodes' addresses and where to send frames for them.
    pub peers: BTreeMap<IpAddr, Mac>,
    /// The further uplinks by which clients' packets come in: by name, the index and the director's MAC
    /// there.
    pub uplinks: BTreeMap<Arc<str>, (u32, Mac)>,
    /// The VIPs that are directed.
    pub vips: BTreeSet<IpAddr>,
    /// The virtual services with their real servers.
    pub virtuals: BTreeMap<PortKey, Virtual>,
}

/// What the director says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectorReport {
    /// It did all that it was asked for.
    pub healthy: bool,
    /// The [`DirectorIntent::revision`] that it holds; 0 before the first.
    pub applied: u64,
    /// VIPs whose services and local route are in place, so that they may be announced.
    pub programmed: BTreeSet<IpAddr>,
    /// The further uplinks that it was asked to take packets in by; where the kernel refuses a link there,
    /// with its reason.
    pub uplinks: BTreeMap<Arc<str>, Option<String>>,
    /// The digest of the table it holds, for comparison among nodes.
    pub digest: u64,
    /// VIPs that the kernel does not hold as wanted, and its reason. One of them that is not
    /// `programmed` either cannot be directed by this node at all.
    pub failing: BTreeMap<IpAddr, String>,
    /// What went wrong last.
    pub error: Option<String>,
}

/// Something for the shell to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a heartbeat datagram to a node.
    Heartbeat(IpAddr, Arc<[u8]>),
    /// Send an Ethernet frame on an uplink.
    Frame(Via, Vec<u8>),
    /// Let the director hold this.
    Director(Arc<DirectorIntent>),
    /// These further uplinks are in use.
    Uplinks(Arc<[Own]>),
    /// Listen for solicitations of exactly these IPv6 VIPs, each on its uplink.
    Groups(BTreeSet<(Via, std::net::Ipv6Addr)>),
    /// Take no frames on any uplink but those about these addresses.
    Listen(Listen),
    /// This is what this node owns now.
    Report(Arc<Ownership>),
    /// These nodes can be asked by the path test.
    Paths(Arc<Peers>),
    /// Claims or peers changed: keep them over a restart.
    Save,
    /// A peer's state changed, from the first to the second.
    Peer(NodeName, PeerState, PeerState),
}

/// The addresses that frames have to be about to be of any use to the core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// All VIPs, whoever owns them: a node that takes one over answers at once.
    pub vips: BTreeSet<IpAddr>,
    /// The other nodes' own addresses: by an answer for one of them its kernel tells that it lives.
    pub nodes: BTreeSet<IpAddr>,
}

/// What a peer said of itself.
#[derive(Debug, Default)]
struct Peer {
    told: Option<SavedPeer>,
    digest: u64,
    can_own: bool,
    /// It says that it should get no share now.
    idle: bool,
    /// It answers the path test.
    tests_paths: bool,
    /// It has a director, whatever its mode.
    director: bool,
    /// Its path test found that the network lets its director work.
    proven: bool,
    /// It says that this node has come and gone lately.
    holds_us: bool,
    /// What its last heartbeat said ([`lightship_membership::Heartbeat::content`]), if all that follows from it
    /// has been done.
    content: Option<u64>,
    /// When it was last told that its boot id is too low.
    boot_told: Option<Duration>,
    /// When it was last asked for its claims, because some were missing.
    asked: Option<Duration>,
    /// It was dead and its speaker has not been heard since: a kernel that boots answers ARP
    /// long before its kube-proxy has rules.
    buried: bool,
}

/// A VIP this node owns.
#[derive(Debug)]
struct Owned {
    epoch: u64,
    /// When it was taken.
    since: Duration,
    /// It has been said on the LAN (or is known there since before a restart).
    announced: bool,
    /// Taken over from before a restart: the LAN knows it.
    resumed: bool,
    /// Where it is announced, or is to be.
    at: uplinks::At,
    /// How soon the LAN has to hear of it.
    urgency: Urgency,
    /// The node before lives and falls silent as soon as it hears of the claim.
    handed_over: bool,
}

/// How long the shell lets a leaving core wait for others to take its VIPs.
pub const HANDOVER: Duration = Duration::from_millis(1_500);

/// How long heartbeats gather before they are read, among nodes that all beat to each other and among more: waking
/// costs more than reading, and of the latter one comes every other millisecond, so that the shell polls them.
const GATHER: [Duration; 2] = [Duration::from_millis(3), Duration::from_millis(35)];

/// With so many peers, two heartbeats rarely come so close that to wait for the second costs less than to wake for it.
const NOT_GATHERED: usize = 8;

/// How long an announcement waits for the director to hold the latest intent.
const DIRECTOR_WAIT: Duration = Duration::from_millis(100);

/// See the module.
pub struct Core {
    setup: Setup,
    keys: Keys,
    world: Arc<World>,
    detector: Detector,
    election: Election,
    guard: ReplayGuard,
    rota: Rota,
    /// On how many pages the own claims were in the last heartbeat, and how these lay.
    pages: usize,
    turns: Turns,
    /// Whether this node could own VIPs, was leaving, and idle, as the last heartbeat said.
    said: (bool, bool, bool),
    peers: BTreeMap<NodeName, Peer>,
    /// Nodes with which this one has no address family in common.
    unreachable: BTreeSet<NodeName>,
    intent: Intent,
    memo: Memo,
    nominated: nominated::Nominated,
    grace: Grace<PortKey>,
    detours: detour::Detours,
    retiring: retiring::Retiring,
    schedule: Schedule,
    pace: Pace,
    owned: BTreeMap<IpAddr, Owned>,
    moves: BTreeMap<IpAddr, Move>,
    director: DirectorReport,
    /// Why the network does not let the director work.
    path_fault: Option<Fault>,
    /// The network does not deliver here what other directors forward.
    deaf: bool,
    /// It lets through what a director sends and gets.
    proven: bool,
    uplink: UplinkState,
    /// The networks on the main uplink; empty while not known.
    networks: Arc<[IpNet]>,
    /// The further uplinks that have a carrier.
    further: Arc<[Own]>,
    /// Per VIP the target of the `move-to` annotation that has been dealt with.
    moved_to: BTreeMap<IpAddr, NodeName>,
    flaps: Flaps,
    /// When the next hold-off ends that the election knows of.
    hold_ends: Option<Duration>,
    conflicts: Conflicts,
    /// Since when nobody owns or may own each of these VIPs.
    unowned: BTreeMap<IpAddr, Duration>,
    /// Some that nobody may own are still claimed: the next heartbeat may change that.
    look_again: bool,
    sent_director: Option<Arc<DirectorIntent>>,
    sent_uplinks: Option<Arc<[Own]>>,
    sent_groups: BTreeSet<(Via, std::net::Ipv6Addr)>,
    sent_listen: Option<Listen>,
    sent_report: Option<Arc<Ownership>>,
    sent_paths: Option<Arc<Peers>>,
    counter: u64,
    next_beat: Duration,
    settle_until: Duration,
    settled: bool,
    leaving: bool,
    /// More than half of the nodes were in sight when that was last looked at.
    majority: bool,
    /// This node cannot take a share yet (the speaker's `proxy`).
    idle: bool,
    /// Inputs changed since the intent was computed.
    stale: bool,
    /// Moves that people asked for are done, or not asked for any more, since the election was told who is wanted.
    wishes_changed: bool,
    /// Something that is reported changed since the last report.
    unreported: bool,
    /// When what is owned has to be announced anew, after an isolation.
    say_again: Option<Duration>,
    /// When this process last came back after it had not run for a while.
    woken: Option<Duration>,
    /// The own claims that changed lately.
    news: news::News,
    /// When each VIP was last announced in full, or defended against a lower claim.
    defended: BTreeMap<IpAddr, Duration>,
    refusals: Refusals,
    taken: BTreeMap<&'static str, u64>,
    released: BTreeMap<&'static str, u64>,
    tally: Said,
    out: Vec<Output>,
}

impl Core {
    /// A core that starts at `now` from a first world and what was kept from before.
    ///
    /// # Errors
    /// When the heartbeat timing makes no sense.
    pub fn new(
        setup: Setup,
        keys: Keys,
        world: Arc<World>,
        saved: &Saved,
        director: DirectorReport,
        now: Duration,
    ) -> Result<Self, ConfigError> {
        let config = lightship_membership::Config {
            shape: setup.shape,
            ..lightship_membership::Config::new(setup.interval, setup.misses)
        };
        let gone_after = config.timeout();
        // Every live peer is heard within one interval; one more forgives a loss. After that
        // the silent ones count as dead, and this node may act.
        let settle = gone_after + setup.interval;
        let mut election = Election::new(setup.me.clone(), settle, now);
        if let Some(pause) = setup.rebalance {
            election = election.with_rebalancing(pause);
        }
        let mut core = Core {
            detector: Detector::new(config, setup.me.clone())?,
            election,
            guard: ReplayGuard::new(),
            rota: Rota::new(setup.me.clone(), setup.shape),
            pages: 1,
            turns: Turns::default(),
            said: (false, false, false),
            peers: BTreeMap::new(),
            unreachable: BTreeSet::new(),
            intent: Intent::default(),
            memo: Memo::default(),
            nominated: nominated::Nominated::default(),
            grace: Grace::new(setup.removal_grace),
            detours: detour::Detours::default(),
            retiring: retiring::Retiring::default(),
            schedule: Schedule::default(),
            pace: Pace::default(),
            owned: BTreeMap::new(),
            moves: BTreeMap::new(),
            director,
            path_fault: None,
            deaf: false,
            proven: false,
            uplink: UplinkState::FINE,
            networks: [].into(),
            further: setup.further.clone(),
            moved_to: BTreeMap::new(),
            flaps: Flaps::default(),
            hold_ends: None,
            conflicts: Conflicts::default(),
            unowned: BTreeMap::new(),
            look_again: false,
            sent_director: None,
            sent_uplinks: None,
            sent_groups: BTreeSet::new(),
            sent_listen: None,
            sent_report: None,
            sent_paths: None,
            counter: 0,
            next_beat: now,
            settle_until: now + settle,
            settled: false,
            leaving: false,
            majority: true,
            idle: false,
            stale: true,
            wishes_changed: true,
            unreported: true,
            say_again: None,
            woken: None,
            news: news::News::default(),
            defended: BTreeMap::new(),
            refusals: Refusals::default(),
            taken: BTreeMap::new(),
            released: BTreeMap::new(),
            tally: Said::default(),
            out: Vec::new(),
            world,
            keys,
            setup,
        };
        for (name, told) in &saved.peers {
            core.peers.entry(name.clone()).or_default().told = Some(told.clone());
        }
        for (name, heard) in &saved.heard {
            core.guard.resume(name.clone(), *heard);
        }
        core.set_peers(now);
        core.resume(&saved.claims, now);
        Ok(core)
    }

    /// Takes a new world from the API server.
    pub fn on_world(&mut self, world: Arc<World>, now: Duration) {
        self.world = world;
        self.set_peers(now);
        self.stale = true;
    }

    /// Takes whether this node can take a share: its kube-proxy has its rules and the path test has judged it. Until told
    /// otherwise it can.
    pub fn on_serves(&mut self, serves: bool, now: Duration) {
        if self.idle == serves {
            self.idle = !serves;
            self.stale = true;
            self.next_beat = now;
        }
    }

    /// Takes new heartbeat keys.
    pub fn on_keys(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// Takes what the director says of itself.
    pub fn on_director(&mut self, report: DirectorReport) {
        self.stale |= report.healthy != self.director.healthy;
        if report.healthy && !self.director.healthy {
            // It may have been made anew, so that switches have to learn where it is.
            self.say_anew(Duration::ZERO);
        }
        self.unreported |= report != self.director;
        // What is programmed counts for those only that it fails with.
        let turned = !report.failing.is_empty()
            || !self.director.failing.is_empty()
            || report.uplinks != self.director.uplinks;
        let could = self.can_own();
        self.director = report;
        if could != self.can_own() {
            // Peers should hear of it at once: others take over, or may give something back.
            self.next_beat = Duration::ZERO;
            self.stale = true;
        }
        if turned {
            self.turn(None);
        }
    }

    /// Takes the state of the uplink: without a carrier or its address this node owns nothing
    /// new. What it owns it goes on to claim, since it may be the only one that was cut off; who
    /// hears nothing of it takes over.
    pub fn on_uplink(&mut self, state: UplinkState, now: Duration) {
        if self.uplink == state {
            return;
        }
        tracing::info!(carrier = state.carrier, address = state.address, "uplink");
        let usable = state == UplinkState::FINE;
        self.uplink = state;
        self.stale = true;
        // Peers that are reached by another way should hear of it at once.
        self.next_beat = now;
        self.rota.tell_all();
        if usable {
            // Nobody was heard meanwhile, so nobody's silence means anything, and nobody heard
            // us. What is still owned when the claims have been compared is announced anew.
            let timeout = self.detector.config().timeout();
            self.election.listen_until(now + timeout);
            self.say_again = Some(now + self.setup.interval * 2);
        }
    }

    /// Takes the uplink's name and MAC. Where they changed, peers hear of it at once, so that their
    /// directors send this node's share there, and the LAN is told anew where the VIPs are: those
    /// that are announced with the uplink's own MAC are at another one, and the way to the director's
    /// may have changed too.
    pub fn on_link(&mut self, interface: Arc<str>, mac: Mac, now: Duration) {
        if self.setup.interface == interface && self.setup.uplink_mac == mac {
            return;
        }
        tracing::info!(%interface, %mac, "the uplink is another one, or has another MAC");
        self.setup.interface = interface;
        self.setup.uplink_mac = mac;
        self.stale = true;
        self.unreported = true;
        self.next_beat = now;
        self.rota.tell_all();
        self.say_anew(now);
        // The kernel tells nobody of its own addresses' new MAC (arp_notify is off by default), and
        // peers would go on sending heartbeats to the old one.
        let networks = self.networks.clone();
        let on_link = |ip: &IpAddr| networks.iter().any(|network| network.contains(ip));
        for own in self.own_addresses().into_iter().filter(on_link) {
            let frames = neighbours::announcement(own, mac);
            let frames = frames.into_iter().map(|f| Output::Frame(Via::Main, f));
            self.out.extend(frames);
        }
    }

    /// Has what this node owns announced anew at once: the way to it may be another one.
    pub fn say_anew(&mut self, now: Duration) {
        self.say_again = Some(now);
    }

    /// Takes the networks whose hosts are neighbours on the main uplink.
    pub fn on_networks(&mut self, networks: Arc<[IpNet]>, now: Duration) {
        if self.networks != networks {
            tracing::info!(?networks, "networks on the uplink");
            self.networks = networks;
            self.stale = true;
            self.next_beat = now;
        }
    }

    /// Counts what the director's table held when the speaker started as wanted until now.
    pub fn adopt(
        &mut self,
        destinations: impl IntoIterator<Item = (PortKey, IpAddr)>,
        now: Duration,
    ) {
        for (key, destination) in destinations {
            self.grace.adopt(key, destination, now);
        }
    }

    /// Does all that is due at `now`.
    pub fn tick(&mut self, now: Duration) {
        let events = self.detector.on_tick(now);
        self.take_events(events, now);
        self.settle(now);
        self.stale |= self.grace.next_deadline().is_some_and(|at| at <= now);
        self.stale |= self.detours.next_deadline().is_some_and(|at| at <= now);
        self.stale |= self.retiring.next_deadline().is_some_and(|at| at <= now);
        if self.stale {
            self.tell_paths();
        }
        // Looks at every peer, so not at each of their heartbeats.
        if self.stale || self.hold_ends.is_some_and(|at| at <= now) {
            self.election.set_held(self.held(now));
            self.hold_ends = self.flaps.next_end(now);
        }
        self.refresh(now);
        self.step_election(now);
        self.unreported |= self.conflicts.tidy(now);
        if self.say_again.is_some_and(|at| at <= now) {
            self.say_again = None;
            for (vip, _) in self.owned.iter().filter(|(_, o)| o.announced) {
                self.schedule.burst(*vip, Urgency::Lost, now);
            }
        }
        self.announce(now);
        self.speak(Kind::First, now);
        self.probe_vips(now);
        self.speak(Kind::Repeat, now);
        self.speak(Kind::Refresh, now);
        self.unreported |= self.unowned_due().is_some_and(|at| at <= now);
        if now >= self.next_beat {
            self.send_heartbeats(now);
        }
        self.report(now);
    }

    /// When [`Core::tick`] has to be called at the latest.
    pub fn next_deadline(&self, now: Duration) -> Duration {
        let mut at = self.next_beat.min(self.detector.next_deadline(now));
        if !self.settled {
            at = at.min(self.settle_until);
        }
        let more = [
            self.grace.next_deadline(),
            self.detours.next_deadline(),
            self.schedule.next_deadline(&self.pace),
            self.retiring.next_deadline(),
            self.election.next_deadline(now),
            self.say_again,
            self.unowned_due(),
            self.director_wait_over(now),
            self.conflicts.next_deadline(&self.pace, now),
            self.hold_ends,
        ];
        more.into_iter().flatten().fold(at, Duration::min)
    }

    /// Starts to hand all VIPs over, because the speaker is about to stop.
    pub fn leave(&mut self, now: Duration) {
        self.leaving = true;
        self.election.leave();
        self.next_beat = now;
    }

    /// Time between two heartbeats.
    pub fn interval(&self) -> Duration {
        self.setup.interval
    }

    /// Whether the cluster is so large that most nodes get only some heartbeats.
    pub fn is_sparse(&self) -> bool {
        self.rota.sparse()
    }

    /// For so long after heartbeats were read the next ones should be left to gather. At most half an interval: who is
    /// asked for a sign of life should not take much of the time that it has for it.
    pub fn gather(&self) -> Duration {
        if self.peers.len() <= NOT_GATHERED {
            return Duration::ZERO;
        }
        GATHER[usize::from(self.is_sparse())].min(self.setup.interval / 2)
    }

    /// Whether every VIP has been taken by another node since [`Core::leave`].
    pub fn handed_over(&self) -> bool {
        self.election.handed_over()
    }

    /// Takes the outputs since the last call.
    pub fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    /// Writes what is to be kept over a restart, all but the world and the secrets.
    pub fn save(&self, saved: &mut Saved) {
        let peers = self
            .peers
            .iter()
            .filter_map(|(name, p)| Some((name.clone(), p.told.clone()?)));
        let claims = self.owned.iter().map(|(vip, owned)| (*vip, owned.epoch));
        (saved.peers, saved.claims) = (peers.collect(), claims.collect());
        let heard = self.guard.newest();
        saved.heard = heard.map(|(name, newest)| (name.clone(), newest)).collect();
        saved.boot_id = self.setup.boot_id;
    }

    /// The owner of a VIP as this node sees it.
    pub fn owner(&self, vip: &IpAddr) -> Option<NodeName> {
        self.election.owner(vip).map(|(owner, _)| owner)
    }

    /// The VIPs that this node claims, in its heartbeats, with their epochs.
    pub fn claims(&self) -> Vec<lightship_election::Claim> {
        self.election.claims()
    }

    /// The own node's addresses for heartbeats, as the API server has them now.
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        let own = self.world.nodes.get(&self.setup.me);
        own.into_iter().flat_map(Node::addresses).collect()
    }

    /// Datagrams refused since the start, by reason.
    pub fn refused(&self) -> &BTreeMap<&'static str, u64> {
        self.refusals.counts()
    }

    fn set_peers(&mut self, now: Duration) {
        let names: BTreeSet<NodeName> = self
            .world
            .nodes
            .keys()
            .filter(|n| **n != self.setup.me)
            .cloned()
            .collect();
        self.peers.retain(|name, _| names.contains(name));
        // What was a claim for one VIP may be one for another with its address.
        for peer in self.peers.values_mut() {
            peer.content = None;
        }
        self.tell_unreachable();
        self.guard.retain(|name| names.contains(name));
        self.election.set_nodes(&names);
        self.flaps.tidy(|name| names.contains(name), now);
        self.rota.set_nodes(&names);
        self.detector.set_peers(&names, now);
    }

    /// Says once of each node that no heartbeat can ever reach it.
    fn tell_unreachable(&mut self) {
        let Some(own) = self.world.nodes.get(&self.setup.me) else {
            return;
        };
        let apart = |node: &Node| node.main_address().is_some() && own.way_to(node).is_none();
        let nodes = self.world.nodes.iter().filter(|(_, node)| apart(node));
        let unreachable: BTreeSet<NodeName> = nodes.map(|(name, _)| name.clone()).collect();
        for node in unreachable.difference(&self.unreachable) {
            tracing::warn!(%node, "its InternalIPs are of another address family than this node's: \
                no heartbeat reaches it; give both nodes an InternalIP of one family");
        }
        self.unreachable = unreachable;
    }

    fn everyone_heard(&self) -> bool {
        let mut peers = self
            .world
            .nodes
            .keys()
            .filter(|name| **name != self.setup.me);
        peers.all(|name| self.detector.state(name) != PeerState::Unknown)
    }

    /// Ends the time of listening once it is over or everybody has been heard.
    fn settle(&mut self, now: Duration) {
        if !self.settled && (now >= self.settle_until || self.everyone_heard()) {
            self.settled = true;
            self.stale = true;
        }
    }
}
