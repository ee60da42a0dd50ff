//! Who watches whom, in a cluster that is too large for everybody to watch everybody.
//!
//! Up to [`ALL_TO_ALL`] nodes each speaker beats to each other one at every interval. Beyond,
//! that would be thousands of packets a second, so it beats at that pace only to its
//! [`WATCHERS`], and to each of the others at every [`DISTANT_EVERY`]th interval, or more seldom past 150
//! nodes, so that about [`DISTANT_AT_ONCE`] of them get one in an interval however many there are.
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

/// The most nodes of a cluster in which every speaker beats to every other at each interval.
pub const ALL_TO_ALL: usize = 64;
/// Nodes that watch each node in a larger cluster.
pub const WATCHERS: usize = 12;
/// In a larger cluster nodes that do not watch a node get every so many-th of its heartbeats, or fewer.
pub const DISTANT_EVERY: u32 = 10;
/// At most so many of these get one in an interval, in the mean.
pub const DISTANT_AT_ONCE: u32 = 15;

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
    pub fn new(me: &NodeName, nodes: &BTreeSet<NodeName>) -> Self {
        let others = nodes.iter().filter(|node| *node != me);
        let mut ring: Vec<(u64, &NodeName)> = others.map(|node| (digest(node), node)).collect();
        if ring.len() < ALL_TO_ALL {
            return Self::default();
        }
        ring.sort_unstable();
        let after = ring.partition_point(|node| *node < (digest(me), me));
        let name = |(_, node): &(u64, &NodeName)| NodeName::clone(node);
        let (before, after) = ring.split_at(after);
        let others = u32::try_from(ring.len()).unwrap_or(u32::MAX);
        Self {
            round: DISTANT_EVERY.max(others.div_ceil(DISTANT_AT_ONCE)),
            watchers: after
                .iter()
                .chain(before)
                .take(WATCHERS)
                .map(name)
                .collect(),
            watched: before
                .iter()
                .rev()
                .chain(after.iter().rev())
                .take(WATCHERS)
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
