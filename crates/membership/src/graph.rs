//! Who watches whom, in a cluster that is too large for everybody to watch everybody.
//!
//! Up to 64 nodes each speaker beats to each other one at every interval. Beyond, that would be thousands of
//! packets a second, so it beats at that pace only to its twelve watchers, and to each of the others at every
//! tenth interval, or more seldom past 150 nodes, so that about 15 of them get one in an interval however many
//! there are. [`Shape`] has these numbers.
//!
//! The watchers are the nodes that follow it on a ring, on which the nodes lie in the order of
//! a hash of their names: each node has as many watchers as it watches others, speakers that know the
//! same nodes know the same ring, a node that comes or goes concerns only its neighbours there, and
//! neighbours have nothing to do with racks or with the order of names. Where speakers know
//! different nodes for a while, some expect beats that do not come, ask for them, and get them.
//!
//! A watcher that hears nothing of a node tells everybody, shortly before it gives the node up
//! itself. Nobody believes that: each looks for itself, by probes, and gives
//! the node up when it too gets no answer. So all verdicts are first-hand, as in a small cluster.

use std::collections::BTreeSet;

use crate::NodeName;

#[cfg(test)]
mod tests;

/// Who beats to whom, and how often. All speakers of a cluster must have the same: it can be set only so that the
/// simulator can give a few nodes what else only many have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The most nodes of a cluster in which every speaker beats to every other at each interval.
    pub all_to_all: usize,
    /// Nodes that watch each node in a larger cluster.
    pub watchers: usize,
    /// In a larger cluster nodes that do not watch a node get every so many-th of its heartbeats, or fewer. At
    /// least 2.
    pub distant_every: u32,
    /// At most so many of these get one in an interval, in the mean. At least 1.
    pub distant_at_once: u32,
}

impl Shape {
    /// The one that speakers have.
    pub const DEFAULT: Self = Self {
        all_to_all: 64,
        watchers: 12,
        distant_every: 10,
        distant_at_once: 15,
    };

    /// In a cluster of so many nodes each node is sent a heartbeat within so many intervals.
    pub fn round(&self, nodes: usize) -> u32 {
        if nodes <= self.all_to_all {
            return 1;
        }
        let others = u32::try_from(nodes - 1).unwrap_or(u32::MAX);
        self.distant_every
            .max(others.div_ceil(self.distant_at_once))
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The neighbourhood of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// Every so many-th heartbeat goes to each node at least: 1 where all watch all.
    round: u32,
    watchers: BTreeSet<NodeName>,
    watched: BTreeSet<NodeName>,
}

impl Default for Graph {
    /// All watch all.
    fn default() -> Self {
        Self {
            round: 1,
            watchers: BTreeSet::new(),
            watched: BTreeSet::new(),
        }
    }
}

impl Graph {
    /// The neighbourhood of `me` in a cluster of these nodes; it does not matter whether `me` is named.
    pub fn new(shape: &Shape, me: &NodeName, nodes: &BTreeSet<NodeName>) -> Self {
        let others = nodes.iter().filter(|node| *node != me);
        let mut ring: Vec<(u64, &NodeName)> = others.map(|node| (digest(node), node)).collect();
        let round = shape.round(ring.len() + 1);
        if round <= 1 {
            return Self::default();
        }
        ring.sort_unstable();
        let after = ring.partition_point(|node| *node < (digest(me), me));
        let name = |(_, node): &(u64, &NodeName)| NodeName::clone(node);
        let (before, after) = ring.split_at(after);
        Self {
            round,
            watchers: after
                .iter()
                .chain(before)
                .take(shape.watchers)
                .map(name)
                .collect(),
            watched: before
                .iter()
                .rev()
                .chain(after.iter().rev())
                .take(shape.watchers)
                .map(name)
                .collect(),
        }
    }

    /// Within so many intervals each node is sent a heartbeat, while the cluster stays as it is.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// Does not everybody watch everybody?
    pub fn sparse(&self) -> bool {
        self.round > 1
    }

    /// Does `node` watch us?
    pub fn watched_by(&self, node: &NodeName) -> bool {
        !self.sparse() || self.watchers.contains(node)
    }

    /// Do we watch `node`?
    pub fn watches(&self, node: &NodeName) -> bool {
        !self.sparse() || self.watched.contains(node)
    }
}

/// The number that stands for a node on the ring and in heartbeats: FNV-1a over the bytes of its
/// name, finished with the mixer of SplitMix64. The same on every machine and in every release.
pub fn digest(node: &str) -> u64 {
    let fnv = node.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut hash = fnv;
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
