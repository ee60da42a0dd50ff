//! Kubernetes objects to the values of [`lightship_core::world`]. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use lightship_crds::{
    ANNOTATION_DRAIN, ANNOTATION_MOVE_TO, ANNOTATION_PIN_TO, ForwardingMode, L2Announcement,
    VirtualIP, WithoutEndpoints,
};

use lightship_core::world::{
    Announcement, Node, NodeName, Port, Protocol, Service, ServiceRef, Slice, Vip,
};

/// The label that keeps a node out of external load balancing, whatever its value
/// (`k8s.io/api/core/v1` well-known labels).
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The taint by which an administrator says that a node is shut down for good (Kubernetes,
/// "Non-graceful node shutdown handling").
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) fn node(object: &core::Node) -> Node {
    let status = object.status.as_ref();
    let addresses = status
        .and_then(|s| s.addresses.as_deref())
        .unwrap_or_default();
    let internal = || {
        let internal = addresses.iter().filter(|a| a.type_ == "InternalIP");
        internal.filter_map(|a| a.address.parse::<IpAddr>().ok())
    };
    let conditions = status
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    let labels = object.metadata.labels.clone().unwrap_or_default();
    let annotations = object.metadata.annotations.as_ref();
    let spec = object.spec.as_ref();
    let taints = spec.and_then(|s| s.taints.as_deref()).unwrap_or_default();
    Node {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        v4: internal().find_map(|ip| {
            if let IpAddr::V4(v4) = ip {
                Some(v4)
            } else {
                None
            }
        }),
        v6: internal().find_map(|ip| {
            if let IpAddr::V6(v6) = ip {
                Some(v6)
            } else {
                None
            }
        }),
        excluded: labels.contains_key(EXCLUDE),
        network_unavailable: conditions
            .iter()
            .any(|c| c.type_ == "NetworkUnavailable" && c.status == "True"),
        cordoned: spec.is_some_and(|s| s.unschedulable == Some(true)),
        out_of_service: taints.iter().any(|t| t.key == OUT_OF_SERVICE),
        drained: annotations
            .and_then(|a| a.get(ANNOTATION_DRAIN))
            .is_some_and(|value| value != "false"),
        labels,
    }
}

/// The Service, or `None` for one that cannot hold a VIP.
pub(super) fn service(object: &core::Service) -> Option<Service> {
    let spec = object.spec.as_ref()?;
    // Of other types, those with external IPs may: a pool can let them claim VIPs.
    let claims = spec
        .external_ips
        .as_ref()
        .is_some_and(|ips| !ips.is_empty());
    if spec.type_.as_deref() != Some("LoadBalancer") && !claims {
        return None;
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    let ports = ports.iter().filter_map(|p| {
        let port = Port {
            protocol: protocol(p.protocol.as_deref())?,
            number: u16::try_from(p.port).ok()?,
        };
        Some((port, p.name.clone().unwrap_or_default()))
    });
    let ports: BTreeSet<(Port, String)> = ports.collect();
    Some(Service {
        ports: ports.iter().map(|(port, _)| *port).collect(),
        port_names: ports
            .into_iter()
            .filter(|(_, name)| !name.is_empty())
            .collect(),
        local: spec.external_traffic_policy.as_deref() == Some("Local"),
        client_ip_affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
        labels: object.metadata.labels.clone().unwrap_or_default(),
    })
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// The Service a slice belongs to, and what it says; `None` for a slice of names (FQDN) or
/// without a Service.
pub(super) fn slice(object: &EndpointSlice) -> Option<(ServiceRef, Slice)> {
    let service = object.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    let namespace = object.metadata.namespace.as_deref()?;
    let ipv6 = match object.address_type.as_str() {
        "IPv4" => false,
        "IPv6" => true,
        _ => return None,
    };
    // A port without a number stands for none that kube-proxy could send to, and it sends to none.
    let ports = object.ports.iter().flatten().filter(|p| p.port.is_some());
    let ports = ports.filter_map(|p| {
        let name = p.name.clone().unwrap_or_default();
        Some((protocol(p.protocol.as_deref())?, name))
    });
    let mut slice = Slice {
        ipv6,
        ports: Some(ports.collect()),
        ..Slice::default()
    };
    for endpoint in &object.endpoints {
        let condition = |pick: fn(&_) -> Option<bool>| endpoint.conditions.as_ref().and_then(pick);
        // "A nil value should be interpreted as true" (discovery/v1 EndpointConditions).
        let ready = condition(|c: &Conditions| c.ready).unwrap_or(true);
        let serving = condition(|c: &Conditions| c.serving).unwrap_or(ready);
        match endpoint.node_name.as_deref() {
            Some(node) if ready => drop(slice.ready.insert(NodeName::from(node))),
            Some(node) if serving => drop(slice.draining.insert(NodeName::from(node))),
            Some(_) => {}
            None => slice.elsewhere |= ready || serving,
        }
    }
    Some((ServiceRef::new(namespace, service.as_str()), slice))
}

type Conditions = k8s_openapi::api::discovery::v1::EndpointConditions;

/// The VIP, or `None` when its address cannot be read (the CRD forbids that).
pub(super) fn vip(object: &VirtualIP) -> Option<(IpAddr, Vip)> {
    let address = object.spec.address.parse().ok()?;
    let status = object.status.as_ref();
    let annotation = |key: &str| -> Option<NodeName> {
        let value = object.metadata.annotations.as_ref()?.get(key)?.trim();
        (!value.is_empty()).then(|| value.into())
    };
    let vip = Vip {
        object: object.metadata.name.clone()?,
        pool: object.spec.pool.clone(),
        services: object
            .spec
            .services
            .iter()
            .map(|s| ServiceRef::new(&*s.namespace, &*s.name))
            .collect(),
        recorded_owner: status.and_then(|s| s.owner.as_deref()).map(NodeName::from),
        recorded_epoch: status.map_or(0, |s| s.epoch.try_into().unwrap_or(0)),
        pin_to: annotation(ANNOTATION_PIN_TO),
        move_to: annotation(ANNOTATION_MOVE_TO),
        moved_to: status
            .and_then(|s| s.moved_to.as_deref())
            .map(NodeName::from),
    };
    Some((address, vip))
}

pub(super) fn announcement(object: &L2Announcement) -> Announcement {
    let spec = object.spec.clone();
    let preferred = spec.preferred_nodes.into_iter();
    Announcement {
        pools: spec.address_pools.into_iter().collect(),
        pool_selectors: spec.address_pool_selectors,
        services: spec.service_selectors,
        nodes: spec.node_selectors,
        preferred: preferred
            .map(|p| (p.weight.unsigned_abs(), p.node_selector))
            .collect(),
        interfaces: spec.interfaces,
        announce_only: spec.forwarding_mode == ForwardingMode::Announce,
        direct_only: spec.forwarding_mode == ForwardingMode::DirectRouting,
        drop_without_endpoints: spec.without_endpoints == WithoutEndpoints::Drop,
    }
}
