//! The node's Lease and its Ready condition: what the node-lifecycle controller
//! watches. When the node dies they stop, and 40 s later it is marked Unknown.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::{Node, status};

/// As a kubelet does (`nodeLeaseDurationSeconds` 40, renewed at a quarter of it).
const EVERY: Duration = Duration::from_secs(10);

/// Pause after a failure: soon, for the API server may just be starting.
const RETRY: Duration = Duration::from_millis(500);

const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: u32 = 40;

/// Beats until the process ends.
pub(super) async fn run(node: Arc<Node>) {
    loop {
        let pause = match beat(&node).await {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::warn!("heartbeat: {error:#}");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn beat(node: &Node) -> Result<()> {
    renew_lease(node).await.context("Lease")?;
    let nodes: Api<v1::Node> = Api::all(node.client.clone());
    let name = &node.config.node_name;
    let current = nodes.get(name).await.context("reading the Node")?;
    if !status::node_is_current(&current, &node.config) {
        let patch = status::node_patch(&node.config, status::now());
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .context("writing the Node's status")?;
        tracing::info!("posted Ready");
    }
    Ok(())
}

async fn renew_lease(node: &Node) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(node.client.clone(), LEASE_NAMESPACE);
    let name = &node.config.node_name;
    let renewal = json!({ "spec": {
        "holderIdentity": name,
        "leaseDurationSeconds": LEASE_SECONDS,
        "renewTime": status::now_micro(),
    }});
    let params = PatchParams::default();
    match leases.patch(name, &params, &Patch::Merge(&renewal)).await {
        Err(kube::Error::Api(error)) if error.code == 404 => {
            let mut lease = renewal;
            lease["metadata"] = json!({ "name": name });
            let lease = serde_json::from_value(lease)?;
            leases.create(&PostParams::default(), &lease).await?;
        }
        other => {
            other?;
        }
    }
    Ok(())
}
