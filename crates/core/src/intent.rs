//! What this node should do, as a pure function of what Kubernetes says and of which
//! nodes live.
//!
//! Every speaker computes the same [`Intent`] from the same facts, so all directors hold
//! the same table whoever owns the VIP; ownership decides only who answers ARP and NDP.

mod backends;
mod memo;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::eligibility::{Case, Eligibility, Policy};
use crate::further::Further;
use crate::world::{NodeName, Port, Protocol, Service, ServiceRef, Vip, World};
use backends::Lan;

pub use memo::Memo;

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
    /// Its real servers.
    pub weights: Weights,
}

/// Real servers by address: weight 1 takes new flows, 0 keeps only those it has. Services that
/// have the same share one list, so that a thousand of them cost no more than one.
pub type Weights = Arc<BTreeMap<IpAddr, u32>>;

/// Who may answer for a VIP and who serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VipIntent {
    /// Which nodes may own it, were they alive, and why the others may not.
    pub eligibility: Arc<Eligibility>,
    /// Nodes that serve at least one of its ports, with their weight, and at 0 those that would
    /// if they lived.
    pub backends: Arc<BTreeMap<NodeName, u32>>,
    /// An L2Announcement asks for `forwardingMode: Announce`: it gets no director.
    pub announce_only: bool,
    /// Services under policy `Local` of which every endpoint is on a node that no director reaches,
    /// with those nodes.
    pub stranded: BTreeMap<ServiceRef, BTreeSet<NodeName>>,
}

/// What one node should do for all VIPs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// Per VIP, who owns and who serves; VIPs of which the same is true share it.
    pub vips: BTreeMap<IpAddr, Arc<VipIntent>>,
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
    /// The name of its main uplink; empty if it did not say.
    pub interface: Arc<str>,
    /// The networks whose hosts are neighbours on its main uplink; empty if it did not say.
    pub networks: Arc<[IpNet]>,
    /// Its further uplinks.
    pub further: Arc<[Further]>,
    /// People want it to do less, and have for long enough: it should get no new connections.
    pub retired: bool,
    /// What it is given is lost: its kube-proxy is not known to have its rules yet, or the network drops packets
    /// to it that directors forward, or its replies.
    pub idle: bool,
    /// It has a director, whether it may use it or not.
    pub director: bool,
    /// Its path test found that its port passes what a director sends and gets.
    pub proven: bool,
}

impl NodeHealth {
    /// Clients that reach it get no answer either: it has a director that it may not use, and its own share is lost.
    pub(crate) fn muted(&self) -> bool {
        self.director && !self.direct_routing && self.idle
    }
}

/// All that a VIP's node sets follow from, beside the address itself.
#[derive(Clone, Copy)]
struct Facts<'a> {
    world: &'a World,
    /// An entry for each node that has been heard, the own node included.
    health: &'a BTreeMap<NodeName, NodeHealth>,
    policy: Policy,
}

/// Who may answer for a VIP and who serves it, with the real servers of each of its Services.
#[derive(Debug, PartialEq, Eq)]
struct Judged {
    vip: Arc<VipIntent>,
    /// In the order of [`Vip::services`]; `None` for one that is not there. Of each the weights of its
    /// ports in their order, or one list if all have the same.
    weights: Vec<Option<Vec<Weights>>>,
}

/// Judges a VIP. What comes out must follow from what [`memo::Class`] holds, and the facts.
fn judge(facts: Facts<'_>, address: IpAddr, vip: &Vip, seats: &mut memo::Seats) -> Judged {
    let Facts { world, health, .. } = facts;
    let announcements = world.announcements_for(vip);
    let announce_only = announcements.iter().any(|a| a.announce_only);
    let silent = announcements.iter().any(|a| a.drop_without_endpoints);
    let lan = Lan::of(world, health, address, announce_only);
    let mut stranded = BTreeMap::new();
    let mut backends = BTreeMap::<NodeName, u32>::new();
    let mut local_nodes: Option<BTreeSet<NodeName>> = None;
    let mut all = Vec::new();
    for reference in &vip.services {
        let Some(service) = world.services.get(reference) else {
            all.push(None);
            continue;
        };
        let (groups, heads) = world.port_groups(reference, address.is_ipv6());
        let mut lists: Vec<Weights> = Vec::new();
        for port in &heads {
            let nodes = backends::of(world, &lan, reference, service, port);
            // Any node can refuse for a port without endpoints.
            let served = || world.port_has_endpoints(reference, address.is_ipv6(), port);
            if service.local && (silent || served()) {
                local_nodes.get_or_insert_default().extend(nodes.local);
            }
            if !nodes.stranded.is_empty() {
                let of_service = stranded.entry(reference.clone());
                of_service
                    .or_insert_with(BTreeSet::new)
                    .extend(nodes.stranded);
            }
            // Without a real server the director refuses. Nodes whose kube-proxy has no Pod to send a
            // packet to drop it instead: their loop guard does.
            let drops = (silent && nodes.shares.is_empty()).then(|| backends::all(world, &lan));
            let shares = drops.as_ref().unwrap_or(&nodes.shares).iter();
            let weights: BTreeMap<IpAddr, u32> = shares
                .filter(|(_, share)| share.alive)
                .filter_map(|(name, share)| {
                    Some((world.nodes.get(name)?.address_like(address)?, share.weight))
                })
                .collect();
            let weights = Arc::new(weights);
            let known = lists.iter().find(|known| **known == weights);
            lists.push(known.cloned().unwrap_or(weights));
            for (name, share) in nodes.shares {
                let best = backends.entry(name).or_default();
                *best = share.weight.max(*best);
            }
        }
        all.push(Some(World::by_port(&groups, lists)));
    }
    let case = Case {
        world,
        health,
        policy: facts.policy,
        address,
        vip,
        local_nodes: local_nodes.as_ref(),
    };
    let intent = VipIntent {
        eligibility: seats.judge(&case, announce_only),
        backends: Arc::new(backends),
        announce_only,
        stranded,
    };
    Judged {
        vip: Arc::new(intent),
        weights: all,
    }
}

impl Intent {
    /// Takes VIPs out.
    fn forget(&mut self, vips: &BTreeSet<IpAddr>) {
        self.vips.retain(|vip, _| !vips.contains(vip));
        self.virtuals.retain(|key, _| !vips.contains(&key.vip));
    }

    /// Adds a VIP.
    fn add(&mut self, world: &World, address: IpAddr, vip: &Vip, judged: &Judged) {
        self.vips.insert(address, judged.vip.clone());
        if judged.vip.announce_only {
            return;
        }
        for (reference, weights) in vip.services.iter().zip(&judged.weights) {
            let (Some(service), Some(weights)) = (world.services.get(reference), weights) else {
                continue;
            };
            for (place, port) in service.ports.iter().enumerate() {
                let Some(weights) = weights.get(place).or_else(|| weights.first()) else {
                    continue;
                };
                let key = PortKey {
                    vip: address,
                    port: *port,
                };
                let service = Virtual {
                    scheduling: scheduling(service, *port),
                    weights: weights.clone(),
                };
                self.virtuals.insert(key, service);
            }
        }
    }
}

fn scheduling(service: &Service, port: Port) -> Scheduling {
    Scheduling {
        hash_client_port: !service.client_ip_affinity,
        one_packet: port.protocol == Protocol::Udp,
    }
}

#[cfg(test)]
mod tests;
