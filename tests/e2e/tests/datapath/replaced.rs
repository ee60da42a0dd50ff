//! A node on which kube-proxy is said to be replaced by Cilium.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::{object, scene};
use lightship_lab::{How, Lab};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);

/// What Cilium leaves on a node and in its configuration; not Cilium itself.
pub(crate) fn cilium(lab: &mut Lab) -> Result<()> {
    let node = lab.node_names().into_iter().next().context("no node")?;
    let outcome = marks(lab, &node);
    let unlinked = lab.shell(&node, "ip link del cilium_host 2>/dev/null; true");
    let map = ["-n", "kube-system", "configmap", "cilium-config"];
    let deleted = lab.kubectl(&[&["delete", "--ignore-not-found"], &map[..]].concat());
    let killed = lab.fail(&node, How::KillSpeaker);
    let back = mode(lab, &node, "DirectRouting");
    let steps = [
        unlinked.map(drop),
        deleted.map(drop),
        killed,
        back.map(drop),
    ];
    scene::cleared(outcome, steps)
}

fn marks(lab: &mut Lab, node: &str) -> Result<()> {
    lab.shell(
        node,
        "ip link add cilium_host type veth peer name cilium_net",
    )?;
    for (replacement, wanted) in [("false", "DirectRouting"), ("true", "Announce")] {
        let config = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": "cilium-config", "namespace": "kube-system" },
            "data": { "kube-proxy-replacement": replacement },
        });
        lab.apply(&config.to_string())?;
        lab.fail(node, How::KillSpeaker)?;
        // It says what it said before until it has started.
        std::thread::sleep(Duration::from_secs(3));
        let said = mode(lab, node, wanted)?;
        eprintln!("    {replacement}: {wanted}, {said}");
        ensure!(said.contains("Cilium") == (wanted == "Announce"), "{said}");
    }
    Ok(())
}

/// Waits until a node's object says this mode, and gives the reason.
fn mode(lab: &Lab, node: &str, wanted: &str) -> Result<String> {
    let what = format!("says {wanted}");
    let found = object::wait(lab, ("speaker", node), &what, SOON, |speaker| {
        speaker["status"]["mode"] == wanted
    })?;
    let reason = found["status"]["modeReason"].as_str();
    Ok(reason.unwrap_or_default().to_owned())
}
