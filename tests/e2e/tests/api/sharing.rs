//! Several Services on one address, and addresses claimed by `spec.externalIPs`.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::kube::{pool, service, sharing};

/// One VirtualIP for both, which stays until the last of them leaves.
pub(crate) fn shared(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    cluster.kubectl.apply(&sharing("web", "k", 80))?;
    cluster.kubectl.has("web", &["192.0.2.0"])?;
    cluster.kubectl.apply(&sharing("tls", "k", 443))?;
    cluster.kubectl.has("tls", &["192.0.2.0"])?;
    cluster.kubectl.apply(&service("alone"))?;
    cluster.kubectl.has("alone", &["192.0.2.1"])?;
    let used_by = |kubectl: &crate::kube::Kubectl, expected: &'static str| {
        kubectl.wait(expected, |kubectl| {
            let vip = kubectl.json(&["get", "virtualip", "192.0.2.0"])?;
            Ok(vip["spec"]["usedBy"] == expected)
        })
    };
    used_by(&cluster.kubectl, "default/web +1")?;
    cluster.kill_controller();
    cluster.start_controller()?;
    cluster.kubectl.run(&["delete", "service", "web"])?;
    used_by(&cluster.kubectl, "default/tls")?;
    cluster.kubectl.has("tls", &["192.0.2.0"])?;
    cluster.kubectl.run(&["delete", "service", "tls"])?;
    cluster.kubectl.has_vips(&["192.0.2.1"])
}

/// Another key, the same port, another policy or selector, another namespace: each is told.
pub(crate) fn refused(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.7/32"]))?;
    kubectl.apply(&sharing("first", "k", 80))?;
    kubectl.has("first", &["192.0.2.7"])?;
    let asking = |mut object: serde_json::Value| {
        object["metadata"]["annotations"]["lightship.dev/addresses"] = json!("192.0.2.7");
        object
    };
    let mut local = sharing("local", "k", 83);
    local["spec"]["externalTrafficPolicy"] = json!("Local");
    for (object, part) in [
        (
            sharing("other-key", "l", 81),
            "shares under the key \"k\" only",
        ),
        (sharing("same-port", "k", 80), "which uses TCP port 80 too"),
        (local, "another externalTrafficPolicy"),
    ] {
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        kubectl.apply(&asking(object))?;
        let parts = ["192.0.2.7 is held by Service default/first", part];
        kubectl.assigned(&name, "False", "AllocationFailed", &parts)?;
    }
    // Who changes into a clash loses; the other one does not notice.
    kubectl.apply(&sharing("second", "k", 90))?;
    kubectl.has("second", &["192.0.2.7"])?;
    kubectl.apply(&sharing("second", "k", 80))?;
    kubectl.has("second", &[])?;
    kubectl.told(
        "second",
        &[
            "Warning ClearAssignment",
            "default/first, which uses TCP port 80 too",
        ],
    )?;
    kubectl.has("first", &["192.0.2.7"])
}

/// Under Local all nodes of an address must be able to serve all its Services: the same
/// namespace and the same selector.
pub(crate) fn local(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    let local = |name: &str, port: u16, app: &str| {
        let mut object = sharing(name, "k", port);
        object["spec"]["externalTrafficPolicy"] = json!("Local");
        object["spec"]["selector"] = json!({ "app": app });
        object
    };
    for (name, port, app, address) in [
        ("web", 80, "shop", "192.0.2.0"),
        ("tls", 443, "shop", "192.0.2.0"),
        ("other", 81, "mail", "192.0.2.1"),
    ] {
        kubectl.apply(&local(name, port, app))?;
        kubectl.has(name, &[address])?;
    }
    let mut insists = local("insists", 82, "mail");
    insists["metadata"]["annotations"]["lightship.dev/addresses"] = json!("192.0.2.0");
    kubectl.apply(&insists)?;
    let parts = ["192.0.2.0 is held by Service default/"];
    kubectl.assigned("insists", "False", "AllocationFailed", &parts)?;
    kubectl.has("web", &["192.0.2.0"])
}

/// Two Local Services with the same selector text have different Pods in different namespaces.
pub(crate) fn across_namespaces(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let gold = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "gold" } });
    kubectl.apply(&gold)?;
    let mut open = pool("lan", &["192.0.2.0/28"]);
    kubectl.apply(&open)?;
    kubectl.apply(&sharing("web", "k", 80))?;
    kubectl.has("web", &["192.0.2.0"])?;
    let far = |port: u16, policy: &str| {
        let mut object = sharing("far", "k", port);
        object["metadata"]["namespace"] = json!("gold");
        object["spec"]["externalTrafficPolicy"] = json!(policy);
        object["spec"]["selector"] = json!({ "app": "web" });
        object
    };
    let shown = |expected: &'static str| {
        kubectl.wait(&format!("gold/far has {expected}"), |kubectl| {
            let object = kubectl.json(&["get", "service", "far", "-n", "gold"])?;
            Ok(object["status"]["loadBalancer"]["ingress"][0]["ip"] == expected)
        })
    };
    kubectl.apply(&far(81, "Cluster"))?;
    shown("192.0.2.1")?;
    kubectl.run(&["delete", "service", "far", "-n", "gold"])?;
    open["spec"]["allowSharingAcrossNamespaces"] = json!(true);
    kubectl.apply(&open)?;
    kubectl.apply(&far(81, "Cluster"))?;
    shown("192.0.2.0")?;
    kubectl.apply(&far(81, "Local"))?;
    shown("192.0.2.1")?;
    let mut local = sharing("web", "k", 80);
    local["spec"]["externalTrafficPolicy"] = json!("Local");
    kubectl.apply(&local)?;
    kubectl.has("web", &["192.0.2.0"])?;
    shown("192.0.2.1")?;
    kubectl
        .run(&["delete", "service", "far", "-n", "gold"])
        .map(|_| ())
}

/// Of any type, in a pool that allows it; one outside is left alone.
pub(crate) fn external_ips(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let mut open = pool("lan", &["192.0.2.0/28"]);
    kubectl.apply(&open)?;
    kubectl.apply(&service("lb"))?;
    kubectl.has("lb", &["192.0.2.0"])?;
    let claiming = |name: &str, addresses: &[&str]| {
        let mut object = service(name);
        object["spec"]["type"] = json!("ClusterIP");
        object["spec"]["externalIPs"] = json!(addresses);
        object
    };
    kubectl.apply(&claiming("ext", &["192.0.2.9", "203.0.113.200"]))?;
    kubectl.apply(&service("marker"))?;
    kubectl.has("marker", &["192.0.2.1"])?;
    kubectl.has_vips(&["192.0.2.0", "192.0.2.1"])?;
    open["spec"]["allowExternalIPs"] = json!(true);
    kubectl.apply(&open)?;
    kubectl.has_vips(&["192.0.2.0", "192.0.2.1", "192.0.2.9"])?;
    kubectl.assigned(
        "ext",
        "True",
        "Claimed",
        &["192.0.2.9 claimed by spec.externalIPs"],
    )?;
    kubectl.apply(&claiming("late", &["192.0.2.9", "192.0.2.0"]))?;
    let parts = [
        "192.0.2.9 is held by Service default/ext",
        "192.0.2.0 is held by Service default/lb",
    ];
    kubectl.assigned("late", "False", "ExternalIPRefused", &parts)?;
    kubectl.told("late", &["Warning ExternalIPRefused"])?;
    // Of the other types too; one of type LoadBalancer gets an address beside its claim.
    for (name, kind, claim) in [
        ("np", "NodePort", "192.0.2.10"),
        ("both", "LoadBalancer", "192.0.2.11"),
    ] {
        let mut object = claiming(name, &[claim]);
        object["spec"]["type"] = json!(kind);
        kubectl.apply(&object)?;
        kubectl.wait(&format!("{name} has {claim}"), |kubectl| {
            let vip = kubectl.json(&["get", "virtualip", claim]);
            Ok(vip.is_ok_and(|vip| vip["spec"]["usedBy"] == format!("default/{name}")))
        })?;
    }
    kubectl.assigned("np", "True", "Claimed", &["192.0.2.10 claimed"])?;
    ensure!(kubectl.ingress("np")?.is_empty());
    kubectl.has("both", &["192.0.2.2"])?;
    for name in ["np", "both"] {
        kubectl.run(&["delete", "service", name])?;
    }
    kubectl.run(&["delete", "service", "ext"])?;
    kubectl.wait("late has the address", |kubectl| {
        let vip = kubectl.run(&[
            "get",
            "virtualip",
            "192.0.2.9",
            "-o",
            "jsonpath={.spec.usedBy}",
        ]);
        Ok(vip.is_ok_and(|text| text == "default/late"))
    })?;
    let before = kubectl.json(&["get", "service", "lb"])?;
    kubectl.run(&["delete", "service", "late"])?;
    kubectl.has_vips(&["192.0.2.0", "192.0.2.1"])?;
    ensure!(
        kubectl.json(&["get", "service", "lb"])? == before,
        "lb was touched"
    );
    Ok(())
}
