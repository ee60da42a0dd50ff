//! Pools: what is refused at once, what becomes a condition, and who may use them.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::kube::{pool, service};

/// Each with a message that names the field and the way out.
pub(crate) fn refusals(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    for (addresses, parts) in [
        (vec![], ["spec.addresses", "at least 1"]),
        (
            vec!["192.0.2.0/33"],
            [
                "spec.addresses: \"192.0.2.0/33\"",
                "neither a CIDR nor a range",
            ],
        ),
        (vec!["192.0.2.7"], ["for a single address", "192.0.2.7/32"]),
        (
            vec!["2001:db8::7"],
            ["for a single address", "2001:db8::7/128"],
        ),
        (vec!["192.0.2.7/24"], ["has host bits set", "192.0.2.7/32"]),
        (
            vec!["2001:db8::1/64"],
            ["has host bits set", "2001:db8::1/128"],
        ),
        (
            vec!["192.0.2.1-2001:db8::1"],
            ["mixes IPv4 and IPv6", "one range per family"],
        ),
        (
            vec!["192.0.2.1-192.0.2.999"],
            ["neither a CIDR nor a range", "192.0.2.10-192.0.2.20"],
        ),
        (
            vec!["198.51.100.0/24", "lan"],
            ["spec.addresses[1]", "neither a CIDR nor a range"],
        ),
    ] {
        let text = kubectl.refusal(&pool("bad", &addresses))?;
        ensure!(
            parts.iter().all(|part| text.contains(part)),
            "{addresses:?}: {text}"
        );
    }
    let selector = json!([{ "matchExpressions": [{ "key": "a", "operator": "In" }] }]);
    for (allocation, part) in [
        (
            json!({ "serviceSelectors": selector }),
            "give values with In and NotIn",
        ),
        (json!({ "priority": -1 }), "greater than or equal to 0"),
        (json!({ "namespaces": ["a", "a"] }), "uplicate"),
    ] {
        let mut object = pool("bad", &["192.0.2.0/24"]);
        object["spec"]["serviceAllocation"] = allocation;
        let text = kubectl.refusal(&object)?;
        ensure!(text.contains(part), "{text}");
    }
    let announcement = json!({
        "apiVersion": "lightship.dev/v1beta1", "kind": "L2Announcement", "metadata": { "name": "bad" },
        "spec": { "forwardingMode": "Tunnel", "preferredNodes": [{ "weight": 101, "nodeSelector": {} }] },
    });
    let text = kubectl.refusal(&announcement)?;
    ensure!(
        text.contains("Tunnel") && text.contains("less than or equal to 100"),
        "{text}"
    );
    let good = pool(
        "good",
        &[
            "192.0.2.10 - 192.0.2.20",
            "198.51.100.0/24",
            "2001:db8::/64",
        ],
    );
    kubectl.apply(&good)?;
    kubectl.ready("good", "True", &["every range is given out from"])
}

/// CEL cannot order addresses; the rest of the pool is in use.
pub(crate) fn reversed(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.20-192.0.2.10", "192.0.2.1/32"]))?;
    kubectl.ready(
        "lan",
        "False",
        &["ends before it starts; write 192.0.2.10-192.0.2.20"],
    )?;
    kubectl.told("lan", &["Warning RangeRefused", "ends before it starts"])?;
    kubectl.apply(&service("web"))?;
    kubectl.has("web", &["192.0.2.1"])
}

/// The later pool's range is out of use, its other ranges and the other pool are not.
pub(crate) fn overlap(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("z-first", &["192.0.2.0/28"]))?;
    kubectl.apply(&service("before"))?;
    kubectl.has("before", &["192.0.2.0"])?;
    // Creation times have whole seconds; within one the name would decide.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    kubectl.apply(&pool(
        "a-second",
        &["192.0.2.8-192.0.2.30", "198.51.100.0/31"],
    ))?;
    let parts = [
        "192.0.2.8-192.0.2.30 is out of use",
        "overlaps 192.0.2.0-192.0.2.15",
        "pool \"z-first\"",
    ];
    kubectl.ready("a-second", "False", &parts)?;
    kubectl.told("a-second", &["Warning RangeRefused", "pool \"z-first\""])?;
    kubectl.ready("z-first", "True", &[])?;
    kubectl.apply(&service("after"))?;
    kubectl.has("after", &["198.51.100.0"])?;
    kubectl.has("before", &["192.0.2.0"])?;
    kubectl.apply(&pool(
        "a-second",
        &["192.0.2.16-192.0.2.30", "198.51.100.0/31"],
    ))?;
    kubectl.ready("a-second", "True", &[])?;
    kubectl.run(&["delete", "addresspool", "z-first"])?;
    kubectl.has("before", &["192.0.2.0"])
}

/// A selector that matches nothing closes a pool; a label on the namespace opens it.
pub(crate) fn restricted(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(
        &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "gold" } }),
    )?;
    kubectl.run(&["label", "namespace", "gold", "tier-"])?;
    let mut restricted = pool("gold", &["192.0.2.1/32"]);
    restricted["spec"]["serviceAllocation"] = json!({
        "priority": 1, "namespaceSelectors": [{ "matchLabels": { "tier": "gold" } }],
    });
    kubectl.apply(&restricted)?;
    let mut object = service("web");
    object["metadata"]["namespace"] = json!("gold");
    kubectl.apply(&object)?;
    kubectl.wait("the refusal is told", |kubectl| {
        let events = kubectl.run(&["get", "events", "-n", "gold"])?;
        Ok(events.contains("does not include namespace gold"))
    })?;
    kubectl.run(&["label", "namespace", "gold", "tier=gold"])?;
    kubectl.has_vips(&["192.0.2.1"])?;
    kubectl.run(&["delete", "service", "web", "-n", "gold"])?;
    kubectl.run(&["label", "namespace", "gold", "tier-"])?;
    Ok(())
}

/// A slip in a pool must not cut Services off, not even over a restart.
pub(crate) fn shrink(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    cluster.kubectl.apply(&service("web"))?;
    cluster.kubectl.has("web", &["192.0.2.0"])?;
    cluster.kubectl.apply(&pool("lan", &["192.0.2.8/29"]))?;
    cluster.kubectl.ready("lan", "True", &[])?;
    cluster.kubectl.apply(&service("other"))?;
    cluster.kubectl.has("other", &["192.0.2.8"])?;
    cluster.kubectl.run(&["delete", "addresspool", "lan"])?;
    cluster.kill_controller();
    cluster.start_controller()?;
    cluster.kubectl.has("web", &["192.0.2.0"])?;
    cluster.kubectl.has_vips(&["192.0.2.0", "192.0.2.8"])
}

/// The columns answer: how full is it, and who has what.
pub(crate) fn columns(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/28", "2001:db8::/64"]))?;
    kubectl.apply(&service("web"))?;
    kubectl.has("web", &["192.0.2.0"])?;
    kubectl.wait("the pool counts its addresses", |kubectl| {
        let text = kubectl.run(&["get", "pools", "--no-headers"])?;
        let columns: Vec<_> = text.split_whitespace().collect();
        Ok(columns[2..8] == ["true", "1", "15", "0", "9223372036854775807", "True"])
    })?;
    let text = kubectl.run(&["get", "vip", "--no-headers"])?;
    let columns: Vec<_> = text.split_whitespace().collect();
    ensure!(
        columns[..4] == ["192.0.2.0", "192.0.2.0", "lan", "default/web"],
        "{text}"
    );
    Ok(())
}
