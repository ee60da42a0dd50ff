//! ARP for IPv4 over Ethernet: announcing, answering and probing.
//!
//! The frames are of the least size (42 octets); drivers pad them to what the
//! medium wants. A parsed frame may carry such padding.

use std::net::Ipv4Addr;

use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, ArpPacket, MutableArpPacket};
use pnet::packet::ethernet::EtherTypes;

use crate::ethernet::{self, HEADER};
use crate::mac::{from_pnet, to_pnet};
use crate::{FrameError, Mac};

#[cfg(test)]
mod tests;

/// Octets of an ARP packet for IPv4 over Ethernet.
const ARP: usize = 28;

/// What an ARP packet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArpOp {
    /// Asks who has the target address.
    Request,
    /// Says that the sender has the sender address.
    Reply,
}

/// A received ARP packet, with the Ethernet addresses of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Arp {
    /// Request or reply.
    pub op: ArpOp,
    /// The MAC the sender claims (`ar$sha`).
    pub sender_mac: Mac,
    /// The address the sender claims (`ar$spa`); 0.0.0.0 in a probe.
    pub sender_ip: Ipv4Addr,
    /// The MAC of the target (`ar$tha`); meaningless in a request.
    pub target_mac: Mac,
    /// The address asked for, or answered to (`ar$tpa`).
    pub target_ip: Ipv4Addr,
    /// Source of the Ethernet frame.
    pub eth_src: Mac,
    /// Destination of the Ethernet frame.
    pub eth_dst: Mac,
}

impl Arp {
    /// Whether this is a probe of RFC 5227 section 2.1.1: a newcomer that asks
    /// whether the target address is free.
    pub fn is_probe(&self) -> bool {
        self.op == ArpOp::Request && self.sender_ip.is_unspecified()
    }

    /// Whether this is gratuitous: sender and target address are the same, in
    /// either form (RFC 5944 section 4.6).
    pub fn is_gratuitous(&self) -> bool {
        self.sender_ip == self.target_ip
    }
}

/// A gratuitous ARP request that binds `ip` to `mac`, for everybody on the segment.
///
/// This is the announcement of RFC 5227 section 2.3: sender and target address
/// are both `ip`, the target MAC is zero. Send it together with
/// [`gratuitous_reply`]: some equipment honours one form only.
pub fn gratuitous_request(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    encode(&Arp {
        op: ArpOp::Request,
        sender_mac: mac,
        sender_ip: ip,
        target_mac: Mac::ZERO,
        target_ip: ip,
        eth_src: mac,
        eth_dst: Mac::BROADCAST,
    })
}

/// A gratuitous ARP reply that binds `ip` to `mac`, for everybody on the segment.
///
/// RFC 5944 section 4.6: the target MAC is `mac` too. Linux takes only this form
/// as an immediate update of an entry younger than `locktime` (`net/ipv4/arp.c`,
/// `arp_is_garp`).
pub fn gratuitous_reply(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    encode(&Arp {
        op: ArpOp::Reply,
        sender_mac: mac,
        sender_ip: ip,
        target_mac: mac,
        target_ip: ip,
        eth_src: mac,
        eth_dst: Mac::BROADCAST,
    })
}

/// The answer to `to_mac` and `to_ip`, who asked: `vip` is at `from_mac`.
///
/// For an answer to a probe, `to_ip` is 0.0.0.0, as in the probe (RFC 5227
/// section 2.1.1 counts any packet whose sender address is the probed one).
pub fn reply(from_mac: Mac, vip: Ipv4Addr, to_mac: Mac, to_ip: Ipv4Addr) -> Vec<u8> {
    encode(&Arp {
        op: ArpOp::Reply,
        sender_mac: from_mac,
        sender_ip: vip,
        target_mac: to_mac,
        target_ip: to_ip,
        eth_src: from_mac,
        eth_dst: to_mac,
    })
}

/// A request that asks who has `target_ip`, broadcast unless `unicast_to` names
/// one station.
///
/// With `src_ip` 0.0.0.0 it is the probe of RFC 5227 section 2.1.1, which
/// touches no cache; otherwise receivers may learn `src_ip` from it.
pub fn probe_request(
    src_mac: Mac,
    src_ip: Ipv4Addr,
    target_ip: Ipv4Addr,
    unicast_to: Option<Mac>,
) -> Vec<u8> {
    encode(&Arp {
        op: ArpOp::Request,
        sender_mac: src_mac,
        sender_ip: src_ip,
        target_mac: Mac::ZERO,
        target_ip,
        eth_src: src_mac,
        eth_dst: unicast_to.unwrap_or(Mac::BROADCAST),
    })
}

/// Reads an ARP frame. Octets after the ARP packet are padding and ignored.
///
/// # Errors
/// [`FrameError::Truncated`], [`FrameError::VlanTagged`],
/// [`FrameError::OtherProtocol`], or [`FrameError::UnsupportedArp`] for hardware,
/// protocol or operation other than IPv4 over Ethernet request and reply.
pub fn parse(frame: &[u8]) -> Result<Arp, FrameError> {
    let eth = ethernet::split(frame, EtherTypes::Arp)?;
    let arp = ArpPacket::new(eth.payload).ok_or(FrameError::Truncated)?;
    if arp.get_hardware_type() != ArpHardwareTypes::Ethernet
        || arp.get_protocol_type() != EtherTypes::Ipv4
        || arp.get_hw_addr_len() != 6
        || arp.get_proto_addr_len() != 4
    {
        return Err(FrameError::UnsupportedArp);
    }
    let op = match arp.get_operation() {
        ArpOperations::Request => ArpOp::Request,
        ArpOperations::Reply => ArpOp::Reply,
        _ => return Err(FrameError::UnsupportedArp),
    };
    Ok(Arp {
        op,
        sender_mac: from_pnet(arp.get_sender_hw_addr()),
        sender_ip: arp.get_sender_proto_addr(),
        target_mac: from_pnet(arp.get_target_hw_addr()),
        target_ip: arp.get_target_proto_addr(),
        eth_src: eth.src,
        eth_dst: eth.dst,
    })
}

fn encode(arp: &Arp) -> Vec<u8> {
    let mut bytes = ethernet::frame(arp.eth_src, arp.eth_dst, EtherTypes::Arp, ARP);
    if let Some(mut packet) = MutableArpPacket::new(&mut bytes[HEADER..]) {
        packet.set_hardware_type(ArpHardwareTypes::Ethernet);
        packet.set_protocol_type(EtherTypes::Ipv4);
        packet.set_hw_addr_len(6);
        packet.set_proto_addr_len(4);
        packet.set_operation(match arp.op {
            ArpOp::Request => ArpOperations::Request,
            ArpOp::Reply => ArpOperations::Reply,
        });
        packet.set_sender_hw_addr(to_pnet(arp.sender_mac));
        packet.set_sender_proto_addr(arp.sender_ip);
        packet.set_target_hw_addr(to_pnet(arp.target_mac));
        packet.set_target_proto_addr(arp.target_ip);
    }
    bytes
}
