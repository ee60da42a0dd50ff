//! Who gets which heartbeat; see [`crate::graph`].
//!
//! What must be known at once (claims that changed, a speaker that leaves, a node that has fallen
//! silent) goes to everybody, [`REPEATS`] times, so that a lost datagram costs an interval. In a small
//! cluster every heartbeat goes to everybody. Of one whose claims fill several pages a node gets the news and a
//! page, and the others by turns ([`crate::Draft`]), so that what a speaker sends does not grow with the VIPs
//! that it holds.

use std::collections::{BTreeMap, BTreeSet};

use crate::NodeName;
use crate::graph::{Graph, Shape, digest};
use crate::heartbeat::MAX_LATE;

#[cfg(test)]
mod tests;

/// How many heartbeats in a row go to everybody after something that must be known at once.
pub const REPEATS: u32 = 3;

/// A node that gets heartbeats.
#[derive(Debug, Clone)]
struct Other {
    name: NodeName,
    /// It watches us.
    watches: bool,
    /// Which heartbeats it gets else: those whose number is this much short of a round.
    turn: u64,
}

/// Decides for each heartbeat of one node who gets it, and which late nodes it names.
#[derive(Debug, Clone)]
pub struct Rota {
    me: NodeName,
    shape: Shape,
    graph: Graph,
    /// The other nodes.
    others: Vec<Other>,
    /// Of the heartbeat that is sent now.
    number: u64,
    /// Heartbeats that go to everybody from now on.
    to_all: u32,
    /// Late nodes, and how many heartbeats are still to name them.
    late: BTreeMap<u64, u32>,
}

impl Rota {
    /// The rota of `me`, alone so far.
    pub fn new(me: NodeName, shape: Shape) -> Self {
        Self {
            me,
            shape,
            graph: Graph::default(),
            others: Vec::new(),
            number: 0,
            to_all: 0,
            late: BTreeMap::new(),
        }
    }

    /// Replaces the nodes of the cluster.
    pub fn set_nodes(&mut self, nodes: &BTreeSet<NodeName>) {
        self.graph = Graph::new(&self.shape, &self.me, nodes);
        let others = nodes.iter().filter(|node| **node != self.me);
        let other = |name: &NodeName| Other {
            name: name.clone(),
            watches: self.graph.watched_by(name),
            // Spread over the intervals, so that the packets do not come in bursts.
            turn: digest(name).wrapping_add(digest(&self.me)) % u64::from(self.graph.round()),
        };
        self.others = others.map(other).collect();
    }

    /// Do some nodes get only some heartbeats?
    pub fn sparse(&self) -> bool {
        self.graph.sparse()
    }

    /// Within so many intervals each node gets a heartbeat.
    pub fn round(&self) -> u32 {
        self.graph.round()
    }

    /// There is news that everybody should have at once: the next heartbeats go to all.
    pub fn tell_all(&mut self) {
        self.to_all = REPEATS;
    }

    /// A node that we watch is late ([`crate::Event::Late`]): everybody should look for it.
    pub fn tell_late(&mut self, node: &NodeName) {
        if self.late.len() < MAX_LATE {
            self.late.insert(digest(node), REPEATS);
            self.tell_all();
        }
    }

    /// The late nodes that the heartbeat now due is to name ([`crate::Heartbeat::late`]).
    pub fn late(&self) -> Vec<u64> {
        self.late.keys().copied().collect()
    }

    /// Who gets the heartbeat that is due, in the order of the names, and the number of the page it gets, modulo
    /// their count: from one heartbeat that a node gets to the next in its turn it grows by one.
    pub fn due(&self) -> impl Iterator<Item = (&NodeName, u64)> {
        let due = self.others.iter();
        due.filter_map(|other| Some((&other.name, self.page_of(other)?)))
    }

    /// The page that `node` gets of the heartbeat that is due, if any.
    pub fn page(&self, node: &NodeName) -> Option<u64> {
        let at = self.others.binary_search_by(|other| other.name.cmp(node));
        self.page_of(&self.others[at.ok()?])
    }

    fn page_of(&self, other: &Other) -> Option<u64> {
        if !self.graph.sparse() || other.watches {
            return Some(self.number);
        }
        let every = u64::from(self.graph.round());
        let turn = (other.turn + self.number).is_multiple_of(every);
        (turn || self.to_all > 0).then_some(self.number / every)
    }

    /// The heartbeat that was due has been sent.
    pub fn sent(&mut self) {
        self.number += 1;
        self.to_all = self.to_all.saturating_sub(1);
        self.late.retain(|_, left| {
            *left -= 1;
            *left > 0
        });
    }
}
