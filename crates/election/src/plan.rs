//! Dealing out VIPs that nobody fit claims.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::rank::rank;
use crate::{Candidates, NodeName};

/// Load of the nodes, in VIPs owned or assigned.
#[derive(Debug, Default)]
pub(crate) struct Load(BTreeMap<NodeName, u64>);

impl Load {
    pub(crate) fn add(&mut self, node: &NodeName) {
        match self.0.get_mut(node) {
            Some(load) => *load += 1,
            None => {
                self.0.insert(node.clone(), 1);
            }
        }
    }

    pub(crate) fn of(&self, node: &NodeName) -> u64 {
        self.0.get(node).copied().unwrap_or(0)
    }
}

/// The node among `fit` that takes `vip`: the one that is wanted, else the highest preference, then
/// one that is not `held`, then the least load, then the highest rank.
pub(crate) fn choose<'a>(
    vip: &IpAddr,
    candidates: &Candidates,
    fit: impl Iterator<Item = &'a NodeName>,
    load: &Load,
    held: &BTreeSet<NodeName>,
) -> Option<&'a NodeName> {
    fit.min_by_key(|node| {
        (
            candidates.wanted.as_ref() != Some(*node),
            Reverse(candidates.preference(node)),
            held.contains(*node),
            load.of(node),
            Reverse(rank(vip, node)),
        )
    })
}
