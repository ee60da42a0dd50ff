//! Where packets for a dead node go. Pure.
//!
//! A director that carried a connection to a node that dies has an entry for it, and sends its
//! packets there until the node is removed from the table: the client hangs. So after a
//! while the dead node's address gets the way of a node that lives. That one knows nothing
//! of the connection and ends it by a reset, and the client connects anew. The table
//! itself does not change, so no other connection is concerned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lightship_frames::Mac;

use crate::intent::{PortKey, Virtual, Weights};
use crate::world::NodeName;

/// How long a node has to be dead: the connections to one that is only cut off for a moment
/// should go on when it is back. With the time to notice it is less than 3 s, when Linux sends
/// a segment again for the fourth time; the next time would be after 6.
pub(super) const AFTER: Duration = Duration::from_secs(2);

/// The dead nodes, and since when.
#[derive(Debug, Default)]
pub(super) struct Detours {
    since: BTreeMap<NodeName, Duration>,
    /// The last time they were asked for.
    asked: Duration,
}

impl Detours {
    /// Takes who is dead at `now`, and returns those that have been for long enough.
    pub(super) fn update(&mut self, dead: BTreeSet<NodeName>, now: Duration) -> Vec<NodeName> {
        let since = |name: &NodeName| self.since.get(name).copied().unwrap_or(now);
        self.since = dead.into_iter().map(|n| (n.clone(), since(&n))).collect();
        self.asked = now;
        let long = self.since.iter().filter(|(_, at)| **at + AFTER <= now);
        long.map(|(name, _)| name.clone()).collect()
    }

    /// When the next one will have been dead for long enough.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let all = self.since.values().map(|at| *at + AFTER);
        all.filter(|at| *at > self.asked).min()
    }
}

/// Gives the addresses in `dead` the way of a node of the same family that serves: of those that
/// serve most virtual services the own one if it is among them, else that with the lowest address.
pub(super) fn redirect(
    dead: &BTreeSet<IpAddr>,
    virtuals: &BTreeMap<PortKey, Virtual>,
    own: &mut BTreeSet<IpAddr>,
    peers: &mut BTreeMap<IpAddr, Mac>,
) {
    if dead.is_empty() {
        return;
    }
    // Most services share one list.
    let mut lists: BTreeMap<*const BTreeMap<IpAddr, u32>, (&Weights, usize)> = BTreeMap::new();
    for weights in virtuals.values().map(|v| &v.weights) {
        let list = lists.entry(Arc::as_ptr(weights)).or_insert((weights, 0));
        list.1 += 1;
    }
    let mut serves: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (weights, count) in lists.into_values() {
        let alive = weights
            .iter()
            .filter(|(ip, w)| **w > 0 && !dead.contains(ip));
        for (address, _) in alive {
            *serves.entry(*address).or_default() += count;
        }
    }
    for address in dead {
        let like = serves
            .iter()
            .filter(|(ip, _)| ip.is_ipv4() == address.is_ipv4());
        let best =
            like.max_by_key(|(ip, count)| (**count, own.contains(ip), std::cmp::Reverse(**ip)));
        let Some((best, _)) = best else { continue };
        if own.contains(best) {
            peers.remove(address);
            own.insert(*address);
        } else if let Some(mac) = peers.get(best).copied() {
            peers.insert(*address, mac);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::Scheduling;
    use crate::world::{Port, Protocol};

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn service(port: u16, weights: &[(u8, u32)]) -> (PortKey, Virtual) {
        let key = PortKey {
            vip: ip(200),
            port: Port {
                protocol: Protocol::Tcp,
                number: port,
            },
        };
        let scheduling = Scheduling {
            hash_client_port: true,
            one_packet: false,
        };
        let weights = Arc::new(weights.iter().map(|(n, w)| (ip(*n), *w)).collect());
        (
            key,
            Virtual {
                scheduling,
                weights,
            },
        )
    }

    /// Node 11 is the own one, 13 is dead.
    fn ways(services: &[(PortKey, Virtual)]) -> (BTreeSet<IpAddr>, BTreeMap<IpAddr, Mac>) {
        let mut own = BTreeSet::from([ip(11)]);
        let mac = |n| Mac([2, 0, 0, 0, 0, n]);
        let mut peers = BTreeMap::from([(ip(12), mac(12)), (ip(13), mac(13))]);
        let dead = BTreeSet::from([ip(13)]);
        redirect(
            &dead,
            &services.iter().cloned().collect(),
            &mut own,
            &mut peers,
        );
        (own, peers)
    }

    #[test]
    fn a_dead_nodes_packets_go_to_one_that_serves() {
        let all = service(80, &[(11, 1), (12, 1), (13, 0)]);
        let (own, peers) = ways(std::slice::from_ref(&all));
        assert!(own.contains(&ip(13)) && !peers.contains_key(&ip(13)));
        // The own one has no endpoint of a second Service.
        let (own, peers) = ways(&[all, service(81, &[(12, 1), (13, 0)])]);
        assert_eq!(own, BTreeSet::from([ip(11)]));
        assert_eq!(peers[&ip(13)], peers[&ip(12)]);
        // Nobody serves: nothing is better than it was.
        let (_, peers) = ways(&[service(80, &[(13, 0)])]);
        assert_ne!(peers[&ip(13)], peers[&ip(12)]);
    }

    #[test]
    fn only_who_is_dead_for_long_enough_and_not_before() {
        let dead = || BTreeSet::from([NodeName::from("node3")]);
        let mut detours = Detours::default();
        let at = Duration::from_secs(100);
        assert!(detours.update(dead(), at).is_empty());
        assert_eq!(detours.next_deadline(), Some(at + AFTER));
        assert_eq!(detours.update(dead(), at + AFTER).len(), 1);
        assert_eq!(detours.next_deadline(), None);
        // Back and dead again: counted anew.
        assert!(detours.update(BTreeSet::new(), at + AFTER).is_empty());
        assert!(detours.update(dead(), at + AFTER * 2).is_empty());
    }
}
