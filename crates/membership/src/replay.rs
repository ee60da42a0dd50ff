//! Refuses heartbeats that are not newer than the newest one of their sender.
//!
//! Order is `(boot_id, counter, page)`, strictly rising. No window of late
//! datagrams is kept: a heartbeat is overtaken by the next one within an interval, and
//! an older claim list applied over a newer one would undo a move.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{Heartbeat, NodeName};

#[cfg(test)]
mod tests;

/// Why an authentic heartbeat was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// From an earlier run of the sender's speaker.
    #[error("heartbeat of an earlier run: boot id {got}, newest {newest}")]
    OldBoot {
        /// Boot id of the datagram.
        got: u64,
        /// The newest boot id heard of this sender.
        newest: u64,
    },
    /// This very page was accepted before.
    #[error("heartbeat {counter} page {page} was heard before")]
    Replayed {
        /// Counter of the datagram.
        counter: u64,
        /// Page of the datagram.
        page: u16,
    },
    /// Older than the newest one: replayed, or reordered on the way.
    #[error("heartbeat {counter} page {page} is older than the newest")]
    Stale {
        /// Counter of the datagram.
        counter: u64,
        /// Page of the datagram.
        page: u16,
    },
}

impl ReplayError {
    /// A short stable word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::OldBoot { .. } => "old_boot",
            Self::Replayed { .. } => "replayed",
            Self::Stale { .. } => "stale",
        }
    }
}

/// The newest heartbeat of each sender.
#[derive(Debug, Clone, Default)]
pub struct ReplayGuard {
    newest: BTreeMap<NodeName, (u64, u64, u16)>,
}

impl ReplayGuard {
    /// A guard that has heard nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Accepts `heartbeat` if it is newer than all before from its sender.
    ///
    /// Call it only with heartbeats that [`crate::decode`] has authenticated, or
    /// a forgery could shut the true sender out.
    ///
    /// # Errors
    /// Says why it is not newer.
    pub fn check(&mut self, heartbeat: &Heartbeat) -> Result<(), ReplayError> {
        let Heartbeat {
            boot_id,
            counter,
            page,
            ..
        } = *heartbeat;
        let Some(newest) = self.newest.get_mut(&heartbeat.sender) else {
            self.newest
                .insert(heartbeat.sender.clone(), (boot_id, counter, page));
            return Ok(());
        };
        if boot_id < newest.0 {
            return Err(ReplayError::OldBoot {
                got: boot_id,
                newest: newest.0,
            });
        }
        match (boot_id, counter, page).cmp(newest) {
            std::cmp::Ordering::Greater => {
                *newest = (boot_id, counter, page);
                Ok(())
            }
            std::cmp::Ordering::Equal => Err(ReplayError::Replayed { counter, page }),
            std::cmp::Ordering::Less => Err(ReplayError::Stale { counter, page }),
        }
    }

    /// Keeps only the senders that `keep` approves of. A sender that is
    /// forgotten may be replayed, so forget only nodes that left the cluster.
    pub fn retain(&mut self, mut keep: impl FnMut(&NodeName) -> bool) {
        self.newest.retain(|name, _| keep(name));
    }
}
