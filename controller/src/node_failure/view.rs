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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_that_say_little_are_taken_for_what_is_harmless() {
        let bare = node(serde_json::from_value(json!({ "metadata": { "name": "n" } })).unwrap());
        assert!(
            !bare.ready,
            "nothing is done about a node that is not ready"
        );
        let unknown = json!({
            "metadata": { "name": "n", "uid": "u" },
            "status": { "conditions": [
                { "type": "DiskPressure", "status": "True" },
                { "type": "Ready", "status": "Unknown" },
            ]},
        });
        assert!(!node(serde_json::from_value(unknown).unwrap()).ready);
        let silent = speaker(Speaker::new("n", lightship_crds::SpeakerSpec {}));
        assert_eq!(silent.lost, BTreeSet::new());
        for spec in [
            json!({}),
            json!({ "leaseDurationSeconds": 0 }),
            json!({ "leaseDurationSeconds": -5 }),
        ] {
            let object = json!({ "metadata": { "name": "n" }, "spec": spec });
            let view = lease(serde_json::from_value(object).unwrap());
            assert_eq!((view.renewal, view.lasts), (None, LEASE_LASTS));
        }
    }

    #[test]
    fn each_renewal_differs_from_the_one_before() {
        let at = |time: &str| {
            let object = json!({
                "metadata": { "name": "n" },
                "spec": { "renewTime": time, "leaseDurationSeconds": 20 },
            });
            lease(serde_json::from_value(object).unwrap())
        };
        let (first, next) = (
            at("2026-11-23T12:00:00.000001Z"),
            at("2026-11-23T12:00:00.000002Z"),
        );
        assert_ne!(first.renewal, next.renewal);
        assert_eq!(first.lasts, Duration::from_secs(20));
    }
}
