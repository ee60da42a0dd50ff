//! Attributes of a destination (`IPVS_DEST_ATTR_*`).

use std::net::SocketAddr;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, Nla, NlaBuffer, Parseable, parse_u8,
    parse_u16, parse_u16_be, parse_u32,
};

use super::attr::{
    addr_from_union, addr_to_union, family_from_kernel, family_to_kernel, parse_list, parse_union,
    put,
};
use super::constants::*;
use super::stats::{self, StatsAttr};
use crate::model::{Destination, DestinationState, Family, Forward, Tunnel, TunnelKind};

/// One attribute of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestAttr {
    /// Real server's address, `union nf_inet_addr`.
    Addr([u8; 16]),
    /// Real server's port; big-endian on the wire.
    Port(u16),
    /// Forwarding method.
    FwdMethod(u32),
    /// Weight.
    Weight(u32),
    /// Upper connection threshold.
    UpperThreshold(u32),
    /// Lower connection threshold.
    LowerThreshold(u32),
    /// Established connections.
    ActiveConns(u32),
    /// Other connections.
    InactConns(u32),
    /// Persistence templates.
    PersistConns(u32),
    /// Counters, legacy widths.
    Stats(Vec<StatsAttr>),
    /// Address family of `Addr`, since Linux 3.18; before, the service's.
    AddrFamily(u16),
    /// Counters, all 64-bit.
    Stats64(Vec<StatsAttr>),
    /// Encapsulation, since Linux 5.3.
    TunType(u8),
    /// Encapsulation's UDP port; big-endian on the wire.
    TunPort(u16),
    /// Encapsulation's flags.
    TunFlags(u16),
    /// An attribute this crate does not know.
    Other(DefaultNla),
}

impl Nla for DestAttr {
    fn value_len(&self) -> usize {
        match self {
            Self::TunType(_) => 1,
            Self::Port(_) | Self::AddrFamily(_) | Self::TunPort(_) | Self::TunFlags(_) => 2,
            Self::FwdMethod(_)
            | Self::Weight(_)
            | Self::UpperThreshold(_)
            | Self::LowerThreshold(_)
            | Self::ActiveConns(_)
            | Self::InactConns(_)
            | Self::PersistConns(_) => 4,
            Self::Addr(_) => 16,
            Self::Stats(attrs) | Self::Stats64(attrs) => attrs.as_slice().buffer_len(),
            Self::Other(nla) => nla.value_len(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Addr(_) => DEST_ATTR_ADDR,
            Self::Port(_) => DEST_ATTR_PORT,
            Self::FwdMethod(_) => DEST_ATTR_FWD_METHOD,
            Self::Weight(_) => DEST_ATTR_WEIGHT,
            Self::UpperThreshold(_) => DEST_ATTR_U_THRESH,
            Self::LowerThreshold(_) => DEST_ATTR_L_THRESH,
            Self::ActiveConns(_) => DEST_ATTR_ACTIVE_CONNS,
            Self::InactConns(_) => DEST_ATTR_INACT_CONNS,
            Self::PersistConns(_) => DEST_ATTR_PERSIST_CONNS,
            Self::Stats(_) => DEST_ATTR_STATS,
            Self::AddrFamily(_) => DEST_ATTR_ADDR_FAMILY,
            Self::Stats64(_) => DEST_ATTR_STATS64,
            Self::TunType(_) => DEST_ATTR_TUN_TYPE,
            Self::TunPort(_) => DEST_ATTR_TUN_PORT,
            Self::TunFlags(_) => DEST_ATTR_TUN_FLAGS,
            Self::Other(nla) => nla.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Addr(bytes) => put(buffer, bytes),
            Self::Port(port) | Self::TunPort(port) => put(buffer, &port.to_be_bytes()),
            Self::AddrFamily(value) | Self::TunFlags(value) => put(buffer, &value.to_ne_bytes()),
            Self::TunType(value) => put(buffer, &[*value]),
            Self::FwdMethod(value)
            | Self::Weight(value)
            | Self::UpperThreshold(value)
            | Self::LowerThreshold(value)
            | Self::ActiveConns(value)
            | Self::InactConns(value)
            | Self::PersistConns(value) => put(buffer, &value.to_ne_bytes()),
            Self::Stats(attrs) | Self::Stats64(attrs) => attrs.as_slice().emit(buffer),
            Self::Other(nla) => nla.emit_value(buffer),
        }
    }
}

impl<'a> Parseable<NlaBuffer<&'a [u8]>> for DestAttr {
    fn parse(nla: &NlaBuffer<&'a [u8]>) -> Result<Self, DecodeError> {
        let value = nla.value();
        let attr = match nla.kind() {
            DEST_ATTR_ADDR => parse_union(value).map(Self::Addr),
            DEST_ATTR_PORT => parse_u16_be(value).map(Self::Port),
            DEST_ATTR_FWD_METHOD => parse_u32(value).map(Self::FwdMethod),
            DEST_ATTR_WEIGHT => parse_u32(value).map(Self::Weight),
            DEST_ATTR_U_THRESH => parse_u32(value).map(Self::UpperThreshold),
            DEST_ATTR_L_THRESH => parse_u32(value).map(Self::LowerThreshold),
            DEST_ATTR_ACTIVE_CONNS => parse_u32(value).map(Self::ActiveConns),
            DEST_ATTR_INACT_CONNS => parse_u32(value).map(Self::InactConns),
            DEST_ATTR_PERSIST_CONNS => parse_u32(value).map(Self::PersistConns),
            DEST_ATTR_STATS => parse_list(value).map(Self::Stats),
            DEST_ATTR_ADDR_FAMILY => parse_u16(value).map(Self::AddrFamily),
            DEST_ATTR_STATS64 => parse_list(value).map(Self::Stats64),
            DEST_ATTR_TUN_TYPE => parse_u8(value).map(Self::TunType),
            DEST_ATTR_TUN_PORT => parse_u16_be(value).map(Self::TunPort),
            DEST_ATTR_TUN_FLAGS => parse_u16(value).map(Self::TunFlags),
            _ => DefaultNla::parse(nla).map(Self::Other),
        };
        attr.with_context(|| format!("destination attribute {}", nla.kind()))
    }
}

/// The attributes that name a destination, in `ipvsadm`'s order.
pub(super) fn key_attrs(key: SocketAddr) -> Vec<DestAttr> {
    vec![
        DestAttr::AddrFamily(family_to_kernel(Family::of(key.ip()))),
        DestAttr::Addr(addr_to_union(key.ip())),
        DestAttr::Port(key.port()),
    ]
}

/// All attributes of a destination to add or edit, in `ipvsadm`'s order.
pub(super) fn full_attrs(destination: &Destination) -> Vec<DestAttr> {
    // Without a tunnel these are zeros. Kernels before 5.3 ignore them.
    let tunnel = match destination.forward {
        Forward::Tunnel(tunnel) => tunnel,
        _ => Tunnel::IPIP,
    };
    let mut attrs = key_attrs(destination.key());
    attrs.extend([
        DestAttr::FwdMethod(forward_to_kernel(destination.forward).into()),
        DestAttr::Weight(destination.weight),
        DestAttr::TunType(tunnel_to_kernel(tunnel.kind)),
        DestAttr::TunPort(tunnel.port),
        DestAttr::TunFlags(tunnel.flags),
        DestAttr::UpperThreshold(destination.upper_threshold),
        DestAttr::LowerThreshold(destination.lower_threshold),
    ]);
    attrs
}

/// The destination that a dump's attributes describe; `service_family` is the
/// family where the kernel is too old to give the destination's own.
pub(super) fn to_model(
    attrs: &[DestAttr],
    service_family: Family,
) -> Result<DestinationState, DecodeError> {
    let mut family = service_family;
    let mut addr = None;
    let mut port = None;
    let mut method = None;
    let mut tunnel = Tunnel::IPIP;
    let mut legacy = None;
    let mut stats64 = None;
    let (mut weight, mut upper_threshold, mut lower_threshold) = (0, 0, 0);
    let (mut active_connections, mut inactive_connections, mut persistent_connections) = (0, 0, 0);
    for attr in attrs {
        match attr {
            DestAttr::Addr(value) => addr = Some(*value),
            DestAttr::Port(value) => port = Some(*value),
            DestAttr::FwdMethod(value) => method = Some(*value),
            DestAttr::Weight(value) => weight = *value,
            DestAttr::UpperThreshold(value) => upper_threshold = *value,
            DestAttr::LowerThreshold(value) => lower_threshold = *value,
            DestAttr::ActiveConns(value) => active_connections = *value,
            DestAttr::InactConns(value) => inactive_connections = *value,
            DestAttr::PersistConns(value) => persistent_connections = *value,
            DestAttr::Stats(attrs) => legacy = Some(stats::to_model(attrs)),
            DestAttr::AddrFamily(value) => family = family_from_kernel(*value)?,
            DestAttr::Stats64(attrs) => stats64 = Some(stats::to_model(attrs)),
            DestAttr::TunType(value) => tunnel.kind = tunnel_from_kernel(*value),
            DestAttr::TunPort(value) => tunnel.port = *value,
            DestAttr::TunFlags(value) => tunnel.flags = *value,
            DestAttr::Other(_) => {}
        }
    }
    let destination = Destination {
        addr: addr_from_union(family, addr.ok_or("destination without address")?),
        port: port.ok_or("destination without port")?,
        weight,
        forward: forward_from_kernel(
            method.ok_or("destination without forwarding method")?,
            tunnel,
        ),
        upper_threshold,
        lower_threshold,
    };
    Ok(DestinationState {
        destination,
        active_connections,
        inactive_connections,
        persistent_connections,
        stats: stats64.or(legacy).unwrap_or_default(),
    })
}

/// `IP_VS_CONN_F_MASQ` and its like.
pub(crate) const fn forward_to_kernel(forward: Forward) -> u8 {
    match forward {
        Forward::Masquerade => 0,
        Forward::LocalNode => 1,
        Forward::Tunnel(_) => 2,
        Forward::DirectRouting => 3,
        Forward::Bypass => 4,
        Forward::Other(number) => number & FWD_MASK as u8,
    }
}

const fn forward_from_kernel(word: u32, tunnel: Tunnel) -> Forward {
    match word & FWD_MASK {
        0 => Forward::Masquerade,
        1 => Forward::LocalNode,
        2 => Forward::Tunnel(tunnel),
        3 => Forward::DirectRouting,
        4 => Forward::Bypass,
        other => Forward::Other(other as u8),
    }
}

const fn tunnel_to_kernel(kind: TunnelKind) -> u8 {
    match kind {
        TunnelKind::Ipip => 0,
        TunnelKind::Gue => 1,
        TunnelKind::Gre => 2,
        TunnelKind::Other(number) => number,
    }
}

const fn tunnel_from_kernel(number: u8) -> TunnelKind {
    match number {
        0 => TunnelKind::Ipip,
        1 => TunnelKind::Gue,
        2 => TunnelKind::Gre,
        other => TunnelKind::Other(other),
    }
}
