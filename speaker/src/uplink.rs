//! The uplink: the interface on the LAN of the VIPs.

use anyhow::{Context, bail};
use lightship_frames::Mac;
use lightship_netio::Rtnl;

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
