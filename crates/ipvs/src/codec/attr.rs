//! Shared helpers of the attribute types.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{DecodeError, NlaBuffer, NlasIterator, Parseable};

use super::constants::{AF_INET, AF_INET6};
use crate::model::Family;

/// Parses a list of attributes. Unknown kinds are the attribute type's affair
/// (it keeps them as `Other`); only malformed framing is an error.
pub(super) fn parse_list<A>(bytes: &[u8]) -> Result<Vec<A>, DecodeError>
where
    A: for<'a> Parseable<NlaBuffer<&'a [u8]>>,
{
    parse_list_but(bytes, &[])
}

/// The same without looking into attributes of the kinds in `skipped`.
pub(super) fn parse_list_but<A>(bytes: &[u8], skipped: &[u16]) -> Result<Vec<A>, DecodeError>
where
    A: for<'a> Parseable<NlaBuffer<&'a [u8]>>,
{
    let wanted = |nla: &Result<NlaBuffer<&[u8]>, DecodeError>| {
        nla.as_ref()
            .map_or(true, |nla| !skipped.contains(&nla.kind()))
    };
    NlasIterator::new(bytes)
        .filter(wanted)
        .map(|nla| A::parse(&nla?))
        .collect()
}

/// Copies a value into the buffer that an attribute header announced.
pub(super) fn put(buffer: &mut [u8], value: &[u8]) {
    buffer[..value.len()].copy_from_slice(value);
}

/// A NUL-terminated string; what follows the NUL is ignored, and so is a
/// missing NUL. Bytes that are not UTF-8 become replacement characters.
pub(super) fn parse_name(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// The kernel's `union nf_inet_addr`: 16 bytes, of which IPv4 uses the first 4.
pub(super) fn addr_to_union(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// See [`addr_to_union`].
pub(super) fn addr_from_union(family: Family, bytes: [u8; 16]) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        Family::V6 => Ipv6Addr::from(bytes).into(),
    }
}

/// An address attribute: 16 bytes, or 4 from writers that shorten IPv4.
pub(super) fn parse_union(bytes: &[u8]) -> Result<[u8; 16], DecodeError> {
    let mut union = [0; 16];
    match bytes.len() {
        4 | 16 => {
            union[..bytes.len()].copy_from_slice(bytes);
            Ok(union)
        }
        other => Err(DecodeError::invalid_ip_address(other)),
    }
}

pub(super) const fn family_to_kernel(family: Family) -> u16 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

pub(super) fn family_from_kernel(number: u16) -> Result<Family, DecodeError> {
    match number {
        AF_INET => Ok(Family::V4),
        AF_INET6 => Ok(Family::V6),
        other => Err(DecodeError::from(format!("address family {other}"))),
    }
}
