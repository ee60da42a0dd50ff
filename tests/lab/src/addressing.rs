//! The lab's fixed addresses: who has which, on one L2 segment.
//!
//! Only documentation prefixes are used (RFC 5737, RFC 3849), so a lab address
//! can never be mistaken for, or routed to, a real host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Most nodes that the addressing plan has room for (pod CIDRs of 16 addresses
/// in one /24, the first of which stays free).
pub const MAX_NODES: u8 = 15;

/// TCP port of the API server on [`host`].
pub const API_PORT: u16 = 6443;

/// Which address families the cluster and its Services have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Families {
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone.
    Ipv6,
    /// Both, IPv4 first.
    Dual,
}

impl Families {
    /// Keeps what belongs to these families, IPv4 first.
    pub fn pick<T>(self, v4: T, v6: T) -> Vec<T> {
        match self {
            Self::Ipv4 => vec![v4],
            Self::Ipv6 => vec![v6],
            Self::Dual => vec![v4, v6],
        }
    }

    /// The name that the command line uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Dual => "dual",
        }
    }
}

/// The address with number `number` on the LAN: 192.0.2.N and 2001:db8:2::N
/// (the same decimal digits in both, so that a person sees who it is).
fn on_lan(families: Families, number: u8) -> Vec<IpNet> {
    let digits = u16::from_str_radix(&number.to_string(), 16).unwrap_or(0);
    families.pick(
        net4(Ipv4Addr::new(192, 0, 2, number), 24),
        net6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, digits), 64),
    )
}

/// The control plane's addresses on the bridge, with the LAN's prefix length.
pub fn host(families: Families) -> Vec<IpNet> {
    on_lan(families, 1)
}

/// The client's addresses, with the LAN's prefix length.
pub fn client(families: Families) -> Vec<IpNet> {
    on_lan(families, 100)
}

/// The addresses of node `index` (from 1), with the LAN's prefix length.
pub fn node(families: Families, index: u8) -> Vec<IpNet> {
    on_lan(families, 10 + index)
}

/// The control plane's address on the management link, which no fault cuts.
pub fn management_host() -> Ipv4Net {
    management(129)
}

/// The address of node `index` (from 1) on the management link.
pub fn management_node(index: u8) -> Ipv4Net {
    management(130 + index)
}

fn management(last: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, last), 26)
}

/// The networks from which node `index` (from 1) gives its pods addresses. The
/// first host address of each is the pods' gateway on the node.
pub fn pod_cidrs(families: Families, index: u8) -> Vec<IpNet> {
    families.pick(
        net4(Ipv4Addr::new(198, 51, 100, 16 * index), 28),
        net6(
            Ipv6Addr::new(0x2001, 0xdb8, 0x100, index.into(), 0, 0, 0, 0),
            64,
        ),
    )
}

/// The networks of ClusterIPs.
pub fn service_cidrs(families: Families) -> Vec<IpNet> {
    families.pick(
        net4(Ipv4Addr::new(203, 0, 113, 0), 25),
        net6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0), 112),
    )
}

/// The API server's own ClusterIPs: the first of each Service network.
pub fn api_cluster_ips(families: Families) -> Vec<IpAddr> {
    families.pick(
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1)),
    )
}

/// The ranges that tests and the demo give to address pools.
pub fn vip_ranges(families: Families) -> Vec<&'static str> {
    families.pick("192.0.2.200-192.0.2.239", "2001:db8:2::200-2001:db8:2::2ff")
}

/// MAC address of node `index`'s uplink: locally administered, so it cannot
/// belong to real hardware.
pub fn node_mac(index: u8) -> String {
    format!("02:1a:b0:00:00:{index:02x}")
}

fn net4(address: Ipv4Addr, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(address, length))
}

fn net6(address: Ipv6Addr, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(address, length))
}

/// The URL of the API server, by the lab's first address family.
pub fn api_url(families: Families) -> String {
    match host(families)[0].addr() {
        IpAddr::V4(address) => format!("https://{address}:{API_PORT}"),
        IpAddr::V6(address) => format!("https://[{address}]:{API_PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(nets: Vec<IpNet>) -> Vec<String> {
        nets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_follow_the_plan() {
        assert_eq!(
            text(node(Families::Dual, 3)),
            ["192.0.2.13/24", "2001:db8:2::13/64"]
        );
        assert_eq!(text(client(Families::Ipv6)), ["2001:db8:2::100/64"]);
        assert_eq!(text(host(Families::Ipv4)), ["192.0.2.1/24"]);
        assert_eq!(
            text(pod_cidrs(Families::Dual, 2)),
            ["198.51.100.32/28", "2001:db8:100:2::/64"]
        );
        assert_eq!(management_node(1).to_string(), "203.0.113.131/26");
        assert_eq!(api_url(Families::Ipv6), "https://[2001:db8:2::1]:6443");
    }

    #[test]
    fn the_last_node_still_has_its_own_addresses() {
        assert_eq!(
            text(pod_cidrs(Families::Ipv4, MAX_NODES)),
            ["198.51.100.240/28"]
        );
        assert_ne!(
            text(node(Families::Dual, MAX_NODES)),
            text(client(Families::Dual))
        );
    }
}
