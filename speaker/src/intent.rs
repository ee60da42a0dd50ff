//! What this node should do, as a pure function of what Kubernetes says and of which
//! nodes live.
//!
//! Every speaker computes the same [`Intent`] from the same facts, so all directors hold
//! the same table whoever owns the VIP; ownership decides only who answers ARP and NDP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::eligibility::{self, Case, Eligibility, Policy};
use crate::world::{NodeName, Port, Protocol, Service, ServiceRef, World};

/// A virtual service of the director: one VIP, protocol and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortKey {
    /// The VIP.
    pub vip: IpAddr,
    /// Protocol and port, the same on the VIP and (kube-proxy translates) on the node.
    pub port: Port,
}

/// How the director treats a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduling {
    /// Hash the client's port too (`mh-port`). Off under `sessionAffinity: ClientIP`, so
    /// that all of a client's connections meet on one node.
    pub hash_client_port: bool,
    /// Schedule every datagram by itself (one-packet scheduling), so that no entry pins
    /// a UDP flow to a dead node.
    pub one_packet: bool,
}

/// A virtual service and who should get its traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Virtual {
    /// How it is scheduled.
    pub scheduling: Scheduling,
    /// Real servers by address: weight 1 takes new flows, 0 keeps only those it has.
    pub weights: BTreeMap<IpAddr, u32>,
}

/// Who may answer for a VIP and who serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VipIntent {
    /// Which nodes may own it, were they alive, and why the others may not.
    pub eligibility: Eligibility,
    /// Nodes that serve at least one of its ports, with their weight, and at 0 those that would
    /// if they lived.
    pub backends: BTreeMap<NodeName, u32>,
    /// An L2Announcement asks for `forwardingMode: Announce`: it gets no director.
    pub announce_only: bool,
}

/// What one node should do for all VIPs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// Per VIP, who owns and who serves.
    pub vips: BTreeMap<IpAddr, VipIntent>,
    /// The director's virtual services.
    pub virtuals: BTreeMap<PortKey, Virtual>,
}

/// What heartbeats and probes tell about a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeHealth {
    /// Its kernel lives: it can serve as a real server.
    pub alive: bool,
    /// It has a director (else it only announces).
    pub direct_routing: bool,
    /// The name of its uplink; empty if it did not say.
    pub interface: Arc<str>,
    /// The networks whose hosts are neighbours on its uplink; empty if it did not say.
    pub networks: Arc<[IpNet]>,
}

/// Computes the intent.
///
/// `health` has an entry for each node that has been heard, the own node included.
pub fn compute(world: &World, health: &BTreeMap<NodeName, NodeHealth>, policy: Policy) -> Intent {
    let mut intent = Intent::default();
    for (&address, vip) in &world.vips {
        let mut entry = VipIntent {
            announce_only: world.announcements_for(vip).iter().any(|a| a.announce_only),
            ..VipIntent::default()
        };
        let mut local_nodes: Option<BTreeSet<NodeName>> = None;
        for reference in &vip.services {
            let Some(service) = world.services.get(reference) else {
                continue;
            };
            let nodes = real_servers(world, health, address, reference, service);
            if service.local {
                let here = local_nodes.get_or_insert_default();
                here.extend(
                    nodes
                        .iter()
                        .filter(|(_, share)| share.weight > 0)
                        .map(|(n, _)| n.clone()),
                );
            }
            let weights: BTreeMap<IpAddr, u32> = nodes
                .iter()
                .filter(|(_, share)| share.alive)
                .filter_map(|(name, share)| {
                    Some((world.nodes.get(name)?.address_like(address)?, share.weight))
                })
                .collect();
            for (name, share) in nodes {
                let best = entry.backends.entry(name).or_default();
                *best = share.weight.max(*best);
            }
            if entry.announce_only {
                continue;
            }
            for port in &service.ports {
                intent.virtuals.insert(
                    PortKey {
                        vip: address,
                        port: *port,
                    },
                    Virtual {
                        scheduling: scheduling(service, *port),
                        weights: weights.clone(),
                    },
                );
            }
        }
        entry.eligibility = eligibility::judge(&Case {
            world,
            health,
            policy,
            address,
            vip,
            local_nodes: local_nodes.as_ref(),
        });
        intent.vips.insert(address, entry);
    }
    intent
}

fn scheduling(service: &Service, port: Port) -> Scheduling {
    Scheduling {
        hash_client_port: !service.client_ip_affinity,
        one_packet: port.protocol == Protocol::Udp,
    }
}

/// The nodes that serve a Service on this VIP, with their weights.
///
/// Under `externalTrafficPolicy: Cluster` that is every node, if there is an endpoint anywhere; under `Local` those with
/// an endpoint, where nodes whose endpoints all terminate get new flows only if no
/// node has a ready one (as kube-proxy does on each node). A node that died is listed as such:
/// the director's table does not have it ([`crate::grace`] keeps it at weight 0 for a while), but
/// people should see that it is missing. One that was never heard is not missed.
fn real_servers(
    world: &World,
    health: &BTreeMap<NodeName, NodeHealth>,
    vip: IpAddr,
    reference: &ServiceRef,
    service: &Service,
) -> BTreeMap<NodeName, Share> {
    let share = |name: &NodeName, weight: u32| {
        let node = world.nodes.get(name)?;
        let alive = health.get(name)?.alive;
        let barred = node.excluded || node.network_unavailable || node.address_like(vip).is_none();
        let weight = if alive { weight } else { 0 };
        (!barred).then(|| (name.clone(), Share { weight, alive }))
    };
    if !service.local {
        // Without any endpoint no node can serve. The director then has no real server and
        // answers by ICMP port unreachable: refused at once, as kube-proxy would do.
        if !world.has_endpoints(reference, vip.is_ipv6()) {
            return BTreeMap::new();
        }
        return world
            .nodes
            .keys()
            .filter_map(|name| share(name, 1))
            .collect();
    }
    let (ready, draining) = world.endpoint_nodes(reference, vip.is_ipv6());
    let ready: BTreeMap<_, _> = ready.iter().filter_map(|name| share(name, 1)).collect();
    let draining_weight = u32::from(!ready.values().any(|share| share.alive));
    let draining = draining
        .iter()
        .filter_map(|name| share(name, draining_weight));
    draining
        .chain(ready.iter().map(|(n, s)| (n.clone(), *s)))
        .collect()
}

/// What a node does for a Service.
#[derive(Clone, Copy, Debug)]
struct Share {
    weight: u32,
    alive: bool,
}

#[cfg(test)]
mod tests;
