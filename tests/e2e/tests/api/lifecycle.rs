//! Release, adoption, and whatever else may happen to objects, the controller and the API server.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kube::{Kubectl, annotated, pool, service};

/// The VirtualIP goes with the Service.
pub(crate) fn deletion(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    kubectl.apply(&service("web"))?;
    kubectl.has_vips(&["192.0.2.0"])?;
    kubectl.run(&["delete", "service", "web"])?;
    kubectl.has_vips(&[])?;
    kubectl.wait("the pool is free again", |kubectl| {
        let pool = kubectl.json(&["get", "addresspool", "lan"])?;
        let ipv4 = &pool["status"]["ipv4"];
        Ok(ipv4["assigned"] == 0 && ipv4["available"] == 16)
    })
}

/// To ClusterIP and back.
pub(crate) fn type_change(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    kubectl.apply(&service("web"))?;
    kubectl.has("web", &["192.0.2.0"])?;
    kubectl.run(&[
        "patch",
        "service",
        "web",
        "-p",
        r#"{"spec":{"type":"ClusterIP"}}"#,
    ])?;
    kubectl.has_vips(&[])?;
    kubectl.has("web", &[])?;
    kubectl.told("web", &["Normal AddressReleased: released 192.0.2.0"])?;
    kubectl.run(&[
        "patch",
        "service",
        "web",
        "-p",
        r#"{"spec":{"type":"LoadBalancer"}}"#,
    ])?;
    kubectl.has("web", &["192.0.2.0"])
}

fn forge(kubectl: &Kubectl, service: &str, ingress: &Value) -> Result<()> {
    let patch = json!({ "status": { "loadBalancer": { "ingress": ingress } } }).to_string();
    let arguments = [
        "patch",
        "service",
        service,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    kubectl.run(&arguments).map(|_| ())
}

/// Status, VirtualIP and pool status.
pub(crate) fn forged(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    kubectl.apply(&service("web"))?;
    kubectl.has("web", &["192.0.2.0"])?;
    for ingress in [
        json!(null),
        json!([{ "ip": "192.0.2.9" }]),
        json!([{ "hostname": "example.com" }]),
    ] {
        forge(kubectl, "web", &ingress)?;
        kubectl.has("web", &["192.0.2.0"])?;
    }
    kubectl.run(&["delete", "virtualip", "192.0.2.0"])?;
    kubectl.has_vips(&["192.0.2.0"])?;
    kubectl.run(&[
        "patch",
        "virtualip",
        "192.0.2.0",
        "--type=merge",
        "-p",
        r#"{"spec":{"pool":"x"}}"#,
    ])?;
    kubectl.wait("the VirtualIP is restored", |kubectl| {
        Ok(kubectl.json(&["get", "virtualip", "192.0.2.0"])?["spec"]["pool"] == "lan")
    })?;
    let stray = json!({
        "apiVersion": "lightship.dev/v1beta1", "kind": "VirtualIP", "metadata": { "name": "stray" },
        "spec": { "address": "192.0.2.5", "pool": "lan", "services": [{ "namespace": "a", "name": "b" }] },
    });
    kubectl.apply(&stray)?;
    kubectl.has_vips(&["192.0.2.0"])?;
    let patch = r#"{"status":{"ipv4":{"assigned":7}}}"#;
    kubectl.run(&[
        "patch",
        "addresspool",
        "lan",
        "--subresource=status",
        "--type=merge",
        "-p",
        patch,
    ])?;
    kubectl.wait("the pool's status is restored", |kubectl| {
        Ok(kubectl.json(&["get", "addresspool", "lan"])?["status"]["ipv4"]["assigned"] == 1)
    })?;
    // Others' addresses are others' business.
    kubectl.apply(&annotated("theirs", "lightship.dev/pool", "theirs"))?;
    forge(kubectl, "theirs", &json!([{ "ip": "203.0.113.222" }]))?;
    kubectl.apply(&service("later"))?;
    kubectl.has("later", &["192.0.2.1"])?;
    kubectl.has("theirs", &["203.0.113.222"])
}

/// Changes that do not concern the address are passed over in silence.
pub(crate) fn quiet(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/32"]))?;
    kubectl.apply(&service("web"))?;
    kubectl.has("web", &["192.0.2.0"])?;
    kubectl.apply(&service("waits"))?;
    kubectl.told("waits", &["AllocationFailed"])?;
    for round in 0..5 {
        let label = format!("round={round}");
        for name in ["web", "waits"] {
            kubectl.run(&["label", "service", name, "--overwrite", &label])?;
        }
        kubectl.run(&["label", "addresspool", "lan", "--overwrite", &label])?;
    }
    // A last change that is told: whatever was said before it has been said by then.
    kubectl.run(&["delete", "service", "web"])?;
    kubectl.has("waits", &["192.0.2.0"])?;
    kubectl.told("waits", &["IPAllocated"])?;
    let (web, waits) = (kubectl.events("web")?, kubectl.events("waits")?);
    ensure!(web.len() == 1 && waits.len() == 2, "{web:#?} {waits:#?}");
    Ok(())
}

/// Everything there is that the controller writes.
fn versions(kubectl: &Kubectl) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for kind in ["services", "virtualips", "addresspools"] {
        for item in kubectl.items(&["get", kind])? {
            let meta = &item["metadata"];
            all.push(format!(
                "{kind}/{} {}",
                meta["name"], meta["resourceVersion"]
            ));
        }
    }
    Ok(all)
}

/// SIGKILL and start: not one write, not one event.
pub(crate) fn adoption(cluster: &mut Cluster) -> Result<()> {
    cluster
        .kubectl
        .apply(&pool("lan", &["192.0.2.0/28", "2001:db8::/64"]))?;
    for name in ["a", "b", "c"] {
        cluster.kubectl.apply(&service(name))?;
    }
    cluster.kubectl.has("c", &["192.0.2.2"])?;
    // So that lowest-free-first would give others than adopted.
    cluster.kubectl.run(&["delete", "service", "a"])?;
    cluster.kubectl.has_vips(&["192.0.2.1", "192.0.2.2"])?;
    cluster.kubectl.wait("the pool counts two", |kubectl| {
        Ok(kubectl.json(&["get", "addresspool", "lan"])?["status"]["ipv4"]["assigned"] == 2)
    })?;
    let before = versions(&cluster.kubectl)?;
    let events = cluster
        .kubectl
        .items(&["get", "events.events.k8s.io"])?
        .len();
    cluster.kill_controller();
    cluster.start_controller()?;
    // Longer than a pool's status may wait for its pace.
    std::thread::sleep(Duration::from_millis(1500));
    let ready = versions(&cluster.kubectl)?;
    ensure!(ready == before, "written on start: {before:?} {ready:?}");
    cluster.kubectl.apply(&service("d"))?;
    cluster.kubectl.has("d", &["192.0.2.0"])?;
    let after = versions(&cluster.kubectl)?;
    let gone: Vec<_> = before
        .iter()
        .filter(|was| !after.contains(was) && !was.starts_with("addresspools"))
        .collect();
    ensure!(gone.is_empty(), "written on restart: {gone:?}");
    cluster.kubectl.told("d", &["IPAllocated"])?;
    let told = cluster
        .kubectl
        .items(&["get", "events.events.k8s.io"])?
        .len();
    ensure!(told == events + 1, "{events} events before, {told} after");
    Ok(())
}

/// Services deleted, created, changed and emptied unseen.
pub(crate) fn while_down(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    for (name, address) in [
        ("deleted", "192.0.2.0"),
        ("retyped", "192.0.2.1"),
        ("emptied", "192.0.2.2"),
        ("kept", "192.0.2.3"),
    ] {
        cluster.kubectl.apply(&service(name))?;
        cluster.kubectl.has(name, &[address])?;
    }
    cluster
        .kubectl
        .has_vips(&["192.0.2.0", "192.0.2.1", "192.0.2.2", "192.0.2.3"])?;
    cluster.kill_controller();
    let kubectl = &cluster.kubectl;
    kubectl.run(&["delete", "service", "deleted"])?;
    kubectl.run(&[
        "patch",
        "service",
        "retyped",
        "-p",
        r#"{"spec":{"type":"ClusterIP"}}"#,
    ])?;
    forge(kubectl, "emptied", &json!(null))?;
    kubectl.run(&["delete", "virtualip", "192.0.2.3"])?;
    kubectl.apply(&service("new"))?;
    cluster.start_controller()?;
    let kubectl = &cluster.kubectl;
    kubectl.has("emptied", &["192.0.2.2"])?;
    kubectl.has("kept", &["192.0.2.3"])?;
    kubectl.has("retyped", &[])?;
    kubectl.has("new", &["192.0.2.0"])?;
    kubectl.has_vips(&["192.0.2.0", "192.0.2.2", "192.0.2.3"])
}

/// The controller finds its way back by itself and keeps what it gave.
pub(crate) fn api_restart(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    cluster.kubectl.apply(&service("web"))?;
    cluster.kubectl.has("web", &["192.0.2.0"])?;
    cluster.restart_api()?;
    let start = Instant::now();
    cluster.kubectl.apply(&service("next"))?;
    cluster.kubectl.has("next", &["192.0.2.1"])?;
    eprintln!(
        "    served {} ms after the API server was back",
        start.elapsed().as_millis()
    );
    cluster.kubectl.has("web", &["192.0.2.0"])
}

/// All get different addresses, and the pool counts them.
pub(crate) fn burst(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["198.51.100.0/24"]))?;
    let items: Vec<_> = (0..100).map(|n| service(&format!("s{n}"))).collect();
    let start = Instant::now();
    kubectl.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))?;
    let created = start.elapsed();
    kubectl.wait("all have an address", |kubectl| {
        let services = kubectl.items(&["get", "services"])?;
        let addresses: std::collections::BTreeSet<_> = services
            .iter()
            .filter_map(|service| service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str())
            .collect();
        Ok(addresses.len() == 100)
    })?;
    let assigned = start.elapsed();
    eprintln!(
        "    100 Services created in {} ms, all addressed after {} ms",
        created.as_millis(),
        assigned.as_millis()
    );
    ensure!(assigned < created + Duration::from_secs(3), "{assigned:?}");
    kubectl.wait("the pool counts them", |kubectl| {
        Ok(kubectl.json(&["get", "addresspool", "lan"])?["status"]["ipv4"]["assigned"] == 100)
    })?;
    ensure!(kubectl.vips()?.len() == 100);
    Ok(())
}
