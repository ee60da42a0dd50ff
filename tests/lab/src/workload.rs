//! Pods and Services to play with, and waiting for what becomes of them.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::sh;

/// The port that echo pods and the Services made here listen on, TCP and UDP.
pub const PORT: u16 = 80;

/// The port inside the pods, another one so that kube-proxy's translation shows.
pub const POD_PORT: u16 = 8080;

/// Ports of the client that its kernel gives to no connection: for those that are made while it is not certain yet that
/// they succeed. What a node remembers of one that failed would be taken up by a later one of the same port.
pub const RESERVED_PORTS: std::ops::RangeInclusive<u16> = 2_000..=17_999;

/// `spec.externalTrafficPolicy` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Any pod may answer; kube-proxy hides the client's address.
    Cluster,
    /// Pods on the node that got the packet; they see the client's address.
    Local,
}

/// A `type: LoadBalancer` Service of port [`PORT`].
#[derive(Clone, Debug)]
pub struct Service<'a> {
    /// Its name, and the value of the label `app` of its pods.
    pub name: &'a str,
    /// Who may answer.
    pub policy: TrafficPolicy,
    /// `ipFamilyPolicy: PreferDualStack`.
    pub dual_stack: bool,
    /// Annotations, such as `lightship.dev/pool`.
    pub annotations: &'a [(&'a str, &'a str)],
}

impl Service<'_> {
    /// The object, in namespace `default`.
    pub fn object(&self) -> Value {
        let annotations: serde_json::Map<String, Value> = self
            .annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": self.name, "namespace": "default", "annotations": annotations,
            },
            "spec": {
                "type": "LoadBalancer",
                "selector": { "app": self.name },
                "allocateLoadBalancerNodePorts": true,
                "ipFamilyPolicy": if self.dual_stack { "PreferDualStack" } else { "SingleStack" },
                "externalTrafficPolicy": match self.policy {
                    TrafficPolicy::Cluster => "Cluster",
                    TrafficPolicy::Local => "Local",
                },
                "ports": [
                    { "name": "tcp", "port": PORT, "targetPort": POD_PORT, "protocol": "TCP" },
                    { "name": "udp", "port": PORT, "targetPort": POD_PORT, "protocol": "UDP" },
                ],
            },
        })
    }
}

/// An echo pod on a node: it answers with its node, its name and the client's address it saw.
pub fn pod(app: &str, name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": app } },
        "spec": {
            // The lab has no scheduler: a pod names its node.
            "nodeName": node,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "echo",
                "image": "lightship.dev/lab-echo",
                "ports": [
                    { "name": "tcp", "containerPort": POD_PORT, "protocol": "TCP" },
                    { "name": "udp", "containerPort": POD_PORT, "protocol": "UDP" },
                ],
            }],
        },
    })
}

impl Lab {
    /// Creates one echo pod named `APP-NODE` on each of `nodes` and waits until all are Ready.
    ///
    /// # Errors
    /// When a pod is refused, or not Ready within 60 s.
    pub fn echo_pods(&self, app: &str, nodes: &[String]) -> Result<()> {
        let items: Vec<Value> = nodes
            .iter()
            .map(|node| pod(app, &format!("{app}-{node}"), node))
            .collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        self.apply(&list.to_string())?;
        let selector = format!("app={app}");
        self.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "pod",
            "--selector",
            &selector,
            &format!(
                "--timeout={}s",
                self.within(Duration::from_secs(60)).as_secs()
            ),
        ])?;
        Ok(())
    }

    /// Creates a Service.
    ///
    /// # Errors
    /// When it is refused.
    pub fn service(&self, service: &Service) -> Result<()> {
        self.apply(&service.object().to_string()).map(drop)
    }

    /// Waits until a Service of namespace `default` has as many external addresses as
    /// it has families, and returns them.
    ///
    /// # Errors
    /// When it has none within `limit`, with the Service's events.
    pub fn wait_addresses(&self, service: &str, limit: Duration) -> Result<Vec<String>> {
        let found = sh::wait_for(
            &format!("service {service} gets its address"),
            limit,
            Duration::from_millis(100),
            || {
                let object = self.kubectl_json(&["get", "service", service])?;
                let wanted = object["spec"]["ipFamilies"].as_array().map_or(1, Vec::len);
                let addresses: Vec<String> = object["status"]["loadBalancer"]["ingress"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|ingress| Some(ingress["ip"].as_str()?.to_owned()))
                    .collect();
                Ok((addresses.len() >= wanted).then_some(addresses))
            },
        );
        match found {
            Ok(addresses) => Ok(addresses),
            Err(error) => {
                let object = format!("service/{service}");
                let events = self.kubectl(&["events", "--for", &object])?;
                bail!("{error:#}\n{events}")
            }
        }
    }
}
