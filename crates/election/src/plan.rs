//! Dealing out VIPs that nobody fit claims.

use std::cmp::Reverse;
use std::collections::BTreeMap;
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

/// The node among `fit` that takes `vip`: least load for its weight after taking it, then highest rank.
/// Nodes of weight 0 come after all others.
pub(crate) fn choose<'a>(
    vip: &IpAddr,
    candidates: &Candidates,
    fit: impl Iterator<Item = &'a NodeName>,
    load: &Load,
) -> Option<&'a NodeName> {
    fit.min_by(|a, b| {
        let (wa, wb) = (candidates.weight(a), candidates.weight(b));
        // load_a / weight_a against load_b / weight_b, without division.
        let cost =
            |node: &NodeName, other: u32| u128::from(load.of(node) + 1) * u128::from(other.max(1));
        (wa == 0)
            .cmp(&(wb == 0))
            .then_with(|| cost(a, wb).cmp(&cost(b, wa)))
            .then_with(|| Reverse(rank(vip, a)).cmp(&Reverse(rank(vip, b))))
    })
}
