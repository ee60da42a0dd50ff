//! What the kubelet tells the API server about its node and its pods. Pure but for the clock.

use std::fs;
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
    ready && addresses == wanted && status.node_info.is_some()
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
        "nodeInfo": node_info(),
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

/// What `kubectl get nodes -o wide` shows of a machine.
fn node_info() -> Value {
    let kernel = |file: &str| {
        let text = fs::read_to_string(format!("/proc/sys/kernel/{file}")).unwrap_or_default();
        text.trim().to_owned()
    };
    json!({
        "kernelVersion": kernel("osrelease"),
        "bootID": kernel("random/boot_id"),
        "machineID": "",
        "systemUUID": "",
        "osImage": "Lightship lab",
        "operatingSystem": "linux",
        "architecture": std::env::consts::ARCH,
        "containerRuntimeVersion": concat!("lab://", env!("CARGO_PKG_VERSION")),
        "kubeletVersion": concat!("lab-", env!("CARGO_PKG_VERSION")),
        "kubeProxyVersion": "",
    })
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

/// Whether the API server has another readiness of the pod than the kubelet told it.
pub(super) fn contradicts(pod: &Pod, server: &Server) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.any(|condition| (condition.status == "True") != server.ready)
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn config() -> AgentConfig {
        AgentConfig {
            node_name: "node1".into(),
            uplink: lightship_lab::options::UplinkKind::Plain,
            addresses: vec![
                "192.0.2.11/24".parse().unwrap(),
                "2001:db8:2::11/64".parse().unwrap(),
            ],
            gateways: Vec::new(),
            management: None,
            pod_cidrs: Vec::new(),
            peers: Vec::new(),
            control: None,
            kubeconfig: PathBuf::new(),
            kube_proxy: None,
            speaker: None,
            log_dir: PathBuf::new(),
            state_dir: PathBuf::new(),
        }
    }

    fn node(ready: &str, addresses: &[&str]) -> v1::Node {
        let addresses: Vec<Value> = addresses
            .iter()
            .map(|address| json!({ "type": "InternalIP", "address": address }))
            .collect();
        serde_json::from_value(json!({ "metadata": { "name": "node1" }, "status": {
            "addresses": addresses,
            "conditions": [{ "type": "Ready", "status": ready }],
            "nodeInfo": node_info(),
        }}))
        .unwrap()
    }

    #[test]
    fn a_node_is_told_again_when_others_changed_its_status() {
        let both = ["192.0.2.11", "2001:db8:2::11"];
        assert!(node_is_current(&node("True", &both), &config()));
        assert!(!node_is_current(&node("Unknown", &both), &config()));
        assert!(!node_is_current(&node("True", &both[..1]), &config()));
        assert!(!node_is_current(&v1::Node::default(), &config()));
    }

    #[test]
    fn a_pods_status_has_all_that_endpoints_are_made_of() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "web", "labels": { READY_MARK: "false" } },
            "spec": { "containers": [{ "name": "web", "image": "x" }] },
        }))
        .unwrap();
        assert!(is_held_unready(&pod));
        let server = Server {
            ready: false,
            since: "2026-01-01T00:00:00Z".into(),
            started: "2026-01-01T00:00:00Z".into(),
            restarts: 1,
        };
        let addresses = ["198.51.100.18".parse().unwrap()];
        let patch = pod_patch(&pod, &config(), &addresses, &server);
        // It must also be what the API has fields for.
        let told: v1::PodStatus = serde_json::from_value(patch["status"].clone()).unwrap();
        assert_eq!(told.pod_ip.as_deref(), Some("198.51.100.18"));
        assert_eq!(told.host_ips.unwrap().len(), 2);
        let ready = |name: &str| {
            told.conditions
                .iter()
                .flatten()
                .find(|condition| condition.type_ == name)
                .map(|condition| condition.status.clone())
        };
        assert_eq!(ready("Ready").as_deref(), Some("False"));
        assert_eq!(ready("Initialized").as_deref(), Some("True"));
        assert_eq!(told.container_statuses.unwrap()[0].restart_count, 1);
        let mut pod = pod;
        assert!(!contradicts(&pod, &server), "it has no readiness yet");
        pod.status = serde_json::from_value(patch["status"].clone()).unwrap();
        assert!(!contradicts(&pod, &server));
        let ready = Server {
            ready: true,
            ..server
        };
        assert!(contradicts(&pod, &ready));
    }
}
