//! What the kubelet tells the API server about its node and its pods. Pure but for the clock.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{self, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use lightship_lab::agent_config::AgentConfig;
use serde_json::{Value, json};

/// Label or annotation of a pod that makes it unready (`"false"`), for tests of endpoints.
pub(super) const READY_MARK: &str = "lab.lightship.dev/ready";

/// Now, as `metav1.Time` wants it.
pub(super) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Now, as `metav1.MicroTime` wants it.
pub(super) fn now_micro() -> String {
    Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
        .to_string()
}

/// Whether the Node's status already says what [`node_patch`] would.
pub(super) fn node_is_current(node: &v1::Node, config: &AgentConfig) -> bool {
    let Some(status) = &node.status else {
        return false;
    };
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let addresses: Vec<String> = status
        .addresses
        .iter()
        .flatten()
        .filter(|address| address.type_ == "InternalIP")
        .map(|address| address.address.clone())
        .collect();
    let wanted: Vec<String> = config
        .addresses
        .iter()
        .map(|net| net.addr().to_string())
        .collect();
    ready && addresses == wanted
}

/// Status of a node that is well (a strategic merge patch).
pub(super) fn node_patch(config: &AgentConfig, now: String) -> Value {
    let mut addresses: Vec<Value> = config
        .addresses
        .iter()
        .map(|net| json!({ "type": "InternalIP", "address": net.addr() }))
        .collect();
    addresses.push(json!({ "type": "Hostname", "address": config.node_name }));
    json!({ "status": {
        // Strategic merge would match addresses by type, and there are two InternalIPs.
        "addresses": patch_replacing(addresses),
        "conditions": [{
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "the lab's agent is posting ready status",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }],
    }})
}

fn patch_replacing(mut list: Vec<Value>) -> Vec<Value> {
    list.insert(0, json!({ "$patch": "replace" }));
    list
}

/// Whether the pod has ended for good.
pub(super) fn is_over(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether somebody marked the pod unready.
pub(super) fn is_held_unready(pod: &Pod) -> bool {
    [pod.labels(), pod.annotations()]
        .iter()
        .any(|marks| marks.get(READY_MARK).is_some_and(|mark| mark == "false"))
}

/// What the kubelet knows of a pod's server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// Whether its readiness probe succeeds and nobody holds it unready.
    pub(super) ready: bool,
    /// When that last changed.
    pub(super) since: String,
    /// When the kubelet took the pod on.
    pub(super) started: String,
    /// How often the server was started again.
    pub(super) restarts: u32,
}

/// Status of a running pod (a merge patch).
pub(super) fn pod_patch(
    pod: &Pod,
    config: &AgentConfig,
    addresses: &[IpAddr],
    server: &Server,
) -> Value {
    let truth = |holds: bool| if holds { "True" } else { "False" };
    let condition = |name: &str, holds: bool, since: &str| json!({ "type": name, "status": truth(holds), "lastTransitionTime": since });
    let hosts: Vec<IpAddr> = config.addresses.iter().map(ipnet::IpNet::addr).collect();
    let containers: Vec<Value> = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| {
            json!({
                "name": container.name,
                "image": container.image.as_deref().unwrap_or_default(),
                "imageID": "",
                "containerID": "",
                "ready": server.ready,
                "started": true,
                "restartCount": server.restarts,
                "state": { "running": { "startedAt": server.started } },
            })
        })
        .collect();
    json!({ "status": {
        "phase": "Running",
        "startTime": server.started,
        "hostIP": hosts.first(),
        "hostIPs": hosts.iter().map(|ip| json!({ "ip": ip })).collect::<Vec<_>>(),
        "podIP": addresses.first(),
        "podIPs": addresses.iter().map(|ip| json!({ "ip": ip })).collect::<Vec<_>>(),
        "conditions": [
            condition("PodScheduled", true, &server.started),
            condition("Initialized", true, &server.started),
            condition("ContainersReady", server.ready, &server.since),
            condition("Ready", server.ready, &server.since),
        ],
        "containerStatuses": containers,
    }})
}
