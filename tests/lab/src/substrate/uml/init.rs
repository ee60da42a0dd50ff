//! The script that a User Mode Linux guest starts as its process 1.
//!
//! It sees this machine's files through hostfs, read-only, so that no
//! program on a node can write to the host by accident; writable are a tmpfs on
//! `/run` and the node's own folders. It ends by becoming the agent, which does all the rest.

use std::path::{Path, PathBuf};

use super::super::guest::{Ending, host_name, quote};
use crate::agent_config::{MANAGEMENT, UPLINK};

/// Kernel modules that kube-proxy and the director need. Not `nfnetlink_acct`:
/// with it kube-proxy believes in nfacct, and its restores fail.
const MODULES: &[&str] = &[
    // The director.
    "ip_vs",
    "ip_vs_mh",
    "macvlan",
    "veth",
    // SCTP servers and clients; this machine's own kernel may have none.
    "sctp",
    "xt_sctp",
    // kube-proxy, iptables mode.
    "nf_conntrack",
    "ip_tables",
    "ip6_tables",
    "iptable_nat",
    "iptable_filter",
    "iptable_mangle",
    "ip6table_nat",
    "ip6table_filter",
    "ip6table_mangle",
    "xt_nat",
    "xt_conntrack",
    "xt_tcpudp",
    "xt_statistic",
    "xt_comment",
    "xt_mark",
    "xt_addrtype",
    "xt_MASQUERADE",
    "xt_recent",
    "ipt_REJECT",
    "ip6t_REJECT",
];

/// Tools that speak to the kernel's old tables; the guest has no nf_tables for IPv4.
const LEGACY_TOOLS: &[&str] = &[
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
];

/// What the script is made from.
pub(super) struct Script<'a> {
    /// The node's name, that becomes the host name.
    pub(super) name: &'a str,
    /// Folder with the modules of the UML kernel, one folder for each version.
    pub(super) modules: &'a Path,
    /// Folders of this machine in which the node may write.
    pub(super) writable: Vec<PathBuf>,
    /// Whether kube-proxy runs in ipvs mode.
    pub(super) ipvs_mode: bool,
    /// Folder of the system's own programs (`iptables-legacy` and its kin).
    pub(super) system: &'a Path,
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
            "export PATH=/run/lab/bin:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
                .into(),
            "export HOME=/root TMPDIR=/run/tmp".into(),
            "mount -t proc proc /proc".into(),
            "mount -t sysfs sysfs /sys".into(),
            "mount -t tmpfs -o mode=755 tmpfs /run".into(),
            "mkdir -p /run/netns /run/lock /run/tmp /run/lab/bin /run/lab/lib".into(),
        ];
        for folder in &self.writable {
            let folder = quote(folder);
            lines.push(format!("mount -t hostfs -o {folder} hostfs {folder}"));
        }
        lines.push(host_name(self.name));
        // What a node writes into its folders is to be seen on the host soon.
        for setting in ["dirty_expire_centisecs", "dirty_writeback_centisecs"] {
            lines.push(format!("echo 20 > /proc/sys/vm/{setting}"));
        }
        let mut links: Vec<String> = LEGACY_TOOLS
            .iter()
            .map(|tool| {
                let (program, rest) = tool.split_once('-').unwrap_or((tool, ""));
                let dash = if rest.is_empty() { "" } else { "-" };
                let target = self.system.join(format!("{program}-legacy{dash}{rest}"));
                format!("ln -s {} /run/lab/bin/{tool}", quote(&target))
            })
            .collect();
        lines.append(&mut links);
        lines.push(format!(
            "ln -s {} /run/lab/lib/modules",
            quote(self.modules)
        ));
        // The kernel asks for further modules by itself, and looks in /lib/modules.
        lines.extend([
            "printf '#!/bin/sh\\nexec /sbin/modprobe -d /run/lab \"$@\"\\n' > /run/lab/modprobe"
                .into(),
            "chmod 755 /run/lab/modprobe".into(),
            "echo /run/lab/modprobe > /proc/sys/kernel/modprobe".into(),
        ]);
        let ending = Ending {
            modprobe: "modprobe -d /run/lab",
            modules: MODULES,
            ipvs_mode: self.ipvs_mode,
            interfaces: &[("vec0", UPLINK), ("vec1", MANAGEMENT)],
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
        let script = Script {
            name: "node1",
            modules: Path::new("/usr/lib/uml/modules"),
            writable: vec!["/srv/it's mine/node1".into()],
            ipvs_mode: true,
            system: Path::new("/usr/sbin"),
            agent: Path::new("/opt/agent"),
            config: Path::new("/srv/it's mine/node1/agent.json"),
        }
        .text();
        let checked = std::process::Command::new("sh")
            .args(["-n", "-c", &script])
            .status()
            .unwrap();
        assert!(checked.success());
        for line in [
            r"mount -t hostfs -o '/srv/it'\''s mine/node1' hostfs '/srv/it'\''s mine/node1'",
            "ln -s '/usr/sbin/ip6tables-legacy-restore' /run/lab/bin/ip6tables-restore",
            "ln -s '/usr/sbin/iptables-legacy' /run/lab/bin/iptables",
            r"exec '/opt/agent' node --config '/srv/it'\''s mine/node1/agent.json'",
        ] {
            assert!(script.lines().any(|found| found == line), "{line}");
        }
        assert!(script.contains(" ip_vs_mh "));
        assert!(script.contains(" ip_set_hash_ip "));
        assert!(!script.contains("nfnetlink_acct"));
    }
}
