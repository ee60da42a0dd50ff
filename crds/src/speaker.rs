//! `Speaker`: one object per node; `kubectl get speakers` tells how each node forwards, and why.

// KubeSchema repeats each struct, `pub` included, inside a function; printer columns repeat keys.
#![allow(unreachable_pub, clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::VipMode;

/// Nothing: what a speaker does is set by its flags and by `L2Announcement`s.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lightship.dev",
    version = "v1beta1",
    kind = "Speaker",
    plural = "speakers",
    singular = "speaker",
    category = "lightship",
    status = "SpeakerStatus",
    derive = "PartialEq",
    doc = "What the speaker on one node says of itself; the object is named like the node. Written by Lightship; there is nothing here to edit.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".status.mode"),
    printcolumn(
        name = "Uplink",
        type_ = "string",
        json_path = ".status.uplinks[0].interface"
    ),
    printcolumn(name = "VIPs", type_ = "integer", json_path = ".status.vips"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Mode-Reason",
        type_ = "string",
        priority = 1,
        json_path = ".status.modeReason"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Ready\")].message"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerSpec {}

/// What the speaker of the node reports.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerStatus {
    /// How this node forwards for the addresses it owns; absent until it is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<VipMode>,
    /// Why this mode, and for `Announce` what to do to get the other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub mode_reason: String,
    /// The interfaces on which addresses can be announced: the main one, on the LAN of the nodes, and
    /// those on further LANs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub uplinks: Vec<SpeakerUplink>,
    /// How many addresses this node answers for.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub vips: i32,
    /// Nodes that are dead as this speaker sees it: neither their speaker nor their kernel
    /// answers. Only those of which this node is a witness, and none while this node sees
    /// less than half of the nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["node".into()]))]
    pub lost_peers: Vec<LostPeer>,
    /// `Ready`: whether this node can answer and forward, and if not why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// At most so many lost nodes are reported by one speaker.
pub const MAX_LOST_PEERS: usize = 64;

/// A node that is dead as a speaker sees it.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LostPeer {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// When the speaker first said so, by the clock of the speaker's node. For people: clocks
    /// differ, and nothing is decided by it.
    pub since: Time,
}

/// At most so many addresses, and gateways, of one interface are reported.
pub const MAX_UPLINK_ADDRESSES: usize = 256;

/// An interface on a LAN and what must not be given away as a virtual IP there.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerUplink {
    /// Its name.
    #[schemars(length(min = 1, max = 15))]
    pub interface: String,
    /// Its own MAC address.
    #[schemars(length(max = 17))]
    pub mac: String,
    /// Its addresses with the prefix length of their network, as 192.0.2.11/24; without
    /// IPv6's link-local ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 43)))]
    pub addresses: Vec<String>,
    /// The routers of its default routes, of both families.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 39)))]
    pub gateways: Vec<String>,
}
