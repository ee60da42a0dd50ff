//! Pools: what is refused at once, what becomes a condition, and who may use them.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::kube::{annotated, pool, service};

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
        (
            vec!["192.0.2.20-192.0.2.10"],
            ["ends before it starts", "write 192.0.2.10-192.0.2.20"],
        ),
        (
            vec!["203.0.113.0-192.0.2.255"],
            ["ends before it starts", "write 192.0.2.255-203.0.113.0"],
        ),
        (
            vec!["2001:db8::b - 2001:db8::a"],
            ["ends before it starts", "write 2001:db8::a-2001:db8::b"],
        ),
        (
            vec!["2001:db8:1::-2001:db8::ffff"],
            ["ends before it starts", "write 2001:db8::ffff-2001:db8:1::"],
        ),
        (
            vec!["0.1.2.3-0.1.2.9"],
            ["no host has (0.0.0.0/8", "write addresses of your LAN"],
        ),
        (
            vec!["127.0.0.1/32"],
            ["no host has", "write addresses of your LAN"],
        ),
        (
            vec!["169.254.10.0/24"],
            ["no host has", "write addresses of your LAN"],
        ),
        (
            vec!["192.0.2.1-224.0.0.9"],
            ["no host has", "write addresses of your LAN"],
        ),
        (
            vec!["255.255.255.254-255.255.255.255"],
            ["no host has", "write addresses of your LAN"],
        ),
        (
            vec!["::1/128"],
            ["no host has", "write addresses of your LAN"],
        ),
        (
            vec!["fe80::/64"],
            ["no host has", "write addresses of your LAN"],
        ),
        (
            vec!["ff02::1-ff02::9"],
            ["no host has", "write addresses of your LAN"],
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
        (
            json!({ "namespaces": ["Gold"] }),
            "namespaces[0]: Invalid value: \"Gold\": \"Gold\": a namespace has a name of lowercase letters",
        ),
        (
            json!({ "serviceSelectors": [{ "matchLabels": { "tier": "go ld" } }] }),
            "\"go ld\": a label value is made of letters, digits",
        ),
        (
            json!({ "serviceSelectors": [{ "matchLabels": { "ti er": "gold" } }] }),
            "serviceSelectors[0].matchLabels: Invalid value: matchLabels: a label key is a name such as tier",
        ),
        (
            json!({ "namespaceSelectors": [{ "matchExpressions": [{ "key": "Example.com/a", "operator": "Exists" }] }] }),
            "\"Example.com/a\": a label key is a name such as tier, or a domain and a name",
        ),
        (
            json!({ "namespaceSelectors": [{ "matchExpressions": [{ "key": "a", "operator": "In", "values": ["b", "c-"] }] }] }),
            "values[1]: Invalid value: \"c-\": \"c-\": a label value",
        ),
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
    for (address, part) in [
        ("192.0.2.400", "spec.address: must be an IP address"),
        (
            "2001:DB8::1",
            "spec.address: must be in canonical form; write 2001:db8::10",
        ),
        ("2001:db8:0::1", "spec.address: must be in canonical form"),
    ] {
        let vip = json!({
            "apiVersion": "lightship.dev/v1beta1", "kind": "VirtualIP", "metadata": { "name": "bad" },
            "spec": { "address": address, "pool": "lan", "services": [{ "namespace": "a", "name": "b" }] },
        });
        let text = kubectl.refusal(&vip)?;
        ensure!(text.contains(part), "{address}: {text}");
    }
    let mut good = pool(
        "good",
        &[
            "192.0.2.10 - 192.0.2.20",
            "198.51.100.0/24",
            "203.0.113.7-203.0.113.7",
            "2001:db8::/64",
            "2001:db8:1::-2001:db8:2::",
        ],
    );
    good["spec"]["serviceAllocation"] = json!({
        "namespaces": ["default", "team-1"],
        "namespaceSelectors": [{ "matchExpressions": [
            { "key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b.C_d-1", ""] },
        ] }],
        "serviceSelectors": [{ "matchLabels": { "example.com/Tier_1": "", "tier": "Gold" } }],
    });
    kubectl.apply(&good)?;
    kubectl.ready("good", "True", &["every range is given out from"])
}

/// Link-local addresses in the middle of a block, which the API server does not look into; the
/// rest of the pool is in use.
pub(crate) fn no_hosts(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["169.0.0.0/8", "192.0.2.1/32"]))?;
    let parts = [
        "\"169.0.0.0/8\" contains 169.254.0.0/16",
        "write addresses of the LAN",
    ];
    kubectl.ready("lan", "False", &parts)?;
    kubectl.told("lan", &["Warning RangeRefused", parts[0]])?;
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
    kubectl.has("before", &["192.0.2.0"])?;
    // Within one pool the range that is listed later is out of use, spaces or not.
    kubectl.run(&["delete", "addresspool", "a-second"])?;
    kubectl.apply(&pool(
        "own",
        &[
            "203.0.113.4 - 203.0.113.5",
            "203.0.113.0/29",
            "2001:db8::/126",
        ],
    ))?;
    let parts = ["203.0.113.0-203.0.113.7 is out of use", "of this same pool"];
    kubectl.ready("own", "False", &parts)?;
    kubectl.apply(&service("inside"))?;
    kubectl.has("inside", &["203.0.113.4"])
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
    // Closed again, it lets its holders keep what they have, and says so.
    kubectl.run(&["label", "namespace", "gold", "tier-"])?;
    let condition = ["get", "service", "web", "-n", "gold"];
    kubectl.wait("gold/web is kept outside of its pool", |kubectl| {
        let object = kubectl.json(&condition)?;
        let conditions = object["status"]["conditions"].as_array().cloned();
        let mut conditions = conditions.unwrap_or_default().into_iter();
        let said = conditions.find(|c| c["type"] == "lightship.dev/AddressAssigned");
        let said = said.unwrap_or_default();
        let message = said["message"].as_str().unwrap_or_default();
        Ok(said["status"] == "True"
            && said["reason"] == "KeptOutsidePool"
            && message.contains("does not include namespace gold"))
    })?;
    let object = kubectl.json(&condition)?;
    ensure!(
        object["status"]["loadBalancer"]["ingress"][0]["ip"] == "192.0.2.1",
        "{object}"
    );
    kubectl.has_vips(&["192.0.2.1"])?;
    kubectl.run(&["delete", "service", "web", "-n", "gold"])?;
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
    let mut lan = pool("lan", &["192.0.2.0/28", "2001:db8::/64"]);
    if let Some(spec) = lan["spec"].as_object_mut() {
        spec.remove("reuseDelaySeconds");
    }
    kubectl.apply(&lan)?;
    let stored = kubectl.json(&["get", "addresspool", "lan"])?;
    ensure!(stored["spec"]["reuseDelaySeconds"] == 60, "{stored}");
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

/// Those that end in .0 or .255.
pub(crate) fn avoid_buggy(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let mut lan = pool("lan", &["198.51.100.254-198.51.101.1"]);
    lan["spec"]["avoidBuggyIPs"] = json!(true);
    kubectl.apply(&lan)?;
    for (name, address) in [("high", "198.51.100.255"), ("low", "198.51.101.0")] {
        kubectl.apply(&annotated(name, "lightship.dev/addresses", address))?;
        let parts = [address, "avoidBuggyIPs"];
        kubectl.assigned(name, "False", "AllocationFailed", &parts)?;
    }
    for (name, address) in [("one", "198.51.100.254"), ("two", "198.51.101.1")] {
        kubectl.apply(&service(name))?;
        kubectl.has(name, &[address])?;
    }
    kubectl.wait("the pool counts two in all", |kubectl| {
        let status = kubectl.json(&["get", "addresspool", "lan"])?["status"].clone();
        Ok(status["ipv4"]["total"] == 2 && status["ipv4"]["available"] == 0)
    })?;
    lan["spec"]["avoidBuggyIPs"] = json!(false);
    kubectl.apply(&lan)?;
    kubectl.has("high", &["198.51.100.255"])?;
    kubectl.has("low", &["198.51.101.0"])
}
