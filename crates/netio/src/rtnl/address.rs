//! Addresses on interfaces.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};

use super::{Family, Rtnl, unless_exists, unless_missing};
use crate::Result;

/// How far an address or route reaches (`rt_scope_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everywhere.
    Global,
    /// The site; out of use.
    Site,
    /// The link.
    Link,
    /// This host.
    Host,
    /// Some other value.
    Other(u8),
}

impl Scope {
    pub(super) fn from_raw(raw: u8) -> Scope {
        match raw {
            0 => Scope::Global,
            200 => Scope::Site,
            253 => Scope::Link,
            254 => Scope::Host,
            other => Scope::Other(other),
        }
    }

    pub(super) fn to_raw(self) -> u8 {
        match self {
            Scope::Global => 0,
            Scope::Site => 200,
            Scope::Link => 253,
            Scope::Host => 254,
            Scope::Other(raw) => raw,
        }
    }
}

/// An address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Index of the interface.
    pub index: u32,
    /// The address.
    pub addr: IpAddr,
    /// Length of its network prefix, in bits.
    pub prefix: u8,
    /// How far it reaches.
    pub scope: Scope,
    /// Whether it may not be used yet (duplicate address detection runs) or ever
    /// (it failed).
    pub tentative: bool,
}

impl Address {
    /// Whether `ip` lies in the network of this address.
    pub fn covers(&self, ip: IpAddr) -> bool {
        let shift = Family::of(self.addr).bits().saturating_sub(self.prefix);
        match (self.addr, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits())
                    .checked_shr(u32::from(shift))
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits())
                    .checked_shr(u32::from(shift))
                    .unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }
}

impl Rtnl {
    /// All addresses of the namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn addresses(&self) -> Result<Vec<Address>> {
        let found = self
            .dump(
                RouteNetlinkMessage::GetAddress(AddressMessage::default()),
                "list addresses",
            )
            .await?;
        Ok(found.into_iter().filter_map(read).collect())
    }

    /// Puts an address on an interface. Returns `false` if it is there already.
    ///
    /// IPv6: without duplicate address detection, so it can be used at once; the
    /// scope is the kernel's business.
    ///
    /// # Errors
    /// No such interface.
    pub async fn add_address(
        &self,
        index: u32,
        addr: IpAddr,
        prefix: u8,
        scope: Scope,
    ) -> Result<bool> {
        let mut message = message(index, addr, prefix);
        message.header.scope = AddressScope::from(scope.to_raw());
        if addr.is_ipv6() {
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        unless_exists(
            self.change(
                RouteNetlinkMessage::NewAddress(message),
                NLM_F_CREATE | NLM_F_EXCL,
                || format!("add address {addr}/{prefix} to link {index}"),
            )
            .await,
        )
    }

    /// Takes an address off an interface. Returns whether it was there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn delete_address(&self, index: u32, addr: IpAddr, prefix: u8) -> Result<bool> {
        unless_missing(
            self.change(
                RouteNetlinkMessage::DelAddress(message(index, addr, prefix)),
                0,
                || format!("delete address {addr}/{prefix} from link {index}"),
            )
            .await,
        )
    }

    /// The address whose network covers `ip`, the narrowest one if there are
    /// several: it tells on which interface `ip` is on the link.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn connected(&self, ip: IpAddr) -> Result<Option<Address>> {
        Ok(self
            .addresses()
            .await?
            .into_iter()
            // A host prefix connects to nobody.
            .filter(|a| a.prefix < Family::of(a.addr).bits() && a.covers(ip))
            .max_by_key(|a| (a.prefix, std::cmp::Reverse(a.index))))
    }
}

fn message(index: u32, addr: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = Family::of(addr).to_netlink();
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(addr),
        AddressAttribute::Address(addr),
    ];
    message
}

fn read(message: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let (mut local, mut address) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link Address is the other end's.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    Some(Address {
        index: message.header.index,
        addr: local.or(address)?,
        prefix: message.header.prefix_len,
        scope: Scope::from_raw(message.header.scope.into()),
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
    })
}
