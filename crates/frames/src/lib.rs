//! ARP and NDP frames: the bytes by which a speaker announces a VIP on the LAN,
//! answers for it and hears of others who claim it; and the UDP frames of the path test.
//!
//! Everything here is a value in and a value out: whole Ethernet frames, without
//! the frame check sequence, that a packet socket sends or has received. No
//! sockets, no clocks, no state. The packet codec underneath (pnet) stays
//! private to the crate.
//!
//! - [`arp`]: gratuitous ARP, replies, probes (RFC 826, 5227, 5944)
//! - [`ndp`]: neighbour advertisements and solicitations (RFC 4861)
//! - [`udp`]: datagrams under any addresses (RFC 768)
//! - [`Mac`]: the Ethernet address, and how a director gets a stable one

pub mod arp;
mod ethernet;
mod mac;
pub mod ndp;
pub mod udp;

pub use mac::{Mac, ParseMacError};

/// Why bytes were refused as a frame.
///
/// A listener meets all of these in daily life; they are to be counted, not logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame ends before its headers do.
    #[error("frame is cut short")]
    Truncated,
    /// The frame carries an 802.1Q or 802.1ad tag, so it belongs to another segment.
    #[error("frame is VLAN tagged")]
    VlanTagged,
    /// Another Ethernet, IPv6 or ICMPv6 payload than the one asked for.
    #[error("not a frame of this protocol")]
    OtherProtocol,
    /// ARP that is not IPv4 over Ethernet, or neither request nor reply.
    #[error("ARP of an unsupported kind")]
    UnsupportedArp,
    /// The ICMPv6 checksum does not match.
    #[error("bad ICMPv6 checksum")]
    Checksum,
    /// A hop limit other than 255: the packet may have crossed a router, so it
    /// proves nothing about this link (RFC 4861 section 7.1).
    #[error("hop limit is not 255")]
    HopLimit,
    /// One of the other validity rules of RFC 4861 section 7.1 is broken.
    #[error("neighbour message breaks RFC 4861 section 7.1: {0}")]
    Invalid(&'static str),
}
