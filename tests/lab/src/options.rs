//! What the user can choose about a lab.

use std::fmt;
use std::fs;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Error, Result, bail};
use serde::{Deserialize, Serialize};

use crate::addressing::{Families, MAX_NODES};
use crate::agent_config::UPLINK;
use crate::binaries::Profile;

/// What nodes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubstrateKind {
    /// Network namespaces of this machine's kernel.
    Netns,
    /// User Mode Linux: a kernel for each node.
    Uml,
    /// Virtual machines with Debian's stock kernel.
    Qemu,
}

/// kube-proxy's `--proxy-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// iptables rules.
    Iptables,
    /// nftables rules.
    Nftables,
    /// IPVS in the node's own namespace, beside which our director has its own.
    Ipvs,
}

/// What a node's uplink is. The addresses are on it, and the interface [`UPLINK`] is below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UplinkKind {
    /// The interface itself.
    #[default]
    Plain,
    /// A bridge with the interface as its port, as hosts of virtual machines have it.
    Bridge,
    /// A bond (active-backup) with the interface as its only port.
    Bond,
    /// VLAN 7 on the interface. The client and the control plane are not in it: to the latter leads
    /// a route past it, over IPv4.
    Vlan,
}

impl UplinkKind {
    /// The name of the interface with the node's addresses.
    pub fn interface(self) -> &'static str {
        match self {
            Self::Plain => UPLINK,
            Self::Bridge => "br0",
            Self::Bond => "bond0",
            Self::Vlan => "eth0.7",
        }
    }
}

/// The choices that make up one lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// How many nodes.
    pub nodes: u8,
    /// What they are made of.
    pub substrate: SubstrateKind,
    /// How kube-proxy works on them.
    pub proxy_mode: ProxyMode,
    /// Address families of nodes, pods and Services.
    pub families: Families,
    /// Whether Lightship runs.
    pub lightship: bool,
    /// What the speakers get besides what they need; their defaults hold for the rest.
    #[serde(default)]
    pub speaker_flags: Vec<String>,
    /// What the nodes' uplinks are, in the nodes' order, and from the start again if there are more
    /// nodes. None: plain ones.
    #[serde(default)]
    pub uplinks: Vec<UplinkKind>,
    /// Whether our programs are optimised as users get them, which takes minutes to compile.
    #[serde(default)]
    pub released: bool,
}

impl Options {
    /// Fills in what the user left open (`None`) for this machine.
    ///
    /// # Errors
    /// When a choice cannot work here, with what would.
    pub fn resolve(
        nodes: u8,
        substrate: Option<SubstrateKind>,
        proxy_mode: Option<ProxyMode>,
        families: Families,
        lightship: bool,
    ) -> Result<Self> {
        if nodes == 0 || nodes > MAX_NODES {
            bail!("--nodes must be between 1 and {MAX_NODES}");
        }
        let substrate = substrate.unwrap_or_else(|| {
            if kernel_can_direct() {
                SubstrateKind::Netns
            } else {
                SubstrateKind::Uml
            }
        });
        let proxy_mode = proxy_mode.unwrap_or(match substrate {
            SubstrateKind::Netns | SubstrateKind::Qemu => ProxyMode::Nftables,
            SubstrateKind::Uml => ProxyMode::Iptables,
        });
        if substrate == SubstrateKind::Uml && proxy_mode == ProxyMode::Nftables {
            bail!(
                "kube-proxy's nftables mode cannot run in User Mode Linux (its kernel has no \
                 nf_tables for IPv4): choose --proxy-mode iptables or --substrate qemu"
            );
        }
        Ok(Self {
            nodes,
            substrate,
            proxy_mode,
            families,
            lightship,
            speaker_flags: Vec::new(),
            uplinks: Vec::new(),
            released: false,
        })
    }

    /// The same with our programs as users get them.
    #[must_use]
    pub fn with_released_programs(self) -> Self {
        Self {
            released: true,
            ..self
        }
    }

    /// How our programs are built.
    pub(crate) fn profile(&self) -> Profile {
        if self.released {
            Profile::Release
        } else {
            Profile::Lab
        }
    }

    /// The same with flags for the speakers.
    #[must_use]
    pub fn with_speaker_flags(self, flags: &[&str]) -> Self {
        let speaker_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self {
            speaker_flags,
            ..self
        }
    }

    /// The same with those uplinks.
    #[must_use]
    pub fn with_uplinks(self, uplinks: &[UplinkKind]) -> Self {
        Self {
            uplinks: uplinks.to_vec(),
            ..self
        }
    }

    /// What the uplink of node `index` (from 1) is.
    pub fn uplink(&self, index: u8) -> UplinkKind {
        let at = usize::from(index.saturating_sub(1)).checked_rem(self.uplinks.len());
        at.map_or(UplinkKind::Plain, |at| self.uplinks[at])
    }
}

/// Whether this machine's kernel has what a director needs, built in or as a module.
fn kernel_can_direct() -> bool {
    has_module("ip_vs", "/proc/net/ip_vs") && has_module("macvlan", "/sys/module/macvlan")
}

fn has_module(name: &str, trace: &str) -> bool {
    fs::exists(trace).unwrap_or(false)
        || Command::new("modprobe")
            .args(["--dry-run", "--quiet", name])
            .status()
            .is_ok_and(|status| status.success())
}

impl fmt::Display for SubstrateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Netns => "netns",
            Self::Uml => "uml",
            Self::Qemu => "qemu",
        })
    }
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Ipvs => "ipvs",
        })
    }
}

impl fmt::Display for UplinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Bridge => "bridge",
            Self::Bond => "bond",
            Self::Vlan => "vlan",
        })
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "--nodes {} --substrate {} --proxy-mode {} --families {}{}{}{}{}",
            self.nodes,
            self.substrate,
            self.proxy_mode,
            self.families.as_str(),
            if self.lightship {
                ""
            } else {
                " --without-lightship"
            },
            if self.uplinks.is_empty() {
                String::new()
            } else {
                let all: Vec<String> = self.uplinks.iter().map(UplinkKind::to_string).collect();
                format!(" --uplinks {}", all.join(","))
            },
            if self.released {
                ", programs as released"
            } else {
                ""
            },
            if self.speaker_flags.is_empty() {
                String::new()
            } else {
                format!(", speakers with {}", self.speaker_flags.join(" "))
            }
        )
    }
}

impl FromStr for Families {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "dual" => Self::Dual,
            _ => bail!("expected ipv4, ipv6 or dual"),
        })
    }
}

impl FromStr for ProxyMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "iptables" => Self::Iptables,
            "nftables" => Self::Nftables,
            "ipvs" => Self::Ipvs,
            _ => bail!("expected iptables, nftables or ipvs"),
        })
    }
}

impl FromStr for UplinkKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "plain" => Self::Plain,
            "bridge" => Self::Bridge,
            "bond" => Self::Bond,
            "vlan" => Self::Vlan,
            _ => bail!("expected plain, bridge, bond or vlan"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_substrate_has_its_own_default_proxy_mode() {
        let mode = |substrate| {
            Options::resolve(3, Some(substrate), None, Families::Dual, true)
                .unwrap()
                .proxy_mode
        };
        assert_eq!(mode(SubstrateKind::Netns), ProxyMode::Nftables);
        assert_eq!(mode(SubstrateKind::Uml), ProxyMode::Iptables);
        assert_eq!(mode(SubstrateKind::Qemu), ProxyMode::Nftables);
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_would() {
        let error = Options::resolve(
            3,
            Some(SubstrateKind::Uml),
            Some(ProxyMode::Nftables),
            Families::Ipv4,
            true,
        )
        .unwrap_err();
        assert!(error.to_string().contains("--proxy-mode iptables"));
        Options::resolve(0, None, None, Families::Ipv4, true).unwrap_err();
    }

    #[test]
    fn nodes_get_uplinks_in_turn() {
        let options = Options::resolve(3, None, None, Families::Ipv4, true).unwrap();
        assert_eq!(options.uplink(3), UplinkKind::Plain);
        let options = options.with_uplinks(&["bond".parse().unwrap(), UplinkKind::Vlan]);
        let kinds = [1, 2, 3].map(|index| options.uplink(index));
        assert_eq!(
            kinds,
            [UplinkKind::Bond, UplinkKind::Vlan, UplinkKind::Bond]
        );
        assert!(options.to_string().ends_with(" --uplinks bond,vlan"));
    }
}
