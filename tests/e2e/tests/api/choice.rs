//! Which pool a Service gets its addresses from, and what it keeps when its wishes change.

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kube::{annotated, pool, service};

fn restricted(name: &str, addresses: &[&str], allocation: Value) -> Value {
    let mut object = pool(name, addresses);
    object["spec"]["serviceAllocation"] = allocation;
    object
}

/// Named first, then pinned by priority (0 last) and name, then the rest by name.
pub(crate) fn order(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let here =
        |priority: u32| json!({ "priority": priority, "namespaces": ["elsewhere", "default"] });
    // In an order of creation that decides nothing.
    for object in [
        pool("a-open", &["192.0.2.6/32"]),
        restricted("b-unranked", &["192.0.2.5/32"], here(0)),
        restricted("e-second", &["192.0.2.2/32"], here(20)),
        restricted("d-second", &["192.0.2.3/32"], here(20)),
        restricted("z-first", &["192.0.2.4/32"], here(10)),
        pool("b-open", &["192.0.2.1/32"]),
    ] {
        kubectl.apply(&object)?;
    }
    kubectl.apply(&annotated("named", "lightship.dev/pool", "b-open"))?;
    kubectl.has("named", &["192.0.2.1"])?;
    for (name, address) in [
        ("one", "192.0.2.4"),
        ("two", "192.0.2.3"),
        ("three", "192.0.2.2"),
        ("four", "192.0.2.5"),
        ("five", "192.0.2.6"),
    ] {
        kubectl.apply(&service(name))?;
        kubectl.has(name, &[address])?;
    }
    Ok(())
}

/// The namespace by name or by label, and the Service by label; no match closes the pool.
pub(crate) fn restrictions(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let allocation = json!({
        "namespaces": ["default"],
        "namespaceSelectors": [{ "matchLabels": { "no": "such" } }],
        "serviceSelectors": [
            { "matchLabels": { "expose": "public" } },
            { "matchExpressions": [{ "key": "edge", "operator": "Exists" }] },
        ],
    });
    kubectl.apply(&restricted("pinned", &["192.0.2.0/28"], allocation))?;
    let labelled = |name: &str, key: &str, value: &str| {
        let mut object = service(name);
        object["metadata"]["labels"] = json!({ key: value });
        object
    };
    kubectl.apply(&labelled("closed", "expose", "private"))?;
    let refusal = ["pool \"pinned\": its serviceAllocation.serviceSelectors do not match"];
    kubectl.assigned("closed", "False", "AllocationFailed", &refusal)?;
    kubectl.apply(&labelled("public", "expose", "public"))?;
    kubectl.has("public", &["192.0.2.0"])?;
    kubectl.apply(&labelled("edge", "edge", "any"))?;
    kubectl.has("edge", &["192.0.2.1"])?;
    // Its address asked for by name is no way round.
    let mut insists = labelled("insists", "expose", "private");
    insists["metadata"]["annotations"] = json!({ "lightship.dev/addresses": "192.0.2.9" });
    kubectl.apply(&insists)?;
    kubectl.assigned("insists", "False", "AllocationFailed", &refusal)?;
    // A label is enough to be let in.
    kubectl.run(&["label", "service", "closed", "--overwrite", "expose=public"])?;
    kubectl.has("closed", &["192.0.2.2"])?;
    ensure!(kubectl.ingress("insists")?.is_empty());
    // One that is closed to a holder is not cut off, and both say so.
    kubectl.run(&[
        "label",
        "service",
        "closed",
        "--overwrite",
        "expose=private",
    ])?;
    kubectl.assigned("closed", "True", "KeptOutsidePool", &refusal)?;
    let why = "192.0.2.2 (default/closed: its serviceAllocation.serviceSelectors do not match";
    kubectl.pool_says("pinned", "AddressesOutside", Some(&[why]))?;
    kubectl.has("closed", &["192.0.2.2"])?;
    kubectl.run(&["label", "service", "closed", "--overwrite", "expose=public"])?;
    kubectl.pool_says("pinned", "AddressesOutside", None)?;
    Ok(())
}

/// From two families to one and back: what stays, stays.
pub(crate) fn families_change(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/28", "2001:db8::/120"]))?;
    // So that the lowest free address would be another than the one held.
    kubectl.apply(&service("first"))?;
    kubectl.has("first", &["192.0.2.0"])?;
    let mut web = service("web");
    web["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    web["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
    kubectl.apply(&web)?;
    kubectl.has("web", &["192.0.2.1", "2001:db8::"])?;
    kubectl.run(&["delete", "service", "first"])?;
    kubectl.has_vips(&["192.0.2.1", "2001-db8--0"])?;
    web["spec"]["ipFamilies"] = json!(["IPv4"]);
    web["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    kubectl.apply(&web)?;
    kubectl.has("web", &["192.0.2.1"])?;
    kubectl.has_vips(&["192.0.2.1"])?;
    web["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    web["spec"]["ipFamilyPolicy"] = json!("PreferDualStack");
    kubectl.apply(&web)?;
    kubectl.has("web", &["192.0.2.1", "2001:db8::"])?;
    // One address while its pool has but one; the second comes later, and from the same pool.
    kubectl.apply(&pool("z-half", &["198.51.100.0/30"]))?;
    let mut half = annotated("half", "lightship.dev/pool", "z-half");
    half["spec"]["ipFamilies"] = json!(["IPv6", "IPv4"]);
    half["spec"]["ipFamilyPolicy"] = json!("PreferDualStack");
    kubectl.apply(&half)?;
    kubectl.has("half", &["198.51.100.0"])?;
    let Some(metadata) = half["metadata"].as_object_mut() else {
        bail!("no metadata");
    };
    // Any pool would do now, and the first by name has both families.
    metadata.remove("annotations");
    kubectl.apply(&half)?;
    kubectl.apply(&service("marker"))?;
    kubectl.has("marker", &["192.0.2.0"])?;
    kubectl.has("half", &["198.51.100.0"])?;
    kubectl.apply(&pool("z-half", &["198.51.100.0/30", "2001:db8:b::/126"]))?;
    kubectl.has("half", &["2001:db8:b::", "198.51.100.0"])?;
    let vip = kubectl.json(&["get", "virtualip", "2001-db8-b--0"])?;
    ensure!(vip["spec"]["pool"] == "z-half", "{vip}");
    Ok(())
}
