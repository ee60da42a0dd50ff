//! Who gets which address, and what is said when there is none.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::kube::{annotated, pool, service};

const POOL: &str = "lightship.dev/pool";
const ADDRESSES: &str = "lightship.dev/addresses";

/// The lowest free address; ipMode is checked by `has`.
pub(crate) fn plain(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.200-192.0.2.239"]))?;
    kubectl.apply(&service("web"))?;
    kubectl.has("web", &["192.0.2.200"])?;
    kubectl.told(
        "web",
        &["Normal IPAllocated: assigned 192.0.2.200 from pool \"lan\""],
    )?;
    kubectl.has_vips(&["192.0.2.200"])?;
    let vip = kubectl.json(&["get", "virtualip", "192.0.2.200"])?;
    let expected = json!({
        "address": "192.0.2.200", "pool": "lan", "usedBy": "default/web",
        "services": [{ "namespace": "default", "name": "web" }],
    });
    ensure!(vip["spec"] == expected, "{vip}");
    kubectl.apply(&service("next"))?;
    kubectl.has("next", &["192.0.2.201"])
}

fn dual(name: &str, families: [&str; 2], policy: &str) -> serde_json::Value {
    let mut object = service(name);
    object["spec"]["ipFamilies"] = json!(families);
    object["spec"]["ipFamilyPolicy"] = json!(policy);
    object
}

/// IPv6 first where the Service says so; RequireDualStack all or nothing.
pub(crate) fn dual_stack(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("a-v4", &["192.0.2.1-192.0.2.9"]))?;
    kubectl.apply(&dual("require", ["IPv4", "IPv6"], "RequireDualStack"))?;
    kubectl.told(
        "require",
        &[
            "AllocationFailed",
            "pool \"a-v4\": it has no usable IPv6 addresses",
        ],
    )?;
    kubectl.apply(&dual("prefer", ["IPv6", "IPv4"], "PreferDualStack"))?;
    kubectl.has("prefer", &["192.0.2.1"])?;
    ensure!(kubectl.ingress("require")?.is_empty());
    kubectl.apply(&pool("b-both", &["198.51.100.0/30", "2001:db8::/126"]))?;
    kubectl.has("require", &["198.51.100.0", "2001:db8::"])?;
    kubectl.apply(&dual("six-first", ["IPv6", "IPv4"], "RequireDualStack"))?;
    kubectl.has("six-first", &["2001:db8::1", "198.51.100.1"])?;
    kubectl.has_vips(&[
        "192.0.2.1",
        "198.51.100.0",
        "198.51.100.1",
        "2001-db8--0",
        "2001-db8--1",
    ])?;
    let mut six = service("six");
    six["spec"]["ipFamilies"] = json!(["IPv6"]);
    kubectl.apply(&six)?;
    kubectl.has("six", &["2001:db8::2"])
}

/// Also one that is not for automatic use; an unknown one is named with those that exist.
pub(crate) fn named_pool(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let mut reserved = pool("reserved", &["198.51.100.1-198.51.100.2"]);
    reserved["spec"]["autoAssign"] = json!(false);
    kubectl.apply(&reserved)?;
    kubectl.apply(&service("any"))?;
    kubectl.told(
        "any",
        &[
            "Warning AllocationFailed",
            "pool \"reserved\": autoAssign is false",
        ],
    )?;
    kubectl.apply(&annotated("one", POOL, "reserved"))?;
    kubectl.has("one", &["198.51.100.1"])?;
    kubectl.apply(&annotated("lost", POOL, "nope"))?;
    kubectl.told(
        "lost",
        &["lightship.dev/pool: there is no AddressPool \"nope\"; create it, or name one of: reserved"],
    )?;
    kubectl.run(&[
        "annotate",
        "service",
        "lost",
        "--overwrite",
        "lightship.dev/pool=reserved",
    ])?;
    kubectl.has("lost", &["198.51.100.2"])
}

/// By annotation and by the old field; outside of every pool is said with every pool.
pub(crate) fn explicit(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/24"]))?;
    kubectl.apply(&pool("wan", &["198.51.100.0/24"]))?;
    kubectl.apply(&annotated("noted", ADDRESSES, "192.0.2.77"))?;
    kubectl.has("noted", &["192.0.2.77"])?;
    let mut field = service("field");
    field["spec"]["loadBalancerIP"] = json!("198.51.100.5");
    kubectl.apply(&field)?;
    kubectl.has("field", &["198.51.100.5"])?;
    kubectl.apply(&annotated("outside", ADDRESSES, "203.0.113.200"))?;
    kubectl.told(
        "outside",
        &[
            "Warning AllocationFailed",
            "pool \"lan\": its spec.addresses do not contain 203.0.113.200",
            "pool \"wan\": its spec.addresses do not contain 203.0.113.200",
        ],
    )?;
    kubectl.apply(&annotated("typo", ADDRESSES, "192.0.2.400"))?;
    kubectl.told(
        "typo",
        &["Warning LoadBalancerFailed: lightship.dev/addresses: \"192.0.2.400\" is no IP address"],
    )?;
    kubectl.apply(&annotated("six", ADDRESSES, "2001:db8::1"))?;
    kubectl.told(
        "six",
        &["Warning LoadBalancerFailed: no address: 2001:db8::1 is asked for, but the Service is not IPv6"],
    )?;
    // The annotation and the field must not contradict each other.
    let mut both = annotated("both", ADDRESSES, "192.0.2.80");
    both["spec"]["loadBalancerIP"] = json!("192.0.2.81");
    kubectl.apply(&both)?;
    let parts = ["spec.loadBalancerIP ask for different addresses; remove one of them"];
    kubectl.assigned("both", "False", "LoadBalancerFailed", &parts)?;
    both["spec"]["loadBalancerIP"] = json!("192.0.2.80");
    kubectl.apply(&both)?;
    kubectl.has("both", &["192.0.2.80"])?;
    kubectl.run(&["delete", "service", "both"])?;
    // Two addresses of two pools would be announced by two sets of rules.
    kubectl.apply(&pool("six", &["2001:db8::/120"]))?;
    let mut split = dual("split", ["IPv4", "IPv6"], "RequireDualStack");
    split["metadata"]["annotations"] = json!({ ADDRESSES: "192.0.2.90,2001:db8::90" });
    kubectl.apply(&split)?;
    let parts = [
        "192.0.2.90 is of pool \"lan\", but 2001:db8::90 of pool \"six\"; ask for addresses of one pool",
    ];
    kubectl.assigned("split", "False", "LoadBalancerFailed", &parts)?;
    // A change moves the Service, and gives the old address back.
    kubectl.apply(&annotated("noted", ADDRESSES, "192.0.2.78"))?;
    kubectl.has("noted", &["192.0.2.78"])?;
    kubectl.has_vips(&["192.0.2.78", "198.51.100.5"])
}

/// The first one keeps it, the second one is told who has it and gets it next.
pub(crate) fn contested(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/24"]))?;
    kubectl.apply(&annotated("first", ADDRESSES, "192.0.2.50"))?;
    kubectl.has("first", &["192.0.2.50"])?;
    kubectl.apply(&annotated("second", ADDRESSES, "192.0.2.50"))?;
    kubectl.told(
        "second",
        &[
            "AllocationFailed",
            "192.0.2.50 is held by Service default/first",
        ],
    )?;
    ensure!(kubectl.ingress("second")?.is_empty());
    kubectl.run(&["delete", "service", "first"])?;
    kubectl.has("second", &["192.0.2.50"])?;
    let vip = kubectl.json(&["get", "virtualip", "192.0.2.50"])?;
    ensure!(vip["spec"]["usedBy"] == "default/second", "{vip}");
    Ok(())
}

/// Every pool with its own reason.
pub(crate) fn exhausted(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.1-192.0.2.2"]))?;
    kubectl.apply(&pool("six", &["2001:db8::/64"]))?;
    let mut reserved = pool("spare", &["198.51.100.0/24"]);
    reserved["spec"]["autoAssign"] = json!(false);
    kubectl.apply(&reserved)?;
    for name in ["one", "two"] {
        kubectl.apply(&service(name))?;
    }
    kubectl.has("two", &["192.0.2.2"])?;
    kubectl.apply(&service("three"))?;
    kubectl.told(
        "three",
        &[
            "Warning AllocationFailed: no address: ",
            "pool \"lan\": all of its 2 IPv4 addresses are in use",
            "pool \"six\": it has no usable IPv4 addresses",
            "pool \"spare\": autoAssign is false",
        ],
    )?;
    kubectl.run(&["delete", "service", "one"])?;
    kubectl.has("three", &["192.0.2.1"])
}

/// And the first pool to come serves who waited.
pub(crate) fn no_pool(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&service("web"))?;
    kubectl.told(
        "web",
        &["Warning AllocationFailed: no address: there is no AddressPool; create one"],
    )?;
    kubectl.apply(&pool("lan", &["192.0.2.1/32"]))?;
    kubectl.has("web", &["192.0.2.1"])
}

/// Ours and none are served by default, foreign ones never touched; flags change that.
pub(crate) fn classes(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl.apply(&pool("lan", &["192.0.2.0/24"]))?;
    for (name, class) in [
        ("own", "lightship.dev/l2"),
        ("foreign", "example.com/other"),
    ] {
        let mut object = service(name);
        object["spec"]["loadBalancerClass"] = json!(class);
        cluster.kubectl.apply(&object)?;
    }
    let before = cluster.kubectl.json(&["get", "service", "foreign"])?;
    cluster.kubectl.apply(&service("none"))?;
    cluster.kubectl.wait("two are served", |kubectl| {
        Ok(kubectl.ingress("own")?.len() + kubectl.ingress("none")?.len() == 2)
    })?;
    ensure!(
        cluster.kubectl.json(&["get", "service", "foreign"])? == before,
        "foreign was touched"
    );
    ensure!(cluster.kubectl.events("foreign")?.is_empty());

    // A controller for the foreign class alone gives the others' addresses up.
    cluster.kill_controller();
    cluster.start_controller_with(&["--load-balancer-class=example.com/other"])?;
    cluster.kubectl.wait("foreign is served", |kubectl| {
        Ok(kubectl.ingress("foreign")?.len() == 1)
    })?;
    cluster.kubectl.has("none", &[])?;
    // Given twice, once empty: a class and Services without one, but not our own.
    cluster.kill_controller();
    let flags = [
        "--load-balancer-class=example.com/other",
        "--load-balancer-class=",
    ];
    cluster.start_controller_with(&flags)?;
    cluster.kubectl.wait("none is served again", |kubectl| {
        Ok(kubectl.ingress("none")?.len() == 1)
    })?;
    ensure!(cluster.kubectl.ingress("foreign")?.len() == 1);
    cluster.kubectl.has("own", &[])?;
    cluster.kill_controller();
    Ok(())
}
