//! The node's addresses, routes and kernel settings.
//!
//! All by one run of `ip -batch`: where a node is a User Mode Linux guest, each
//! process costs tens of milliseconds.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use lightship_lab::agent_config::{AgentConfig, MANAGEMENT, UPLINK};
use lightship_lab::options::UplinkKind;

/// Settings of a node that routes for its pods, and why.
const SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    // A reply may leave by another way than its request came (direct routing).
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    // Addresses come from the lab's plan: no router to hear, no duplicate to fear.
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
];

/// Sets the node up. May be repeated.
///
/// # Errors
/// When a command or a setting is refused.
pub(crate) fn set_up(config: &AgentConfig) -> Result<()> {
    set_sysctls(SYSCTLS)?;
    // The interfaces exist already, so they did not take the default.
    let _ = set_sysctls(&[("net/ipv6/conf/eth0/accept_dad", "0")]);
    let made = Path::new("/sys/class/net").join(config.uplink.interface());
    if !made.exists() {
        ip_batch(None, making(config.uplink))?;
    }
    ip_batch(None, &commands(config))
}

/// What makes the uplink above [`UPLINK`].
fn making(uplink: UplinkKind) -> &'static str {
    match uplink {
        UplinkKind::Plain => "",
        UplinkKind::Bridge => {
            "link add br0 type bridge forward_delay 0\n\
             link set eth0 master br0\n"
        }
        // Only an interface that is down becomes a bond's port.
        UplinkKind::Bond => {
            "link add bond0 type bond mode active-backup miimon 100\n\
             link set eth0 down\n\
             link set eth0 master bond0\n"
        }
        UplinkKind::Vlan => "link add link eth0 name eth0.7 type vlan id 7\n",
    }
}

fn commands(config: &AgentConfig) -> String {
    let mut batch = String::from("link set lo up\n");
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = batch.write_fmt(text);
        batch.push('\n');
    };
    let uplink = config.uplink.interface();
    line(format_args!("link set {UPLINK} up"));
    if uplink != UPLINK {
        line(format_args!("link set {uplink} up"));
    }
    for address in &config.addresses {
        line(format_args!(
            "addr replace {address} dev {uplink}{}",
            no_dad(address.addr())
        ));
    }
    if let Some(address) = config.management {
        line(format_args!("link set {MANAGEMENT} up"));
        line(format_args!("addr replace {address} dev {MANAGEMENT}"));
    }
    for gateway in &config.gateways {
        if config.uplink == UplinkKind::Vlan {
            let all = if gateway.is_ipv4() { 32 } else { 128 };
            line(format_args!("route replace {gateway}/{all} dev {UPLINK}"));
        }
        line(format_args!("route replace default via {gateway}"));
    }
    for peer in &config.peers {
        for network in &peer.pod_cidrs {
            let via = peer
                .addresses
                .iter()
                .find(|address| address.is_ipv4() == network.addr().is_ipv4());
            if let Some(via) = via {
                line(format_args!("route replace {network} via {via}"));
            }
        }
    }
    // What no pod has must not leave by the default route and come back.
    for network in &config.pod_cidrs {
        line(format_args!("route replace unreachable {network}"));
    }
    batch
}

/// Keeps an IPv6 address from being tentative, and so silent, for its first second.
pub(crate) fn no_dad(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "" } else { " nodad" }
}

/// Runs lines of `ip` commands in the named network namespace, or in this one.
///
/// # Errors
/// With `ip`'s own words when it refuses one.
pub(crate) fn ip_batch(namespace: Option<&str>, commands: &str) -> Result<()> {
    let mut ip = Command::new("ip")
        .args(namespace.map(|name| ["-n", name]).into_iter().flatten())
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start ip")?;
    ip.stdin
        .take()
        .context("no pipe to ip")?
        .write_all(commands.as_bytes())?;
    let done = ip.wait_with_output()?;
    if !done.status.success() {
        bail!(
            "ip: {}\nin these commands:\n{commands}",
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    Ok(())
}

/// Writes kernel settings of the calling thread's network namespace.
///
/// # Errors
/// When the kernel has no such setting or refuses the value.
pub(crate) fn set_sysctls(settings: &[(&str, &str)]) -> Result<()> {
    for (name, value) in settings {
        fs::write(format!("/proc/sys/{name}"), value)
            .with_context(|| format!("cannot set {name} to {value}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use lightship_lab::agent_config::Peer;

    use super::*;

    #[test]
    fn a_dual_stack_node_routes_to_its_peers_by_family() {
        let config = AgentConfig {
            node_name: "node1".into(),
            uplink: UplinkKind::Plain,
            addresses: vec![
                "192.0.2.11/24".parse().unwrap(),
                "2001:db8:2::11/64".parse().unwrap(),
            ],
            gateways: vec!["192.0.2.1".parse().unwrap()],
            management: Some("203.0.113.131/26".parse().unwrap()),
            pod_cidrs: vec!["198.51.100.16/28".parse().unwrap()],
            peers: vec![Peer {
                name: "node2".into(),
                addresses: vec![
                    "192.0.2.12".parse().unwrap(),
                    "2001:db8:2::12".parse().unwrap(),
                ],
                pod_cidrs: vec![
                    "198.51.100.32/28".parse().unwrap(),
                    "2001:db8:100:2::/64".parse().unwrap(),
                ],
            }],
            control: None,
            kubeconfig: PathBuf::new(),
            kube_proxy: None,
            speaker: None,
            log_dir: PathBuf::new(),
            state_dir: PathBuf::new(),
        };
        assert_eq!(
            commands(&config).lines().collect::<Vec<_>>(),
            [
                "link set lo up",
                "link set eth0 up",
                "addr replace 192.0.2.11/24 dev eth0",
                "addr replace 2001:db8:2::11/64 dev eth0 nodad",
                "link set mgmt0 up",
                "addr replace 203.0.113.131/26 dev mgmt0",
                "route replace default via 192.0.2.1",
                "route replace 198.51.100.32/28 via 192.0.2.12",
                "route replace 2001:db8:100:2::/64 via 2001:db8:2::12",
                "route replace unreachable 198.51.100.16/28",
            ]
        );
    }
}
