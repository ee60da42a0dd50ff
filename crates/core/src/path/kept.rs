//! What the path test had found, kept over a restart of the speaker. Pure.
//!
//! Without it a node that the network does not let work would count as fit for the seconds that the
//! test takes, after each start: what it attracts in these is lost.

use std::sync::Arc;

use lightship_membership::graph::digest;
use lightship_membership::path::Set;
use serde::{Deserialize, Serialize};

use super::tester::{Family, Host};
use crate::world::NodeName;

/// The findings of a test; none where all was well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The [`fingerprint`] of the own node: with another one nothing of it counts.
    pub(super) own: u64,
    pub(super) ways: Arc<[Way]>,
}

/// What was known of the way to one node in one family, and back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Way {
    pub(super) peer: NodeName,
    pub(super) v6: bool,
    /// The [`fingerprint`] of that node: with another one it does not count.
    pub(super) host: u64,
    /// What was lost on the way there.
    pub(super) found: Option<u8>,
    /// What the other node said of its way to here.
    pub(super) told: Option<u8>,
    /// The other node's director was used.
    pub(super) directs: bool,
}

impl Way {
    pub(super) fn key(&self) -> (NodeName, Family) {
        let family = if self.v6 { Family::V6 } else { Family::V4 };
        (self.peer.clone(), family)
    }

    pub(super) fn found(&self) -> Option<Set> {
        self.found.map(Set::from_bits)
    }

    pub(super) fn told(&self) -> Option<Set> {
        self.told.map(Set::from_bits)
    }
}

/// Of a node's addresses and MACs. Another release may make another one of them: then it starts anew.
pub(super) fn fingerprint(host: &Host) -> u64 {
    digest(&format!("{host:?}"))
}
