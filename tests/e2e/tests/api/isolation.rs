//! What is wrong with one pool or one Service is nobody else's trouble.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kube::{Kubectl, pool, service};

/// Ranges with addresses that no host has, overlapping ones, within a pool and between pools, and a new controller.
pub(crate) fn bad_pools(cluster: &mut Cluster) -> Result<()> {
    cluster
        .kubectl
        .apply(&pool("a-good", &["192.0.2.0/30", "198.51.100.0/30"]))?;
    cluster.kubectl.apply(&service("before"))?;
    cluster.kubectl.has("before", &["192.0.2.0"])?;
    // Creation times have whole seconds; within one the name would decide.
    std::thread::sleep(Duration::from_millis(1100));
    for (name, addresses) in [
        ("overlaps", &["192.0.2.0/24"][..]),
        ("no-hosts", &["126.0.0.0-128.0.0.0"]),
        ("itself", &["203.0.113.128/30", "203.0.113.130/31"]),
    ] {
        cluster.kubectl.apply(&pool(name, addresses))?;
    }
    let own = "203.0.113.130-203.0.113.131 is out of use: it overlaps 203.0.113.128-203.0.113.131 \
               of this same pool";
    let verdicts = |kubectl: &Kubectl| -> Result<()> {
        kubectl.ready("overlaps", "False", &["pool \"a-good\""])?;
        kubectl.ready("no-hosts", "False", &["contains 127.0.0.0/8, loopback"])?;
        kubectl.ready("itself", "False", &[own])?;
        kubectl.ready("a-good", "True", &[])
    };
    verdicts(&cluster.kubectl)?;
    cluster.kubectl.apply(&service("beside"))?;
    cluster.kubectl.has("beside", &["192.0.2.1"])?;
    cluster.kill_controller();
    cluster.start_controller()?;
    cluster.kubectl.apply(&service("after"))?;
    cluster.kubectl.has("after", &["192.0.2.2"])?;
    verdicts(&cluster.kubectl)?;
    cluster.kubectl.has("before", &["192.0.2.0"])?;
    cluster.kubectl.has("beside", &["192.0.2.1"])?;
    // The rest of a pool that overlaps itself is in use.
    let mut itself = service("itself");
    itself["metadata"]["annotations"] = json!({ "lightship.dev/pool": "itself" });
    cluster.kubectl.apply(&itself)?;
    cluster.kubectl.has("itself", &["203.0.113.128"])
}

/// What must not change when others come and go.
fn versions(kubectl: &Kubectl, names: &[&str], vips: &[&str]) -> Result<Vec<String>> {
    let services = names.iter().map(|name| ["get", "service", name]);
    let vips = vips.iter().map(|name| ["get", "virtualip", name]);
    services
        .chain(vips)
        .map(|arguments| {
            let object = kubectl.json(&arguments)?;
            Ok(format!(
                "{arguments:?} {}",
                object["metadata"]["resourceVersion"]
            ))
        })
        .collect()
}

/// Come, changed and gone again: the others' objects are not written.
pub(crate) fn others_untouched(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/31", "192.0.2.8/32"]))?;
    for name in ["one", "two"] {
        kubectl.apply(&service(name))?;
    }
    kubectl.has("two", &["192.0.2.1"])?;
    kubectl.apply(&service("third"))?;
    kubectl.has("third", &["192.0.2.8"])?;
    kubectl.apply(&service("waits"))?;
    kubectl.assigned("waits", "False", "AllocationFailed", &[])?;
    let before = versions(kubectl, &["one", "two"], &["192.0.2.0", "192.0.2.1"])?;
    kubectl.run(&["label", "service", "third", "round=1"])?;
    kubectl.run(&["delete", "service", "third"])?;
    kubectl.has("waits", &["192.0.2.8"])?;
    kubectl.run(&["delete", "service", "waits"])?;
    kubectl.has_vips(&["192.0.2.0", "192.0.2.1"])?;
    kubectl.wait("the pool counts two", |kubectl| {
        Ok(kubectl.json(&["get", "addresspool", "lan"])?["status"]["ipv4"]["assigned"] == 2)
    })?;
    let after = versions(kubectl, &["one", "two"], &["192.0.2.0", "192.0.2.1"])?;
    ensure!(before == after, "before {before:#?} after {after:#?}");
    Ok(())
}

/// Found with one address at the start, and no VirtualIP that tells whose it is.
pub(crate) fn older_keeps(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    cluster.stop_controller()?;
    let kubectl = &cluster.kubectl;
    // By name the younger would be first.
    kubectl.apply(&service("z-older"))?;
    std::thread::sleep(Duration::from_millis(1100));
    kubectl.apply(&service("a-younger"))?;
    for name in ["z-older", "a-younger"] {
        let status =
            json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.7" }] } } });
        let patch = status.to_string();
        kubectl.run(&[
            "patch",
            "service",
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ])?;
    }
    cluster.start_controller()?;
    let kubectl = &cluster.kubectl;
    kubectl.has("a-younger", &["192.0.2.0"])?;
    kubectl.has("z-older", &["192.0.2.7"])?;
    kubectl.has_vips(&["192.0.2.0", "192.0.2.7"])
}

/// The spec is the controller's alone; nothing that could keep an object from going.
pub(crate) fn ownership(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    kubectl.apply(&service("web"))?;
    kubectl.has("web", &["192.0.2.0"])?;
    let managed = ["get", "virtualip", "192.0.2.0", "--show-managed-fields"];
    let vip = kubectl.json(&managed)?;
    let entries = vip["metadata"]["managedFields"].as_array().cloned();
    let of_spec: Vec<Value> = entries
        .unwrap_or_default()
        .into_iter()
        .filter(|entry| !entry["fieldsV1"]["f:spec"].is_null())
        .map(|entry| entry["manager"].clone())
        .collect();
    ensure!(of_spec == ["lightship-controller"], "{of_spec:?}");
    // What others put beside stays when the spec changes, and it has one manager then, too.
    let note = ["virtualip", "192.0.2.0", "example.com/by=hand"];
    kubectl.run(&[&["label"][..], &note].concat())?;
    kubectl.run(&[&["annotate"][..], &note].concat())?;
    let mut lan = pool("lan", &["192.0.2.0/28"]);
    lan["spec"]["onShrink"] = json!("Reallocate");
    for on_shrink in [json!("Reallocate"), Value::Null] {
        kubectl.apply(&lan)?;
        kubectl.wait("the spec follows", |kubectl| {
            let vip = kubectl.json(&managed)?;
            let meta = &vip["metadata"];
            for kind in ["labels", "annotations"] {
                ensure!(meta[kind]["example.com/by"] == "hand", "{meta}");
            }
            let entries = meta["managedFields"].as_array().cloned();
            let of_spec = entries.unwrap_or_default();
            let of_spec = of_spec
                .iter()
                .filter(|entry| !entry["fieldsV1"]["f:spec"].is_null());
            let of_spec: Vec<_> = of_spec.map(|entry| &entry["manager"]).collect();
            ensure!(of_spec == ["lightship-controller"], "{meta}");
            Ok(vip["spec"]["onShrink"] == on_shrink)
        })?;
        lan["spec"]["onShrink"] = json!("Keep");
    }
    kubectl.wait("the pool's status is applied", |kubectl| {
        let pool = kubectl.json(&["get", "addresspool", "lan", "--show-managed-fields"])?;
        let entries = pool["metadata"]["managedFields"].as_array().cloned();
        let mut entries = entries.unwrap_or_default().into_iter();
        Ok(entries.any(|entry| {
            entry["manager"] == "lightship-controller"
                && entry["operation"] == "Apply"
                && entry["subresource"] == "status"
        }))
    })?;
    for object in [
        vip,
        kubectl.json(&["get", "service", "web"])?,
        kubectl.json(&["get", "addresspool", "lan"])?,
    ] {
        let meta = &object["metadata"];
        ensure!(meta["finalizers"].is_null(), "{meta}");
    }
    Ok(())
}

/// A policy of the cluster's against one VirtualIP: one Service waits and is told, no other.
pub(crate) fn refused_vip(cluster: &mut Cluster) -> Result<()> {
    let group = "admissionregistration.k8s.io/v1";
    let policy = json!({
        "apiVersion": group, "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": "no-such-vip" },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [{
                "apiGroups": ["lightship.dev"], "apiVersions": ["*"],
                "operations": ["CREATE", "UPDATE"], "resources": ["virtualips"],
            }] },
            "validations": [{
                "expression": "object.spec.address != '192.0.2.66'",
                "message": "192.0.2.66 is kept for the printer",
            }],
        },
    });
    let binding = json!({
        "apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": "no-such-vip" },
        "spec": { "policyName": "no-such-vip", "validationActions": ["Deny"] },
    });
    cluster.kubectl.apply(&policy)?;
    cluster.kubectl.apply(&binding)?;
    let outcome = refused_and_told(&cluster.kubectl);
    for kind in [
        "validatingadmissionpolicybinding",
        "validatingadmissionpolicy",
    ] {
        cluster.kubectl.run(&["delete", kind, "no-such-vip"])?;
    }
    outcome
}

fn refused_and_told(kubectl: &Kubectl) -> Result<()> {
    let probe = json!({
        "apiVersion": "lightship.dev/v1beta1", "kind": "VirtualIP",
        "metadata": { "name": "192.0.2.66" },
        "spec": { "address": "192.0.2.66", "pool": "lan", "services": [{ "namespace": "a", "name": "b" }] },
    });
    // The API server takes a moment to heed a new policy.
    kubectl.wait("the policy is heeded", |kubectl| {
        let tried = kubectl.apply_with(&probe, &["--dry-run=server"]);
        Ok(tried.is_err_and(|error| format!("{error:#}").contains("kept for the printer")))
    })?;
    kubectl.apply(&pool("lan", &["192.0.2.66-192.0.2.80"]))?;
    kubectl.apply(&service("unlucky"))?;
    let said = ["192.0.2.66 is kept for the printer"];
    kubectl.assigned("unlucky", "False", "VirtualIPRefused", &said)?;
    kubectl.told("unlucky", &["Warning VirtualIPRefused", said[0]])?;
    ensure!(kubectl.ingress("unlucky")?.is_empty());
    for (name, address) in [("next", "192.0.2.67"), ("third", "192.0.2.68")] {
        kubectl.apply(&service(name))?;
        kubectl.has(name, &[address])?;
    }
    // A way out: another address.
    kubectl.run(&[
        "annotate",
        "service",
        "unlucky",
        "lightship.dev/addresses=192.0.2.70",
    ])?;
    kubectl.has("unlucky", &["192.0.2.70"])?;
    kubectl.has_vips(&["192.0.2.67", "192.0.2.68", "192.0.2.70"])
}
