//! What Kubernetes says, reduced to what a speaker needs and written in plain values.
//!
//! The speaker's watchers keep one [`World`]; the core reads it. It can be
//! serialised, because the last known world is kept on the node so that a speaker
//! that restarts while the API server is away works on as before
//! (see [`crate::cache`]).

mod part;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use lightship_crds::{LabelSet as Labels, matches_any};
use serde::{Deserialize, Serialize};

pub use part::Part;

/// A node's name, shared because it is a key nearly everywhere.
pub type NodeName = Arc<str>;

/// Everything a speaker knows from the API server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct World {
    /// The nodes by name.
    pub nodes: Part<NodeName, Node>,
    /// The VIPs in use.
    pub vips: Part<IpAddr, Vip>,
    /// The Services that hold a VIP, by namespace and name.
    pub services: Part<ServiceRef, Service>,
    /// The endpoint slices by Service, then by slice name.
    pub slices: Part<ServiceRef, BTreeMap<String, Slice>>,
    /// The labels of the address pools by name.
    pub pools: Part<String, Labels>,
    /// The announcement policies by name.
    pub announcements: Part<String, Announcement>,
}

/// Namespace and name of a namespaced object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ServiceRef {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name within it.
    pub name: Arc<str>,
}

impl ServiceRef {
    /// Builds a reference.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        ServiceRef {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// A map key has to be a string in JSON.
impl From<ServiceRef> for String {
    fn from(r: ServiceRef) -> String {
        r.to_string()
    }
}

impl TryFrom<String> for ServiceRef {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) => Ok(ServiceRef::new(namespace, name)),
            None => Err(format!("{text:?} is not of the form namespace/name")),
        }
    }
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The uid of the Node object; empty when unknown.
    #[serde(default)]
    pub uid: String,
    /// The first IPv4 InternalIP.
    pub v4: Option<Ipv4Addr>,
    /// The first IPv6 InternalIP.
    pub v6: Option<Ipv6Addr>,
    /// The node's labels, for selectors.
    pub labels: Labels,
    /// It carries `node.kubernetes.io/exclude-from-external-load-balancers`.
    pub excluded: bool,
    /// Its condition NetworkUnavailable is True.
    pub network_unavailable: bool,
    /// `spec.unschedulable`.
    #[serde(default)]
    pub cordoned: bool,
    /// It has the taint `node.kubernetes.io/out-of-service`.
    #[serde(default)]
    pub out_of_service: bool,
    /// It has the annotation `lightship.dev/drain`, and not with the value `false`.
    #[serde(default)]
    pub drained: bool,
}

impl Node {
    /// The InternalIP of the same family as `like`.
    pub fn address_like(&self, like: IpAddr) -> Option<IpAddr> {
        match like {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }

    /// All InternalIPs that are used.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v4 = self.v4.map(IpAddr::V4);
        v4.into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// The address that the uplink is found by: IPv4 if there is one.
    pub fn main_address(&self) -> Option<IpAddr> {
        self.addresses().next()
    }

    /// Where this node's heartbeats to `other` go: to its address of a family that both have, IPv4
    /// if both have that; nowhere if they have none in common.
    pub fn way_to(&self, other: &Node) -> Option<IpAddr> {
        self.addresses().find_map(|own| other.address_like(own))
    }
}

/// A virtual IP and who uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    /// The VirtualIP object's name.
    pub object: String,
    /// The pool it came from.
    pub pool: String,
    /// The Services that share it.
    pub services: Vec<ServiceRef>,
    /// The owner that the object's status names, as last read.
    pub recorded_owner: Option<NodeName>,
    /// The epoch that the object's status names, as last read.
    pub recorded_epoch: u64,
    /// The node that the annotation `lightship.dev/pin-to` names.
    #[serde(default)]
    pub pin_to: Option<NodeName>,
    /// The node that the annotation `lightship.dev/move-to` names.
    #[serde(default)]
    pub move_to: Option<NodeName>,
    /// The `move_to` that the object's status says has been dealt with.
    #[serde(default)]
    pub moved_to: Option<NodeName>,
}

/// A Service that holds a VIP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its ports as clients see them.
    pub ports: BTreeSet<Port>,
    /// The names of those that have one.
    #[serde(default)]
    pub port_names: BTreeSet<(Port, String)>,
    /// `externalTrafficPolicy: Local`.
    pub local: bool,
    /// `sessionAffinity: ClientIP`.
    pub client_ip_affinity: bool,
    /// Its labels, for selectors.
    pub labels: Labels,
}

impl Service {
    /// By what an EndpointSlice names a port of this Service.
    pub fn slice_port(&self, port: Port) -> SlicePort {
        let mut names = self.port_names.iter();
        let name = names.find(|(named, _)| *named == port);
        (
            port.protocol,
            name.map_or_else(String::new, |(_, name)| name.clone()),
        )
    }
}

/// A port of an EndpointSlice: it serves the Service port of this protocol and name, which is empty
/// for the only one of a Service (discovery/v1, EndpointPort).
pub type SlicePort = (Protocol, String);

/// One port of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// The port number.
    pub number: u16,
}

/// A Service port's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// What an EndpointSlice says about nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The slice's `addressType` is IPv6.
    pub ipv6: bool,
    /// Nodes with at least one ready endpoint.
    pub ready: BTreeSet<NodeName>,
    /// Nodes with an endpoint that still serves while it terminates. kube-proxy uses
    /// those only where a node has no ready one (ProxyTerminatingEndpoints).
    pub draining: BTreeSet<NodeName>,
    /// It has a usable endpoint on no node of the cluster (an outside address).
    pub elsewhere: bool,
    /// The ports that its endpoints serve; `None`: not known, taken for all.
    #[serde(default)]
    pub ports: Option<BTreeSet<SlicePort>>,
}

impl Slice {
    /// Whether its endpoints serve a port; kube-proxy has no rule to one that does not.
    fn serves(&self, port: &SlicePort) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(port))
    }
}

/// An L2Announcement, reduced to what decides on nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Announcement {
    /// Names of the pools it is for.
    pub pools: BTreeSet<String>,
    /// Selectors over the pools; with `pools`, and if both are empty it is for all.
    pub pool_selectors: Vec<LabelSelector>,
    /// Selectors over the Services; empty means all.
    pub services: Vec<LabelSelector>,
    /// Selectors over the nodes; empty means all.
    pub nodes: Vec<LabelSelector>,
    /// Nodes to prefer, with the weight of each selector.
    pub preferred: Vec<(u32, LabelSelector)>,
    /// Names and globs of the uplinks to announce on; empty means any.
    #[serde(default)]
    pub interfaces: Vec<String>,
    /// `forwardingMode: Announce`: no director for these VIPs.
    pub announce_only: bool,
    /// `forwardingMode: DirectRouting`: nodes without a director stay out.
    #[serde(default)]
    pub direct_only: bool,
    /// `withoutEndpoints: Drop`: clients of a Service without endpoints get no answer.
    #[serde(default)]
    pub drop_without_endpoints: bool,
}

impl Announcement {
    fn covers_pool(&self, pool: &str, labels: Option<&Labels>) -> bool {
        (self.pools.is_empty() && self.pool_selectors.is_empty())
            || self.pools.contains(pool)
            || labels.is_some_and(|labels| matches_any(&self.pool_selectors, labels))
    }

    fn covers_service(&self, labels: &Labels) -> bool {
        self.services.is_empty() || matches_any(&self.services, labels)
    }

    /// Whether it lets a node with `labels` announce.
    pub fn allows_node(&self, labels: &Labels) -> bool {
        self.nodes.is_empty() || matches_any(&self.nodes, labels)
    }

    /// Whether it lets a node announce whose uplink has this name; empty is a name not known.
    pub fn allows_interface(&self, name: &str) -> bool {
        let mut patterns = self.interfaces.iter();
        self.interfaces.is_empty() || name.is_empty() || patterns.any(|p| glob(p, name))
    }

    /// How much it prefers a node with `labels`; weights add up.
    pub fn preference(&self, labels: &Labels) -> u32 {
        let matching = self
            .preferred
            .iter()
            .filter(|(_, s)| matches_any(std::slice::from_ref(s), labels));
        matching.map(|(weight, _)| weight).sum()
    }
}

impl World {
    fn slices_of(
        &self,
        service: &ServiceRef,
        ipv6: bool,
        port: &SlicePort,
    ) -> impl Iterator<Item = &Slice> {
        let slices = self.slices.get(service).into_iter();
        let slices = slices.flat_map(BTreeMap::values);
        slices.filter(move |slice| slice.ipv6 == ipv6 && slice.serves(port))
    }

    /// Nodes with ready and with merely draining endpoints of a Service's port, in one family.
    pub fn endpoint_nodes(
        &self,
        service: &ServiceRef,
        ipv6: bool,
        port: &SlicePort,
    ) -> (BTreeSet<NodeName>, BTreeSet<NodeName>) {
        let (mut ready, mut draining) = (BTreeSet::new(), BTreeSet::new());
        for slice in self.slices_of(service, ipv6, port) {
            ready.extend(slice.ready.iter().cloned());
            draining.extend(slice.draining.iter().cloned());
        }
        draining.retain(|n| !ready.contains(n));
        (ready, draining)
    }

    /// Whether a Service's port has any usable endpoint in one family, wherever it is.
    pub fn port_has_endpoints(&self, service: &ServiceRef, ipv6: bool, port: &SlicePort) -> bool {
        let mut slices = self.slices_of(service, ipv6, port);
        slices.any(|s| s.elsewhere || !s.ready.is_empty() || !s.draining.is_empty())
    }

    /// Whether any port of a Service has a usable endpoint in one family.
    pub fn has_endpoints(&self, service: &ServiceRef, ipv6: bool) -> bool {
        let Some(found) = self.services.get(service) else {
            return false;
        };
        let mut ports = found.ports.iter().map(|port| found.slice_port(*port));
        ports.any(|port| self.port_has_endpoints(service, ipv6, &port))
    }

    /// The ports of a Service in groups that the same slices of one family serve: mostly there is one
    /// group. Each port by its place in [`Service::ports`] with the number of its group, and of each
    /// group one port.
    pub fn port_groups(&self, service: &ServiceRef, ipv6: bool) -> (Vec<usize>, Vec<SlicePort>) {
        let Some(found) = self.services.get(service) else {
            return (Vec::new(), Vec::new());
        };
        let slices = self.slices.get(service).into_iter();
        let slices: Vec<&Slice> = slices
            .flat_map(BTreeMap::values)
            .filter(|slice| slice.ipv6 == ipv6)
            .collect();
        let mut served: Vec<Vec<bool>> = Vec::new();
        let mut heads = Vec::new();
        let mut of = Vec::new();
        for port in &found.ports {
            let port = found.slice_port(*port);
            let by: Vec<bool> = slices.iter().map(|slice| slice.serves(&port)).collect();
            let group = served.iter().position(|other| *other == by);
            of.push(group.unwrap_or_else(|| {
                served.push(by);
                heads.push(port);
                heads.len() - 1
            }));
        }
        (of, heads)
    }

    /// What is so of each of [`Self::port_groups`], for the ports in their order; only once if it is so
    /// of all alike.
    pub fn by_port<T: Clone + PartialEq>(groups: &[usize], mut of_groups: Vec<T>) -> Vec<T> {
        if of_groups.windows(2).all(|pair| pair[0] == pair[1]) {
            of_groups.truncate(1);
            return of_groups;
        }
        let of_ports = groups.iter().map(|group| of_groups[*group].clone());
        of_ports.collect()
    }

    /// The announcements that are for this VIP: its pool, and at least one of its Services.
    pub fn announcements_for(&self, vip: &Vip) -> Vec<&Announcement> {
        let pool = self.pools.get(&vip.pool);
        let services: Vec<_> = vip
            .services
            .iter()
            .filter_map(|s| self.services.get(s))
            .collect();
        let covers = |a: &&Announcement| {
            a.covers_pool(&vip.pool, pool) && services.iter().any(|s| a.covers_service(&s.labels))
        };
        self.announcements.values().filter(covers).collect()
    }

    /// The Services that are not the same as in the world `before`, or their endpoints.
    pub fn services_touched<'a>(&'a self, before: &'a World) -> BTreeSet<&'a ServiceRef> {
        let services = self.services.differing(&before.services).into_iter();
        let slices = self.slices.differing(&before.slices);
        services.chain(slices).collect()
    }

    /// The VIPs that may be another matter than in the world `before`: they, their Services or endpoints are not
    /// the same. None: all may be, as a node, a pool or an announcement is not.
    pub fn touched(&self, before: &World) -> Option<BTreeSet<IpAddr>> {
        if self.nodes != before.nodes
            || self.pools != before.pools
            || self.announcements != before.announcements
        {
            return None;
        }
        let services = self.services_touched(before);
        let mut touched: BTreeSet<IpAddr> = self
            .vips
            .differing(&before.vips)
            .into_iter()
            .copied()
            .collect();
        if !services.is_empty() {
            let uses = |vip: &Vip| vip.services.iter().any(|s| services.contains(s));
            let using = self.vips.iter().filter(|(_, vip)| uses(vip));
            touched.extend(using.map(|(address, _)| *address));
        }
        Some(touched)
    }

    /// Whether no Service of this VIP has an endpoint of its family and clients should hear so, from
    /// kube-proxy where there is no director.
    pub fn refuses(&self, address: IpAddr, vip: &Vip) -> bool {
        let known = || {
            vip.services
                .iter()
                .filter(|s| self.services.contains_key(s))
        };
        known().next().is_some()
            && !known().any(|service| self.has_endpoints(service, address.is_ipv6()))
            && !self
                .announcements_for(vip)
                .iter()
                .any(|a| a.drop_without_endpoints)
    }
}

/// Whether `name` matches `pattern`, in which `*` stands for any text and `?` for any character.
fn glob(pattern: &str, name: &str) -> bool {
    let mut rest = name.chars();
    let mut pattern = pattern.chars();
    match pattern.next() {
        None => name.is_empty(),
        Some('*') => {
            let tails = name.char_indices().map(|(at, _)| &name[at..]);
            tails.chain([""]).any(|tail| glob(pattern.as_str(), tail))
        }
        Some('?') => rest.next().is_some() && glob(pattern.as_str(), rest.as_str()),
        Some(exact) => rest.next() == Some(exact) && glob(pattern.as_str(), rest.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_go_by_a_family_that_both_nodes_have() {
        let node = |v4: Option<&str>, v6: Option<&str>| Node {
            v4: v4.map(|ip| ip.parse().unwrap()),
            v6: v6.map(|ip| ip.parse().unwrap()),
            ..Node::default()
        };
        let dual = node(Some("192.0.2.11"), Some("2001:db8:2::11"));
        let other = node(Some("192.0.2.12"), Some("2001:db8:2::12"));
        let (v4, v6) = (
            node(Some("192.0.2.13"), None),
            node(None, Some("2001:db8:2::13")),
        );
        for (from, to, way) in [
            (&dual, &other, Some("192.0.2.12")),
            (&dual, &v4, Some("192.0.2.13")),
            (&v4, &dual, Some("192.0.2.11")),
            (&dual, &v6, Some("2001:db8:2::13")),
            (&v6, &dual, Some("2001:db8:2::11")),
            (&v4, &v6, None),
            (&v6, &v4, None),
        ] {
            let way: Option<IpAddr> = way.map(|ip| ip.parse().unwrap());
            assert_eq!(from.way_to(to), way, "{from:?} {to:?}");
        }
    }

    #[test]
    fn globs_match_interfaces() {
        for (pattern, name, matches) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth*", "eth0", true),
            ("*", "bond0.12", true),
            ("bond?.1*", "bond0.12", true),
            ("bond?", "bond", false),
            ("*.1?", "bond0.12", true),
            ("*0*2", "bond0.12", true),
            ("", "eth0", false),
        ] {
            assert_eq!(glob(pattern, name), matches, "{pattern} {name}");
        }
    }
}
