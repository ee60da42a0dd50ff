//! What the kernel says of an uplink: its addresses and the routers behind it.

use std::net::IpAddr;

use lightship_crds::{MAX_UPLINK_ADDRESSES, SpeakerUplink};
use lightship_netio::{Address, DefaultRoute, Family, Link, Result, Rtnl, sysctl};

/// An uplink as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) uplink: SpeakerUplink,
    /// Frames can pass.
    pub(super) carrier: bool,
    /// The kernel answers ARP for every VIP here, whoever owns it: kube-proxy in ipvs mode makes
    /// VIPs addresses of the host, and runs without `strictARP`.
    pub(super) answers_for_all: bool,
    /// Packets of clients to whom the route is by another interface are dropped here.
    pub(super) strict_rp_filter: bool,
}

/// The interface on which kube-proxy in ipvs mode keeps the Services' addresses.
const KUBE_IPVS: &str = "kube-ipvs0";

/// Reads the uplink; none when it is gone.
pub(super) async fn read(uplink: u32) -> Result<Option<Reading>> {
    let rtnl = Rtnl::open()?;
    let Some(link) = rtnl.link(uplink).await? else {
        return Ok(None);
    };
    let addresses = rtnl.addresses().await?;
    let mut routes = rtnl.default_routes(Family::V4).await?;
    routes.extend(rtnl.default_routes(Family::V6).await?);
    let mut reading = compose(&link, &addresses, &routes);
    reading.strict_rp_filter = strict_rp_filter(
        sysctl::read("net/ipv4/conf/all/rp_filter")?.as_deref(),
        sysctl::read(&format!("net/ipv4/conf/{}/rp_filter", link.name))?.as_deref(),
    );
    if rtnl.link_by_name(KUBE_IPVS).await?.is_some() {
        reading.answers_for_all = !strict_arp(
            sysctl::read("net/ipv4/conf/all/arp_ignore")?.as_deref(),
            sysctl::read(&format!("net/ipv4/conf/{}/arp_ignore", link.name))?.as_deref(),
        );
    }
    Ok(Some(reading))
}

/// Whether ARP is answered only for addresses of the interface that is asked on: the greater
/// of both values counts (Documentation/networking/ip-sysctl.rst).
fn strict_arp(all: Option<&str>, own: Option<&str>) -> bool {
    greater(all, own) > 0
}

/// Whether a packet is dropped unless the route back to its source is by the interface that it came by;
/// of this, too, the greater value counts.
fn strict_rp_filter(all: Option<&str>, own: Option<&str>) -> bool {
    greater(all, own) == 1
}

fn greater(all: Option<&str>, own: Option<&str>) -> u32 {
    let value = |text: Option<&str>| text.and_then(|t| t.parse::<u32>().ok()).unwrap_or(0);
    value(all).max(value(own))
}

/// In a fixed order, so that what did not change looks the same.
fn compose(link: &Link, addresses: &[Address], routes: &[DefaultRoute]) -> Reading {
    let link_local = |ip: IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let mut own: Vec<(IpAddr, u8)> = addresses
        .iter()
        .filter(|a| a.index == link.index && !link_local(a.addr))
        .map(|a| (a.addr, a.prefix))
        .collect();
    let mut gateways: Vec<IpAddr> = routes
        .iter()
        .filter(|route| route.ifindex == link.index)
        .filter_map(|route| route.gateway)
        .collect();
    own.sort_unstable();
    own.dedup();
    own.truncate(MAX_UPLINK_ADDRESSES);
    gateways.sort_unstable();
    gateways.dedup();
    gateways.truncate(MAX_UPLINK_ADDRESSES);
    Reading {
        uplink: SpeakerUplink {
            interface: link.name.clone(),
            mac: link.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            addresses: own.iter().map(|(ip, p)| format!("{ip}/{p}")).collect(),
            gateways: gateways.iter().map(ToString::to_string).collect(),
        },
        carrier: link.has_carrier(),
        answers_for_all: false,
        strict_rp_filter: false,
    }
}

#[cfg(test)]
mod tests;
