//! `L2Announcement`: which nodes answer for which addresses, on which interfaces.

// KubeSchema repeats each struct, `pub` included, inside a function; printer columns repeat keys.
#![allow(unreachable_pub, clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::selector::{list_schema, selector_schema};

/// Which nodes answer ARP and NDP for the addresses of which pools and Services.
///
/// While there is none at all, every node announces every address. Once there is one, an
/// address is announced if at least one announcement covers it; several that cover one address
/// add up: their nodes and interfaces are united.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lightship.dev",
    version = "v1beta1",
    kind = "L2Announcement",
    plural = "l2announcements",
    shortname = "l2",
    category = "lightship",
    derive = "PartialEq",
    doc = "Which nodes answer ARP and NDP for the addresses of which pools and Services.",
    printcolumn(name = "Pools", type_ = "string", json_path = ".spec.addressPools"),
    printcolumn(name = "Interfaces", type_ = "string", json_path = ".spec.interfaces"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.forwardingMode"),
    printcolumn(
        name = "Nodes",
        type_ = "string",
        priority = 1,
        json_path = ".spec.nodeSelectors"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct L2AnnouncementSpec {
    /// Pools by name. Together with addressPoolSelectors; both empty means every pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub address_pools: Vec<String>,

    /// Pools by label; any of these selectors is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "list_schema")]
    pub address_pool_selectors: Vec<LabelSelector>,

    /// Services by label; any of these selectors is enough, empty means every Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "list_schema")]
    pub service_selectors: Vec<LabelSelector>,

    /// Nodes that may announce; any of these selectors is enough, empty means every node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "list_schema")]
    pub node_selectors: Vec<LabelSelector>,

    /// Nodes that announce rather than others, if they can: the weights of all entries that
    /// match a node add up, and the heaviest nodes are asked first. Equal ones share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub preferred_nodes: Vec<PreferredNodes>,

    /// Uplinks to announce on, by name or with the wildcards * and ?: a node none of whose uplinks
    /// matches stays out. Empty means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 15)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub interfaces: Vec<String>,

    /// How traffic reaches the Pods: Auto takes DirectRouting on nodes that can do it.
    #[serde(default)]
    pub forwarding_mode: ForwardingMode,

    /// What clients of a Service without any endpoint get: Refuse tells them at once (ICMP port
    /// unreachable, "connection refused"), Drop leaves them without an answer.
    #[serde(default)]
    pub without_endpoints: WithoutEndpoints,
}

/// Nodes to prefer, and how much.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreferredNodes {
    /// 1 to 100; the weights of several entries that match one node add up.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// The nodes.
    #[schemars(schema_with = "selector_schema")]
    pub node_selector: LabelSelector,
}

/// How traffic for an address reaches the Pods.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardingMode {
    /// DirectRouting on the nodes whose kernel can do it, Announce on the others.
    #[default]
    Auto,
    /// An IPVS director spreads the traffic over all nodes; nodes that cannot do it stay out.
    DirectRouting,
    /// The announcing node's kube-proxy takes all of the traffic.
    Announce,
}

/// What clients of a Service without any endpoint get.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WithoutEndpoints {
    /// ICMP port unreachable, as from kube-proxy.
    #[default]
    Refuse,
    /// Nothing.
    Drop,
}
