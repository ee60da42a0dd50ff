//! The uplink: the interface on the LAN of the VIPs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ipnet::IpNet;
use lightship_frames::Mac;
use lightship_membership::heartbeat::MAX_NETWORKS;
use lightship_netio::{Family, Monitor, Notice, RouteKind, Rtnl, TABLE_MAIN};
use tokio::sync::watch;

use crate::core::UplinkState;
use crate::world::Node;

/// The uplink, as found at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its own MAC: peers' directors send this node's share there.
    pub mac: Mac,
    /// Its MTU in octets, which the director's links take over.
    pub mtu: u32,
}

/// Finds the uplink: the named one, else the one that carries the node's InternalIP.
///
/// # Errors
/// When there is no such interface or it has no MAC.
pub async fn find(name: Option<&str>, node: &Node) -> anyhow::Result<Uplink> {
    let rtnl = Rtnl::open()?;
    let link = match (name, node.main_address()) {
        (Some(name), _) => rtnl
            .require_link(name)
            .await
            .with_context(|| format!("--uplink {name}"))?,
        (None, Some(address)) => {
            let found = rtnl
                .addresses()
                .await?
                .into_iter()
                .find(|a| a.addr == address);
            let Some(found) = found else {
                bail!(
                    "no interface carries {address}, the InternalIP of this node's Node object; \
                    is --node-name right? Else name the interface on the LAN by --uplink"
                );
            };
            rtnl.link(found.index)
                .await?
                .context("the uplink went away")?
        }
        (None, None) => bail!("the Node object has no InternalIP; name the interface by --uplink"),
    };
    let Some(mac) = link.mac else {
        bail!(
            "{} is no Ethernet interface; name one that is by --uplink",
            link.name
        );
    };
    Ok(Uplink {
        name: link.name,
        index: link.index,
        mac,
        mtu: link.mtu,
    })
}

/// Follows the uplink by the kernel's notices until the receiver is gone. `address`: what it
/// should carry.
pub async fn watch(
    link: Uplink,
    address: Option<IpAddr>,
    state: watch::Sender<UplinkState>,
    networks: watch::Sender<Arc<[IpNet]>>,
) {
    loop {
        if let Err(error) = follow(&link, address, &state, &networks).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "cannot watch the uplink; trying on"
            );
        }
        if state.is_closed() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn follow(
    link: &Uplink,
    address: Option<IpAddr>,
    state: &watch::Sender<UplinkState>,
    networks: &watch::Sender<Arc<[IpNet]>>,
) -> anyhow::Result<()> {
    // Opened before the first look, so that no change falls between.
    let mut monitor = Monitor::open()?;
    let rtnl = Rtnl::open()?;
    loop {
        let now = look(&rtnl, link, address).await?;
        state.send_if_modified(|before| std::mem::replace(before, now) != now);
        // Without a carrier the kernel has no routes there, but the LAN is the same when it is back.
        if now.carrier {
            let found: Arc<[IpNet]> = on_link(&rtnl, link.index).await?.into();
            networks.send_if_modified(|before| {
                let changed = *before != found;
                *before = found;
                changed
            });
        }
        loop {
            let concerns = |index: u32| index == link.index;
            match monitor.next().await? {
                Notice::Link { index, .. } | Notice::Address { index, .. } if concerns(index) => {
                    break;
                }
                Notice::Lost => break,
                _ => {}
            }
        }
        if state.is_closed() {
            return Ok(());
        }
    }
}

/// The networks whose hosts are neighbours on an interface: those of its addresses, and those that
/// routes without a gateway lead to (as a router's advertisement makes them, RFC 4861 section 6.3.4).
async fn on_link(rtnl: &Rtnl, index: u32) -> anyhow::Result<Vec<IpNet>> {
    let addresses = rtnl.addresses().await?.into_iter();
    let addresses = addresses.filter(|a| a.index == index);
    let mut all: Vec<(IpAddr, u8)> = addresses.map(|a| (a.addr, a.prefix)).collect();
    for family in [Family::V4, Family::V6] {
        let routes = rtnl.list_routes(TABLE_MAIN, family).await?.into_iter();
        let direct = routes.filter(|route| {
            route.dev == Some(index) && route.gateway.is_none() && route.kind == RouteKind::Unicast
        });
        all.extend(direct.map(|route| (route.dst, route.prefix)));
    }
    Ok(networks(all))
}

/// The widest come first, because a heartbeat has room for [`MAX_NETWORKS`]. What holds one address
/// or all is no network of neighbours, and link-local ones are on every link.
fn networks(all: impl IntoIterator<Item = (IpAddr, u8)>) -> Vec<IpNet> {
    let all = all.into_iter();
    let networks =
        all.filter_map(|(address, prefix)| Some(IpNet::new(address, prefix).ok()?.trunc()));
    let of_use = |network: &IpNet| {
        let link_local = match network.addr() {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
        };
        let prefix = network.prefix_len();
        prefix > 0 && prefix < network.max_prefix_len() && !link_local
    };
    let networks: Vec<IpNet> = networks.filter(of_use).collect();
    let mut networks = IpNet::aggregate(&networks);
    networks.sort_unstable_by_key(|network| (network.prefix_len(), *network));
    // The own node must go by what the others hear.
    networks.truncate(MAX_NETWORKS);
    networks
}

async fn look(rtnl: &Rtnl, link: &Uplink, address: Option<IpAddr>) -> anyhow::Result<UplinkState> {
    let Some(found) = rtnl.link(link.index).await? else {
        return Ok(UplinkState {
            same: false,
            carrier: false,
            address: false,
        });
    };
    let carried = match address {
        None => true,
        Some(address) => {
            let all = rtnl.addresses().await?;
            all.iter()
                .any(|a| a.index == link.index && a.addr == address)
        }
    };
    Ok(UplinkState {
        same: found.mac == Some(link.mac),
        carrier: found.lower_up,
        address: carried,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(all: &[(&str, u8)]) -> Vec<String> {
        let all = all
            .iter()
            .map(|(ip, prefix)| (ip.parse().unwrap(), *prefix));
        networks(all).iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn networks_are_those_of_neighbours_and_each_is_told_once() {
        let all = [
            ("2001:db8:2::11", 64),
            ("2001:db8:2::", 64),
            ("192.0.2.11", 24),
            ("192.0.2.0", 24),
            // A secondary address, a route to a single host, and one to everything.
            ("198.51.100.130", 25),
            ("203.0.113.7", 32),
            ("0.0.0.0", 0),
            ("2001:db8:2::17", 128),
            ("fe80::1", 64),
            ("169.254.7.7", 16),
            ("ff00::", 8),
        ];
        let expected = ["192.0.2.0/24", "198.51.100.128/25", "2001:db8:2::/64"];
        assert_eq!(found(&all), expected);
    }

    #[test]
    fn the_widest_are_kept_where_there_are_too_many() {
        let mut all: Vec<(String, u8)> = (0..20)
            .map(|n| (format!("198.51.100.{}", n * 8), 30))
            .collect();
        all.push(("192.0.2.1".into(), 24));
        let all: Vec<(&str, u8)> = all.iter().map(|(ip, prefix)| (&**ip, *prefix)).collect();
        let found = found(&all);
        assert_eq!((found.len(), &*found[0]), (MAX_NETWORKS, "192.0.2.0/24"));
    }
}
