//! What `deploy/` installs.

use anyhow::{Context, Result, ensure};
use lightship_lab::binaries;
use serde_json::{Value, json};

use crate::cluster::{Cluster, SYSTEM};

/// The workloads are accepted, and the roles grant what is needed and no more.
pub(crate) fn roles(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.run(&["get", "deployment", "lightship-controller", "-n", SYSTEM])?;
    kubectl.run(&["get", "daemonset", "lightship-speaker", "-n", SYSTEM])?;
    let key = "secret/lightship-heartbeat";
    for (account, verb, what, namespace, expected) in [
        ("controller", "patch", "services/status", "default", true),
        ("controller", "delete", "virtualips", "default", true),
        ("controller", "get", key, SYSTEM, true),
        ("controller", "create", "secrets", SYSTEM, true),
        ("controller", "create", "secrets", "default", false),
        ("controller", "get", "secret/other", SYSTEM, false),
        ("controller", "list", "secrets", SYSTEM, false),
        ("controller", "update", "services", "default", false),
        ("controller", "patch", "services", "default", false),
        ("controller", "delete", "addresspools", "default", false),
        ("controller", "patch", "addresspools", "default", false),
        ("controller", "patch", "virtualips/status", "default", false),
        ("controller", "list", "pods", "default", false),
        ("controller", "create", "leases", SYSTEM, true),
        ("controller", "create", "leases", "default", false),
        (
            "controller",
            "patch",
            "lease/lightship-controller",
            SYSTEM,
            true,
        ),
        ("controller", "patch", "lease/other", SYSTEM, false),
        ("controller", "watch", "nodes", "default", true),
        ("controller", "patch", "nodes", "default", false),
        ("controller", "watch", "speakers", "default", true),
        ("speaker", "patch", "virtualips/status", "default", true),
        ("speaker", "patch", "speakers/status", "default", true),
        ("speaker", "create", "speakers", "default", true),
        ("speaker", "delete", "speakers", "default", false),
        ("controller", "patch", "speakers", "default", false),
        ("controller", "patch", "speakers/status", "default", false),
        (
            "speaker",
            "watch",
            "endpointslices.discovery.k8s.io",
            "default",
            true,
        ),
        ("speaker", "watch", "nodes", "default", true),
        ("speaker", "watch", key, SYSTEM, true),
        // It says on the VirtualIP when another machine answers for the address.
        ("speaker", "create", "events.events.k8s.io", "default", true),
        ("speaker", "list", "events.events.k8s.io", "default", false),
        ("speaker", "get", "secret/other", SYSTEM, false),
        ("speaker", "create", "secrets", SYSTEM, false),
        ("speaker", "patch", "virtualips", "default", false),
        ("speaker", "delete", "virtualips", "default", false),
        ("speaker", "patch", "services/status", "default", false),
        ("speaker", "patch", "nodes", "default", false),
    ] {
        let user = format!("--as=system:serviceaccount:{SYSTEM}:lightship-{account}");
        // Refused means exit code 1, so the answer is read from either.
        let mut arguments = vec!["auth", "can-i", verb, what, "-n", namespace, &user];
        if let Some(resource) = what.strip_suffix("/status") {
            // To kubectl, services/status is the Service named status.
            arguments[3] = resource;
            arguments.push("--subresource=status");
        }
        let answer = kubectl.run(&arguments);
        ensure!(
            answer.is_ok() == expected,
            "may {account} {verb} {what} in {namespace}? {}",
            answer.unwrap_or_else(|error| format!("{error:#}"))
        );
    }
    Ok(())
}

/// What cleans the nodes after Lightship was deleted is accepted too.
pub(crate) fn cleanup(cluster: &mut Cluster) -> Result<()> {
    let file = binaries::checkout().join("deploy/cleanup.yaml");
    let file = file.to_str().context("a strange path")?;
    let kubectl = &cluster.kubectl;
    // The namespace of the test cluster is in use.
    kubectl.run(&["apply", "--dry-run=server", "-f", file])?;
    Ok(())
}

/// The rights for the early word of a dead node, which are installed on request, and what they
/// still do not allow.
pub(crate) fn early_rights(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let file = binaries::checkout().join("deploy/rbac-early-node-failure.yaml");
    let file = file.to_str().context("a strange path")?;
    kubectl.run(&["apply", "-f", file])?;
    let user = format!("--as=system:serviceaccount:{SYSTEM}:lightship-controller");
    let may = |verb: &str, what: &str, sub: &str, namespace: &str| {
        let sub = format!("--subresource={sub}");
        let arguments = ["auth", "can-i", verb, what, &sub, "-n", namespace, &user];
        kubectl.run(&arguments).is_ok()
    };
    let mut wrong = Vec::new();
    for (verb, what, sub, namespace, expected) in [
        ("list", "pods", "", "default", true),
        ("patch", "pods", "status", "default", true),
        ("list", "leases", "", "kube-node-lease", true),
        ("watch", "leases", "", "kube-node-lease", true),
        ("patch", "pods", "", "default", false),
        ("delete", "pods", "", "default", false),
        ("create", "pods", "eviction", "default", false),
        ("list", "leases", "", "default", false),
        ("patch", "leases", "", "kube-node-lease", false),
        ("patch", "nodes", "status", "default", false),
    ] {
        if may(verb, what, sub, namespace) != expected {
            wrong.push(format!("{verb} {what}/{sub} in {namespace}"));
        }
    }
    kubectl.run(&["delete", "-f", file])?;
    if may("list", "pods", "", "default") {
        wrong.push("list pods after the rights were taken away".into());
    }
    ensure!(wrong.is_empty(), "not as it should be: {wrong:?}");
    Ok(())
}

/// 32 random bytes, which a restart leaves as they are; made anew if they are deleted, and what
/// somebody else put there stays.
pub(crate) fn heartbeat_key(cluster: &mut Cluster) -> Result<()> {
    let read = |cluster: &Cluster| -> Result<Value> {
        cluster
            .kubectl
            .json(&["get", "secret", "lightship-heartbeat", "-n", SYSTEM])
    };
    cluster.kubectl.wait("the Secret is there", |kubectl| {
        Ok(kubectl
            .run(&["get", "secret", "lightship-heartbeat", "-n", SYSTEM])
            .is_ok())
    })?;
    let before = read(cluster)?;
    let key = before["data"]["key"].as_str().unwrap_or_default();
    // 32 bytes are 44 characters in base64, the last of them padding.
    ensure!(key.len() == 44 && key.ends_with('='), "key: {key}");
    cluster.kill_controller();
    cluster.start_controller()?;
    ensure!(before == read(cluster)?, "a restart changed the Secret");
    let secret = ["secret", "lightship-heartbeat", "-n", SYSTEM];
    cluster.kubectl.run(&[&["delete"][..], &secret].concat())?;
    cluster.kubectl.wait("another key is made", |kubectl| {
        let found = kubectl.json(&[&["get"][..], &secret].concat());
        Ok(found.is_ok_and(|found| found["data"]["key"] != before["data"]["key"]))
    })?;
    let patch = json!({ "stringData": { "key": "made by hand, and long enough" } });
    let patch = ["-p", &patch.to_string()];
    cluster
        .kubectl
        .run(&[&["patch"][..], &secret, &patch].concat())?;
    let by_hand = read(cluster)?;
    std::thread::sleep(std::time::Duration::from_secs(12));
    ensure!(by_hand == read(cluster)?, "a live key was changed");
    Ok(())
}

/// The samples are valid and do what they say.
pub(crate) fn samples(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let folder = binaries::checkout().join("deploy/samples");
    for file in ["pool.yaml", "service.yaml"] {
        kubectl.run(&["apply", "-f", &folder.join(file).display().to_string()])?;
    }
    kubectl.ready("lan", "True", &[])?;
    kubectl.has("web", &["192.0.2.200", "2001:db8:2::200"])
}

/// A speaker's account can write what a speaker writes, and `kubectl get speakers` shows it.
pub(crate) fn speaker_object(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let account = format!("--as=system:serviceaccount:{SYSTEM}:lightship-speaker");
    let head = json!({
        "apiVersion": "lightship.dev/v1beta1", "kind": "Speaker",
        "metadata": { "name": "node1" },
    });
    let with = |field: &str, value: Value| {
        let mut object = head.clone();
        object[field] = value;
        object
    };
    let status = |mode: &str| {
        json!({
            "mode": mode, "modeReason": "the kernel lacks IPVS", "vips": 2,
            "uplinks": [{
                "interface": "eth0", "mac": "02:1a:b0:00:00:01",
                "addresses": ["192.0.2.11/24", "2001:db8:2::11/64"],
                "gateways": ["192.0.2.1", "fe80::1"],
            }],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Running", "message": "fine",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        })
    };
    let write = |object: &Value, more: &[&str]| {
        let arguments = [&[&account, "--field-manager=lightship-speaker"], more].concat();
        kubectl.apply_with(object, &arguments)
    };
    write(&with("spec", json!({})), &[])?;
    write(
        &with("status", status("Announce")),
        &["--subresource=status"],
    )?;
    let text = kubectl.run(&["get", "speakers", "--no-headers"])?;
    let columns: Vec<_> = text.split_whitespace().collect();
    ensure!(
        columns[..6] == ["node1", "Announce", "eth0", "2", "True", "Running"],
        "{text}"
    );
    let refused = write(&with("status", status("Magic")), &["--subresource=status"]);
    let refused = refused.map_or_else(|error| format!("{error:#}"), |()| "accepted".into());
    ensure!(refused.contains("Unsupported value"), "{refused}");
    kubectl.run(&["delete", "speaker", "node1"]).map(drop)
}

/// Nothing that the controller did in all the tests before was forbidden. An API server that has
/// just started forbids everything for a moment, so this comes before its restart.
pub(crate) fn nothing_forbidden(cluster: &mut Cluster) -> Result<()> {
    let log = cluster.controller_log();
    ensure!(log.contains(" ready "), "there is no log");
    let bad: Vec<_> = log
        .lines()
        .filter(|line| line.to_lowercase().contains("forbidden"))
        .collect();
    ensure!(bad.is_empty(), "{}", bad.join("\n"));
    Ok(())
}
