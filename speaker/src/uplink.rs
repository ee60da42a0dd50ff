//! The uplink: the interface on the LAN of the VIPs.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use lightship_frames::Mac;
use lightship_netio::{Monitor, Notice, Rtnl};
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
    let link = match (name, node.heartbeat_address()) {
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
pub async fn watch(link: Uplink, address: Option<IpAddr>, state: watch::Sender<UplinkState>) {
    loop {
        if let Err(error) = follow(&link, address, &state).await {
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
) -> anyhow::Result<()> {
    // Opened before the first look, so that no change falls between.
    let mut monitor = Monitor::open()?;
    let rtnl = Rtnl::open()?;
    loop {
        let now = look(&rtnl, link, address).await?;
        state.send_if_modified(|before| std::mem::replace(before, now) != now);
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
