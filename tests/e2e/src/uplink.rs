//! A node's uplink that goes, and is made anew as another interface of the same name.

use anyhow::{Context, Result, ensure};
use lightship_lab::options::{SubstrateKind, UplinkKind};
use lightship_lab::substrate::{LAB_NETNS, LAN_BRIDGE, NodeSpec};
use lightship_lab::{Lab, sh};

/// An uplink that has been removed, with the routes that went with it.
#[derive(Debug)]
pub struct Removed {
    node: NodeSpec,
    kind: UplinkKind,
    /// Those that the kernel does not make itself, for `ip -batch`.
    routes: String,
}

/// Removes a node's uplink: its port on the LAN where nodes are namespaces, else the bridge that carries
/// its addresses.
///
/// # Errors
/// When the node has no such uplink, or a command fails.
pub fn remove(lab: &Lab, node: &str) -> Result<Removed> {
    let state = lab.state();
    let mut nodes = state.nodes.iter();
    let found = nodes.find(|found| found.spec.name == node);
    let spec = found
        .with_context(|| format!("no node {node}"))?
        .spec
        .clone();
    let kind = state.options.uplink(spec.index);
    let plain = kind == UplinkKind::Plain && state.options.substrate == SubstrateKind::Netns;
    ensure!(
        plain || kind == UplinkKind::Bridge,
        "{node}'s uplink cannot be made anew"
    );
    let link = kind.interface();
    let mut routes = String::new();
    for family in ["-4", "-6"] {
        let all = lab.shell(node, &format!("ip {family} route show dev {link}"))?;
        for route in all.lines().filter(|line| !line.contains("proto kernel")) {
            routes += &format!("route replace {} dev {link}\n", route.trim());
        }
    }
    if plain {
        sh::ip(&format!("-n {LAB_NETNS} link del {}", spec.port()))?;
    } else {
        lab.shell(node, &format!("ip link del {link}"))?;
    }
    Ok(Removed {
        node: spec,
        kind,
        routes,
    })
}

impl Removed {
    /// Makes it anew, with what it had.
    ///
    /// # Errors
    /// When a command fails.
    pub fn put_back(self, lab: &Lab) -> Result<()> {
        let (node, link) = (&self.node, self.kind.interface());
        let mut lines = String::new();
        if self.kind == UplinkKind::Plain {
            let (port, name) = (node.port(), &node.name);
            sh::ip(&format!(
                "-n {LAB_NETNS} link add {port} type veth peer name {link} address {} netns ls-{name}",
                node.mac
            ))?;
            sh::ip(&format!(
                "-n {LAB_NETNS} link set {port} master {LAN_BRIDGE} up"
            ))?;
        } else {
            lines += &format!(
                "link add {link} type bridge forward_delay 0\nlink set eth0 master {link}\n"
            );
        }
        lines += &format!("link set {link} up\n");
        for address in &node.addresses {
            let dad = if address.addr().is_ipv4() {
                ""
            } else {
                " nodad"
            };
            lines += &format!("addr add {address} dev {link}{dad}\n");
        }
        let line = format!("ip -batch - <<'END'\n{lines}{}END", self.routes);
        lab.shell(&node.name, &line).map(drop)
    }
}
