//! What the kernel says of the uplink: its addresses and the routers behind it.

use std::net::IpAddr;

use lightship_crds::{MAX_UPLINK_ADDRESSES, SpeakerUplink};
use lightship_netio::{Address, DefaultRoute, Family, Link, Result, Rtnl, sysctl};

use crate::uplink::Uplink;

/// An uplink as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) uplink: SpeakerUplink,
    /// Frames can pass.
    pub(super) carrier: bool,
    /// The kernel answers ARP for every VIP here, whoever owns it: kube-proxy in ipvs mode makes
    /// VIPs addresses of the host, and runs without `strictARP`.
    pub(super) answers_for_all: bool,
}

/// The interface on which kube-proxy in ipvs mode keeps the Services' addresses.
const KUBE_IPVS: &str = "kube-ipvs0";

/// Reads the uplink; none when it is gone.
pub(super) async fn read(uplink: &Uplink) -> Result<Option<Reading>> {
    let rtnl = Rtnl::open()?;
    let Some(link) = rtnl.link(uplink.index).await? else {
        return Ok(None);
    };
    let addresses = rtnl.addresses().await?;
    let mut routes = rtnl.default_routes(Family::V4).await?;
    routes.extend(rtnl.default_routes(Family::V6).await?);
    let mut reading = compose(&link, &addresses, &routes);
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
    let value = |text: Option<&str>| text.and_then(|t| t.parse::<u32>().ok()).unwrap_or(0);
    value(all).max(value(own)) > 0
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
    }
}

#[cfg(test)]
mod tests;
