//! Attributes of a service (`IPVS_SVC_ATTR_*`).

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, Nla, NlaBuffer, Parseable, parse_u16,
    parse_u16_be, parse_u32,
};

use super::attr::{
    addr_from_union, addr_to_union, family_from_kernel, family_to_kernel, parse_list, parse_name,
    parse_union, put,
};
use super::constants::*;
use super::stats::{self, StatsAttr};
use crate::model::{Family, Protocol, Scheduler, Service, ServiceFlags, ServiceKey, Stats};

/// One attribute of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceAttr {
    /// Address family.
    Family(u16),
    /// IP protocol number.
    Protocol(u16),
    /// Virtual address, `union nf_inet_addr`.
    Addr([u8; 16]),
    /// Virtual port; big-endian on the wire.
    Port(u16),
    /// Firewall mark.
    FwMark(u32),
    /// Scheduler's name; NUL-terminated on the wire.
    SchedName(String),
    /// `struct ip_vs_flags`: the flags, and which of them count.
    Flags {
        /// Flag word.
        flags: u32,
        /// Bits of `flags` that the kernel shall take over.
        mask: u32,
    },
    /// Persistence timeout in seconds.
    Timeout(u32),
    /// Persistence granularity, as the four bytes on the wire: IPv4 a mask in
    /// network order, IPv6 a prefix length in host order.
    Netmask([u8; 4]),
    /// Counters, legacy widths.
    Stats(Vec<StatsAttr>),
    /// Name of the persistence engine.
    PeName(String),
    /// Counters, all 64-bit.
    Stats64(Vec<StatsAttr>),
    /// An attribute this crate does not know.
    Other(DefaultNla),
}

impl Nla for ServiceAttr {
    fn value_len(&self) -> usize {
        match self {
            Self::Family(_) | Self::Protocol(_) | Self::Port(_) => 2,
            Self::Addr(_) => 16,
            Self::FwMark(_) | Self::Timeout(_) | Self::Netmask(_) => 4,
            Self::Flags { .. } => 8,
            Self::SchedName(name) | Self::PeName(name) => name.len() + 1,
            Self::Stats(attrs) | Self::Stats64(attrs) => attrs.as_slice().buffer_len(),
            Self::Other(nla) => nla.value_len(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Family(_) => SVC_ATTR_AF,
            Self::Protocol(_) => SVC_ATTR_PROTOCOL,
            Self::Addr(_) => SVC_ATTR_ADDR,
            Self::Port(_) => SVC_ATTR_PORT,
            Self::FwMark(_) => SVC_ATTR_FWMARK,
            Self::SchedName(_) => SVC_ATTR_SCHED_NAME,
            Self::Flags { .. } => SVC_ATTR_FLAGS,
            Self::Timeout(_) => SVC_ATTR_TIMEOUT,
            Self::Netmask(_) => SVC_ATTR_NETMASK,
            Self::Stats(_) => SVC_ATTR_STATS,
            Self::PeName(_) => SVC_ATTR_PE_NAME,
            Self::Stats64(_) => SVC_ATTR_STATS64,
            Self::Other(nla) => nla.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Family(value) | Self::Protocol(value) => put(buffer, &value.to_ne_bytes()),
            Self::Port(port) => put(buffer, &port.to_be_bytes()),
            Self::Addr(bytes) => put(buffer, bytes),
            Self::FwMark(value) | Self::Timeout(value) => put(buffer, &value.to_ne_bytes()),
            Self::Netmask(bytes) => put(buffer, bytes),
            Self::Flags { flags, mask } => {
                put(buffer, &flags.to_ne_bytes());
                put(&mut buffer[4..], &mask.to_ne_bytes());
            }
            Self::SchedName(name) | Self::PeName(name) => {
                put(buffer, name.as_bytes());
                buffer[name.len()] = 0;
            }
            Self::Stats(attrs) | Self::Stats64(attrs) => attrs.as_slice().emit(buffer),
            Self::Other(nla) => nla.emit_value(buffer),
        }
    }
}

impl<'a> Parseable<NlaBuffer<&'a [u8]>> for ServiceAttr {
    fn parse(nla: &NlaBuffer<&'a [u8]>) -> Result<Self, DecodeError> {
        let value = nla.value();
        let attr = match nla.kind() {
            SVC_ATTR_AF => parse_u16(value).map(Self::Family),
            SVC_ATTR_PROTOCOL => parse_u16(value).map(Self::Protocol),
            SVC_ATTR_ADDR => parse_union(value).map(Self::Addr),
            SVC_ATTR_PORT => parse_u16_be(value).map(Self::Port),
            SVC_ATTR_FWMARK => parse_u32(value).map(Self::FwMark),
            SVC_ATTR_SCHED_NAME => Ok(Self::SchedName(parse_name(value))),
            SVC_ATTR_FLAGS => parse_flags(value),
            SVC_ATTR_TIMEOUT => parse_u32(value).map(Self::Timeout),
            SVC_ATTR_NETMASK => <[u8; 4]>::try_from(value)
                .map(Self::Netmask)
                .map_err(|_| DecodeError::invalid_number(4, value.len())),
            SVC_ATTR_STATS => parse_list(value).map(Self::Stats),
            SVC_ATTR_PE_NAME => Ok(Self::PeName(parse_name(value))),
            SVC_ATTR_STATS64 => parse_list(value).map(Self::Stats64),
            _ => DefaultNla::parse(nla).map(Self::Other),
        };
        attr.with_context(|| format!("service attribute {}", nla.kind()))
    }
}

fn parse_flags(value: &[u8]) -> Result<ServiceAttr, DecodeError> {
    let Some((flags, mask)) = value.split_at_checked(4) else {
        return Err(DecodeError::invalid_number(8, value.len()));
    };
    Ok(ServiceAttr::Flags {
        flags: parse_u32(flags)?,
        mask: parse_u32(mask)?,
    })
}

/// The attributes that name a service, in `ipvsadm`'s order.
pub(super) fn key_attrs(key: ServiceKey) -> Vec<ServiceAttr> {
    let family = ServiceAttr::Family(family_to_kernel(key.family()));
    match key {
        ServiceKey::FwMark { mark, .. } => vec![family, ServiceAttr::FwMark(mark)],
        ServiceKey::Address {
            addr,
            protocol,
            port,
        } => vec![
            family,
            ServiceAttr::Protocol(u8::from(protocol).into()),
            ServiceAttr::Addr(addr_to_union(addr)),
            ServiceAttr::Port(port),
        ],
    }
}

/// All attributes of a service to add or edit, in `ipvsadm`'s order.
pub(super) fn full_attrs(service: &Service) -> Vec<ServiceAttr> {
    let mut attrs = key_attrs(service.key);
    attrs.push(ServiceAttr::SchedName(service.scheduler.name().to_owned()));
    attrs.extend(service.persistence_engine.clone().map(ServiceAttr::PeName));
    attrs.extend([
        // The kernel computes `old & !mask | new & mask`: all ones, so that
        // flags are what we say, whatever they were.
        ServiceAttr::Flags {
            flags: service.flags.bits(),
            mask: u32::MAX,
        },
        ServiceAttr::Timeout(service.timeout_secs),
        ServiceAttr::Netmask(netmask_to_kernel(service.key.family(), service.netmask)),
    ]);
    attrs
}

/// The service and counters that a dump's attributes describe.
pub(super) fn to_model(attrs: &[ServiceAttr]) -> Result<(Service, Stats), DecodeError> {
    let mut family = None;
    let mut protocol = None;
    let mut addr = None;
    let mut port = None;
    let mut fwmark = None;
    let mut scheduler = None;
    let mut flags = ServiceFlags::NONE;
    let mut timeout_secs = 0;
    let mut netmask = None;
    let mut persistence_engine = None;
    let mut legacy = None;
    let mut stats64 = None;
    for attr in attrs {
        match attr {
            ServiceAttr::Family(value) => family = Some(family_from_kernel(*value)?),
            ServiceAttr::Protocol(value) => protocol = Some(*value),
            ServiceAttr::Addr(value) => addr = Some(*value),
            ServiceAttr::Port(value) => port = Some(*value),
            ServiceAttr::FwMark(value) => fwmark = Some(*value),
            ServiceAttr::SchedName(name) => scheduler = Some(name.clone()),
            ServiceAttr::Flags { flags: word, .. } => flags = ServiceFlags::from_kernel(*word),
            ServiceAttr::Timeout(value) => timeout_secs = *value,
            ServiceAttr::Netmask(value) => netmask = Some(*value),
            ServiceAttr::PeName(name) => persistence_engine = Some(name.clone()),
            ServiceAttr::Stats(attrs) => legacy = Some(stats::to_model(attrs)),
            ServiceAttr::Stats64(attrs) => stats64 = Some(stats::to_model(attrs)),
            ServiceAttr::Other(_) => {}
        }
    }

    let family = family.ok_or("service without address family")?;
    let key = match (fwmark, protocol, addr, port) {
        (Some(mark), ..) => ServiceKey::FwMark { family, mark },
        (None, Some(protocol), Some(addr), Some(port)) => ServiceKey::Address {
            addr: addr_from_union(family, addr),
            protocol: Protocol::from(
                u8::try_from(protocol).map_err(|_| "IP protocol number above 255")?,
            ),
            port,
        },
        _ => return Err("service with neither mark nor protocol, address and port".into()),
    };
    let scheduler = scheduler.ok_or("service without scheduler")?;
    let service = Service {
        key,
        scheduler: Scheduler::new(scheduler).map_err(|error| error.to_string())?,
        flags,
        timeout_secs,
        netmask: netmask.map_or(family.host_prefix(), |bytes| {
            netmask_from_kernel(family, bytes)
        }),
        persistence_engine,
    };
    Ok((service, stats64.or(legacy).unwrap_or_default()))
}

fn netmask_to_kernel(family: Family, prefix: u8) -> [u8; 4] {
    match family {
        Family::V4 => u32::MAX
            .checked_shl(32 - u32::from(prefix.min(32)))
            .unwrap_or(0)
            .to_be_bytes(),
        Family::V6 => u32::from(prefix.min(128)).to_ne_bytes(),
    }
}

/// A mask with holes counts as its leading ones; IPVS itself treats masks as
/// opaque, and `ipvsadm` only makes contiguous ones.
fn netmask_from_kernel(family: Family, bytes: [u8; 4]) -> u8 {
    let length = match family {
        Family::V4 => u32::from_be_bytes(bytes).leading_ones(),
        Family::V6 => u32::from_ne_bytes(bytes).min(128),
    };
    u8::try_from(length).unwrap_or(u8::MAX)
}
