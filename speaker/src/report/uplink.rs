//! What the kernel says of the uplink: its addresses and the routers behind it.

use std::net::IpAddr;

use lightship_crds::{MAX_UPLINK_ADDRESSES, SpeakerUplink};
use lightship_netio::{Address, DefaultRoute, Family, Link, Result, Rtnl};

use crate::uplink::Uplink;

/// An uplink as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) uplink: SpeakerUplink,
    /// Frames can pass.
    pub(super) carrier: bool,
}

/// Reads the uplink; none when it is gone.
pub(super) async fn read(uplink: &Uplink) -> Result<Option<Reading>> {
    let rtnl = Rtnl::open()?;
    let Some(link) = rtnl.link(uplink.index).await? else {
        return Ok(None);
    };
    let addresses = rtnl.addresses().await?;
    let mut routes = rtnl.default_routes(Family::V4).await?;
    routes.extend(rtnl.default_routes(Family::V6).await?);
    Ok(Some(compose(&link, &addresses, &routes)))
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
    }
}

#[cfg(test)]
mod tests;
