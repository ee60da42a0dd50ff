//! Which nodes may answer for a VIP, and why the others may not.
//!
//! Pure, and the same on every speaker: it looks at what Kubernetes says and at what nodes say of
//! themselves in their heartbeats. Whether a node's speaker is there at all is the detector's
//! matter, not this module's.
//!
//! | what a node has | effect |
//! |---|---|
//! | no `L2Announcement` that covers the VIP selects it (while there is any) | barred: somebody chose the nodes that may |
//! | no uplink that is among the announcement's `interfaces` | barred: somebody chose the LAN, and it is not on it |
//! | the label `node.kubernetes.io/exclude-from-external-load-balancers` | barred: Kubernetes' own word for a node that load balancers leave out |
//! | the condition NetworkUnavailable | barred: its CNI says that it cannot serve |
//! | no InternalIP of the VIP's family | barred: it is not on that LAN |
//! | no director, and `forwardingMode: DirectRouting` | barred: all would pass it alone, which is what the mode is to avoid |
//! | no director, policy `Local`, and no endpoint, while another node has one or `withoutEndpoints: Drop` | barred: its kube-proxy would drop all |
//! | the annotation `lightship.dev/drain` | avoided: somebody is about to work on it |
//! | the taint `node.kubernetes.io/out-of-service` | avoided: somebody says that it is shut down |
//! | a cordon, with `--cordon=move` | avoided: the operator takes a cordon for the begin of work on it |
//! | a port that drops what its director sends, and replies to clients too, as its path test found, while that of another node found none of that | avoided, on the main uplink: whom it answers for is not served |
//! | the VIP on no network of its uplinks, while another node has it on one | avoided: its LAN does not ask for it |
//! | a director, and the VIP on a network of a further uplink only, while another node with a director has it on one of its main uplink | avoided: the two directors would send to different LANs |
//! | a cordon otherwise | nothing: it forwards as before, until its speaker is stopped |
//! | the condition Ready is not True | nothing: its kubelet is in trouble, which no packet meets; its heartbeats tell whether it lives |
//!
//! What its speaker says of itself comes on top ([`crate::core::Core`]): without a carrier or the node's address on the
//! main uplink nobody would hear it; with a director that fails it would draw packets that it drops; one that is
//! about to stop hands over; and one that is not heard, or gone, cannot be relied on.
//!
//! A node that is *avoided* owns a VIP only while no other node can: an address that works is worth
//! more than an orderly drain. What follows for its share of the traffic is decided in
//! [`crate::intent`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::further::{self, Via};
use crate::intent::NodeHealth;
use crate::world::{Node, NodeName, Vip, World};

/// Why a node may not answer for a VIP at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bar {
    /// There are L2Announcements, and none of them is for this VIP.
    NotCovered,
    /// The L2Announcements for this VIP do not select the node.
    NotSelected,
    /// They name other interfaces than the node's uplinks.
    Interface,
    /// It carries the exclude label.
    Excluded,
    /// Its condition NetworkUnavailable is True.
    NetworkUnavailable,
    /// It has no InternalIP of the VIP's family.
    NoAddress,
    /// An L2Announcement asks for DirectRouting, and it has no director.
    NoDirector,
    /// It only announces, and has no endpoint for a Service under policy Local.
    NoEndpoint,
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bar::NotCovered => "no L2Announcement covers the pool and the Service",
            Bar::NotSelected => "no L2Announcement for it selects the node",
            Bar::Interface => "no uplink is among the L2Announcement's interfaces",
            Bar::Excluded => {
                "label node.kubernetes.io/exclude-from-external-load-balancers on the node"
            }
            Bar::NetworkUnavailable => "condition NetworkUnavailable on the node",
            Bar::NoAddress => "no InternalIP of this address family",
            Bar::NoDirector => "forwardingMode DirectRouting, and the node has no director",
            Bar::NoEndpoint => {
                "externalTrafficPolicy Local without a director, and no ready endpoint on the node"
            }
        })
    }
}

/// Why a node should own a VIP only while no other can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Avoid {
    /// The annotation `lightship.dev/drain`.
    Drained,
    /// The taint `node.kubernetes.io/out-of-service`.
    OutOfService,
    /// `spec.unschedulable`, and the policy says to move.
    Cordoned,
    /// Its replies are lost, as its path test found ([`NodeHealth::muted`]).
    Muted,
    /// The VIP is on no network of its uplinks, but on one of another node's, or its director is on
    /// another LAN than that of the VIP's real servers.
    OffLink,
}

/// What is decided for the whole cluster by flags, the same on all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// A cordoned node is avoided.
    pub cordon_moves: bool,
}

/// A node that may answer for a VIP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seat {
    /// How much the L2Announcements prefer it; their weights add up.
    pub preference: u32,
    /// Why it should be avoided.
    pub avoid: Option<Avoid>,
    /// On which of its uplinks it would announce it.
    pub via: Via,
    /// Whether the VIP is on a network of that uplink; `None` if it did not say.
    pub on_link: Option<bool>,
}

/// All nodes, judged for one VIP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eligibility {
    /// Those that may answer for it, dead or alive.
    pub seats: BTreeMap<NodeName, Seat>,
    /// The others, with the reason.
    pub barred: BTreeMap<NodeName, Bar>,
}

/// What is judged.
pub struct Case<'a> {
    /// What Kubernetes says.
    pub world: &'a World,
    /// What nodes say.
    pub health: &'a BTreeMap<NodeName, NodeHealth>,
    /// What flags say.
    pub policy: Policy,
    /// The address.
    pub address: IpAddr,
    /// Who uses it.
    pub vip: &'a Vip,
    /// Nodes with an endpoint of its Services under policy Local; `None`: none is under Local.
    pub local_nodes: Option<&'a BTreeSet<NodeName>>,
}

/// Judges all nodes for one VIP.
pub fn judge(case: &Case<'_>) -> Eligibility {
    let mut all = Eligibility::default();
    let announcements = case.world.announcements_for(case.vip);
    // Without any L2Announcement in the cluster every node announces every VIP, so that a first
    // pool and Service just work.
    let free = case.world.announcements.is_empty();
    let announce_only = announcements.iter().any(|a| a.announce_only);
    let direct_only = announcements.iter().any(|a| a.direct_only) && !announce_only;
    // Directors on a LAN that the VIP is an address of send to real servers there.
    let mut directed_on_main = false;
    let mut directed_further = Vec::new();
    for (name, node) in &case.world.nodes {
        let health = case.health.get(name);
        let selected = || announcements.iter().filter(|a| a.allows_node(&node.labels));
        // A node that was not heard yet, or did not say, is given the benefit of the doubt.
        let place = place(health, case.address, |interface| {
            free || selected().any(|a| a.allows_interface(interface))
        });
        let directs = health.is_none_or(|h| h.direct_routing) && !announce_only;
        let has_endpoint = case.local_nodes.is_none_or(|nodes| nodes.contains(name));
        let bar = if !free && announcements.is_empty() {
            Some(Bar::NotCovered)
        } else if !free && selected().next().is_none() {
            Some(Bar::NotSelected)
        } else if place.is_none() {
            Some(Bar::Interface)
        } else if node.excluded {
            Some(Bar::Excluded)
        } else if node.network_unavailable {
            Some(Bar::NetworkUnavailable)
        } else if node.address_like(case.address).is_none() {
            Some(Bar::NoAddress)
        } else if direct_only && !directs {
            Some(Bar::NoDirector)
        } else if !directs && !has_endpoint {
            Some(Bar::NoEndpoint)
        } else {
            None
        };
        let place = match (bar, place) {
            (None, Some(place)) => place,
            (bar, _) => {
                let bar = bar.unwrap_or(Bar::Interface);
                all.barred.insert(name.clone(), bar);
                continue;
            }
        };
        if directs && place.on_link == Some(true) {
            match place.via {
                Via::Main => directed_on_main = true,
                Via::Further(_) => directed_further.push(name.clone()),
            }
        }
        let preference = announcements.iter().map(|a| a.preference(&node.labels));
        let seat = Seat {
            preference: preference.sum(),
            avoid: avoid(node, case.policy),
            via: place.via,
            on_link: place.on_link,
        };
        all.seats.insert(name.clone(), seat);
    }
    // Where no node has it on-link, a router sends it to the LAN: then all are alike.
    if all.somewhere_on_link() {
        let off = all.seats.values_mut().filter(|s| s.on_link == Some(false));
        off.for_each(|seat| seat.avoid = seat.avoid.or(Some(Avoid::OffLink)));
    }
    for name in directed_further.iter().filter(|_| directed_on_main) {
        if let Some(seat) = all.seats.get_mut(name) {
            seat.avoid = seat.avoid.or(Some(Avoid::OffLink));
        }
    }
    all.avoid_muted(case.health);
    all
}

/// Where a node would announce an address; on its main uplink if nothing is known of it.
fn place(
    health: Option<&NodeHealth>,
    address: IpAddr,
    allows: impl Fn(&str) -> bool,
) -> Option<further::Place> {
    match health {
        Some(h) => further::place((&h.interface, &h.networks), &h.further, allows, address),
        None => further::place(("", &[]), &[], allows, address),
    }
}

impl Eligibility {
    /// Last, and only while there is a node that is known to be better: one that has just booted is not, and
    /// would get all VIPs of a cluster all of whose ports are alike. The path test is about the main uplink.
    fn avoid_muted(&mut self, health: &BTreeMap<NodeName, NodeHealth>) {
        let good = |h: &NodeHealth| h.alive && h.proven && !h.idle;
        let better = self
            .seats
            .iter()
            .any(|(name, seat)| seat.avoid.is_none() && health.get(name).is_some_and(good));
        if better {
            let muted = |name: &NodeName| health.get(name).is_some_and(NodeHealth::muted);
            let seats = self.seats.iter_mut();
            seats
                .filter(|(name, seat)| seat.via == Via::Main && muted(name))
                .for_each(|(_, seat)| seat.avoid = seat.avoid.or(Some(Avoid::Muted)));
        }
    }

    /// Whether any node that may own the VIP has it on a network of the uplink for it.
    pub fn somewhere_on_link(&self) -> bool {
        self.seats.values().any(|seat| seat.on_link == Some(true))
    }
}

/// Whether an address is on one of these networks; `None` if there are none.
pub(crate) fn on_link(networks: &[IpNet], address: IpAddr) -> Option<bool> {
    let any = || networks.iter().any(|network| network.contains(&address));
    (!networks.is_empty()).then(any)
}

/// Why people want a node to do less, if they do.
pub(crate) fn avoid(node: &Node, policy: Policy) -> Option<Avoid> {
    if node.drained {
        Some(Avoid::Drained)
    } else if node.out_of_service {
        Some(Avoid::OutOfService)
    } else if node.cordoned && policy.cordon_moves {
        Some(Avoid::Cordoned)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
