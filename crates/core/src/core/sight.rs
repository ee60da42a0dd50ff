//! What this node sees of the others: how many, and whom they hold off.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Core;
use crate::world::NodeName;

impl Core {
    /// The nodes to which nothing should be given as long as there are others.
    pub(super) fn held(&self, now: Duration) -> BTreeSet<NodeName> {
        let mut held = self.flaps.held(now);
        // Most often nobody does.
        if !self.peers.values().any(|peer| peer.holds_us) {
            return held;
        }
        // One that was cut off itself may take all others for those that come and go.
        let live = self.peers.iter();
        let live = live.filter(|(name, _)| self.detector.state(name).can_own());
        let (all, hold) = live.fold((0, 0), |(all, hold), (_, peer)| {
            (all + 1, hold + usize::from(peer.holds_us))
        });
        if hold * 2 > all {
            held.insert(self.setup.me.clone());
        }
        held
    }

    /// Whether more than half of the nodes are in sight: their speaker or their kernel answers.
    /// Counted are those that were heard at least once.
    pub(super) fn majority(&self, now: Duration) -> bool {
        let (seen, all) = self.sight(now);
        seen * 2 > all && !self.detector.cut_off(now)
    }

    /// Whether fewer than half of the nodes are in sight.
    pub(super) fn mostly_blind(&self, now: Duration) -> bool {
        let (seen, all) = self.sight(now);
        seen * 2 < all || self.detector.cut_off(now)
    }

    /// How many nodes are in sight, and of how many.
    fn sight(&self, now: Duration) -> (usize, usize) {
        let known = self.peers.iter().filter(|(_, peer)| peer.told.is_some());
        let (mut seen, mut all) = (1, 1);
        for (name, _) in known {
            all += 1;
            seen += usize::from(self.detector.in_sight(name, now));
        }
        (seen, all)
    }
}
