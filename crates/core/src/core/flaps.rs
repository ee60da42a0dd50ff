//! Nodes that come and go: for how long they are given nothing by rebalancing.
//!
//! A node that crashed once may do so again. Each time its speaker falls silent, the hold-off
//! doubles; after a good while without, it starts afresh. Speakers that stayed up remember it, and
//! tell the node by a flag in their heartbeats, since a machine that rebooted knows nothing of it
//! and it is the receiver that makes a move. Taking over from a dead node is not held off: an
//! address without an owner is worse than one that moves often.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::world::NodeName;

/// The hold-off after the first silence.
const FIRST: Duration = Duration::from_secs(60);

/// The longest one.
const LONGEST: Duration = Duration::from_secs(3_600);

/// After so long without another silence the next one counts as the first.
const FORGET: Duration = Duration::from_secs(2 * 3_600);

#[derive(Clone, Copy, Debug)]
struct Flap {
    at: Duration,
    hold: Duration,
}

/// The nodes that fell silent lately.
#[derive(Debug, Default)]
pub(super) struct Flaps(BTreeMap<NodeName, Flap>);

impl Flaps {
    /// A node's speaker fell silent without a word.
    pub(super) fn lost(&mut self, node: &NodeName, now: Duration) {
        let before = self.0.get(node).filter(|flap| now < flap.at + FORGET);
        let hold = before.map_or(FIRST, |flap| (flap.hold * 2).min(LONGEST));
        self.0.insert(node.clone(), Flap { at: now, hold });
    }

    /// It is heard again: the hold-off counts from now.
    pub(super) fn back(&mut self, node: &NodeName, now: Duration) {
        if let Some(flap) = self.0.get_mut(node) {
            flap.at = now;
        }
    }

    /// Whether a node is held off.
    pub(super) fn holds(&self, node: &NodeName, now: Duration) -> bool {
        self.0.get(node).is_some_and(|f| now < f.at + f.hold)
    }

    /// The nodes that are held off.
    pub(super) fn held(&self, now: Duration) -> BTreeSet<NodeName> {
        let all = self.0.keys();
        all.filter(|node| self.holds(node, now)).cloned().collect()
    }

    /// Forgets nodes that are no more, or have been quiet for long.
    pub(super) fn tidy(&mut self, exists: impl Fn(&NodeName) -> bool, now: Duration) {
        self.0
            .retain(|node, flap| exists(node) && now < flap.at + FORGET);
    }

    /// When the next hold-off ends.
    pub(super) fn next_end(&self, now: Duration) -> Option<Duration> {
        let ends = self.0.values().map(|flap| flap.at + flap.hold);
        ends.filter(|end| *end > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_hold_off_doubles_and_is_forgotten() {
        let mut flaps = Flaps::default();
        let node = NodeName::from("a");
        let mut now = S;
        for hold in [60, 120, 240, 480, 960, 1_920, 3_600, 3_600] {
            flaps.lost(&node, now);
            now += 10 * S;
            flaps.back(&node, now);
            assert_eq!(flaps.next_end(now), Some(now + hold * S));
            assert!(flaps.holds(&node, now + (hold - 1) * S));
            assert!(!flaps.holds(&node, now + hold * S));
        }
        now += FORGET;
        flaps.lost(&node, now);
        assert!(!flaps.holds(&node, now + 60 * S));
        flaps.tidy(|_| false, now);
        assert!(flaps.held(now).is_empty());
    }
}
