//! Which nodes serve a Service on a VIP, and with which weight. Pure.
//!
//! | what a node has | effect |
//! |---|---|
//! | the exclude label, NetworkUnavailable, no address of the family | it is no real server |
//! | the VIP on no network of its main uplink, while a live node with a director has it on one | the same: directors send frames, and its LAN is another |
//! | no network of its main uplink in common with the live nodes with a director that have the VIP on a further uplink, while none has it on its main one | the same: directors send by their main uplinks |
//! | policy `Local` and no endpoint | the same |
//! | policy `Local` and only endpoints that terminate | weight 0 while another node has a ready one |
//! | drained, out of service, cordoned with `--cordon=move`, and its time is over ([`NodeHealth::retired`]) | weight 0 while another node serves |
//! | a kube-proxy that is not known to have its rules yet (the speaker's `proxy`) | weight 0 while another node serves |
//! | a port that drops what directors forward, or replies to clients, as its path test found ([`crate::path`]) | the same |
//! | dead | it is listed for people, and leaves the table by way of [`crate::grace`] |
//!
//! Weight 0 and not removal: connections that a director knows stay where they are, and only new
//! ones go elsewhere. An address that works is worth more than an orderly drain, so where all that
//! could serve are to be avoided, they serve.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::NodeHealth;
use crate::eligibility;
use crate::world::{NodeName, Service, ServiceRef, SlicePort, World};

/// What a node does for a Service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// 1 or 0.
    pub(super) weight: u32,
    /// Its kernel lives.
    pub(super) alive: bool,
}

/// The nodes of one Service on one VIP.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// Those that serve or would if they lived. One that was never heard is not missed.
    pub(super) shares: BTreeMap<NodeName, Share>,
    /// Under policy `Local`, those whose own kube-proxy has a Pod to hand a packet to, wherever they
    /// are and whatever people want of them.
    pub(super) local: BTreeSet<NodeName>,
    /// Under policy `Local`, those with an endpoint that no director reaches, if it reaches no other.
    pub(super) stranded: BTreeSet<NodeName>,
}

/// Where a VIP's directors send frames.
pub(super) struct Lan<'a> {
    health: &'a BTreeMap<NodeName, NodeHealth>,
    vip: IpAddr,
    known: Known,
}

/// Which LAN the directors' main uplinks are on.
enum Known {
    /// A live node with a director has the VIP on-link there and said so: then one that has it on no link
    /// is on another LAN.
    OfVip,
    /// Some have it on a further uplink: then it is the LAN of these networks of their main uplinks.
    Of(BTreeSet<IpNet>),
    /// A router leads the VIP here, and all are alike.
    Not,
}

impl<'a> Lan<'a> {
    pub(super) fn of(
        world: &World,
        health: &'a BTreeMap<NodeName, NodeHealth>,
        vip: IpAddr,
        announce_only: bool,
    ) -> Self {
        let heard = health.iter().filter(|(name, h)| {
            let node = world.nodes.get(*name);
            h.alive
                && h.direct_routing
                && node.is_some_and(|n| !n.excluded && n.address_like(vip).is_some())
        });
        let heard = heard.map(|(_, health)| health);
        Self {
            health,
            vip,
            known: Known::of(heard, vip, announce_only),
        }
    }

    fn reaches(&self, health: &NodeHealth) -> bool {
        match &self.known {
            Known::OfVip => eligibility::on_link(&health.networks, self.vip) != Some(false),
            Known::Of(networks) => {
                let known = |n: &IpNet| networks.iter().any(|k| k.contains(n) || n.contains(k));
                health.networks.is_empty() || health.networks.iter().any(known)
            }
            Known::Not => true,
        }
    }
}

impl Known {
    fn of<'a>(
        directors: impl Iterator<Item = &'a NodeHealth> + Clone,
        vip: IpAddr,
        announce_only: bool,
    ) -> Self {
        let on = |networks: &[IpNet]| eligibility::on_link(networks, vip) == Some(true);
        // Without directors a node's own kube-proxy takes all, and routes to Pods.
        if announce_only {
            return Known::Not;
        }
        if directors.clone().any(|h| on(&h.networks)) {
            return Known::OfVip;
        }
        let further = directors.filter(|h| h.further.iter().any(|f| on(&f.networks)));
        let networks: BTreeSet<IpNet> = further.flat_map(|h| h.networks.iter().copied()).collect();
        if networks.is_empty() {
            Known::Not
        } else {
            Known::Of(networks)
        }
    }
}

/// How much a node is wanted; less is better. Those that are equal to the best serve. What it gets
/// is lost, only endpoints that terminate, retired.
type Rank = (bool, bool, bool);

/// The nodes that serve a Service's port on this VIP.
///
/// Under `externalTrafficPolicy: Cluster` that is every node, if there is an endpoint anywhere; under
/// `Local` those with an endpoint, where nodes whose endpoints all terminate get new flows only if no
/// node has a ready one (as kube-proxy does on each node).
pub(super) fn of(
    world: &World,
    lan: &Lan<'_>,
    reference: &ServiceRef,
    service: &Service,
    port: &SlicePort,
) -> Nodes {
    let mut all = Nodes::default();
    let ipv6 = lan.vip.is_ipv6();
    let (ready, draining) = if service.local {
        world.endpoint_nodes(reference, ipv6, port)
    } else if world.port_has_endpoints(reference, ipv6, port) {
        (world.nodes.keys().cloned().collect(), BTreeSet::new())
    } else {
        // Without any endpoint no node can serve. The director then has no real server and
        // answers by ICMP port unreachable: refused at once, as kube-proxy would do.
        return all;
    };
    let ready = ready.iter().map(|name| (name, false));
    let candidates = ready.chain(draining.iter().map(|name| (name, true)));
    let found = heard(world, lan, candidates);
    if service.local {
        let live = found.iter().filter(|(_, health, _)| health.alive);
        let terminates = live.clone().map(|(.., rank)| rank.1).min();
        let here = live.filter(|(.., rank)| Some(rank.1) == terminates);
        all.local = here.map(|(name, ..)| (*name).clone()).collect();
    }
    let (found, off): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|(_, health, _)| lan.reaches(health));
    if service.local && !found.iter().any(|(_, health, _)| health.alive) {
        all.stranded = off.into_iter().map(|(name, ..)| name.clone()).collect();
    }
    all.shares = shares(found);
    all
}

/// All nodes that can be a real server on this VIP, as if each had an endpoint.
pub(super) fn all(world: &World, lan: &Lan<'_>) -> BTreeMap<NodeName, Share> {
    let found = heard(world, lan, world.nodes.keys().map(|name| (name, false)));
    let reached = found
        .into_iter()
        .filter(|(_, health, _)| lan.reaches(health));
    shares(reached.collect())
}

type Heard<'a> = (&'a NodeName, &'a NodeHealth, Rank);

/// Of these nodes (and whether all that they have terminates) those that were heard and can be a
/// real server.
fn heard<'a>(
    world: &World,
    lan: &Lan<'a>,
    nodes: impl Iterator<Item = (&'a NodeName, bool)>,
) -> Vec<Heard<'a>> {
    let mut found = Vec::new();
    for (name, terminates) in nodes {
        let (Some(node), Some(health)) = (world.nodes.get(name), lan.health.get(name)) else {
            continue;
        };
        if node.excluded || node.network_unavailable || node.address_like(lan.vip).is_none() {
            continue;
        }
        found.push((name, health, (health.idle, terminates, health.retired)));
    }
    found
}

/// Those of the best rank get weight 1.
fn shares(found: Vec<Heard<'_>>) -> BTreeMap<NodeName, Share> {
    let live = found.iter().filter(|(_, health, _)| health.alive);
    let best = live.map(|(.., rank)| *rank).min();
    let share = |(name, health, rank): Heard<'_>| {
        let alive = health.alive;
        let weight = u32::from(alive && Some(rank) == best);
        (name.clone(), Share { weight, alive })
    };
    found.into_iter().map(share).collect()
}
