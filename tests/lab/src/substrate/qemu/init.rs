//! The script that a node starts as its process 1, once its root is there.
//!
//! What it writes goes to the node's own tmpfs, but for its folders, which are shared with this
//! machine. It ends by becoming the agent, which does all the rest.

use std::path::{Path, PathBuf};

use super::super::guest::{Ending, host_name, quote};
use crate::agent_config::MANAGEMENT;

/// Modules that are wanted for certain; the kernel asks for others by itself.
const MODULES: &[&str] = &[
    // The director.
    "ip_vs",
    "ip_vs_mh",
    "macvlan",
    "veth",
    "sctp",
    // kube-proxy, nftables mode; iptables is a front of nf_tables too.
    "nf_conntrack",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_inet",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_reject_inet",
    "nft_compat",
];

/// What the script is made from.
pub(super) struct Script<'a> {
    /// The node's name, that becomes the host name.
    pub(super) name: &'a str,
    /// Folder of the kernel's modules on this machine.
    pub(super) modules: &'a Path,
    /// Folders of this machine in which the node may write, with the names of their shares.
    pub(super) writable: &'a [(String, PathBuf)],
    /// The node's own folder, one of those or in one.
    pub(super) folder: &'a Path,
    /// Whether kube-proxy runs in ipvs mode.
    pub(super) ipvs_mode: bool,
    /// The agent and its configuration.
    pub(super) agent: &'a Path,
    /// See `agent`.
    pub(super) config: &'a Path,
}

impl Script<'_> {
    /// The script's text.
    pub(super) fn text(&self) -> String {
        let mut lines: Vec<String> = vec![
            "#!/bin/sh".into(),
            "# Process 1 of a lab node; made by the lab anew at each start.".into(),
            "set -e".into(),
            "export PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin".into(),
            "export HOME=/root TMPDIR=/run/tmp".into(),
            "mount -t tmpfs -o mode=755 tmpfs /run".into(),
            "mkdir -p /run/netns /run/lock /run/tmp /dev/pts /dev/shm".into(),
            "mount -t devpts devpts /dev/pts".into(),
            "mount -t tmpfs tmpfs /dev/shm".into(),
        ];
        for (tag, folder) in self.writable {
            // Without a cache: what is written is seen at once, on either side.
            lines.push(format!(
                "mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=131072 {tag} {}",
                quote(folder)
            ));
        }
        // The clock of an emulated machine starts at a whole second. A file is stamped by
        // this machine's.
        let stamp = quote(&self.folder.join("clock"));
        lines.push(format!("touch {stamp}"));
        lines.push(format!("date --set=\"@$(stat -c %.9Y {stamp})\""));
        let modules = quote(self.modules);
        lines.extend([
            host_name(self.name),
            "mkdir -p /lib/modules".into(),
            format!("test -e /lib/modules/$(uname -r) || ln -s {modules} /lib/modules/"),
        ]);
        let ending = Ending {
            modprobe: "modprobe",
            modules: MODULES,
            ipvs_mode: self.ipvs_mode,
            // The uplink is eth0 by its place on the bus.
            interfaces: &[("eth1", MANAGEMENT)],
            agent: self.agent,
            config: self.config,
        };
        lines.extend(ending.lines());
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_one_that_a_shell_accepts_and_ends_as_the_agent() {
        let folder = PathBuf::from("/srv/it's mine/node1");
        let script = Script {
            name: "node1",
            modules: Path::new("/cache/lib/modules/6.1.0-1-amd64"),
            writable: &[("w0".into(), folder.clone())],
            folder: &folder,
            ipvs_mode: false,
            agent: Path::new("/opt/agent"),
            config: Path::new("/srv/it's mine/node1/agent.json"),
        }
        .text();
        let checked = crate::sh::command(&["sh", "-n", "-c", &script])
            .status()
            .unwrap();
        assert!(checked.success());
        for line in [
            r"touch '/srv/it'\''s mine/node1/clock'",
            "ip link set eth1 name mgmt0",
            r"exec '/opt/agent' node --config '/srv/it'\''s mine/node1/agent.json'",
        ] {
            assert!(script.lines().any(|found| found == line), "{line}");
        }
        assert!(script.contains(" w0 '/srv/it"), "{script}");
        assert!(script.contains(" ip_vs_mh "));
        assert!(!script.contains(" ip_set_hash_ip "));
    }
}
