//! When a node that people want to do less gets no new connections any more. Pure.
//!
//! Its VIPs move at once. The directors that take them over do not know the connections that the
//! node serves itself, and at weight 0 they would send them elsewhere, where they end. So the node
//! keeps its weight for a while: each packet that passes meanwhile makes an entry, and entries stay
//! when the weight goes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::eligibility::{Avoid, Policy, avoid};
use crate::world::{NodeName, World};

/// How long the weight stays: a connection that is used more rarely may be lost. A node that is out
/// of service has nothing left to lose.
pub(super) const AFTER: Duration = Duration::from_secs(5);

/// The nodes that people want to do less, and since when; `None`: since before this speaker knew.
#[derive(Debug, Default)]
pub(super) struct Retiring {
    since: Option<BTreeMap<NodeName, Option<Duration>>>,
    /// The last time they were looked at.
    looked: Duration,
}

impl Retiring {
    /// Takes what Kubernetes says at `now`.
    pub(super) fn update(&mut self, world: &World, policy: Policy, now: Duration) {
        let before = self.since.take();
        let avoided = world.nodes.iter().filter_map(|(name, node)| {
            let since = match (avoid(node, policy)?, &before) {
                (Avoid::OutOfService, _) | (_, None) => None,
                (_, Some(before)) => before.get(name).copied().unwrap_or(Some(now)),
            };
            Some((name.clone(), since))
        });
        self.since = Some(avoided.collect());
        self.looked = now;
    }

    /// Whether a node should get no new connections.
    pub(super) fn retired(&self, name: &NodeName) -> bool {
        let since = self.since.as_ref().and_then(|all| all.get(name));
        since.is_some_and(|since| since.is_none_or(|at| at + AFTER <= self.looked))
    }

    /// When the next one will have had its time.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let all = self.since.iter().flat_map(BTreeMap::values).flatten();
        all.map(|at| *at + AFTER)
            .filter(|at| *at > self.looked)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Node;

    const S: Duration = Duration::from_secs(1);

    fn world(change: impl Fn(&mut Node)) -> World {
        let mut world = World::default();
        let mut node = Node::default();
        change(&mut node);
        world.nodes.insert("node1".into(), node);
        world
    }

    #[test]
    fn a_node_retires_some_time_after_it_was_asked_to() {
        let (name, policy) = ("node1".into(), Policy::default());
        let mut retiring = Retiring::default();
        retiring.update(&world(|_| ()), policy, S);
        let drained = world(|node| node.drained = true);
        retiring.update(&drained, policy, S * 2);
        assert!(!retiring.retired(&name));
        assert_eq!(retiring.next_deadline(), Some(S * 2 + AFTER));
        retiring.update(&drained, policy, S * 2 + AFTER);
        assert!(retiring.retired(&name));
        assert_eq!(retiring.next_deadline(), None);
        // Asked back, and again: from the beginning.
        retiring.update(&world(|_| ()), policy, S * 20);
        assert!(!retiring.retired(&name));
        retiring.update(&drained, policy, S * 21);
        assert!(!retiring.retired(&name));
    }

    #[test]
    fn at_once_if_it_is_out_of_service_or_was_asked_before_the_start() {
        let (name, policy) = ("node1".into(), Policy::default());
        let mut retiring = Retiring::default();
        retiring.update(&world(|node| node.drained = true), policy, S);
        assert!(retiring.retired(&name));
        let mut retiring = Retiring::default();
        retiring.update(&world(|_| ()), policy, S);
        let out = world(|node| node.out_of_service = true);
        retiring.update(&out, policy, S * 2);
        assert!(retiring.retired(&name));
    }
}
