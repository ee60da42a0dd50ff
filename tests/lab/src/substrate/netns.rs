//! Nodes as namespaces of this machine's kernel.
//!
//! A node is a network namespace `ls-NAME` and a tree of processes with
//! process ids, mounts and a host name of their own. Its kernel is this machine's: it
//! can be killed and cut off like any other node, but while it is paused its
//! kernel still forwards and answers ARP.

use std::process::Command;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{LAB_NETNS, LAN_BRIDGE, NodeSpec, Substrate};
use crate::agent_config::UPLINK;
use crate::deps::{Need, need};
use crate::net;
use crate::process;
use crate::sh;

/// Nodes as namespaces.
#[derive(Clone, Copy, Debug)]
pub struct Netns;

/// The node's first process makes the mounts that separate it, then becomes the agent.
const INIT: &str = r#"set -e
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
hostname "$1"
exec "$2" node --config "$3""#;

fn namespace(node: &NodeSpec) -> String {
    format!("ls-{}", node.name)
}

impl Substrate for Netns {
    fn name(&self) -> &'static str {
        "netns"
    }

    fn needs(&self) -> &'static [Need] {
        const NEEDS: &[Need] = &[need("unshare", "util-linux"), need("hostname", "hostname")];
        NEEDS
    }

    fn has_management(&self) -> bool {
        false
    }

    fn prepare(&self, node: &NodeSpec) -> Result<Command> {
        let (namespace, port) = (namespace(node), node.port());
        sh::ip(&format!("netns add {namespace}"))?;
        sh::ip(&format!(
            "-n {LAB_NETNS} link add {port} type veth peer name {UPLINK} address {} netns {namespace}",
            node.mac
        ))?;
        sh::ip(&format!(
            "-n {LAB_NETNS} link set {port} master {LAN_BRIDGE} up"
        ))?;
        let mut command = net::command_in(&namespace, &["unshare"]);
        command
            .args(["--pid", "--fork", "--kill-child", "--mount", "--uts"])
            .args(["sh", "-c", INIT, "init", &node.name])
            .arg(&node.agent)
            .arg(&node.config);
        Ok(command)
    }

    fn crash(&self, node: &NodeSpec, pid: u32) -> Result<()> {
        // The link first: a dead machine sends nothing more, not even a reset from its kernel.
        // `clear` removes it, with the namespace whose state would outlive the processes.
        let cut = sh::ip(&format!("-n {LAB_NETNS} link delete {}", node.port()));
        process::send(pid, Signal::SIGKILL)?;
        cut
    }

    fn pause(&self, _: &NodeSpec, pid: u32) -> Result<()> {
        // A process may fork before the signal reaches it: go round until none is new.
        let mut stopped = Vec::new();
        loop {
            let new: Vec<u32> = inside(pid)?
                .into_iter()
                .filter(|pid| !stopped.contains(pid))
                .collect();
            if new.is_empty() {
                return Ok(());
            }
            for pid in new {
                process::send(pid, Signal::SIGSTOP)?;
                stopped.push(pid);
            }
        }
    }

    fn resume(&self, _: &NodeSpec, pid: u32) -> Result<()> {
        for pid in inside(pid)? {
            process::send(pid, Signal::SIGCONT)?;
        }
        Ok(())
    }

    fn clear(&self, node: &NodeSpec) -> Result<()> {
        let port = node.port();
        if net::exists(LAB_NETNS) && sh::ip(&format!("-n {LAB_NETNS} link show dev {port}")).is_ok()
        {
            sh::ip(&format!("-n {LAB_NETNS} link delete {port}"))?;
        }
        net::remove(&namespace(node))
    }

    fn exec(&self, _: &NodeSpec, pid: u32, argv: &[String]) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command
            .args(["--mount", "--net", "--pid", "--uts", "--target"])
            .arg(first_process(pid)?.to_string())
            .arg("--")
            .args(argv);
        Ok(command)
    }
}

/// The node's process 1: the one child of the `unshare` that the lab started.
fn first_process(unshare: u32) -> Result<u32> {
    process::all()
        .into_iter()
        .find(|pid| process::stat(*pid).is_some_and(|stat| stat.parent == unshare))
        .context("the node has no process")
}

/// Every process of the node, as this machine numbers them.
fn inside(unshare: u32) -> Result<Vec<u32>> {
    let space = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = space(first_process(unshare)?);
    Ok(process::all()
        .into_iter()
        .filter(|pid| own.is_some() && space(*pid) == own)
        .collect())
}
