//! What the election asks the shell to do, and why.

use std::fmt;
use std::net::IpAddr;

use crate::NodeName;

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start answering for the VIP and announce it, or announce it again: an owner whose claim
    /// had to be raised gets another `Take`.
    Take {
        /// The floating address.
        vip: IpAddr,
        /// Epoch of our claim.
        epoch: u64,
        /// Who had it before, as far as known.
        from: Option<NodeName>,
        /// Why it moved.
        reason: MoveReason,
    },
    /// Stop answering for the VIP.
    Release {
        /// The floating address.
        vip: IpAddr,
        /// Who has it now.
        to: Option<NodeName>,
        /// Why it moved.
        reason: MoveReason,
    },
}

impl Action {
    /// The VIP that this is about.
    pub fn vip(&self) -> IpAddr {
        match self {
            Self::Take { vip, .. } | Self::Release { vip, .. } => *vip,
        }
    }
}

/// Why a VIP moved. The text of `Display` is shown to people in VirtualIP's status
/// and does not change between releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MoveReason {
    /// Nobody had it before.
    FirstOwner,
    /// The owner is silent.
    OwnerDied,
    /// The owner said goodbye.
    OwnerLeft,
    /// The owner lives but cannot own VIPs now: no carrier, director broken.
    OwnerNotEligible,
    /// Two nodes claimed it and the other claim is higher.
    HigherEpoch,
    /// Policy does not allow the owner any more.
    PolicyExcluded,
    /// The VIP does not exist any more.
    VipRemoved,
    /// Owned before the speaker's restart, and kept.
    Resumed,
    /// Moved to spread VIPs more evenly, or to a node that is preferred.
    Rebalanced,
    /// Moved or pinned by hand.
    Requested,
    /// The owner is to be avoided: drained, cordoned, out of service, at a port that drops its replies, or on another LAN.
    Drained,
}

impl MoveReason {
    /// A stable word for conditions, events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FirstOwner => "FirstOwner",
            Self::OwnerDied => "OwnerDied",
            Self::OwnerLeft => "OwnerLeft",
            Self::OwnerNotEligible => "OwnerNotEligible",
            Self::HigherEpoch => "HigherEpoch",
            Self::PolicyExcluded => "PolicyExcluded",
            Self::VipRemoved => "VipRemoved",
            Self::Resumed => "Resumed",
            Self::Rebalanced => "Rebalanced",
            Self::Requested => "Requested",
            Self::Drained => "Drained",
        }
    }
}

impl fmt::Display for MoveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FirstOwner => "first owner of this address",
            Self::OwnerDied => "the previous owner stopped answering",
            Self::OwnerLeft => "the previous owner is shutting down",
            Self::OwnerNotEligible => "the previous owner cannot announce addresses now",
            Self::HigherEpoch => "another node holds a newer claim",
            Self::PolicyExcluded => "policy no longer allows the previous owner",
            Self::VipRemoved => "the address is no longer in use",
            Self::Resumed => "kept across a restart of the speaker",
            Self::Rebalanced => "moved to spread addresses evenly",
            Self::Requested => "moved by hand",
            Self::Drained => "the previous owner is drained, at a port that drops its replies, or on another LAN than the address",
        })
    }
}

/// Why a node is not among the live ones; see [`crate::Election::set_away`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Away {
    /// It said goodbye.
    Left,
    /// Its speaker beats but says that it cannot own VIPs.
    NotEligible,
}
