//! Marks pods not ready, and undoes it.

use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Error};
use lightship_crds::MANAGER_CONTROLLER;
use lightship_kit::while_busy;
use serde_json::{Value, json};

use super::judge::Mark;
use crate::leader::Authority;

/// Reason of the condition `Ready` of a pod that was marked.
const REASON: &str = "NodeLost";

/// Requests under way at most, per node.
const CONCURRENT: usize = 16;

/// How long all of a node's pods may take; then it is looked at anew whether the node is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest pause between attempts while the API server is busy.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The API server's pods.
#[derive(Clone)]
pub(super) struct Pods {
    client: Client,
    authority: Authority,
}

impl Pods {
    pub(super) fn new(client: Client, authority: Authority) -> Self {
        Self { client, authority }
    }

    /// Marks all pods of a node that are ready. Gives how many.
    pub(super) async fn mark(&self, mark: &Mark) -> Result<usize, String> {
        let patch = |pod: &Pod| mark_patch(pod, mark, Timestamp::now());
        self.change(&mark.node, patch).await
    }

    /// Marks those ready again that were marked since the node booted and would be ready. Gives
    /// how many.
    pub(super) async fn restore(&self, node: &str, boot: &str) -> Result<usize, String> {
        let patch = |pod: &Pod| restore_patch(pod, boot, Timestamp::now());
        self.change(node, patch).await
    }

    async fn change(
        &self,
        node: &str,
        patch: impl Fn(&Pod) -> Option<Value>,
    ) -> Result<usize, String> {
        let change = self.change_all(node, patch);
        match tokio::time::timeout(PATIENCE, change).await {
            Ok(result) => result.map_err(|error| explained(&error)),
            Err(_) => Err("the API server did not answer in time".into()),
        }
    }

    async fn change_all(
        &self,
        node: &str,
        patch: impl Fn(&Pod) -> Option<Value>,
    ) -> Result<usize, Error> {
        let all: Api<Pod> = Api::all(self.client.clone());
        // From the API server's cache: a pod that has changed since is refused by its version.
        let params = ListParams::default()
            .fields(&format!("spec.nodeName={node}"))
            .match_any();
        let pods = while_busy(LONGEST_PAUSE, || all.list(&params)).await?;
        let due: Vec<_> = pods
            .items
            .iter()
            .filter_map(|pod| {
                let name = pod.metadata.name.clone()?;
                let namespace = pod.metadata.namespace.clone()?;
                Some((namespace, name, patch(pod)?))
            })
            .collect();
        let writes = stream::iter(due).map(|(namespace, name, patch)| async move {
            if !self.authority.holds() {
                return Ok(0);
            }
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
            let params = PatchParams {
                field_manager: Some(MANAGER_CONTROLLER.into()),
                ..PatchParams::default()
            };
            let patch = Patch::Strategic(patch);
            let write = while_busy(LONGEST_PAUSE, || api.patch_status(&name, &params, &patch));
            match write.await {
                Ok(_) => Ok(1),
                Err(Error::Api(status)) if status.code == 404 => Ok(0),
                Err(error) => Err(error),
            }
        });
        let results: Vec<Result<usize, Error>> =
            writes.buffer_unordered(CONCURRENT).collect().await;
        // One that fails keeps no other from being written; it is tried again with a new list.
        results.into_iter().sum()
    }
}

fn explained(error: &Error) -> String {
    match error {
        Error::Api(status) if status.code == 403 => format!(
            "{}; apply deploy/rbac-early-node-failure.yaml, which grants it",
            status.message
        ),
        other => other.to_string(),
    }
}

/// The condition of a type: its status, and the rest of it.
fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// What makes a ready pod not ready, whatever it belongs to: the pods that Kubernetes would mark
/// (`MarkPodsNotReady`), which are those of DaemonSets, static ones, those on the node's own
/// network and those that are being deleted as well. None for a pod that is not ready.
fn mark_patch(pod: &Pod, mark: &Mark, now: Timestamp) -> Option<Value> {
    let ready = condition(pod, "Ready")?;
    if ready.status != "True" {
        return None;
    }
    let message = format!("{} ({})", mark.why, boot_mark(&mark.boot));
    Some(status_patch(pod, "False", Some((REASON, message)), now))
}

/// What makes a pod ready again that was marked since the node booted, if all that its
/// readiness is made of holds: its containers, and its readiness gates
/// (kubernetes/pkg/kubelet/status/generate.go, `GeneratePodReadyCondition`).
fn restore_patch(pod: &Pod, boot: &str, now: Timestamp) -> Option<Value> {
    let ready = condition(pod, "Ready")?;
    let ours = ready.status == "False" && ready.reason.as_deref() == Some(REASON);
    let message = ready.message.as_deref().unwrap_or_default();
    let same_boot = !boot.is_empty() && message.contains(&boot_mark(boot));
    let gates = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.readiness_gates.as_ref());
    let gates = gates
        .into_iter()
        .flatten()
        .map(|gate| &*gate.condition_type);
    let mut needed = gates.chain(["ContainersReady"]);
    let holds = needed.all(|kind| condition(pod, kind).is_some_and(|c| c.status == "True"));
    (ours && same_boot && holds).then(|| status_patch(pod, "True", None, now))
}

fn boot_mark(boot: &str) -> String {
    format!("boot {boot}")
}

/// A strategic merge patch, void if the pod has changed since it was read.
fn status_patch(pod: &Pod, status: &str, why: Option<(&str, String)>, now: Timestamp) -> Value {
    let (reason, message) = why.unzip();
    json!({
        "metadata": {
            "uid": pod.metadata.uid,
            "resourceVersion": pod.metadata.resource_version,
        },
        "status": { "conditions": [{
            "type": "Ready",
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }]},
    })
}

#[cfg(test)]
mod tests;
