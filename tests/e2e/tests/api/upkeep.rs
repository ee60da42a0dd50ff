//! What becomes of addresses over time: rests, pools that change, and the LAN's own addresses.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::kube::{annotated, pool, service};

/// Counted, yielding when nothing else is left, and not forgotten by a restart.
pub(crate) fn reuse_delay(cluster: &mut Cluster) -> Result<()> {
    let mut lan = pool("lan", &["192.0.2.1-192.0.2.2"]);
    lan["spec"]["reuseDelaySeconds"] = json!(600);
    cluster.kubectl.apply(&lan)?;
    cluster.kubectl.apply(&service("first"))?;
    cluster.kubectl.has("first", &["192.0.2.1"])?;
    cluster.kubectl.run(&["delete", "service", "first"])?;
    cluster.kubectl.wait("the address rests", |kubectl| {
        let status = kubectl.json(&["get", "addresspool", "lan"])?["status"].clone();
        Ok(status["ipv4"]["quarantined"] == 1
            && status["ipv4"]["available"] == 2
            && status["resting"][0]["service"] == "default/first")
    })?;
    cluster.kill_controller();
    cluster.start_controller()?;
    cluster.kubectl.apply(&service("second"))?;
    cluster.kubectl.has("second", &["192.0.2.2"])?;
    cluster.kubectl.apply(&service("third"))?;
    cluster.kubectl.has("third", &["192.0.2.1"])?;
    // A short rest ends by itself.
    cluster.kubectl.run(&["delete", "service", "third"])?;
    lan["spec"]["reuseDelaySeconds"] = json!(1);
    cluster.kubectl.apply(&lan)?;
    cluster.kubectl.run(&["delete", "service", "second"])?;
    std::thread::sleep(Duration::from_millis(1500));
    cluster.kubectl.wait("the short rest is over", |kubectl| {
        let status = kubectl.json(&["get", "addresspool", "lan"])?["status"].clone();
        Ok(status["ipv4"]["quarantined"] == 1)
    })
}

/// A Service that is deleted and created again gets its address again.
pub(crate) fn by_name(cluster: &mut Cluster) -> Result<()> {
    let mut lan = pool("lan", &["192.0.2.0/24"]);
    lan["spec"]["allocationOrder"] = json!("ByServiceName");
    lan["spec"]["reuseDelaySeconds"] = json!(60);
    cluster.kubectl.apply(&lan)?;
    for name in ["a", "b", "c"] {
        cluster.kubectl.apply(&service(name))?;
    }
    let mut before = String::new();
    cluster.kubectl.wait("b has an address", |kubectl| {
        Ok(kubectl.ingress("b")?.len() == 1)
    })?;
    before.push_str(&cluster.kubectl.ingress("b")?[0]);
    cluster.kubectl.run(&["delete", "service", "b"])?;
    cluster.kubectl.apply(&service("d"))?;
    cluster.kill_controller();
    cluster.start_controller()?;
    cluster.kubectl.apply(&service("b"))?;
    cluster.kubectl.has("b", &[&before])
}

/// Kept and flagged on the pool and on the Service, until a pool covers it again.
pub(crate) fn kept(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    kubectl.apply(&service("web"))?;
    kubectl.assigned("web", "True", "Assigned", &["192.0.2.0 from pool \"lan\""])?;
    kubectl.apply(&pool("lan", &["192.0.2.8/29"]))?;
    kubectl.pool_says(
        "lan",
        "AddressesOutside",
        Some(&["192.0.2.0 (default/web)"]),
    )?;
    kubectl.assigned(
        "web",
        "True",
        "KeptOutsidePool",
        &["do not contain 192.0.2.0"],
    )?;
    kubectl.told("web", &["Warning KeptOutsidePool: keeps 192.0.2.0"])?;
    kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    kubectl.pool_says("lan", "AddressesOutside", None)?;
    kubectl.assigned("web", "True", "Assigned", &[])?;
    kubectl.run(&["delete", "addresspool", "lan"])?;
    kubectl.assigned("web", "True", "KeptOutsidePool", &[])?;
    kubectl.has("web", &["192.0.2.0"])?;
    kubectl.apply(&pool("next", &["192.0.2.0/30"]))?;
    kubectl.assigned("web", "True", "Assigned", &["from pool \"next\""])
}

/// With onShrink Reallocate, Services move, or lose what they insist on.
pub(crate) fn reallocated(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let lan = |block: &str| {
        let mut object = pool("lan", &[block]);
        object["spec"]["onShrink"] = json!("Reallocate");
        object
    };
    kubectl.apply(&lan("192.0.2.0/28"))?;
    kubectl.apply(&service("web"))?;
    kubectl.has("web", &["192.0.2.0"])?;
    kubectl.apply(&annotated(
        "insists",
        "lightship.dev/addresses",
        "192.0.2.1",
    ))?;
    kubectl.has("insists", &["192.0.2.1"])?;
    kubectl.apply(&lan("192.0.2.8/29"))?;
    kubectl.has("web", &["192.0.2.8"])?;
    kubectl.told("web", &["Warning ClearAssignment: took 192.0.2.0 back"])?;
    kubectl.has("insists", &[])?;
    kubectl.assigned(
        "insists",
        "False",
        "AllocationFailed",
        &["do not contain 192.0.2.1"],
    )?;
    kubectl.has_vips(&["192.0.2.8"])?;
    // Back to Keep, for good: then even the end of the pool and of the controller costs nothing.
    kubectl.apply(&pool("lan", &["192.0.2.8/29"]))?;
    kubectl.wait("the VirtualIP says Keep", |kubectl| {
        let vip = kubectl.json(&["get", "virtualip", "192.0.2.8"])?;
        Ok(vip["spec"]["onShrink"].is_null())
    })?;
    kubectl.run(&["delete", "addresspool", "lan"])?;
    cluster.kill_controller();
    cluster.start_controller()?;
    cluster
        .kubectl
        .assigned("web", "True", "KeptOutsidePool", &[])?;
    cluster.kubectl.has("web", &["192.0.2.8"])
}

/// What is a node's, a router's or a network's own is said and not given away.
pub(crate) fn withheld(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node1" },
    });
    kubectl.apply(&node)?;
    let addresses = json!({ "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.2" }, { "type": "Hostname", "address": "node1" }] } });
    let patch = |kind: &str, status: &serde_json::Value| {
        let patch = status.to_string();
        kubectl.run(&[
            "patch",
            kind,
            "node1",
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ])
    };
    patch("node", &addresses)?;
    let speaker = json!({ "apiVersion": "lightship.dev/v1beta1", "kind": "Speaker", "metadata": { "name": "node1" }, "spec": {} });
    kubectl.apply(&speaker)?;
    let uplinks = json!({ "status": { "uplinks": [{
        "interface": "eth0", "mac": "02:00:00:00:00:01",
        "addresses": ["192.0.2.2/24"], "gateways": ["192.0.2.1"],
    }] } });
    patch("speaker", &uplinks)?;
    kubectl.apply(&pool("lan", &["192.0.2.0/29"]))?;
    kubectl.pool_says(
        "lan",
        "AddressesWithheld",
        Some(&[
            "192.0.2.0: the network address of 192.0.2.0/24",
            "192.0.2.1: the nodes' default gateway",
            "192.0.2.2: an address of node node1",
        ]),
    )?;
    kubectl.told("lan", &["Warning AddressesWithheld"])?;
    kubectl.apply(&service("web"))?;
    kubectl.has("web", &["192.0.2.3"])?;
    kubectl.apply(&annotated(
        "insists",
        "lightship.dev/addresses",
        "192.0.2.1",
    ))?;
    kubectl.assigned(
        "insists",
        "False",
        "AllocationFailed",
        &["192.0.2.1 is kept out of use: the nodes' default gateway"],
    )?;
    // The other end of the network, in a pool of its own and by automatic choice.
    kubectl.apply(&pool("end", &["192.0.2.255/32"]))?;
    let end = ["192.0.2.255: the broadcast address of 192.0.2.0/24"];
    kubectl.pool_says("end", "AddressesWithheld", Some(&end))?;
    kubectl.apply(&annotated("last", "lightship.dev/pool", "end"))?;
    kubectl.assigned("last", "False", "AllocationFailed", &[])?;
    kubectl.apply(&annotated(
        "broadcast",
        "lightship.dev/addresses",
        "192.0.2.255",
    ))?;
    let why = ["192.0.2.255 is kept out of use: the broadcast address of 192.0.2.0/24"];
    kubectl.assigned("broadcast", "False", "AllocationFailed", &why)?;
    kubectl.run(&["delete", "service", "broadcast"])?;
    kubectl.run(&["delete", "speaker", "node1"])?;
    kubectl.has("insists", &["192.0.2.1"])?;
    kubectl.has("last", &["192.0.2.255"])?;
    kubectl.pool_says("end", "AddressesWithheld", None)?;
    kubectl.run(&["delete", "node", "node1"])?;
    kubectl.pool_says("lan", "AddressesWithheld", None)
}

/// With the switch only, and ours win.
pub(crate) fn metallb(cluster: &mut Cluster) -> Result<()> {
    let mut reserved = pool("gold", &["198.51.100.0/30"]);
    reserved["spec"]["autoAssign"] = json!(false);
    cluster.kubectl.apply(&reserved)?;
    cluster.kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    let mut gold = annotated("gold", "metallb.universe.tf/address-pool", "gold");
    cluster.kubectl.apply(&gold)?;
    cluster.kubectl.has("gold", &["192.0.2.0"])?;
    cluster.kill_controller();
    cluster.start_controller_with(&["--metallb-annotations"])?;
    cluster.kubectl.has("gold", &["198.51.100.0"])?;
    cluster.kubectl.apply(&annotated(
        "asks",
        "metallb.io/loadBalancerIPs",
        "192.0.2.9",
    ))?;
    cluster.kubectl.has("asks", &["192.0.2.9"])?;
    for (name, port) in [("one", 80), ("two", 81)] {
        let mut object = annotated(name, "metallb.io/allow-shared-ip", "k");
        object["spec"]["ports"] = json!([{ "port": port }]);
        cluster.kubectl.apply(&object)?;
        cluster.kubectl.has(name, &["192.0.2.0"])?;
    }
    gold["metadata"]["annotations"]["lightship.dev/pool"] = json!("lan");
    cluster.kubectl.apply(&gold)?;
    cluster.kubectl.has("gold", &["192.0.2.1"])?;
    cluster.kill_controller();
    Ok(())
}

/// The node port is not ours to need.
pub(crate) fn without_node_ports(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    let mut object = service("web");
    object["spec"]["allocateLoadBalancerNodePorts"] = json!(false);
    kubectl.apply(&object)?;
    kubectl.has("web", &["192.0.2.0"])?;
    let ports = kubectl.json(&["get", "service", "web"])?["spec"]["ports"].clone();
    ensure!(ports[0]["nodePort"].is_null(), "{ports}");
    Ok(())
}
