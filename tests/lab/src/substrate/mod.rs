//! What a node is made of: one trait, three ways.
//!
//! [`Substrate`] is all that the rest of the lab knows about nodes. Faults on the
//! network (unplug, partition) are not here: every substrate puts the node's uplink
//! on the bridge `br0` in `ls-lab` as a port named [`NodeSpec::port`], so they are
//! the same for all.

mod guest;
pub mod netns;
pub mod qemu;
pub mod uml;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::deps::Need;
use crate::options::SubstrateKind;
use crate::progress::Progress;

/// Network namespace of the control plane and of the bridges.
pub const LAB_NETNS: &str = "ls-lab";

/// Network namespace of the client host.
pub const CLIENT_NETNS: &str = "ls-client";

/// The LAN: a bridge in [`LAB_NETNS`].
pub const LAN_BRIDGE: &str = "br0";

/// The management link: a second bridge in [`LAB_NETNS`], which no fault touches.
pub const MANAGEMENT_BRIDGE: &str = "br-mgmt";

/// One node, as a substrate needs to know it. The agent's share is in the file at
/// `config` (an [`crate::agent_config::AgentConfig`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// `node1`, `node2`, …: also the Node object's name.
    pub name: String,
    /// From 1.
    pub index: u8,
    /// Addresses on the LAN, with prefix length.
    pub addresses: Vec<IpNet>,
    /// Address on the management link.
    pub management: Ipv4Net,
    /// MAC address of the uplink.
    pub mac: String,
    /// The node's own folder: configuration, pid files, a substrate's own files.
    pub dir: PathBuf,
    /// The agent's configuration file (in `dir`).
    pub config: PathBuf,
    /// Where the node's console goes.
    pub log: PathBuf,
    /// The agent's program on this machine.
    pub agent: PathBuf,
    /// Folder with `kube-proxy` and its kin.
    pub kubernetes: PathBuf,
}

impl NodeSpec {
    /// Name of the node's port on [`LAN_BRIDGE`], in [`LAB_NETNS`].
    pub fn port(&self) -> String {
        self.name.clone()
    }

    /// Name of the node's port on [`MANAGEMENT_BRIDGE`], in [`LAB_NETNS`].
    pub fn management_port(&self) -> String {
        format!("{}-m", self.name)
    }
}

/// A way to make nodes. `pid` is always what [`Substrate::start`] gave.
///
/// Implementations hold no state of their own: each `cargo xtask lab` command is a new process.
pub trait Substrate {
    /// The name on the command line.
    fn name(&self) -> &'static str;

    /// Programs that nodes of this kind need beside the lab's own.
    fn needs(&self) -> &'static [Need];

    /// Whether the nodes' control socket and management link are used.
    fn has_management(&self) -> bool;

    /// Gets ready what all nodes share, in `folder`, which holds the nodes' own folders. Gives how many times
    /// longer than usual things may take on these nodes.
    ///
    /// # Errors
    /// When a part cannot be had.
    fn provide(&self, folder: &Path, progress: Progress) -> Result<u32> {
        let _ = (folder, progress);
        Ok(1)
    }

    /// Makes the node's links (in [`LAB_NETNS`], uplink in [`LAN_BRIDGE`] and up)
    /// and gives the command that boots the node and lives as long as it:
    /// the lab spawns it detached, with the log as its output, and records its pid.
    /// Must also work after [`Substrate::clear`] of an earlier start.
    ///
    /// # Errors
    /// When a link cannot be made, or a part is missing on this machine.
    fn prepare(&self, node: &NodeSpec) -> Result<Command>;

    /// Ends the node at once, as a power failure would, whole tree of processes.
    ///
    /// # Errors
    /// When the process cannot be signalled.
    fn crash(&self, node: &NodeSpec, pid: u32) -> Result<()>;

    /// Stops the node's processors (its kernel too, where it has its own).
    ///
    /// # Errors
    /// When the process cannot be signalled.
    fn pause(&self, node: &NodeSpec, pid: u32) -> Result<()>;

    /// Undoes [`Substrate::pause`].
    ///
    /// # Errors
    /// When the process cannot be signalled.
    fn resume(&self, node: &NodeSpec, pid: u32) -> Result<()>;

    /// Removes what [`Substrate::prepare`] made: links, namespaces, mounts. The node has ended.
    /// No error when there is nothing.
    ///
    /// # Errors
    /// When something is there but cannot be removed.
    fn clear(&self, node: &NodeSpec) -> Result<()>;

    /// A command that runs `argv` on the node with the caller's standard streams
    /// and ends with its exit code.
    ///
    /// # Errors
    /// When the node cannot be entered.
    fn exec(&self, node: &NodeSpec, pid: u32, argv: &[String]) -> Result<Command>;
}

/// The substrate of that kind.
pub fn of(kind: SubstrateKind) -> Box<dyn Substrate> {
    match kind {
        SubstrateKind::Netns => Box::new(netns::Netns),
        SubstrateKind::Uml => Box::new(uml::Uml),
        SubstrateKind::Qemu => Box::new(qemu::Qemu),
    }
}
