//! `VirtualIP`: one object per address in use; `kubectl get vip` is the picture of the system.

// KubeSchema repeats each struct, `pub` included, inside a function; printer columns repeat keys.
#![allow(unreachable_pub, clippy::duplicated_attributes)]

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address_pool::OnShrink;

/// One address in use: `spec` is written by the controller, `status` by the speakers.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lightship.dev",
    version = "v1beta1",
    kind = "VirtualIP",
    plural = "virtualips",
    singular = "virtualip",
    shortname = "vip",
    shortname = "vips",
    category = "lightship",
    status = "VirtualIPStatus",
    derive = "PartialEq",
    doc = "One address in use. Written by Lightship; only annotations are there to edit.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.usedBy"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".status.owner"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".status.mode"),
    printcolumn(
        name = "Backends",
        type_ = "string",
        json_path = ".status.backendsReady"
    ),
    printcolumn(
        name = "Last-Move",
        type_ = "string",
        json_path = ".status.lastMove.reason"
    ),
    printcolumn(name = "Moved", type_ = "date", json_path = ".status.lastMove.time"),
    printcolumn(
        name = "Directors",
        type_ = "string",
        priority = 1,
        json_path = ".status.directors"
    ),
    printcolumn(
        name = "Interface",
        type_ = "string",
        priority = 1,
        json_path = ".status.interface"
    ),
    printcolumn(
        name = "MAC",
        type_ = "string",
        priority = 1,
        json_path = ".status.mac"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIPSpec {
    /// The address, in canonical form.
    #[schemars(length(min = 2, max = 45))]
    #[x_kube(
        validation = Rule::new("isIP(self)").message("spec.address: must be an IP address such as 192.0.2.10 or 2001:db8::10"),
        validation = Rule::new("!isIP(self) || ip.isCanonical(self)").message("spec.address: must be in canonical form; write 2001:db8::10 with lowercase letters, no leading zeros and :: for the longest run of zeros"),
        validation = Rule::new("self == oldSelf").message("spec.address: cannot be changed; delete this object and create another")
    )]
    pub address: String,

    /// The pool the address comes from.
    #[schemars(length(max = 253))]
    pub pool: String,

    /// The Services that hold the address, the one that held it first leading.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub services: Vec<ServiceRef>,

    /// The first Service as namespace/name, and how many more there are.
    #[serde(default)]
    #[schemars(length(max = 330))]
    pub used_by: String,

    /// What the pool says of addresses that it does not offer any more, if it is not Keep; here
    /// because the pool may be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_shrink: Option<OnShrink>,
}

impl VirtualIPSpec {
    /// A spec whose parts agree with each other.
    pub fn new(address: IpAddr, pool: &str, services: Vec<ServiceRef>) -> Self {
        let mut used_by = services
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        if services.len() > 1 {
            used_by = format!("{used_by} +{}", services.len() - 1);
        }
        Self {
            address: address.to_string(),
            pool: pool.to_owned(),
            services,
            used_by,
            on_shrink: None,
        }
    }
}

/// A Service by name.
#[derive(
    JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl std::fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What the speaker that owns the address reports.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIPStatus {
    /// The node that answers ARP and NDP for the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The ownership's number: of two claims the higher one holds. Even if the owner saw more than
    /// half of the nodes when it took the address, else odd.
    #[serde(default)]
    pub epoch: i64,
    /// How the owner forwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<VipMode>,
    /// The owner's interface on which it is announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The MAC address that is announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The nodes that serve the address, and those that should but are gone; of more than 64 the latter and
    /// then the first by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5000))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub backends: Vec<Backend>,
    /// Backends with weight and backends in all, as 3/3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends_ready: Option<String>,
    /// Nodes whose director table agrees with the owner's and nodes in all, as 3/3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directors: Option<String>,
    /// The last change of owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_move: Option<LastMove>,
    /// The node of the annotation lightship.dev/move-to that has been dealt with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
    /// `Ready`: whether the address is announced and has a backend, and if not why.
    /// `Placed`: whether it is on the node that an annotation asks for; absent without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A node that serves an address.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// The node's name.
    pub node: String,
    /// Its share of new connections; 0 while it is gone, draining or without endpoints.
    pub weight: i32,
    /// How this node would forward if it were the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<VipMode>,
}

/// How a node forwards.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VipMode {
    /// By its IPVS director, to all nodes.
    DirectRouting,
    /// To its own kube-proxy.
    Announce,
}

/// A change of owner.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastMove {
    /// When the new owner announced itself.
    pub time: MicroTime,
    /// The owner before; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The owner after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why, in a word or few: a crash, a drain, a carrier loss.
    pub reason: String,
}

/// The name of the [`VirtualIP`] object of an address: an IPv4 address as it is, an IPv6
/// address with dashes for colons, and a zero where that would begin or end with a dash
/// (object names are DNS subdomains). Different addresses have different names.
pub fn virtual_ip_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let mut name = v6.to_string().replace(':', "-");
            if name.starts_with('-') {
                name.insert(0, '0');
            }
            if name.ends_with('-') {
                name.push('0');
            }
            name
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_subdomains() {
        for (address, name) in [
            ("192.0.2.200", "192.0.2.200"),
            ("2001:db8:2::200", "2001-db8-2--200"),
            ("2001:db8::", "2001-db8--0"),
            ("::1", "0--1"),
            ("::", "0--0"),
            ("::ffff:192.0.2.1", "0--ffff-192.0.2.1"),
        ] {
            assert_eq!(virtual_ip_name(address.parse().unwrap()), name);
        }
    }

    #[test]
    fn used_by_counts_the_others() {
        let service = |name: &str| ServiceRef {
            namespace: "shop".into(),
            name: name.into(),
        };
        let address = "192.0.2.1".parse().unwrap();
        let one = VirtualIPSpec::new(address, "p", vec![service("web")]);
        assert_eq!(one.used_by, "shop/web");
        let two = VirtualIPSpec::new(address, "p", vec![service("web"), service("dns")]);
        assert_eq!(two.used_by, "shop/web +1");
    }
}
