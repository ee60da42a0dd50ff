//! `AddressPool`: addresses that Services of type LoadBalancer may get.

// KubeSchema repeats each struct, `pub` included, inside a function; printer columns repeat keys.
#![allow(unreachable_pub, clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::net::AddressBlock;
use crate::selector::{list_schema, namespaces_schema};

/// Addresses that Services of type LoadBalancer may get, and which Services may have them.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lightship.dev",
    version = "v1beta1",
    kind = "AddressPool",
    plural = "addresspools",
    shortname = "pool",
    shortname = "pools",
    category = "lightship",
    status = "AddressPoolStatus",
    derive = "PartialEq",
    doc = "Addresses that Services of type LoadBalancer may get, and which Services may have them.",
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(
        name = "Auto-Assign",
        type_ = "boolean",
        json_path = ".spec.autoAssign"
    ),
    printcolumn(
        name = "V4-Used",
        type_ = "integer",
        json_path = ".status.ipv4.assigned"
    ),
    printcolumn(
        name = "V4-Free",
        type_ = "integer",
        json_path = ".status.ipv4.available"
    ),
    printcolumn(
        name = "V6-Used",
        type_ = "integer",
        json_path = ".status.ipv6.assigned"
    ),
    printcolumn(
        name = "V6-Free",
        type_ = "integer",
        json_path = ".status.ipv6.available"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "V4-Resting",
        type_ = "integer",
        priority = 1,
        json_path = ".status.ipv4.quarantined"
    ),
    printcolumn(
        name = "V6-Resting",
        type_ = "integer",
        priority = 1,
        json_path = ".status.ipv6.quarantined"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// CIDRs (192.0.2.0/24) and ranges (192.0.2.10-192.0.2.20), IPv4 and IPv6 as you like.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub addresses: Vec<AddressBlock>,

    /// Whether Services that ask for nothing in particular may get an address from here.
    /// If false, only Services that name this pool or one of its addresses do.
    #[serde(default = "yes")]
    pub auto_assign: bool,

    /// Whether IPv4 addresses ending in .0 or .255 are kept out of use, for the sake of old
    /// equipment that takes them for network or broadcast addresses.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,

    /// Restricts the pool to some Services and ranks it before unrestricted pools for those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,

    /// How many seconds a released address rests before another Service gets it, so that
    /// stale ARP caches do not send one tenant's traffic to another. It yields when nothing
    /// else is free.
    #[serde(default = "default_reuse_delay")]
    #[schemars(range(min = 0, max = 86_400))]
    pub reuse_delay_seconds: i64,

    /// Which free address comes first: the lowest, or with ByServiceName the first from a place
    /// that the Service's namespace and name decide, so that a Service which is deleted and
    /// created again mostly gets its address again.
    #[serde(default)]
    pub allocation_order: AllocationOrder,

    /// What becomes of addresses in use that this pool no longer offers their Services, as it
    /// was shrunk, restricted or deleted: with Keep the Services keep them, and conditions say
    /// so; with Reallocate they get others, or none.
    #[serde(default)]
    pub on_shrink: OnShrink,

    /// Whether Services of different namespaces may share an address of this pool, given the
    /// same lightship.dev/shared-address-key.
    #[serde(default)]
    pub allow_sharing_across_namespaces: bool,

    /// Whether Services of any type may claim addresses of this pool by spec.externalIPs. They
    /// are announced and directed like assigned ones.
    #[serde(default, rename = "allowExternalIPs")]
    pub allow_external_ips: bool,
}

/// Which free address of a pool comes first.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllocationOrder {
    /// The lowest.
    #[default]
    LowestFirst,
    /// The first from a place that the Service's namespace and name decide.
    ByServiceName,
}

/// What becomes of an address in use that its pool no longer offers.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnShrink {
    /// The Service keeps it.
    #[default]
    Keep,
    /// The Service gets another one, or none.
    Reallocate,
}

fn yes() -> bool {
    true
}

fn default_reuse_delay() -> i64 {
    60
}

/// Which Services may use a pool: the namespace must be listed or selected (either is enough),
/// and the Service must be selected. What is left empty does not restrict.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// Order among the pools restricted to a Service: 1 comes first; 0, the default, last.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub priority: i64,

    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "namespaces_schema")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub namespaces: Vec<String>,

    /// Namespaces by label; any of these selectors is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "list_schema")]
    pub namespace_selectors: Vec<LabelSelector>,

    /// Services by label; any of these selectors is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "list_schema")]
    pub service_selectors: Vec<LabelSelector>,
}

/// What the controller reports about a pool.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// IPv4 addresses of the pool.
    #[serde(default)]
    pub ipv4: FamilyUsage,
    /// IPv6 addresses of the pool.
    #[serde(default)]
    pub ipv6: FamilyUsage,
    /// Addresses that were released a short while ago and rest, the latest 100 of them: what a
    /// controller that starts has to know of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub resting: Vec<RestingAddress>,
    /// `Ready`: whether the pool gives out all that its spec says, and if not why;
    /// `AddressesWithheld`: it contains addresses of nodes, gateways or subnets, which it never
    /// gives out; `AddressesOutside`: Services hold addresses that it does not offer any more, or not to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Counts of one address family; saturating at 2^63-1, which large IPv6 pools reach.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyUsage {
    /// Addresses that can be given to Services.
    #[serde(default)]
    pub total: i64,
    /// Addresses that Services hold.
    #[serde(default)]
    pub assigned: i64,
    /// Addresses left, the resting ones included.
    #[serde(default)]
    pub available: i64,
    /// Released addresses that rest until reuseDelaySeconds have passed, or nothing else is left.
    #[serde(default)]
    pub quarantined: i64,
}

/// An address that rests.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestingAddress {
    /// The address.
    pub address: String,
    /// The Service that held it last, as namespace/name.
    pub service: String,
    /// When its rest ends.
    pub until: Time,
}
