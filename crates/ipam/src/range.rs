//! Ranges of addresses, and what users write for them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::family::{Family, number};

/// Addresses from `first` to `last`, both included, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddrRange {
    family: Family,
    first: u128,
    last: u128,
}

/// Why a text is no range; each message names the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither of the two forms.
    #[error("\"{0}\" is neither a CIDR nor a range; write 192.0.2.0/24 or 192.0.2.10-192.0.2.20")]
    Malformed(String),
    /// A lone address.
    #[error("\"{text}\" is a single address; write {text}/{prefix}")]
    SingleAddress {
        /// As written.
        text: String,
        /// The prefix length to add.
        prefix: u8,
    },
    /// A CIDR with bits set after the prefix.
    #[error(
        "\"{text}\" has host bits set; write {network} for the whole network, {single} for this one address"
    )]
    HostBits {
        /// As written.
        text: String,
        /// The network it lies in.
        network: IpNet,
        /// The address alone.
        single: IpNet,
    },
    /// The end lies before the start.
    #[error("\"{text}\" ends before it starts; write {last}-{first}")]
    Reversed {
        /// As written.
        text: String,
        /// The larger address.
        first: IpAddr,
        /// The smaller address.
        last: IpAddr,
    },
    /// The two ends are of different families.
    #[error("\"{0}\" mixes IPv4 and IPv6; write one range per family")]
    MixedFamilies(String),
    /// An IPv4 address dressed up as IPv6 (RFC 4291 section 2.5.5.2).
    #[error("\"{0}\" is an IPv4-mapped IPv6 address, which no LAN carries; write it as IPv4")]
    Mapped(String),
    /// Addresses that no host has.
    #[error(
        "\"{text}\" contains {network}, {what}, which no host on a LAN has; write addresses of the LAN"
    )]
    NoHosts {
        /// As written.
        text: String,
        /// The network it has addresses of.
        network: IpNet,
        /// What that is for.
        what: &'static str,
    },
}

/// Networks without hosts, and what they are for (IANA's special-purpose address registries,
/// RFC 6890; link-local addresses exist on every link anew, so none of them can be a Service's).
const NO_HOSTS: [(IpNet, &str); 8] = [
    (v4([0, 0, 0, 0], 8), "\"this network\""),
    (v4([127, 0, 0, 0], 8), "loopback"),
    (v4([169, 254, 0, 0], 16), "link-local addresses"),
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v4([255, 255, 255, 255], 32), "broadcast"),
    (v6(0, 96), "loopback and IPv4-compatible addresses"),
    (v6(0xfe80, 10), "link-local addresses"),
    (v6(0xff00, 8), "multicast"),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

/// By the first 16 bits.
const fn v6(first: u16, prefix: u8) -> IpNet {
    let address = Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0);
    IpNet::V6(Ipv6Net::new_assert(address, prefix))
}

impl AddrRange {
    /// The range between two addresses.
    ///
    /// # Errors
    /// If the ends are of different families, in the wrong order, or IPv4-mapped.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, RangeError> {
        let text = || format!("{first}-{last}");
        if Family::of(first) != Family::of(last) {
            return Err(RangeError::MixedFamilies(text()));
        }
        if [first, last]
            .iter()
            .any(|end| matches!(end, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()))
        {
            return Err(RangeError::Mapped(text()));
        }
        if first > last {
            return Err(RangeError::Reversed {
                text: text(),
                first,
                last,
            });
        }
        Ok(Self {
            family: Family::of(first),
            first: number(first),
            last: number(last),
        })
    }

    /// The family of the range.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        self.family.address(self.first)
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        self.family.address(self.last)
    }

    /// How many addresses there are; saturating, as the IPv6 space itself does not fit.
    pub fn size(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// How many of the addresses end in .0 or .255; none in IPv6.
    pub(crate) fn buggy(&self) -> u128 {
        if self.family == Family::V6 {
            return 0;
        }
        // Numbers below n that end so: two in each full 256, and the .0 of a started one.
        let below = |n: u128| n / 256 * 2 + u128::from(!n.is_multiple_of(256));
        below(self.last + 1) - below(self.first)
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let n = number(address);
        Family::of(address) == self.family && self.first <= n && n <= self.last
    }

    /// Whether the ranges have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// Itself, if each of its addresses may be a host's.
    fn of_hosts(self, text: &str) -> Result<Self, RangeError> {
        for (network, what) in NO_HOSTS {
            if self.overlaps(&Self::new(network.network(), network.broadcast())?) {
                return Err(RangeError::NoHosts {
                    text: text.to_owned(),
                    network,
                    what,
                });
            }
        }
        Ok(self)
    }

    pub(crate) fn bounds(&self) -> (u128, u128) {
        (self.first, self.last)
    }
}

impl FromStr for AddrRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let text = text.trim();
        let malformed = || RangeError::Malformed(text.to_owned());
        if let Some((first, last)) = text.split_once('-') {
            let first = first.trim().parse().map_err(|_| malformed())?;
            let last = last.trim().parse().map_err(|_| malformed())?;
            return Self::new(first, last)?.of_hosts(text);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Err(RangeError::SingleAddress {
                text: text.to_owned(),
                prefix: if address.is_ipv4() { 32 } else { 128 },
            });
        }
        let net: IpNet = text.parse().map_err(|_| malformed())?;
        if net != net.trunc() {
            return Err(RangeError::HostBits {
                text: text.to_owned(),
                network: net.trunc(),
                single: IpNet::from(net.addr()),
            });
        }
        Self::new(net.network(), net.broadcast())?.of_hosts(text)
    }
}

impl fmt::Display for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first())
        } else {
            write!(f, "{}-{}", self.first(), self.last())
        }
    }
}

#[cfg(test)]
mod tests;
