//! Nodes: what they are told, their Node objects, their start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::addressing;
use crate::agent_config::{AgentConfig, Daemon, Peer};
use crate::lab::Lab;
use crate::options::{Options, ProxyMode};
use crate::pki;
use crate::sh;
use crate::state::{LabDir, Node};
use crate::substrate::{NodeSpec, Substrate};

/// TCP port of the agents' `exec` service on the management link.
const CONTROL_PORT: u16 = 7070;

/// The nodes of a lab with those options.
pub(crate) fn plan(dir: &LabDir, options: &Options, agent: &Path, kubernetes: &Path) -> Vec<Node> {
    (1..=options.nodes)
        .map(|index| {
            let name = format!("node{index}");
            let folder = dir.node(&name);
            Node {
                spec: NodeSpec {
                    index,
                    addresses: addressing::node(options.families, index),
                    management: addressing::management_node(index),
                    mac: addressing::node_mac(index),
                    config: folder.join("agent.json"),
                    dir: folder,
                    log: dir.log(&name),
                    agent: agent.to_owned(),
                    kubernetes: kubernetes.to_owned(),
                    name,
                },
                faults: BTreeSet::new(),
            }
        })
        .collect()
}

/// Writes the configuration of every node's agent. `speaker` gives the daemon's command
/// for a node of that name.
pub(crate) fn write_configs(lab: &Lab, speaker: impl Fn(&str) -> Option<Daemon>) -> Result<()> {
    let options = &lab.state.options;
    let substrate = lab.substrate();
    for node in &lab.state.nodes {
        let spec = &node.spec;
        fs::create_dir_all(&spec.dir)
            .with_context(|| format!("cannot make {}", spec.dir.display()))?;
        let log_dir = lab.dir.logs().join(&spec.name);
        fs::create_dir_all(&log_dir)?;
        let config = AgentConfig {
            node_name: spec.name.clone(),
            uplink: options.uplink(spec.index),
            addresses: spec.addresses.clone(),
            gateways: addressing::host(options.families)
                .iter()
                .map(IpNet::addr)
                .collect(),
            management: substrate.has_management().then_some(spec.management),
            pod_cidrs: addressing::pod_cidrs(options.families, spec.index),
            peers: peers(&lab.state.nodes, spec, options),
            control: substrate.has_management().then(|| control_address(spec)),
            kubeconfig: lab.dir.kubeconfig(pki::AGENT),
            kube_proxy: Some(kube_proxy(lab, &spec.name)),
            speaker: speaker(&spec.name),
            log_dir,
            state_dir: spec.dir.clone(),
        };
        config.write(&spec.config)?;
    }
    Ok(())
}

/// Where a node's agent listens for `exec`, on substrates that have a management link.
pub fn control_address(spec: &NodeSpec) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(spec.management.addr()), CONTROL_PORT)
}

fn peers(nodes: &[Node], own: &NodeSpec, options: &Options) -> Vec<Peer> {
    nodes
        .iter()
        .map(|node| &node.spec)
        .filter(|spec| spec.name != own.name)
        .map(|spec| Peer {
            name: spec.name.clone(),
            addresses: spec.addresses.iter().map(IpNet::addr).collect(),
            pod_cidrs: addressing::pod_cidrs(options.families, spec.index),
        })
        .collect()
}

fn kube_proxy(lab: &Lab, node: &str) -> Daemon {
    let options = &lab.state.options;
    let pods = options
        .families
        .pick("198.51.100.0/24", "2001:db8:100::/48")
        .join(",");
    let mut argv = vec![
        lab.state.kubernetes.proxy.display().to_string(),
        format!("--proxy-mode={}", options.proxy_mode),
        format!("--kubeconfig={}", lab.dir.kubeconfig(pki::PROXY).display()),
        format!("--hostname-override={node}"),
        "--detect-local-mode=ClusterCIDR".to_owned(),
        format!("--cluster-cidr={pods}"),
        // The limit on tracked connections is not a namespace's own to set.
        "--conntrack-max-per-core=0".to_owned(),
    ];
    if options.proxy_mode == ProxyMode::Ipvs {
        // The node answers ARP for its own addresses alone, not for those of Services.
        argv.push("--ipvs-strict-arp=true".to_owned());
    }
    Daemon {
        argv,
        env: BTreeMap::new(),
    }
}

/// The Node objects; their agents fill in the status.
pub(crate) fn objects(nodes: &[Node], options: &Options) -> Value {
    let items: Vec<Value> = nodes
        .iter()
        .map(|node| {
            let networks = addressing::pod_cidrs(options.families, node.spec.index);
            json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": node.spec.name,
                    "labels": {
                        "kubernetes.io/hostname": node.spec.name,
                        "kubernetes.io/os": "linux",
                    },
                },
                "spec": { "podCIDR": networks[0], "podCIDRs": networks },
            })
        })
        .collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// Boots one node; [`wait_ready`] tells when it serves.
pub(crate) fn start(lab: &mut Lab, substrate: &dyn Substrate, name: &str) -> Result<()> {
    let spec = lab.state.node(name)?.spec.clone();
    let ready = spec.dir.join("ready");
    if ready.exists() {
        fs::remove_file(&ready)?;
    }
    let command = substrate
        .prepare(&spec)
        .with_context(|| format!("cannot make {name}"))?;
    lab.spawn(name, &command)
}

/// Waits until a node's agent has set up its network and started its daemons.
pub(crate) fn wait_ready(lab: &Lab, name: &str) -> Result<()> {
    let spec = &lab.state.node(name)?.spec;
    sh::wait_for(
        &format!("{name} is set up (its console: {})", spec.log.display()),
        lab.within(Duration::from_secs(90)),
        Duration::from_millis(50),
        || {
            let process = lab.state.processes.get(name).context("it never started")?;
            if !process.is_alive() {
                anyhow::bail!("{name} ended while it started: see {}", spec.log.display());
            }
            Ok(spec.dir.join("ready").exists().then_some(()))
        },
    )
}

/// Waits until kube-proxy on a node has written its rules: until the API server
/// answers the node under its ClusterIP. (kube-proxy's own health check says yes before that.)
pub(crate) fn wait_proxy(lab: &Lab, name: &str) -> Result<()> {
    let address = addressing::api_cluster_ips(lab.state.options.families)[0];
    // Plain HTTP to a TLS port: an answer of four hundred something is an answer.
    let url = match address {
        IpAddr::V4(address) => format!("http://{address}:443/"),
        IpAddr::V6(address) => format!("http://[{address}]:443/"),
    };
    sh::wait_for(
        &format!("kube-proxy on {name} has its rules"),
        lab.within(Duration::from_secs(120)),
        Duration::from_millis(200),
        || {
            let probe = lab.exec(name, &["curl", "-s", "-m", "2", "-o", "/dev/null", &url])?;
            Ok(probe.status.success().then_some(()))
        },
    )
}
