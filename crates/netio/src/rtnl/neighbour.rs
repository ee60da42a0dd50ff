//! Neighbour entries: which MAC an address on the link has.

use std::net::IpAddr;

use lightship_frames::Mac;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use super::{Family, Rtnl, unless_missing};
use crate::Result;

/// A neighbour entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// Index of the interface.
    pub ifindex: u32,
    /// The neighbour's address.
    pub ip: IpAddr,
    /// Its MAC, if known.
    pub mac: Option<Mac>,
    /// Whether it is fixed: never probed, never forgotten (`NUD_PERMANENT`).
    pub permanent: bool,
}

impl Rtnl {
    /// All neighbour entries, of both families. Without those that the kernel
    /// itself made for multicast and local addresses.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>> {
        let found = self
            .dump(
                RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()),
                "list neighbours",
            )
            .await?;
        Ok(found.into_iter().filter_map(read).collect())
    }

    /// Fixes the MAC of a neighbour, whatever was known before.
    ///
    /// # Errors
    /// No such interface, or it is down and forgets entries.
    pub async fn replace_neighbour(&self, ifindex: u32, ip: IpAddr, mac: Mac) -> Result<()> {
        let mut message = message(ifindex, ip);
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        self.change(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            || format!("set neighbour {ip} to {mac} on link {ifindex}"),
        )
        .await
    }

    /// Deletes a neighbour entry. Returns whether it was there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn delete_neighbour(&self, ifindex: u32, ip: IpAddr) -> Result<bool> {
        unless_missing(
            self.change(
                RouteNetlinkMessage::DelNeighbour(message(ifindex, ip)),
                0,
                || format!("delete neighbour {ip} on link {ifindex}"),
            )
            .await,
        )
    }
}

fn message(ifindex: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = Family::of(ip).to_netlink();
    message.header.ifindex = ifindex;
    message
        .attributes
        .push(NeighbourAttribute::Destination(match ip {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        }));
    message
}

fn read(message: RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else {
        return None;
    };
    // Bridges list their forwarding tables here too (AF_BRIDGE).
    Family::of_netlink(message.header.family)?;
    if message.header.state == NeighbourState::Noarp {
        return None;
    }
    let mut mac = None;
    let mut ip = None;
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => ip = Some(a.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => ip = Some(a.into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes).ok().map(Mac);
            }
            _ => {}
        }
    }
    Some(Neighbour {
        ifindex: message.header.ifindex,
        ip: ip?,
        mac,
        permanent: message.header.state == NeighbourState::Permanent,
    })
}
