//! A second LAN, with addresses and clients of its own, to which nodes get a further uplink while the
//! lab runs.

use anyhow::{Context, Result, ensure};
use lightship_lab::options::SubstrateKind;
use lightship_lab::substrate::{CLIENT_NETNS, LAB_NETNS};
use lightship_lab::{Lab, sh};
use serde_json::json;

use crate::scene::Wish;

/// Its bridge, where nodes are namespaces.
const BRIDGE: &str = "br-second";

/// The pool of its addresses.
pub const POOL: &str = "second";

/// Addresses for one Service: the first of each of [`RANGES`].
pub const ADDRESSES: [&str; 2] = ["203.0.113.240", "2001:db8:20::240"];

const RANGES: [&str; 2] = [
    "203.0.113.240-203.0.113.250",
    "2001:db8:20::240-2001:db8:20::250",
];

/// The client's addresses there.
pub const CLIENT: [&str; 2] = ["203.0.113.230", "2001:db8:20::230"];

/// The second LAN. Where nodes are namespaces it is a bridge, with an interface `eth1` of each node and of
/// the client; else it is VLAN 20 on the nodes' `eth0`, and clients are made by [`crate::guest`].
/// Removed when dropped.
#[derive(Debug)]
pub struct SecondLan {
    nodes: Vec<String>,
    bridged: bool,
}

impl SecondLan {
    /// Makes it, with all nodes on it.
    ///
    /// # Errors
    /// When a command fails.
    pub fn create(lab: &Lab) -> Result<Self> {
        let bridged = lab.state().options.substrate == SubstrateKind::Netns;
        let second = Self {
            nodes: lab.node_names(),
            bridged,
        };
        if bridged {
            sh::ip(&format!(
                "-n {LAB_NETNS} link add {BRIDGE} type bridge forward_delay 0 mcast_snooping 0"
            ))?;
            sh::ip(&format!("-n {LAB_NETNS} link set {BRIDGE} up"))?;
            plug("client-2", CLIENT_NETNS, CLIENT)?;
        }
        for node in &second.nodes {
            second.join(lab, node)?;
        }
        Ok(second)
    }

    /// The nodes' interface on it.
    pub fn interface(&self) -> &'static str {
        if self.bridged { "eth1" } else { "eth0.20" }
    }

    /// Puts a node on it, for instance one that has booted anew.
    ///
    /// # Errors
    /// When a command fails.
    pub fn join(&self, lab: &Lab, node: &str) -> Result<()> {
        let state = lab.state();
        let found = state.nodes.iter().find(|found| found.spec.name == node);
        let number = found.with_context(|| format!("no node {node}"))?.spec.index;
        let v4 = format!("203.0.113.{}", 192 + u16::from(number));
        let v6 = format!("2001:db8:20::{number}");
        if self.bridged {
            return plug(&port(node), &format!("ls-{node}"), [&v4, &v6]);
        }
        let link = self.interface();
        let line = format!(
            "set -e; ip link add link eth0 name {link} type vlan id 20; \
             ip addr add {v4}/26 dev {link}; ip addr add {v6}/64 dev {link} nodad; \
             ip link set {link} up"
        );
        lab.shell(node, &line).map(drop)
    }

    /// Takes a node off it.
    ///
    /// # Errors
    /// When the command fails.
    pub fn leave(&self, lab: &Lab, node: &str) -> Result<()> {
        let line = format!("ip link del {}", self.interface());
        lab.shell(node, &line).map(drop)
    }

    /// Takes the carrier of a node's interface away, or gives it back. Where nodes are namespaces.
    ///
    /// # Errors
    /// When the command fails.
    pub fn set_carrier(&self, node: &str, carrier: bool) -> Result<()> {
        ensure!(self.bridged, "a VLAN has the carrier of its uplink");
        let direction = if carrier { "up" } else { "down" };
        sh::ip(&format!(
            "-n {LAB_NETNS} link set {} {direction}",
            port(node)
        ))
    }
}

impl Drop for SecondLan {
    fn drop(&mut self) {
        if !self.bridged {
            let Ok(lab) = Lab::open() else { return };
            for node in &self.nodes {
                // It is not there on one that has booted.
                let _ = self.leave(&lab, node);
            }
            return;
        }
        let ports = self.nodes.iter().map(|node| port(node));
        for link in ports.chain(["client-2".to_owned(), BRIDGE.to_owned()]) {
            let _ = sh::ip(&format!("-n {LAB_NETNS} link del {link}"));
        }
    }
}

fn port(node: &str) -> String {
    format!("{node}-2")
}

/// A link from the bridge to `eth1` of a namespace, with these addresses.
fn plug(port: &str, namespace: &str, [v4, v6]: [&str; 2]) -> Result<()> {
    for line in [
        format!("-n {LAB_NETNS} link add {port} type veth peer name eth1 netns {namespace}"),
        format!("-n {LAB_NETNS} link set {port} master {BRIDGE} up"),
        format!("-n {namespace} addr add {v4}/26 dev eth1"),
        format!("-n {namespace} addr add {v6}/64 dev eth1 nodad"),
        format!("-n {namespace} link set eth1 up"),
    ] {
        sh::ip(&line)?;
    }
    Ok(())
}

/// Makes the pool, and a Service of [`ADDRESSES`] with `externalTrafficPolicy: Local`.
///
/// # Errors
/// When the API server refuses.
pub fn service(lab: &Lab, name: &str) -> Result<()> {
    let pool = json!({
        "apiVersion": "lightship.dev/v1beta1",
        "kind": "AddressPool",
        "metadata": { "name": POOL },
        "spec": { "addresses": RANGES, "reuseDelaySeconds": 0 },
    });
    lab.apply(&pool.to_string())?;
    let wish = Wish {
        dual_stack: true,
        ..Wish::local(name)
    };
    let mut object = wish.object();
    object["metadata"]["annotations"] = json!({ "lightship.dev/addresses": ADDRESSES.join(",") });
    lab.apply(&object.to_string()).map(drop)
}
