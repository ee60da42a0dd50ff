//! Kubernetes objects to the allocator's terms: the only file that knows both.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::core::PartialObjectMeta;
use lightship_crds::{
    ANNOTATION_ADDRESSES, ANNOTATION_POOL, ANNOTATION_SHARED_KEY, AddressPool, AllocationOrder,
    CONDITION_ASSIGNED, LOAD_BALANCER_CLASS, LabelSet, METALLB_ANNOTATIONS, ServiceAllocation,
    Speaker, VirtualIP, matches_any,
};
use lightship_ipam::{
    Backends, Family, OnShrink, Order, Policy, PoolSpec, Port, Protocol, ServiceId, Sharing,
};

use crate::model::{
    Demand, Ingress, NamedPool, NamespaceView, NodeView, PoolView, Revision, ServiceView,
    SpeakerView, Told, Verdict, VipView, Wish,
};

/// Which Services are ours, and whose annotations they may carry.
#[derive(Clone, Debug)]
pub struct Dialect {
    /// The classes that are ours.
    pub classes: Classes,
    /// Whether MetalLB's annotations count where ours are missing.
    pub metallb: bool,
}

impl Dialect {
    /// The value of one of our annotations or, where they count, of MetalLB's like it.
    fn annotation<'a>(
        &self,
        meta: &'a ObjectMeta,
        own: &'static str,
        metallb: [&'static str; 2],
    ) -> Option<(&'static str, &'a str)> {
        let annotations = meta.annotations.as_ref()?;
        let foreign = metallb.into_iter().filter(|_| self.metallb);
        std::iter::once(own).chain(foreign).find_map(|key| {
            let value = annotations.get(key)?.trim();
            (!value.is_empty()).then_some((key, value))
        })
    }
}

/// Which `spec.loadBalancerClass` values are ours.
#[derive(Clone, Debug)]
pub struct Classes {
    named: Vec<String>,
    unset: bool,
}

impl Classes {
    /// From the values of `--load-balancer-class`, where the empty text stands for Services
    /// without a class. None at all means our own class and Services without one.
    pub fn new(values: &[String]) -> Self {
        if values.is_empty() {
            return Self {
                named: vec![LOAD_BALANCER_CLASS.to_owned()],
                unset: true,
            };
        }
        Self {
            named: values.iter().filter(|v| !v.is_empty()).cloned().collect(),
            unset: values.iter().any(String::is_empty),
        }
    }

    fn accept(&self, class: Option<&str>) -> bool {
        match class {
            None | Some("") => self.unset,
            Some(class) => self.named.iter().any(|name| name == class),
        }
    }
}

fn seconds(time: Option<&Time>) -> i64 {
    time.map_or(0, |time| time.0.as_second())
}

fn labels(meta: &ObjectMeta) -> LabelSet {
    meta.labels.clone().unwrap_or_default()
}

/// What matters of a Service.
pub fn service(service: Service, dialect: &Dialect) -> ServiceView {
    let meta = service.metadata;
    let spec = service.spec.unwrap_or_default();
    let status = service.status.unwrap_or_default();
    let ingress = status.load_balancer.and_then(|lb| lb.ingress);
    ServiceView {
        id: ServiceId::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        ),
        uid: meta.uid.clone().unwrap_or_default(),
        version: meta.resource_version.clone().unwrap_or_default(),
        created: seconds(meta.creation_timestamp.as_ref()),
        labels: labels(&meta),
        demand: demand(&meta, &spec, dialect),
        claims: claims(&spec),
        sharing: sharing(&meta, &spec, dialect),
        ingress: ingress
            .unwrap_or_default()
            .into_iter()
            .map(|entry| Ingress {
                ip: entry.ip.and_then(|ip| ip.parse().ok()),
                plain: entry.hostname.is_none()
                    && entry.ip_mode.as_deref() == Some("VIP")
                    && entry.ports.is_none_or(|ports| ports.is_empty()),
            })
            .collect(),
        told: status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .find_map(told),
    }
}

fn told(condition: Condition) -> Option<Told> {
    (condition.type_ == CONDITION_ASSIGNED).then(|| Told {
        verdict: Verdict {
            met: condition.status == "True",
            reason: condition.reason.into(),
            message: condition.message,
        },
        since: condition.last_transition_time.0,
    })
}

/// Each address once. The API server has checked them.
fn claims(spec: &ServiceSpec) -> Vec<IpAddr> {
    let mut claims: Vec<IpAddr> = Vec::new();
    for text in spec.external_ips.iter().flatten() {
        match text.parse() {
            Ok(address) if !claims.contains(&address) => claims.push(address),
            _ => {}
        }
    }
    claims
}

fn sharing(meta: &ObjectMeta, spec: &ServiceSpec, dialect: &Dialect) -> Sharing {
    let key = dialect.annotation(meta, ANNOTATION_SHARED_KEY, METALLB_ANNOTATIONS[2]);
    let Some((_, key)) = key else {
        // It shares with nobody, whatever its ports.
        return Sharing::default();
    };
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        let number = u16::try_from(port.port).ok()?;
        Some(Port { protocol, number })
    });
    let backends = match spec.external_traffic_policy.as_deref() {
        Some("Local") => {
            let selector = spec.selector.iter().flatten();
            let terms: Vec<_> = selector
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            Backends::Local(terms.join(",").into())
        }
        _ => Backends::Cluster,
    };
    Sharing {
        key: Some(key.into()),
        backends,
        ports: ports.collect(),
    }
}

fn demand(meta: &ObjectMeta, spec: &ServiceSpec, dialect: &Dialect) -> Demand {
    if spec.type_.as_deref() != Some("LoadBalancer")
        || !dialect.classes.accept(spec.load_balancer_class.as_deref())
    {
        return Demand::Nothing;
    }
    let asked = dialect.annotation(meta, ANNOTATION_ADDRESSES, METALLB_ANNOTATIONS[1]);
    match addresses(asked, spec.load_balancer_ip.as_deref()) {
        Err(fault) => Demand::Unclear(fault),
        Ok(addresses) => {
            let families = families(spec);
            let policy = match spec.ip_family_policy.as_deref() {
                Some("RequireDualStack") => Policy::RequireDual,
                Some("PreferDualStack") if families.len() > 1 => Policy::PreferDual,
                _ => Policy::Single,
            };
            let pool = dialect.annotation(meta, ANNOTATION_POOL, METALLB_ANNOTATIONS[0]);
            Demand::Addresses(Wish {
                families,
                policy,
                addresses,
                pool: pool.map(|(by, name)| NamedPool {
                    name: name.into(),
                    by,
                }),
            })
        }
    }
}

/// `spec.ipFamilies`, which the API server fills in; else the families of the cluster IPs.
fn families(spec: &ServiceSpec) -> Vec<Family> {
    let named = spec.ip_families.iter().flatten();
    let named: Vec<_> = named
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    if !named.is_empty() {
        return named;
    }
    let cluster = spec.cluster_ips.iter().flatten();
    cluster
        .filter_map(|ip| ip.parse().ok())
        .map(Family::of)
        .collect()
}

fn addresses(annotation: Option<(&str, &str)>, field: Option<&str>) -> Result<Vec<IpAddr>, String> {
    let parse = |text: &str, source: &str| -> Result<Vec<IpAddr>, String> {
        text.split(',')
            .map(|part| {
                let part = part.trim();
                part.parse().map_err(|_| {
                    format!("{source}: \"{part}\" is no IP address; write 192.0.2.10, or 192.0.2.10,2001:db8::10 for both families")
                })
            })
            .collect()
    };
    let field = field.filter(|text| !text.trim().is_empty());
    let key = annotation.map_or(ANNOTATION_ADDRESSES, |(key, _)| key);
    let from_annotation = annotation.map(|(key, text)| parse(text, key));
    let from_field = field.map(|text| parse(text, "spec.loadBalancerIP"));
    match (from_annotation.transpose()?, from_field.transpose()?) {
        (Some(a), Some(b)) if a != b => Err(format!(
            "{key} and spec.loadBalancerIP ask for different addresses; remove one of them"
        )),
        (Some(addresses), _) | (None, Some(addresses)) => Ok(addresses),
        (None, None) => Ok(Vec::new()),
    }
}

/// What matters of an AddressPool.
pub fn pool(pool: AddressPool) -> PoolView {
    let allocation = pool.spec.service_allocation;
    let delay = u64::try_from(pool.spec.reuse_delay_seconds).unwrap_or(0);
    PoolView {
        spec: PoolSpec {
            name: pool.metadata.name.as_deref().unwrap_or_default().into(),
            created: seconds(pool.metadata.creation_timestamp.as_ref()),
            blocks: pool
                .spec
                .addresses
                .into_iter()
                .map(|block| block.0)
                .collect(),
            auto_assign: pool.spec.auto_assign,
            avoid_buggy: pool.spec.avoid_buggy_ips,
            pinned: allocation
                .as_ref()
                .map(|allocation| u32::try_from(allocation.priority).unwrap_or(0)),
            reuse_delay: Duration::from_secs(delay),
            order: match pool.spec.allocation_order {
                AllocationOrder::LowestFirst => Order::Lowest,
                AllocationOrder::ByServiceName => Order::Hashed,
            },
            on_shrink: match pool.spec.on_shrink {
                lightship_crds::OnShrink::Keep => OnShrink::Keep,
                lightship_crds::OnShrink::Reallocate => OnShrink::Reallocate,
            },
            sharing_across_namespaces: pool.spec.allow_sharing_across_namespaces,
            external_ips: pool.spec.allow_external_ips,
        },
        allocation,
        uid: pool.metadata.uid.unwrap_or_default(),
        version: pool.metadata.resource_version.unwrap_or_default(),
        generation: pool.metadata.generation.unwrap_or_default(),
        status: pool.status,
    }
}

/// What matters of a VirtualIP.
pub fn vip(vip: VirtualIP) -> VipView {
    VipView {
        name: vip.metadata.name.unwrap_or_default(),
        revision: Revision {
            uid: vip.metadata.uid.unwrap_or_default(),
            version: vip.metadata.resource_version.unwrap_or_default(),
        },
        spec: vip.spec,
    }
}

/// What matters of a Node.
pub fn node(node: Node) -> NodeView {
    let addresses = node.status.and_then(|status| status.addresses);
    let addresses = addresses.unwrap_or_default().into_iter();
    NodeView {
        name: node.metadata.name.unwrap_or_default(),
        // Host names are among them.
        addresses: addresses.filter_map(|a| a.address.parse().ok()).collect(),
    }
}

/// What matters of a Speaker.
pub fn speaker(speaker: Speaker) -> SpeakerView {
    let uplinks = speaker.status.map(|status| status.uplinks);
    let uplinks = uplinks.unwrap_or_default();
    let networks = uplinks.iter().flat_map(|uplink| &uplink.addresses);
    let gateways = uplinks.iter().flat_map(|uplink| &uplink.gateways);
    SpeakerView {
        name: speaker.metadata.name.unwrap_or_default(),
        networks: networks.filter_map(|text| text.parse().ok()).collect(),
        gateways: gateways.filter_map(|text| text.parse().ok()).collect(),
    }
}

/// What matters of a Namespace.
pub fn namespace(namespace: PartialObjectMeta<Namespace>) -> NamespaceView {
    NamespaceView {
        labels: labels(&namespace.metadata),
        name: namespace.metadata.name.unwrap_or_default(),
    }
}

/// The restricted pools that are not for this Service, and what rules it out. A selector that
/// matches nothing closes its pool.
pub fn closed<'a>(
    pools: impl Iterator<Item = &'a PoolView>,
    service: &ServiceView,
    namespace_labels: &LabelSet,
) -> BTreeMap<Arc<str>, String> {
    pools
        .filter_map(|pool| {
            let why = refused(pool.allocation.as_ref()?, service, namespace_labels)?;
            Some((pool.spec.name.clone(), why))
        })
        .collect()
}

fn refused(rules: &ServiceAllocation, service: &ServiceView, labels: &LabelSet) -> Option<String> {
    let namespace = &*service.id.namespace;
    let restricted = !rules.namespaces.is_empty() || !rules.namespace_selectors.is_empty();
    let listed = rules.namespaces.iter().any(|name| name == namespace);
    if restricted && !listed && !matches_any(&rules.namespace_selectors, labels) {
        return Some(format!(
            "its serviceAllocation does not include namespace {namespace}"
        ));
    }
    let selectors = &rules.service_selectors;
    if !selectors.is_empty() && !matches_any(selectors, &service.labels) {
        return Some(
            "its serviceAllocation.serviceSelectors do not match the Service's labels".into(),
        );
    }
    None
}

#[cfg(test)]
mod tests;
