//! What matters of the objects that are watched.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use lightship_crds::Speaker;

/// How long a Lease lasts that does not say so: what kubelets ask for
/// (`nodeLeaseDurationSeconds` of KubeletConfiguration).
const LEASE_LASTS: Duration = Duration::from_secs(40);

/// What matters of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeView {
    pub(super) name: String,
    pub(super) uid: String,
    /// Kubernetes itself takes it for ready.
    pub(super) ready: bool,
    /// `status.nodeInfo.bootID`: another one after each boot.
    pub(super) boot: String,
}

/// What matters of a Speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpeakerView {
    /// The node's name.
    pub(super) name: String,
    /// The nodes that it says are dead.
    pub(super) lost: BTreeSet<String>,
}

/// What matters of a node's Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeaseView {
    /// The node's name.
    pub(super) name: String,
    /// Another one after each renewal. It is the time on the kubelet's clock, which is compared
    /// with no other.
    pub(super) renewal: Option<String>,
    /// How long after a renewal the node counts as alive.
    pub(super) lasts: Duration,
}

pub(super) fn node(node: Node) -> NodeView {
    let status = node.status.unwrap_or_default();
    let mut conditions = status.conditions.iter().flatten();
    NodeView {
        name: node.metadata.name.unwrap_or_default(),
        uid: node.metadata.uid.unwrap_or_default(),
        ready: conditions.any(|c| c.type_ == "Ready" && c.status == "True"),
        boot: status.node_info.map(|i| i.boot_id).unwrap_or_default(),
    }
}

pub(super) fn speaker(speaker: Speaker) -> SpeakerView {
    let lost = speaker.status.map(|status| status.lost_peers);
    SpeakerView {
        name: speaker.metadata.name.unwrap_or_default(),
        lost: lost.into_iter().flatten().map(|peer| peer.node).collect(),
    }
}

pub(super) fn lease(lease: Lease) -> LeaseView {
    let spec = lease.spec.unwrap_or_default();
    let seconds = spec.lease_duration_seconds;
    let seconds = seconds
        .and_then(|s| u64::try_from(s).ok())
        .filter(|s| *s > 0);
    LeaseView {
        name: lease.metadata.name.unwrap_or_default(),
        renewal: spec.renew_time.map(|time| time.0.to_string()),
        lasts: seconds.map_or(LEASE_LASTS, Duration::from_secs),
    }
}
