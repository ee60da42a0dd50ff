//! The `Speaker` objects: one per node, true, quiet, and put back when somebody meddles.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lightship_e2e::scene::Wish;
use lightship_e2e::{object, probe, timeline, vip};
use lightship_lab::{How, Lab, sh};
use serde_json::{Value, json};

use crate::common::{Served, moved_from};
use crate::modes::kernel_directs;

/// How long a report may take: it waits for the rest of a flock of changes first.
const SOON: Duration = Duration::from_secs(15);

/// What a person can do where the kernel has no IPVS.
const LOAD: &str = "load it by: modprobe -a ip_vs ip_vs_mh; then restart this node's speaker";

fn get(lab: &Lab, node: &str) -> Result<Value> {
    lab.kubectl_json(&["get", "speaker", node])
}

fn ready(speaker: &Value) -> Option<(&str, &str)> {
    let ready = object::condition(speaker, "Ready")?;
    Some((ready.status, ready.reason))
}

/// Waits until the object is there and as `wanted` says.
pub(crate) fn wait(
    lab: &Lab,
    node: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    object::wait(lab, ("speaker", node), what, SOON, wanted)
}

fn is_running(speaker: &Value) -> bool {
    ready(speaker) == Some(("True", "Running"))
}

fn addresses(speaker: &Value) -> Vec<&str> {
    let list = speaker["status"]["uplinks"][0]["addresses"].as_array();
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

pub(crate) fn on_node(lab: &Lab, node: &str, argv: &[&str]) -> Result<()> {
    let output = lab.exec(node, argv)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} on {node}: {}", argv.join(" "), said.trim());
    }
    Ok(())
}

/// Each node's object says how it forwards, why, and what is on its uplink.
pub(crate) fn true_to_the_node(lab: &mut Lab) -> Result<()> {
    let mode = if kernel_directs() {
        "DirectRouting"
    } else {
        "Announce"
    };
    for node in &lab.state().nodes {
        let name = &node.spec.name;
        let speaker = wait(lab, name, "is ready", is_running)?;
        let status = &speaker["status"];
        ensure!(status["mode"] == mode, "{name}: {status:#}");
        let reason = status["modeReason"].as_str().unwrap_or_default();
        ensure!(reason.contains("IPVS"), "{name}: {status:#}");
        ensure!(
            kernel_directs() || reason.contains(LOAD),
            "{name} does not say how to load what it lacks: {status:#}"
        );
        let uplink = &status["uplinks"][0];
        ensure!(uplink["interface"] == "eth0", "{name}: {uplink:#}");
        ensure!(uplink["mac"] == node.spec.mac, "{name}: {uplink:#}");
        let wanted: Vec<String> = node
            .spec
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        ensure!(addresses(&speaker) == wanted, "{name}: {uplink:#}");
        ensure!(
            uplink["gateways"][0] == "192.0.2.1",
            "{name}'s router is missing: {uplink:#}"
        );
        let object = lab.kubectl_json(&["get", "node", name])?;
        let owner = &speaker["metadata"]["ownerReferences"][0];
        ensure!(owner["kind"] == "Node", "{name}: {owner:#}");
        ensure!(
            owner["uid"] == object["metadata"]["uid"],
            "{name}: {owner:#} is not its Node"
        );
        ensure!(owner["blockOwnerDeletion"] == false, "{name}: {owner:#}");
    }
    for line in lab.kubectl(&["get", "speakers", "-o", "wide"])?.lines() {
        eprintln!("    {line}");
    }
    Ok(())
}

/// kube-proxy in ipvs mode without strictARP would have every node answer for every VIP: that is
/// seen by what it makes on the host (nobody else makes a link of that name), and said.
pub(crate) fn strict_arp(lab: &mut Lab) -> Result<()> {
    let node = lab.node_names().remove(0);
    wait(lab, &node, "is ready", is_running)?;
    // kube-proxy makes a dummy; any kind will do, and not every kernel has that one.
    let add = ["ip", "link", "add", "kube-ipvs0", "type", "bridge"];
    on_node(lab, &node, &add)?;
    let told = wait(lab, &node, "warns", |speaker| {
        ready(speaker) == Some(("False", "StrictARPOff"))
    });
    let ignore = |value: &str| {
        let line = format!("echo {value} > /proc/sys/net/ipv4/conf/all/arp_ignore");
        on_node(lab, &node, &["sh", "-c", &line])
    };
    let mended = ignore("1").and_then(|()| wait(lab, &node, "is content", is_running));
    ignore("0")?;
    on_node(lab, &node, &["ip", "link", "del", "kube-ipvs0"])?;
    told?;
    mended?;
    Ok(())
}

/// What did not change is not written; what did is, also after an outage of the API server;
/// what somebody else changes is put back.
pub(crate) fn kept_up(lab: &mut Lab) -> Result<()> {
    let node = lab.node_names().remove(0);
    let before = wait(lab, &node, "is ready", is_running)?;

    // A speaker that was killed finds its object right.
    let killed = probe::now_ns();
    lab.fail(&node, How::KillSpeaker)?;
    timeline::wait_line(lab, &node, killed, &["speaker starts"], SOON)?;
    thread::sleep(Duration::from_secs(4));
    let after = get(lab, &node)?;
    ensure!(
        after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"],
        "written although nothing changed:\n{before:#}\n{after:#}"
    );

    lab.kubectl(&["delete", "speaker", &node])?;
    let uid = &before["metadata"]["uid"];
    wait(lab, &node, "is made again", |speaker| {
        speaker["metadata"]["uid"] != *uid && is_running(speaker)
    })?;
    let forged = r#"{"status":{"mode":"Announce","modeReason":"forged","vips":77}}"#;
    let patch = [
        "patch",
        "speaker",
        &node,
        "--subresource=status",
        "--type=merge",
        "-p",
        forged,
    ];
    lab.kubectl(&patch)?;
    wait(lab, &node, "is put right", |speaker| {
        let status = &speaker["status"];
        status["vips"] != 77 && status["modeReason"] != "forged"
    })?;

    // An address that comes while there is no API server.
    lab.stop_api()?;
    let extra = "192.0.2.77/24";
    on_node(lab, &node, &["ip", "address", "add", extra, "dev", "eth0"])?;
    let told = lab.start_api().and_then(|()| {
        wait(lab, &node, &format!("has {extra}"), |speaker| {
            addresses(speaker).contains(&extra)
        })
    });
    on_node(lab, &node, &["ip", "address", "del", extra, "dev", "eth0"])?;
    told?;
    wait(lab, &node, &format!("has no {extra}"), |speaker| {
        !addresses(speaker).contains(&extra)
    })?;

    lab.fail(&node, How::StopSpeaker)?;
    let stopped = wait(lab, &node, "says that it stopped", |speaker| {
        ready(speaker) == Some(("False", "Stopped"))
    })?;
    let vips = stopped["status"]["vips"].as_i64();
    lab.heal(&node)?;
    wait(lab, &node, "is back", is_running).context(format!("VIPs when it stopped: {vips:?}"))?;
    Ok(())
}

/// The spec of a VirtualIP is the controller's and its status the speakers', each under one name that
/// stays the same when the owner changes; what others put beside is left alone.
pub(crate) fn managers(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("managers"), |lab, vips| {
        let name = vip::name(lab, vips[0])?;
        lab.kubectl(&["label", "virtualip", &name, "example.com/by=hand"])?;
        let theirs = json!([{
            "type": "example.com/Theirs", "status": "True", "reason": "Theirs", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]);
        let object = json!({
            "apiVersion": "lightship.dev/v1beta1", "kind": "VirtualIP",
            "metadata": { "name": name }, "status": { "conditions": theirs },
        });
        let mut apply = lab.kubectl_command(&["apply", "--server-side", "--subresource=status"]);
        apply.args(["--field-manager=example.com", "-f", "-"]);
        sh::run_with_input(apply, Some(&object.to_string()))?;
        let before = vip::owner(lab, vips[0])?;
        let mut others = lab.node_names().into_iter().filter(|node| *node != before);
        let other = others.next().context("one node only")?;
        vip::move_to(lab, vips[0], &other)?;
        moved_from(lab, vips[0], &before)?;
        let wanted = [
            ("lightship-controller", "Update", None, "f:spec"),
            ("lightship-speaker", "Apply", Some("status"), "f:status"),
        ];
        sh::wait_for("the managers", SOON, Duration::from_millis(500), || {
            let get = ["get", "virtualip", &name, "--show-managed-fields"];
            let object = lab.kubectl_json(&get)?;
            let meta = &object["metadata"];
            ensure!(meta["labels"]["example.com/by"] == "hand", "{meta:#}");
            let conditions = object["status"]["conditions"].to_string();
            ensure!(conditions.contains("example.com/Theirs"), "{conditions}");
            if object["status"]["owner"] != other.as_str() {
                return Ok(None);
            }
            let entries = meta["managedFields"].as_array().context("no managers")?;
            let ours = entries.iter().filter_map(|entry| {
                let manager = entry["manager"].as_str()?;
                let fields = entry["fieldsV1"].as_object()?;
                let kinds = fields.keys().filter(|field| *field != "f:metadata");
                let mut kinds = kinds.map(String::as_str);
                let field = kinds.next()?;
                let (operation, part) = (entry["operation"].as_str()?, &entry["subresource"]);
                (manager != "example.com").then_some((manager, operation, part.as_str(), field))
            });
            let mut ours: Vec<_> = ours.collect();
            ours.sort_unstable();
            ensure!(ours == wanted, "{ours:?} in {meta:#}");
            Ok(Some(()))
        })
    })
}
