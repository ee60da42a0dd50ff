//! Refuses heartbeats that are not newer than the newest one of their sender.
//!
//! A heartbeat is newer if its `(boot_id, counter)` is greater. Pages of the newest heartbeat
//! are accepted in any order, each once: they are sent in a burst that the network may
//! reorder. Of older heartbeats nothing is accepted, not even late: each is overtaken by the
//! next within an interval, and an older claim list applied over a newer one would
//! undo a move.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use thiserror::Error;

use crate::heartbeat::MAX_PAGES;
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
    /// Older than the newest one: replayed, or late on the way.
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
    newest: BTreeMap<NodeName, Newest>,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    boot_id: u64,
    counter: u64,
    /// A bit for each page that was accepted.
    pages: [u64; MAX_PAGES as usize / 64],
}

impl Newest {
    /// Marks a page; false if it was marked before or cannot exist.
    fn mark(&mut self, page: u16) -> bool {
        let Some(bits) = self.pages.get_mut(usize::from(page / 64)) else {
            return false;
        };
        let bit = 1 << (page % 64);
        let new = *bits & bit == 0;
        *bits |= bit;
        new
    }
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
        let fresh = Newest {
            boot_id,
            counter,
            pages: Default::default(),
        };
        let newest = self.newest.entry(heartbeat.sender.clone()).or_insert(fresh);
        if boot_id < newest.boot_id {
            let newest = newest.boot_id;
            return Err(ReplayError::OldBoot {
                got: boot_id,
                newest,
            });
        }
        match (boot_id, counter).cmp(&(newest.boot_id, newest.counter)) {
            Ordering::Less => return Err(ReplayError::Stale { counter, page }),
            Ordering::Equal => {}
            Ordering::Greater => *newest = fresh,
        }
        if newest.mark(page) {
            Ok(())
        } else {
            Err(ReplayError::Replayed { counter, page })
        }
    }

    /// The newest boot id and counter of each sender, for [`Self::resume`].
    pub fn newest(&self) -> impl Iterator<Item = (&NodeName, (u64, u64))> {
        let newest = self.newest.iter();
        newest.map(|(name, newest)| (name, (newest.boot_id, newest.counter)))
    }

    /// Goes on from what was known before our restart: of `sender` only what is newer is accepted.
    pub fn resume(&mut self, sender: NodeName, (boot_id, counter): (u64, u64)) {
        let newest = Newest {
            boot_id,
            counter,
            // Which of its pages were heard is not known.
            pages: [u64::MAX; MAX_PAGES as usize / 64],
        };
        self.newest.insert(sender, newest);
    }

    /// Keeps only the senders that `keep` approves of. A sender that is
    /// forgotten may be replayed, so forget only nodes that left the cluster.
    pub fn retain(&mut self, mut keep: impl FnMut(&NodeName) -> bool) {
        self.newest.retain(|name, _| keep(name));
    }
}
