//! Neighbour Discovery for IPv6 over Ethernet: announcing, answering and asking.
//!
//! Only neighbour solicitations (type 135) and advertisements (136) exist here,
//! and only as the first header after IPv6: with extension headers they are
//! refused (RFC 6980 forbids the fragmented ones; nobody sends the others).

use std::net::Ipv6Addr;

use pnet::packet::ethernet::EtherTypes;
use pnet::packet::icmpv6::ndp::{
    MutableNeighborAdvertPacket, MutableNeighborSolicitPacket, NdpOptionType, NdpOptionTypes,
    NeighborAdvertFlags, NeighborAdvertPacket, NeighborSolicitPacket,
};
use pnet::packet::icmpv6::{self, Icmpv6Packet, Icmpv6Types, MutableIcmpv6Packet};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv6::{Ipv6Packet, MutableIpv6Packet};

use crate::ethernet::{self, HEADER};
use crate::{FrameError, Mac};

#[cfg(test)]
mod tests;

/// Octets of the IPv6 header.
const IPV6: usize = 40;
/// Octets of either message before its options.
const MESSAGE: usize = 24;
/// Octets of a link-layer address option for Ethernet (RFC 2464 section 6).
const LL_OPTION: usize = 8;

/// ff02::1, all nodes of the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The flags of a neighbour advertisement (RFC 4861 section 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NaFlags {
    /// R: the sender is a router.
    pub router: bool,
    /// S: sent in answer to a solicitation; it proves reachability.
    pub solicited: bool,
    /// O: overrides a cached link-layer address.
    pub override_: bool,
}

/// A received neighbour message that passed all checks of RFC 4861 section 7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ndp {
    /// Somebody asks for `target`, or checks whether it is free or still there.
    Solicitation {
        /// The address asked for.
        target: Ipv6Addr,
        /// Who asks; `::` if it is duplicate address detection.
        src: Ipv6Addr,
        /// Solicited-node group (resolution, detection) or the target itself (reachability).
        dst: Ipv6Addr,
        /// Source link-layer address option; a reachability probe may omit it.
        source_ll: Option<Mac>,
        /// Source of the Ethernet frame.
        eth_src: Mac,
        /// Destination of the Ethernet frame.
        eth_dst: Mac,
    },
    /// Somebody says that `target` is theirs.
    Advertisement {
        /// The address advertised.
        target: Ipv6Addr,
        /// Source address of the packet.
        src: Ipv6Addr,
        /// Router, solicited and override flags.
        flags: NaFlags,
        /// Target link-layer address option.
        target_ll: Option<Mac>,
        /// Source of the Ethernet frame.
        eth_src: Mac,
        /// Destination of the Ethernet frame.
        eth_dst: Mac,
    },
}

/// The solicited-node multicast group of an address (RFC 4291 section 2.7.1).
pub fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from_be_bytes([b, c]),
    )
}

/// The Ethernet group address of an IPv6 multicast address (RFC 2464 section 7).
pub fn multicast_mac(ip: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = ip.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// An unsolicited advertisement that binds `target` to `mac`, for all nodes of the link.
///
/// RFC 4861 section 7.2.6: to ff02::1, R=0, S=0, O=1, with the target link-layer
/// address option. `src_ip` is any address of ours on the link: a link-local
/// one, or `target` itself.
pub fn unsolicited_na(mac: Mac, src_ip: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    advertisement(mac, src_ip, target, multicast_mac(ALL_NODES), ALL_NODES, 0)
}

/// The answer to a solicitation from `to_ip` at `to_mac`: `target` is at `mac`.
///
/// S=1 and O=1: with O=0 the asker would keep an outdated MAC after a VIP moved.
/// To a solicitation from `::` (duplicate address detection) the answer goes to
/// all nodes with S=0, whatever `to_mac` is (RFC 4861 section 7.2.4).
///
/// The target link-layer address option is always there. `to_mac` is best the
/// solicitation's source link-layer option, else the source of its frame.
pub fn solicited_na(
    mac: Mac,
    src_ip: Ipv6Addr,
    target: Ipv6Addr,
    to_mac: Mac,
    to_ip: Ipv6Addr,
) -> Vec<u8> {
    if to_ip.is_unspecified() {
        return unsolicited_na(mac, src_ip, target);
    }
    advertisement(
        mac,
        src_ip,
        target,
        to_mac,
        to_ip,
        NeighborAdvertFlags::Solicited,
    )
}

/// A solicitation for `target`: to its solicited-node group, or with
/// `unicast_to` to the one station that should have it.
///
/// With `src_ip` `::` it is the probe of duplicate address detection (RFC 4862
/// section 5.4.2): no source link-layer option, and the IPv6 destination is the
/// group even if the frame goes to one station (RFC 4861 section 7.1.1).
pub fn neighbor_solicitation(
    src_mac: Mac,
    src_ip: Ipv6Addr,
    target: Ipv6Addr,
    unicast_to: Option<Mac>,
) -> Vec<u8> {
    let group = solicited_node(target);
    let dst = if unicast_to.is_some() && !src_ip.is_unspecified() {
        target
    } else {
        group
    };
    let eth_dst = unicast_to.unwrap_or_else(|| multicast_mac(group));
    let option = (!src_ip.is_unspecified()).then_some((NdpOptionTypes::SourceLLAddr, src_mac));
    let envelope = Envelope {
        eth_src: src_mac,
        eth_dst,
        src: src_ip,
        dst,
    };
    encode(&envelope, option, |icmp| {
        if let Some(mut ns) = MutableNeighborSolicitPacket::new(icmp) {
            ns.set_icmpv6_type(Icmpv6Types::NeighborSolicit);
            ns.set_target_addr(target);
        }
    })
}

/// Reads a neighbour solicitation or advertisement and checks all that RFC 4861
/// section 7.1 asks for.
///
/// # Errors
/// [`FrameError`]: says which check failed. [`FrameError::OtherProtocol`] covers
/// any other packet, neighbour messages behind extension headers among them.
pub fn parse(frame: &[u8]) -> Result<Ndp, FrameError> {
    let eth = ethernet::split(frame, EtherTypes::Ipv6)?;
    let ip = Ipv6Packet::new(eth.payload).ok_or(FrameError::Truncated)?;
    if ip.get_version() != 6 || ip.get_next_header() != IpNextHeaderProtocols::Icmpv6 {
        return Err(FrameError::OtherProtocol);
    }
    let (src, dst) = (ip.get_source(), ip.get_destination());
    // The frame may be longer: padding. The checksum covers the stated length.
    let icmp = eth
        .payload
        .get(IPV6..IPV6 + usize::from(ip.get_payload_length()))
        .ok_or(FrameError::Truncated)?;
    let header = Icmpv6Packet::new(icmp).ok_or(FrameError::Truncated)?;
    let kind = header.get_icmpv6_type();
    if kind != Icmpv6Types::NeighborSolicit && kind != Icmpv6Types::NeighborAdvert {
        return Err(FrameError::OtherProtocol);
    }
    if ip.get_hop_limit() != 255 {
        return Err(FrameError::HopLimit);
    }
    if icmpv6::checksum(&header, &src, &dst) != header.get_checksum() {
        return Err(FrameError::Checksum);
    }
    if header.get_icmpv6_code().0 != 0 {
        return Err(FrameError::Invalid("code is not 0"));
    }
    if icmp.len() < MESSAGE {
        return Err(FrameError::Truncated);
    }
    let options = &icmp[MESSAGE..];
    let message = if kind == Icmpv6Types::NeighborSolicit {
        let ns = NeighborSolicitPacket::new(icmp).ok_or(FrameError::Truncated)?;
        Ndp::Solicitation {
            target: ns.get_target_addr(),
            src,
            dst,
            source_ll: link_layer_option(options, NdpOptionTypes::SourceLLAddr)?,
            eth_src: eth.src,
            eth_dst: eth.dst,
        }
    } else {
        let na = NeighborAdvertPacket::new(icmp).ok_or(FrameError::Truncated)?;
        let flags = na.get_flags();
        Ndp::Advertisement {
            target: na.get_target_addr(),
            src,
            flags: NaFlags {
                router: flags & NeighborAdvertFlags::Router != 0,
                solicited: flags & NeighborAdvertFlags::Solicited != 0,
                override_: flags & NeighborAdvertFlags::Override != 0,
            },
            target_ll: link_layer_option(options, NdpOptionTypes::TargetLLAddr)?,
            eth_src: eth.src,
            eth_dst: eth.dst,
        }
    };
    check(&message, dst)?;
    Ok(message)
}

/// The rules of RFC 4861 sections 7.1.1 and 7.1.2 about addresses and options.
fn check(message: &Ndp, dst: Ipv6Addr) -> Result<(), FrameError> {
    match message {
        Ndp::Solicitation { target, .. } | Ndp::Advertisement { target, .. }
            if target.is_multicast() =>
        {
            Err(FrameError::Invalid("target is a multicast address"))
        }
        Ndp::Solicitation { src, .. } | Ndp::Advertisement { src, .. } if src.is_multicast() => {
            // RFC 4291 section 2.7. An answer would go to the group, against section 7.1.2.
            Err(FrameError::Invalid("source is a multicast address"))
        }
        Ndp::Solicitation { src, source_ll, .. } if src.is_unspecified() => {
            if !is_solicited_node(dst) {
                Err(FrameError::Invalid(
                    "solicitation from :: not to a solicited-node group",
                ))
            } else if source_ll.is_some() {
                Err(FrameError::Invalid(
                    "solicitation from :: with a source link-layer address",
                ))
            } else {
                Ok(())
            }
        }
        Ndp::Advertisement { flags, .. } if dst.is_multicast() && flags.solicited => Err(
            FrameError::Invalid("multicast advertisement with the solicited flag"),
        ),
        _ => Ok(()),
    }
}

fn is_solicited_node(ip: Ipv6Addr) -> bool {
    ip == solicited_node(ip)
}

/// Walks the options and returns the first link-layer address of the wanted type.
///
/// Not by pnet's option iterator, which does not guard against length 0. Unknown
/// options are skipped (RFC 4861 section 4.6).
fn link_layer_option(mut options: &[u8], wanted: NdpOptionType) -> Result<Option<Mac>, FrameError> {
    let mut found = None;
    while let [kind, units, rest @ ..] = options {
        let len = usize::from(*units) * 8;
        if len == 0 {
            return Err(FrameError::Invalid("option of length 0"));
        }
        let Some(value) = rest.get(..len - 2) else {
            return Err(FrameError::Invalid("option runs past the end"));
        };
        if *kind == wanted.0 && found.is_none() {
            // Ethernet uses exactly one unit; a longer one is of another medium.
            let mac = <[u8; 6]>::try_from(value)
                .map_err(|_| FrameError::Invalid("link-layer address is not a MAC"))?;
            found = Some(Mac(mac));
        }
        options = &options[len..];
    }
    if options.is_empty() {
        Ok(found)
    } else {
        Err(FrameError::Invalid("octets left after the options"))
    }
}

/// The addresses a message travels under.
struct Envelope {
    eth_src: Mac,
    eth_dst: Mac,
    src: Ipv6Addr,
    dst: Ipv6Addr,
}

fn advertisement(
    mac: Mac,
    src: Ipv6Addr,
    target: Ipv6Addr,
    eth_dst: Mac,
    dst: Ipv6Addr,
    flags: u8,
) -> Vec<u8> {
    let envelope = Envelope {
        eth_src: mac,
        eth_dst,
        src,
        dst,
    };
    encode(
        &envelope,
        Some((NdpOptionTypes::TargetLLAddr, mac)),
        |icmp| {
            if let Some(mut na) = MutableNeighborAdvertPacket::new(icmp) {
                na.set_icmpv6_type(Icmpv6Types::NeighborAdvert);
                na.set_flags(flags | NeighborAdvertFlags::Override);
                na.set_target_addr(target);
            }
        },
    )
}

fn encode(
    envelope: &Envelope,
    option: Option<(NdpOptionType, Mac)>,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let len = MESSAGE + if option.is_some() { LL_OPTION } else { 0 };
    let mut bytes = ethernet::frame(
        envelope.eth_src,
        envelope.eth_dst,
        EtherTypes::Ipv6,
        IPV6 + len,
    );
    let (header, icmp) = bytes[HEADER..].split_at_mut(IPV6);
    if let Some(mut ip) = MutableIpv6Packet::new(header) {
        ip.set_version(6);
        ip.set_payload_length(if option.is_some() { 32 } else { 24 });
        ip.set_next_header(IpNextHeaderProtocols::Icmpv6);
        // Proof for the receiver that no router was in between (RFC 4861 section 7.1).
        ip.set_hop_limit(255);
        ip.set_source(envelope.src);
        ip.set_destination(envelope.dst);
    }
    fill(icmp);
    if let Some((kind, mac)) = option {
        icmp[MESSAGE] = kind.0;
        icmp[MESSAGE + 1] = 1;
        icmp[MESSAGE + 2..].copy_from_slice(&mac.0);
    }
    if let Some(mut packet) = MutableIcmpv6Packet::new(icmp) {
        let sum = icmpv6::checksum(&packet.to_immutable(), &envelope.src, &envelope.dst);
        packet.set_checksum(sum);
    }
    bytes
}
