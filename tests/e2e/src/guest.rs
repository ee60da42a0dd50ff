//! A host of the LAN that shares a node's machine, for what the client's kernel cannot do.

use std::process::Output;

use anyhow::{Context, Result};
use lightship_lab::Lab;
use serde::de::DeserializeOwned;

const NETNS: &str = "guest";
const LINK: &str = "guest0";

/// A network namespace on a node with a macvlan of its own on the node's uplink: on the LAN it
/// is a host like any other, with its own MAC address. Removed when dropped.
#[derive(Debug)]
pub struct Guest<'a> {
    lab: &'a Lab,
    node: String,
}

impl<'a> Guest<'a> {
    /// The guest's addresses on the LAN.
    pub const ADDRESSES: [&'static str; 2] = ["192.0.2.150", "2001:db8:2::150"];

    /// Makes it on `node`.
    ///
    /// # Errors
    /// When a command fails there.
    pub fn create(lab: &'a Lab, node: &str) -> Result<Self> {
        let guest = Self {
            lab,
            node: node.to_owned(),
        };
        let [v4, v6] = Self::ADDRESSES;
        let state = lab.state();
        let found = state.nodes.iter().find(|found| found.spec.name == node);
        let index = found.with_context(|| format!("no node {node}"))?.spec.index;
        let uplink = state.options.uplink(index).interface();
        guest.make(uplink, [&format!("{v4}/24"), &format!("{v6}/64")])?;
        Ok(guest)
    }

    /// Makes it on another link of `node`, with these addresses and lengths of their prefixes.
    ///
    /// # Errors
    /// When a command fails there.
    pub fn on(lab: &'a Lab, node: &str, link: &str, addresses: [&str; 2]) -> Result<Self> {
        let guest = Self {
            lab,
            node: node.to_owned(),
        };
        guest.make(link, addresses)?;
        Ok(guest)
    }

    fn make(&self, uplink: &str, [v4, v6]: [&str; 2]) -> Result<()> {
        let line = format!(
            "set -e; ip netns add {NETNS}; \
             ip link add {LINK} link {uplink} netns {NETNS} type macvlan mode bridge; \
             in='ip netns exec {NETNS}'; $in ip link set lo up; $in ip link set {LINK} up; \
             $in ip address add {v4} dev {LINK}; \
             $in ip address add {v6} dev {LINK} nodad"
        );
        self.lab.shell(&self.node, &line).map(drop)
    }

    /// Runs a command in it.
    ///
    /// # Errors
    /// When the node does not run or cannot be reached.
    pub fn exec(&self, words: &[&str]) -> Result<Output> {
        let inside = ["ip", "netns", "exec", NETNS];
        self.lab.exec(&self.node, &[&inside, words].concat())
    }

    /// Runs a probe in it to its end and gives its last line.
    ///
    /// # Errors
    /// When it does not start, or says nothing or something else than expected.
    pub fn probe<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T> {
        let agent = self.lab.state().nodes[0].spec.agent.display().to_string();
        let output = self.exec(&[&[&*agent, "probe"], words].concat())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().with_context(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("the probe said nothing: {}", said.trim())
        })?;
        serde_json::from_str(last).with_context(|| format!("the probe said {last:?}"))
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let line = format!("ip netns delete {NETNS} 2>/dev/null");
        let _ = self.lab.exec(&self.node, &["sh", "-c", &line]);
    }
}
