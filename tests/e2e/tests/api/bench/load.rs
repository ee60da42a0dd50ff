//! Many requests at once: `curl` in its parallel mode, as `kubectl` sends one after the other and
//! limits its own rate.

use std::net::Ipv6Addr;

use anyhow::{Result, ensure};
use lightship_lab::sh;
use serde_json::{Value, json};

use crate::cluster::Cluster;

const VIPS: &str = "/apis/lightship.dev/v1beta1/virtualips";

/// Requests under way at most.
const PARALLEL: usize = 64;

/// One request.
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: Option<Value>,
}

/// Path of a Service.
pub(super) fn path(name: &str) -> String {
    format!("/api/v1/namespaces/default/services/{name}")
}

/// An IPv6 Service that asks for an address.
pub(super) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name },
        "spec": {
            "type": "LoadBalancer",
            "ipFamilies": ["IPv6"],
            "allocateLoadBalancerNodePorts": false,
            "ports": [{ "port": 80 }],
            "selector": { "app": name },
        },
    })
}

pub(super) fn create(name: &str) -> Request {
    Request {
        method: "POST",
        path: "/api/v1/namespaces/default/services".into(),
        body: Some(service(name)),
    }
}

/// A write of a Service's status that concerns no address.
pub(super) fn write_status(name: &str) -> Request {
    write_status_as(name, "Measured")
}

/// The same with another reason, so that it is a change.
pub(super) fn write_status_as(name: &str, reason: &str) -> Request {
    let condition = json!({
        "type": "example.com/Measured", "status": "True", "reason": reason, "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    Request {
        method: "PATCH",
        path: format!("{}/status", path(name)),
        body: Some(json!({ "status": { "conditions": [condition] } })),
    }
}

/// The VirtualIP that a Service would lead to, as the controller makes it, but of an address
/// that no pool has.
pub(super) fn create_vip((index, service): (usize, &String)) -> Request {
    let address = Ipv6Addr::from((0x2001_0db8_0002_u128 << 80) + index as u128 + 1);
    Request {
        method: "POST",
        path: VIPS.into(),
        body: Some(json!({
            "apiVersion": "lightship.dev/v1beta1", "kind": "VirtualIP",
            "metadata": { "name": address.to_string().replace(':', "-") },
            "spec": {
                "address": address,
                "pool": "lan",
                "services": [{ "namespace": "default", "name": service }],
                "usedBy": format!("default/{service}"),
            },
        })),
    }
}

/// Takes all VirtualIPs away.
pub(super) fn delete_vips() -> Request {
    Request {
        method: "DELETE",
        path: VIPS.into(),
        body: None,
    }
}

pub(super) fn delete(name: &str) -> Request {
    Request {
        method: "DELETE",
        path: path(name),
        body: None,
    }
}

/// Sends them all and waits for the answers, which must be good.
pub(super) fn send(cluster: &Cluster, requests: &[Request]) -> Result<()> {
    let mut config = String::from("parallel\nno-progress-meter\n");
    config += &format!("parallel-max = {PARALLEL}\n");
    for (index, request) in requests.iter().enumerate() {
        if index > 0 {
            config += "next\n";
        }
        let kind = match request.method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        config += &cluster.curl_config(&request.path);
        config += &format!(
            "request = {}\nheader = \"Content-Type: {kind}\"\n",
            request.method
        );
        config += "output = \"/dev/null\"\nwrite-out = \"%{http_code}\\n\"\n";
        if let Some(body) = &request.body {
            let body = body.to_string().replace('\\', "\\\\").replace('"', "\\\"");
            config += &format!("data-binary = \"{body}\"\n");
        }
    }
    let command = sh::command(&["curl", "--config", "-"]);
    let said = sh::run_with_input(command, Some(&config))?;
    let good = said.lines().filter(|code| code.starts_with('2')).count();
    let bad = said.lines().find(|code| !code.starts_with('2'));
    ensure!(
        good == requests.len(),
        "{good} of {} requests succeeded; another ended with status {bad:?}",
        requests.len()
    );
    Ok(())
}
