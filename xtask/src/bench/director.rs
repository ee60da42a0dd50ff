//! How fast the director is.

mod byhand;
mod egress;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use lightship_e2e::scene;
use lightship_e2e::vip::{self, Vip};
use lightship_lab::workload::TrafficPolicy;
use lightship_lab::{Lab, sh, workload};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

pub(super) use byhand::measure as by_hand;
pub(super) use egress::measure as egress;

/// What `probe load` counted.
#[derive(Clone, Debug, Deserialize)]
struct Load {
    seconds: f64,
    done: f64,
    bytes: f64,
    failures: std::collections::BTreeMap<String, u64>,
}

impl Load {
    fn done_per_second(&self) -> f64 {
        self.done / self.seconds
    }

    fn megabits_per_second(&self) -> f64 {
        self.bytes * 8.0 / 1e6 / self.seconds
    }
}

/// Runs a probe on the client to its end and gives its last line.
fn probe<T: DeserializeOwned>(lab: &Lab, words: &[&str]) -> Result<T> {
    let agent = lab.state().nodes[0].spec.agent.display().to_string();
    let output = lab.client(&[&[agent.as_str(), "probe"], words].concat())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("the probe said nothing: {}", said.trim())
    })?;
    serde_json::from_str(last).with_context(|| format!("the probe said {last:?}"))
}

fn load(lab: &Lab, target: SocketAddr, words: &[&str]) -> Result<Load> {
    let target = target.to_string();
    let load: Load = probe(lab, &[&["load", "--target", &target], words].concat())?;
    if load.failures.values().sum::<u64>() > 0 {
        eprintln!("    failures: {:?}, answers: {}", load.failures, load.done);
    }
    Ok(load)
}

/// Makes a Service of IPv4 with a pod on each of these nodes, and waits until its address has
/// exactly them as backends, with policy Cluster all nodes (with `Announce`: until it is announced). Each gets an address of its own:
/// downloads that were broken off leave connection tracking entries on the nodes, by which a new connection
/// from the same port to the same address goes to a Pod that is no more.
fn service(
    lab: &Lab,
    name: &str,
    policy: TrafficPolicy,
    nodes: &[String],
    external: &[&str],
) -> Result<Vip> {
    lab.echo_pods(name, nodes)?;
    let fresh = format!("192.0.2.{}", scene::fresh_number());
    let mut object = workload::Service {
        name,
        policy,
        dual_stack: false,
        annotations: &[("lightship.dev/addresses", &fresh)],
    }
    .object();
    object["spec"]["externalIPs"] = json!(external);
    lab.apply(&object.to_string())?;
    let addresses = lab.wait_addresses(name, Duration::from_secs(20))?;
    let backends = match policy {
        TrafficPolicy::Cluster => lab.node_names().len(),
        TrafficPolicy::Local => nodes.len(),
    };
    let address: IpAddr = addresses
        .first()
        .context("no address")?
        .parse()
        .context("no IP address in the status")?;
    vip::wait(
        lab,
        address,
        "is announced with its backends",
        Duration::from_secs(30),
        |vip| {
            let whole = vip.mode == "Announce" || vip.serving() == backends;
            vip.ready && vip.owner.is_some() && whole
        },
    )
}

/// Deletes what [`service`] made.
fn delete(lab: &Lab, name: &str) -> Result<()> {
    lab.kubectl(&["delete", "service", name, "--ignore-not-found"])?;
    let selector = format!("app={name}");
    lab.kubectl(&["delete", "pod", "--selector", &selector, "--wait=false"])?;
    Ok(())
}

/// Waits until an address answers many times in a row: kube-proxy has its rules on every node.
fn wait_served(lab: &Lab, target: SocketAddr) -> Result<()> {
    sh::wait_for(
        &format!("{target} is served"),
        Duration::from_secs(120),
        Duration::from_millis(500),
        || {
            let words = [
                "--workers",
                "4",
                "--duration",
                "1s",
                "--warm-up",
                "1s",
                "--timeout",
                "900ms",
            ];
            let seen = load(lab, target, &words)?;
            Ok((seen.failures.is_empty() && seen.done > 20.0).then_some(()))
        },
    )
}
