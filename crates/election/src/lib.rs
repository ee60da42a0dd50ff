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
//!   their addresses, each to the fit node with the highest preference and then the least load. Speakers that
//!   see the same compute the same plan, so the chosen one just takes its share, in the
//!   very step in which it learns of a death.
//! * **Make before break.** An owner that leaves, or may not own any more, keeps
//!   answering until it hears the claim of its successor.
//! * **Views may differ** for a moment. Two takers: epochs settle it. No taker: after
//!   [`DEFAULT_PATIENCE`] each waiting node passes the chosen one over.
//!
//! * **Weak claims.** Who sees no majority of the cluster takes VIPs too, but with claims that
//!   give way: an isolated node that is back wins nothing from those who were never away.
//!
//! "Fit" is: allowed by policy, its speaker can own now, and it need not be avoided while another
//! can. The election knows no clock and no
//! network: time is a [`std::time::Duration`] since an arbitrary monotonic origin, and what
//! [`Election::step`] returns is for the shell to do. After a step that returned anything the shell
//! should send a heartbeat with [`Election::claims`] at once and not wait for the next interval.

use std::net::IpAddr;
use std::sync::Arc;

mod action;
mod claims;
mod digest;
mod election;
mod epoch;
mod plan;
mod rank;

pub use action::{Action, Away, MoveReason};
pub use claims::{ENDED, Scope};
pub use digest::digest;
pub use election::{DEFAULT_PATIENCE, Election};

/// The Kubernetes name of a node.
pub type NodeName = Arc<str>;

/// A node says that it answers for a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// The floating address.
    pub vip: IpAddr,
    /// The number of this ownership; the higher claim wins. Even when its maker saw more than half
    /// of the cluster, else odd.
    pub epoch: u64,
}

/// Who may own a VIP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidates {
    /// The nodes that policy allows, dead or alive. It and the next two are shared, because in
    /// most clusters they are the same for all VIPs.
    pub nodes: Arc<std::collections::BTreeSet<NodeName>>,
    /// How much each node is preferred; 0 for those not named. A VIP goes to a node of the
    /// highest preference that is fit; among equals, load decides.
    pub preference: Arc<std::collections::BTreeMap<NodeName, u32>>,
    /// Nodes that are fit only while none of the others can own the VIP.
    pub avoid: Arc<std::collections::BTreeSet<NodeName>>,
    /// The node that somebody asked for: it takes the VIP as soon as it is fit.
    pub wanted: Option<NodeName>,
}

impl Candidates {
    /// All `nodes`, none preferred.
    pub fn equal(nodes: impl IntoIterator<Item = NodeName>) -> Self {
        Self {
            nodes: Arc::new(nodes.into_iter().collect()),
            ..Self::default()
        }
    }

    fn preference(&self, node: &NodeName) -> u32 {
        self.preference.get(node).copied().unwrap_or(0)
    }
}
