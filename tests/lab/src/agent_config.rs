//! The contract between the lab (which writes this file) and
//! `lightship-lab-agent node --config FILE` (which makes a machine a node).
//!
//! **Who does what.** The lab makes the node's namespace or kernel with an
//! interface `eth0` in it and starts the agent as the node's first process. The agent does
//! all else inside: interface addresses, routes and sysctls; the Node object's
//! status (InternalIPs, Ready) and its Lease; pods bound to this node; and
//! the daemons below, each restarted when it ends. The lab creates the Node
//! object (with labels and pod CIDRs) before the node starts. On every substrate
//! the agent is process 1 of the node (so it reaps orphans), `/proc` shows the node's
//! processes alone, and `/run` is an empty tmpfs of the node's own: named network namespaces
//! in `/run/netns` (pods, the director) never meet those of other nodes or of this machine.
//!
//! **Files the agent keeps**, so that the lab and tests can see and steer it:
//! - `<state_dir>/ready`: written (any content) once the network inside is set up and the
//!   daemons were started; removed by the lab before a start.
//! - `<state_dir>/<daemon>.pid`: process id, as seen inside the node, of the
//!   running daemon (`kube-proxy`, `speaker`).
//! - `<state_dir>/<daemon>.hold`: made by the lab; while it exists the
//!   agent does not start that daemon again when it has ended.
//! - `<log_dir>/<daemon>.log`, `<log_dir>/pod-<namespace>-<name>.log`: appended to, over restarts.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::options::UplinkKind;

/// Name of the interface on the LAN inside every node, on every substrate; most often the uplink.
pub const UPLINK: &str = "eth0";

/// Name of the management interface inside nodes that have one.
pub const MANAGEMENT: &str = "mgmt0";

/// Everything the agent must know to be one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Name of the Node object.
    pub node_name: String,
    /// What carries its addresses.
    #[serde(default)]
    pub uplink: UplinkKind,
    /// The node's addresses there, with prefix length, first family first.
    pub addresses: Vec<IpNet>,
    /// Default gateways, one for each family.
    pub gateways: Vec<IpAddr>,
    /// The address on [`MANAGEMENT`]; `None` where the node is reached without one.
    pub management: Option<Ipv4Net>,
    /// Networks for this node's pods; the first host address of each is their gateway.
    pub pod_cidrs: Vec<IpNet>,
    /// The other nodes: their pod networks are routed to their addresses.
    pub peers: Vec<Peer>,
    /// Where to listen for `exec` requests; `None` where the lab enters the node itself.
    pub control: Option<SocketAddr>,
    /// Client configuration for the agent's own requests to the API server.
    pub kubeconfig: PathBuf,
    /// The service proxy.
    pub kube_proxy: Option<Daemon>,
    /// The Lightship speaker; `None` in a lab without Lightship.
    pub speaker: Option<Daemon>,
    /// Where logs go.
    pub log_dir: PathBuf,
    /// Where the agent keeps its files (see the module's text).
    pub state_dir: PathBuf,
}

/// Another node, as the agent needs to know it for static routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Name of its Node object.
    pub name: String,
    /// Its addresses on the LAN.
    pub addresses: Vec<IpAddr>,
    /// Its pods' networks, each routed to the address of the same family.
    pub pod_cidrs: Vec<IpNet>,
}

/// A program that the agent keeps running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Daemon {
    /// Program (absolute path) and arguments.
    pub argv: Vec<String>,
    /// Variables added to the agent's own environment.
    pub env: BTreeMap<String, String>,
}

impl AgentConfig {
    /// Reads a configuration that [`AgentConfig::write`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read, or is not such a configuration.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is no agent configuration", path.display()))
    }

    /// Writes the configuration as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
