//! What nodes with a kernel of their own have in common, whatever runs that kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{LAB_NETNS, LAN_BRIDGE, MANAGEMENT_BRIDGE, NodeSpec};
use crate::agent_config::AgentConfig;
use crate::{net, nodes, sh};

/// Starts a node's kernel (the words after). Heartbeats are due within milliseconds whatever else this machine
/// does, so a node gets more of the processors than a compiler, where sessions compete as
/// groups (sched(7), "The autogroup feature").
pub(super) const BOOT: &str = r#"{ echo -10 > /proc/self/autogroup; } 2> /dev/null || :
exec "$@""#;

/// Kernel modules for kube-proxy's ipvs mode.
const IPVS_MODE_MODULES: &[&str] = &[
    "ip_vs_rr",
    "ip_set",
    "xt_set",
    "ip_set_hash_ip",
    "ip_set_hash_ipport",
    "ip_set_hash_ipportip",
    "ip_set_hash_ipportnet",
    "ip_set_bitmap_port",
    "dummy",
];

/// Refuses folders that a guest does not see.
///
/// # Errors
/// When one lies where a guest has something of its own.
pub(super) fn check_visible(node: &NodeSpec, config: &AgentConfig) -> Result<()> {
    let mut used = vec![&node.dir, &node.config, &node.agent, &config.kubeconfig];
    used.extend([&config.log_dir, &config.state_dir]);
    if let Some(hidden) = used.iter().find(|path| is_hidden(path)) {
        bail!(
            "{} lies in /run, of which a node has one of its own: choose another folder \
             (LIGHTSHIP_LAB_DIR, CARGO_TARGET_DIR)",
            hidden.display()
        );
    }
    Ok(())
}

/// Whether a path of this machine is out of a guest's sight.
fn is_hidden(path: &Path) -> bool {
    ["/run", "/var/run", "/proc", "/sys", "/dev"]
        .iter()
        .any(|folder| path.starts_with(folder))
}

/// The folders of this machine in which a node may write.
pub(super) fn writable(node: &NodeSpec, config: &AgentConfig) -> Vec<PathBuf> {
    let mut folders = vec![node.dir.clone(), config.log_dir.clone()];
    if !config.state_dir.starts_with(&node.dir) {
        folders.push(config.state_dir.clone());
    }
    folders
}

/// Whether the node's kube-proxy is to run in ipvs mode.
pub(super) fn wants_ipvs_mode(config: &AgentConfig) -> bool {
    let daemons = config.kube_proxy.iter();
    daemons
        .flat_map(|daemon| &daemon.argv)
        .any(|argument| argument == "--proxy-mode=ipvs")
}

/// Writes the program that becomes the node's process 1, and gives its path.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write_script(node: &NodeSpec, text: &str) -> Result<PathBuf> {
    let path = node.dir.join("init");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// The line that gives a node its host name.
pub(super) fn host_name(name: &str) -> String {
    format!("echo {} > /proc/sys/kernel/hostname", quote(name.as_ref()))
}

/// How the script of process 1 ends.
pub(super) struct Ending<'a> {
    /// The command that loads modules.
    pub(super) modprobe: &'a str,
    /// Modules that are wanted for certain. To load them in one go is cheaper than a process for each.
    pub(super) modules: &'a [&'a str],
    /// Whether kube-proxy runs in ipvs mode.
    pub(super) ipvs_mode: bool,
    /// What interfaces are called at first, and shall be called.
    pub(super) interfaces: &'a [(&'a str, &'a str)],
    /// The agent, which it becomes, and its configuration.
    pub(super) agent: &'a Path,
    /// See `agent`.
    pub(super) config: &'a Path,
}

impl Ending<'_> {
    /// Its lines, an empty one at the end.
    pub(super) fn lines(&self) -> Vec<String> {
        let more = if self.ipvs_mode {
            IPVS_MODE_MODULES
        } else {
            &[]
        };
        let mut lines = vec![
            format!(
                "{} -a {}",
                self.modprobe,
                [self.modules, more].concat().join(" ")
            ),
            "echo 131072 > /proc/sys/net/netfilter/nf_conntrack_max".into(),
        ];
        let renamed = self.interfaces.iter();
        lines.extend(renamed.map(|(from, to)| format!("ip link set {from} name {to}")));
        lines.push(format!(
            "exec {} node --config {}",
            quote(self.agent),
            quote(self.config)
        ));
        lines.push(String::new());
        lines
    }
}

/// Quotes a word for the shell.
pub(super) fn quote(word: &Path) -> String {
    format!("'{}'", word.display().to_string().replace('\'', r"'\''"))
}

/// MAC address of a node's management interface: locally administered.
pub(super) fn management_mac(index: u8) -> String {
    format!("02:1a:b0:00:01:{index:02x}")
}

/// Makes both taps of a node, up and on their bridges.
///
/// # Errors
/// When `ip` refuses.
pub(super) fn add_taps(node: &NodeSpec) -> Result<()> {
    for (name, bridge) in ports(node) {
        sh::ip(&format!("-n {LAB_NETNS} tuntap add dev {name} mode tap"))?;
        sh::ip(&format!(
            "-n {LAB_NETNS} link set {name} master {bridge} up"
        ))?;
    }
    Ok(())
}

/// Removes those of a node's taps that are there.
///
/// # Errors
/// When one stays.
pub(super) fn remove_taps(node: &NodeSpec) -> Result<()> {
    for (name, _) in ports(node) {
        if net::exists(LAB_NETNS) && sh::ip(&format!("-n {LAB_NETNS} link show dev {name}")).is_ok()
        {
            sh::ip(&format!("-n {LAB_NETNS} link delete {name}"))?;
        }
    }
    Ok(())
}

fn ports(node: &NodeSpec) -> [(String, &'static str); 2] {
    [
        (node.port(), LAN_BRIDGE),
        (node.management_port(), MANAGEMENT_BRIDGE),
    ]
}

/// A command that runs `argv` on the node, by its agent on the management link.
pub(super) fn exec(node: &NodeSpec, argv: &[String]) -> Command {
    let mut command = net::command_in(LAB_NETNS, &[&node.agent]);
    command
        .args(["ctl", &nodes::control_address(node).to_string()])
        .args(["exec", "--"])
        .args(argv);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_cannot_see_is_told_apart() {
        assert!(is_hidden(Path::new("/run/user/0/lab")));
        assert!(!is_hidden(Path::new("/running/lab")));
        assert!(!is_hidden(Path::new("/var/lib/lightship-lab")));
    }
}
