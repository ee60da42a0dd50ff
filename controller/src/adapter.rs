//! Kubernetes objects to the allocator's terms: the only file that knows both.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::core::PartialObjectMeta;
use lightship_crds::{
    ANNOTATION_ADDRESSES, ANNOTATION_POOL, AddressPool, LOAD_BALANCER_CLASS, LabelSet,
    ServiceAllocation, VirtualIP, matches_any,
};
use lightship_ipam::{Family, Policy, PoolSpec, ServiceId};

use crate::model::{
    Demand, Ingress, NamespaceView, PoolView, Revision, ServiceView, VipView, Wish,
};

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
pub fn service(service: Service, classes: &Classes) -> ServiceView {
    let meta = service.metadata;
    let spec = service.spec.unwrap_or_default();
    let ingress = service.status.and_then(|status| status.load_balancer);
    let ingress = ingress.and_then(|lb| lb.ingress).unwrap_or_default();
    ServiceView {
        id: ServiceId::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        ),
        uid: meta.uid.clone().unwrap_or_default(),
        version: meta.resource_version.clone().unwrap_or_default(),
        created: seconds(meta.creation_timestamp.as_ref()),
        labels: labels(&meta),
        demand: demand(&meta, &spec, classes),
        ingress: ingress
            .into_iter()
            .map(|entry| Ingress {
                ip: entry.ip.and_then(|ip| ip.parse().ok()),
                plain: entry.hostname.is_none()
                    && entry.ip_mode.as_deref() == Some("VIP")
                    && entry.ports.is_none_or(|ports| ports.is_empty()),
            })
            .collect(),
    }
}

fn demand(meta: &ObjectMeta, spec: &ServiceSpec, classes: &Classes) -> Demand {
    if spec.type_.as_deref() != Some("LoadBalancer")
        || !classes.accept(spec.load_balancer_class.as_deref())
    {
        return Demand::Nothing;
    }
    let annotation = |key| {
        let value = meta.annotations.as_ref()?.get(key)?.trim();
        (!value.is_empty()).then_some(value)
    };
    match addresses(
        annotation(ANNOTATION_ADDRESSES),
        spec.load_balancer_ip.as_deref(),
    ) {
        Err(fault) => Demand::Unclear(fault),
        Ok(addresses) => {
            let families = families(spec);
            let policy = match spec.ip_family_policy.as_deref() {
                Some("RequireDualStack") => Policy::RequireDual,
                Some("PreferDualStack") if families.len() > 1 => Policy::PreferDual,
                _ => Policy::Single,
            };
            Demand::Addresses(Wish {
                families,
                policy,
                addresses,
                pool: annotation(ANNOTATION_POOL).map(Arc::from),
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

fn addresses(annotation: Option<&str>, field: Option<&str>) -> Result<Vec<IpAddr>, String> {
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
    let from_annotation = annotation.map(|text| parse(text, ANNOTATION_ADDRESSES));
    let from_field = field.map(|text| parse(text, "spec.loadBalancerIP"));
    match (from_annotation.transpose()?, from_field.transpose()?) {
        (Some(a), Some(b)) if a != b => Err(format!(
            "{ANNOTATION_ADDRESSES} and spec.loadBalancerIP ask for different addresses; remove one of them"
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
