//! The lab's networks: the namespace `ls-lab` with two bridges, and the client host.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use ipnet::IpNet;

use crate::addressing::{self, Families};
use crate::process;
use crate::sh;
use crate::substrate::{CLIENT_NETNS, LAB_NETNS, LAN_BRIDGE, MANAGEMENT_BRIDGE};
use crate::workload::RESERVED_PORTS;

/// Where `ip netns` keeps the names.
const NETNS_FOLDER: &str = "/run/netns";

/// A command that runs in a named network namespace of this machine.
pub(crate) fn command_in<S: AsRef<std::ffi::OsStr>>(namespace: &str, words: &[S]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).args(words);
    command
}

/// Whether a named network namespace exists.
pub(crate) fn exists(namespace: &str) -> bool {
    fs::exists(format!("{NETNS_FOLDER}/{namespace}")).unwrap_or(false)
}

/// The folder of another lab that has our names, and one of its processes. (A lab in a
/// mount namespace of its own has names of its own, and is none of our business.)
pub(crate) fn other_owner(own: &Path) -> Option<(u32, PathBuf)> {
    let inode = fs::metadata(format!("{NETNS_FOLDER}/{LAB_NETNS}"))
        .ok()?
        .ino();
    let inside = format!("net:[{inode}]");
    process::marked().into_iter().find(|(pid, lab)| {
        lab != own
            && fs::read_link(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|link| link.as_os_str() == inside.as_str())
    })
}

/// The lab's namespaces that exist: all names with our prefix.
pub(crate) fn ours() -> Vec<String> {
    let Ok(entries) = fs::read_dir(NETNS_FOLDER) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            name == LAB_NETNS
                || name == CLIENT_NETNS
                || name
                    .strip_prefix("ls-node")
                    .is_some_and(|number| number.parse::<u8>().is_ok())
        })
        .collect();
    names.sort();
    names
}

/// Whether `ip netns` has made its folder a mount, as it does once and keeps.
pub(crate) fn names_are_mounted() -> bool {
    fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| {
        mounts.lines().any(|line| {
            line.split_whitespace()
                .nth(1)
                .is_some_and(|point| point == NETNS_FOLDER || point == "/var/run/netns")
        })
    })
}

/// Undoes that mount, unless somebody has a namespace there.
pub(crate) fn unmount_names() {
    if fs::read_dir(NETNS_FOLDER).is_ok_and(|mut names| names.next().is_none()) {
        let _ = nix::mount::umount(NETNS_FOLDER);
        let _ = fs::remove_dir(NETNS_FOLDER);
    }
}

/// Makes the control plane's namespace with both bridges, and the client.
///
/// # Errors
/// When `ip` refuses.
pub(crate) fn create(families: Families) -> Result<()> {
    sh::ip(&format!("netns add {LAB_NETNS}"))?;
    let in_lab = |line: String| sh::ip(&format!("-n {LAB_NETNS} {line}"));
    in_lab("link set lo up".into())?;
    for (number, bridge) in [LAN_BRIDGE, MANAGEMENT_BRIDGE].into_iter().enumerate() {
        // No spanning tree and no snooping: a port forwards from its first moment, and
        // nothing keeps a node's multicast from the others. An address of its own: else the
        // bridge takes one of its ports', and changes it when that node is gone, so
        // that nobody finds the API server until their caches have aged.
        in_lab(format!(
            "link add {bridge} address 02:1a:b0:00:ff:{number:02x} type bridge forward_delay 0 \
             mcast_snooping 0"
        ))?;
        in_lab(format!("link set {bridge} up"))?;
    }
    for address in addressing::host(families) {
        add_address(LAB_NETNS, LAN_BRIDGE, address)?;
    }
    add_address(
        LAB_NETNS,
        MANAGEMENT_BRIDGE,
        IpNet::V4(addressing::management_host()),
    )?;
    // The nodes' default route ends here: what they send to it by mistake must not come back.
    // A new namespace takes these from this machine, so they are set whatever they are.
    for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        let set = format!("echo 0 > /proc/sys/net/{switch}");
        sh::run(command_in(LAB_NETNS, &["sh", "-c", &set]))?;
    }
    create_client(families)
}

fn create_client(families: Families) -> Result<()> {
    sh::ip(&format!("netns add {CLIENT_NETNS}"))?;
    sh::ip(&format!("-n {CLIENT_NETNS} link set lo up"))?;
    sh::ip(&format!(
        "-n {LAB_NETNS} link add client type veth peer name eth0 netns {CLIENT_NETNS}"
    ))?;
    sh::ip(&format!(
        "-n {LAB_NETNS} link set client master {LAN_BRIDGE} up"
    ))?;
    sh::ip(&format!("-n {CLIENT_NETNS} link set eth0 up"))?;
    for address in addressing::client(families) {
        add_address(CLIENT_NETNS, "eth0", address)?;
    }
    // A port that was used a minute or two ago stands for its former connection in the memory of nodes and
    // client: the more ports, the later one comes back to the same address.
    let ports = format!(
        "cd /proc/sys/net/ipv4; echo 1024 65535 > ip_local_port_range; echo {}-{} > ip_local_reserved_ports",
        RESERVED_PORTS.start(),
        RESERVED_PORTS.end()
    );
    sh::run(command_in(CLIENT_NETNS, &["sh", "-c", &ports])).map(drop)
}

/// Adds an address; IPv6 without duplicate address detection, so that it serves at once.
fn add_address(namespace: &str, link: &str, address: IpNet) -> Result<()> {
    let options = match address.addr() {
        IpAddr::V4(_) => "",
        IpAddr::V6(_) => "nodad",
    };
    sh::ip(&format!(
        "-n {namespace} address add {address} dev {link} {options}"
    ))
}

/// Removes a named namespace with all links in it; no error when there is none.
///
/// # Errors
/// When it is there and stays.
pub(crate) fn remove(namespace: &str) -> Result<()> {
    if exists(namespace) {
        sh::ip(&format!("netns delete {namespace}"))?;
    }
    Ok(())
}
