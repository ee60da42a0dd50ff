//! The failure detector: heartbeats, probe replies and silence become peer states.
//!
//! Two questions are kept apart, since they have different answers: *may this
//! node own VIPs* (its speaker beats) and *does this node still serve as a backend*
//! (its kernel answers, even when the speaker is being restarted).
//!
//! ```text
//!            beat                    silent: probe            silent for the timeout
//!  Unknown ───────▶ Alive ─────────────────────▶ Suspect ─────────┬─────────────┐
//!                   ▲  │ goodbye                                  │ kernel      │ nothing
//!          any beat │  ▼                                          ▼ answers     ▼ answers
//!                   │ Leaving ───▶ Left ──────────────────▶  SpeakerLost ◀───▶ Dead
//!                                    └──────── probes unanswered ──────────────▲
//! ```
//!
//! **Own lateness.** Every call tells the detector the time. A call that comes later than
//! [`Detector::next_deadline`] promised means that *we* did not run, so the silence
//! is ours: a delay shorter than an interval is not counted as silence of the
//! peers; after a longer one (a stopped process, a paused machine) every peer
//! gets a full timeout again. (Lifeguard, arXiv 1707.00788: distrust yourself first.)
//!
//! The detector owns the peers' states and nothing else; see the crate's
//! documentation for what the shell has to do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::NodeName;
use crate::graph::{Graph, digest};

mod config;
mod peer;
#[cfg(test)]
mod tests;

pub use config::{Config, ConfigError};
pub use peer::PeerState;
use peer::{Pace, Peer};

/// So many peers are looked at for every heartbeat.
const FEW: usize = 8;

/// What the shell should know or do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A peer's state changed.
    Changed {
        /// The peer.
        node: NodeName,
        /// Its state before.
        from: PeerState,
        /// Its state now.
        to: PeerState,
        /// Time since its last heartbeat, or since it was first listed.
        silent_for: Duration,
    },
    /// Ask this node for a sign of life now: its kernel by ARP request or neighbour
    /// solicitation, its speaker by a heartbeat with [`crate::Flags::solicit`].
    Probe(NodeName),
    /// This node, which we watch for the others ([`crate::graph`]), is late: tell them, so that
    /// each sees for itself.
    Late(NodeName),
}

/// Lateness up to this part of the interval is a timer's normal imprecision.
const LATENESS_TOLERANCE: u32 = 10;

/// The states of all peers.
#[derive(Debug, Clone)]
pub struct Detector {
    config: Config,
    me: NodeName,
    peers: BTreeMap<NodeName, Peer>,
    graph: Graph,
    /// When `on_tick` is due; later calls mean that we did not run. None before the first call.
    due: Option<Duration>,
    /// Sum of our own lateness.
    late: Duration,
    /// When we last found that we had not run for an interval or more.
    woken_at: Option<Duration>,
    /// For how long we had not run then.
    slept: Duration,
}

impl Detector {
    /// A detector without peers.
    ///
    /// # Errors
    /// When `config` makes no sense.
    pub fn new(config: Config, me: NodeName) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            config,
            me,
            peers: BTreeMap::new(),
            graph: Graph::default(),
            due: None,
            late: Duration::ZERO,
            woken_at: None,
            slept: Duration::ZERO,
        })
    }

    /// The timing in use.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Replaces the list of peers. New ones start as [`PeerState::Unknown`], those no longer
    /// listed are forgotten without an event. Our own name is skipped.
    pub fn set_peers(&mut self, peers: &BTreeSet<NodeName>, now: Duration) {
        self.catch_up(now);
        self.peers.retain(|name, _| peers.contains(name));
        self.graph = Graph::new(&self.config.shape, &self.me, peers);
        for name in peers.iter().filter(|name| **name != self.me) {
            let pace = match (self.graph.sparse(), self.graph.watches(name)) {
                (false, _) => Pace::Each,
                (true, true) => Pace::Watched,
                (true, false) => Pace::Distant(self.graph.round()),
            };
            self.peers
                .entry(name.clone())
                .or_insert_with(|| Peer::new(digest(name), now))
                .set_pace(pace, &self.config, now);
        }
        self.reschedule(now);
    }

    /// An authentic heartbeat of `node` arrived; `leaving` is its goodbye flag.
    /// Heartbeats of nodes that are not listed are ignored.
    pub fn on_heartbeat(&mut self, node: &NodeName, leaving: bool, now: Duration) -> Vec<Event> {
        self.catch_up(now);
        let Some(peer) = self.peers.get_mut(node) else {
            return Vec::new();
        };
        let mut events = Vec::new();
        peer.beat(leaving, now, &mut |from, to, silent_for| {
            events.push(changed(node, from, to, silent_for));
        });
        self.postpone(now);
        events
    }

    /// The same of a node that is [`PeerState::Alive`] and not going away, of which nothing changes then; false, and
    /// nothing is done, if it is not.
    pub fn on_beat_of_live(&mut self, node: &NodeName, now: Duration) -> bool {
        self.catch_up(now);
        let peer = self.peers.get_mut(node);
        let Some(peer) = peer.filter(|peer| peer.state == PeerState::Alive) else {
            return false;
        };
        peer.beat(false, now, &mut |_, _, _| ());
        self.postpone(now);
        true
    }

    /// The kernel of `node` answered a probe: the node lives, whatever its speaker does.
    pub fn on_probe_reply(&mut self, node: &NodeName, now: Duration) -> Vec<Event> {
        self.catch_up(now);
        let Some(peer) = self.peers.get_mut(node) else {
            return Vec::new();
        };
        let mut events = Vec::new();
        peer.reply(now, &mut |from, to, silent_for| {
            events.push(changed(node, from, to, silent_for));
        });
        if !events.is_empty() {
            self.due = self.due.map(|due| due.min(now));
        }
        events
    }

    /// A heartbeat of `by` says that the node of this digest is late. If we hear that node only now
    /// and then, it is probed from the next [`Self::on_tick`] on, which is then due.
    pub fn on_late(&mut self, by: &NodeName, digest: u64, now: Duration) {
        self.catch_up(now);
        let mut named = self.peers.values_mut().filter(|peer| peer.digest == digest);
        if named.any(|peer| peer.alarm(by, &self.config, now)) {
            self.due = self.due.map(|due| due.min(now));
        }
    }

    /// Are nearly all nodes that we watch out of sight? Then it is probably we who are, though nobody
    /// is left to say so of the nodes that we hear only now and then. Never so where all watch all.
    pub fn cut_off(&self, now: Duration) -> bool {
        let mut watched = (0, 0);
        for (name, peer) in &self.peers {
            if peer.pace == Pace::Watched && peer.state != PeerState::Unknown {
                watched.0 += 1;
                watched.1 += usize::from(self.in_sight(name, now));
            }
        }
        watched.0 > 0 && watched.1 * 4 <= watched.0
    }

    /// Lets time pass: changes states and asks for probes. Call it at
    /// [`Self::next_deadline`]; calling it earlier or more often is harmless.
    pub fn on_tick(&mut self, now: Duration) -> Vec<Event> {
        self.catch_up(now);
        if self.due.is_some_and(|due| now < due) {
            return Vec::new();
        }
        let mut events = Vec::new();
        for (node, peer) in &mut self.peers {
            let probe = peer.tick(&self.config, now, &mut |from, to, silent_for| {
                events.push(changed(node, from, to, silent_for));
            });
            if peer.take_word(&self.config, now) {
                events.push(Event::Late(node.clone()));
            }
            if probe {
                events.push(Event::Probe(node.clone()));
            }
        }
        self.reschedule(now);
        events
    }

    /// When `on_tick` is to be called, at most one interval ahead.
    pub fn next_deadline(&self, now: Duration) -> Duration {
        self.due.unwrap_or(now + self.config.interval)
    }

    /// State of `node`; [`PeerState::Unknown`] if it is not listed.
    pub fn state(&self, node: &NodeName) -> PeerState {
        self.peers
            .get(node)
            .map_or(PeerState::Unknown, |peer| peer.state)
    }

    /// Was `node` heard lately, its speaker or its kernel? Stricter than its state: where many
    /// fall silent at once, the first is given up while the others are still only late. One late
    /// heartbeat is not enough, though: the node has to leave some probes without an answer too.
    pub fn in_sight(&self, node: &NodeName, now: Duration) -> bool {
        self.peers.get(node).is_some_and(|peer| match peer.state {
            PeerState::Unknown | PeerState::Dead => false,
            PeerState::Suspect => !peer.unanswered(&self.config, now),
            _ => true,
        })
    }

    /// All peers by name: state, and time since the last heartbeat or first listing.
    pub fn peers(&self, now: Duration) -> impl Iterator<Item = (NodeName, PeerState, Duration)> {
        self.peers
            .iter()
            .map(move |(name, peer)| (name.clone(), peer.state, peer.silent_for(now)))
    }

    /// Sum of the time by which this process itself was late so far.
    pub fn own_lateness(&self) -> Duration {
        self.late
    }

    /// When this process last came back after it had not run for an interval or
    /// more. What it holds to be true is old then, so for a [`Config::timeout`] from
    /// this time on the election should only listen. Ask before every step of the election, whatever
    /// the step is for: `now` may be what tells.
    pub fn woken_at(&mut self, now: Duration) -> Option<Duration> {
        self.catch_up(now);
        self.woken_at
    }

    /// Whether others may have given this process up before it came back at [`Self::woken_at`]: they had not
    /// heard it for so long. Its last heartbeat may be an interval older than the beat of a peer from
    /// which another interval led to the deadline that it missed.
    pub fn was_missed(&self) -> bool {
        self.slept + 2 * self.config.interval >= self.config.timeout()
    }

    /// Takes our own lateness off the silence of the peers.
    fn catch_up(&mut self, now: Duration) {
        let Some(due) = self.due else {
            return;
        };
        let late = now.saturating_sub(due);
        if late <= self.config.interval / LATENESS_TOLERANCE {
            return;
        }
        self.late += late;
        let restart = late >= self.config.interval;
        if restart {
            self.woken_at = Some(now);
            self.slept = late;
        }
        for peer in self.peers.values_mut() {
            peer.excuse(late, restart, &self.config, now);
        }
        // Counted; what is due now is the tick that we owe.
        self.due = Some(now);
    }

    /// After a beat, which only moves the deadline later. Among many peers it stays as it was: waking early then
    /// costs less than looking at each of them for every heartbeat.
    fn postpone(&mut self, now: Duration) {
        if self.peers.len() <= FEW && self.due.is_some_and(|due| due > now) {
            self.reschedule(now);
        }
    }

    fn reschedule(&mut self, now: Duration) {
        let latest = now + self.config.interval;
        let next = self
            .peers
            .values()
            .map(|peer| peer.deadline(&self.config))
            .min();
        self.due = Some(next.map_or(latest, |next| next.clamp(now, latest)));
    }
}

fn changed(node: &NodeName, from: PeerState, to: PeerState, silent_for: Duration) -> Event {
    Event::Changed {
        node: node.clone(),
        from,
        to,
        silent_for,
    }
}
