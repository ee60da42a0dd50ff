//! Who answers for which VIP: a pure, per-VIP, sticky election.
//!
//! Every speaker runs the same election over what it knows: which nodes policy allows
//! for a VIP, which speakers can own VIPs now, and what each of them claims in its
//! heartbeats. There is no vote and no round trip:
//!
//! * **Sticky.** The fit claimant with the highest claim keeps the VIP. Nobody who
//!   has heard a higher claim keeps a lower one, so a double claim ends as soon as
//!   one heartbeat got through.
//! * **Same plan everywhere.** VIPs without a fit claimant are dealt out, in order of
//!   their addresses, each to the fit node with the least load for its weight. Speakers that
//!   see the same compute the same plan, so the chosen one just takes its share, in the
//!   very step in which it learns of a death.
//! * **Make before break.** An owner that leaves, or may not own any more, keeps
//!   answering until it hears the claim of its successor.
//! * **Views may differ** for a moment. Two takers: epochs settle it. No taker: after
//!   [`DEFAULT_PATIENCE`] each waiting node passes the chosen one over.
//!
//! "Fit" is: allowed by policy, and its speaker can own now. The election knows no clock and no
//! network: time is a [`std::time::Duration`] since an arbitrary monotonic origin, and what
//! [`Election::step`] returns is for the shell to do. After a step that returned anything the shell
//! should send a heartbeat with [`Election::claims`] at once and not wait for the next interval.

use std::net::IpAddr;
use std::sync::Arc;

mod action;
mod claims;
mod election;
mod plan;
mod rank;

pub use action::{Action, Away, MoveReason};
pub use election::{DEFAULT_PATIENCE, Election};

/// The Kubernetes name of a node.
pub type NodeName = Arc<str>;

/// A node says that it answers for a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// The floating address.
    pub vip: IpAddr,
    /// How many times the ownership changed hands; the higher claim wins.
    pub epoch: u64,
}

/// Who may own a VIP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidates {
    /// The nodes that policy allows, dead or alive.
    pub nodes: std::collections::BTreeSet<NodeName>,
    /// Preference of a node against the others: a node of weight 2 gets twice the VIPs of
    /// a node of weight 1. Default 1; a node of weight 0 gets a VIP only if no other node can.
    pub weights: std::collections::BTreeMap<NodeName, u32>,
}

impl Candidates {
    /// All `nodes`, each with weight 1.
    pub fn equal(nodes: impl IntoIterator<Item = NodeName>) -> Self {
        Self {
            nodes: nodes.into_iter().collect(),
            weights: std::collections::BTreeMap::new(),
        }
    }

    fn weight(&self, node: &NodeName) -> u32 {
        self.weights.get(node).copied().unwrap_or(1)
    }
}
