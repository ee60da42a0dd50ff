//! UDP datagrams in whole Ethernet frames, for what has to go out under chosen MAC and IP addresses.
//!
//! Only the plain form: IPv4 without options and not in fragments, IPv6 without extension headers.

use std::net::IpAddr;

use pnet::packet::ethernet::EtherTypes;
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::{self, Ipv4Flags, Ipv4Packet, MutableIpv4Packet};
use pnet::packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet::packet::udp::{self, MutableUdpPacket, UdpPacket};

use crate::ethernet::{self, HEADER};
use crate::{FrameError, Mac};

/// Octets of an IPv4 header without options.
const IPV4: usize = 20;
/// Octets of the IPv6 header.
const IPV6: usize = 40;
/// Octets of the UDP header.
const UDP: usize = 8;
/// As most systems send: enough for any way, and nothing that a filter would mind.
const TTL: u8 = 64;

/// Where a datagram comes from and goes to, by all its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// Source and destination of the Ethernet frame.
    pub eth: (Mac, Mac),
    /// Source and destination of the IP packet, both of one family.
    pub ip: (IpAddr, IpAddr),
    /// Source and destination port.
    pub port: (u16, u16),
}

/// A datagram as one frame; `None` if the IP addresses are of two families or the payload does not
/// fit one packet.
pub fn encode(route: &Route, payload: &[u8]) -> Option<Vec<u8>> {
    let length = UDP + payload.len();
    let (ethertype, header) = match route.ip {
        (IpAddr::V4(_), IpAddr::V4(_)) => (EtherTypes::Ipv4, IPV4),
        (IpAddr::V6(_), IpAddr::V6(_)) => (EtherTypes::Ipv6, IPV6),
        _ => return None,
    };
    let total = u16::try_from(IPV4 + length).ok()?;
    let length = u16::try_from(length).ok()?;
    let mut bytes = ethernet::frame(
        route.eth.0,
        route.eth.1,
        ethertype,
        header + usize::from(length),
    );
    let (ip, rest) = bytes[HEADER..].split_at_mut(header);
    let mut datagram = MutableUdpPacket::new(rest)?;
    datagram.set_source(route.port.0);
    datagram.set_destination(route.port.1);
    datagram.set_length(length);
    datagram.set_payload(payload);
    let sum = match route.ip {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut packet = MutableIpv4Packet::new(ip)?;
            packet.set_version(4);
            packet.set_header_length(5);
            packet.set_total_length(total);
            packet.set_flags(Ipv4Flags::DontFragment);
            packet.set_ttl(TTL);
            packet.set_next_level_protocol(IpNextHeaderProtocols::Udp);
            packet.set_source(from);
            packet.set_destination(to);
            packet.set_checksum(ipv4::checksum(&packet.to_immutable()));
            udp::ipv4_checksum(&datagram.to_immutable(), &from, &to)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut packet = MutableIpv6Packet::new(ip)?;
            packet.set_version(6);
            packet.set_payload_length(length);
            packet.set_next_header(IpNextHeaderProtocols::Udp);
            packet.set_hop_limit(TTL);
            packet.set_source(from);
            packet.set_destination(to);
            udp::ipv6_checksum(&datagram.to_immutable(), &from, &to)
        }
        _ => return None,
    };
    // RFC 768: a sum of zero is sent as all ones, for zero says that there is none.
    datagram.set_checksum(if sum == 0 { 0xffff } else { sum });
    Some(bytes)
}

/// Reads a frame that carries one whole UDP datagram. The checksum is not looked at: it may be left to
/// hardware that the frame never reached, and who cares authenticates the payload.
///
/// # Errors
/// Cut short, of another protocol, in fragments, with IPv4 options, or of a wrong length.
pub fn parse(frame: &[u8]) -> Result<(Route, &[u8]), FrameError> {
    let (eth, ip, datagram) = match ethernet::split(frame, EtherTypes::Ipv4) {
        Ok(eth) => {
            let ip = Ipv4Packet::new(eth.payload).ok_or(FrameError::Truncated)?;
            let fragment = ip.get_flags() & Ipv4Flags::MoreFragments != 0;
            if ip.get_version() != 4
                || ip.get_header_length() != 5
                || ip.get_next_level_protocol() != IpNextHeaderProtocols::Udp
                || fragment
                || ip.get_fragment_offset() != 0
            {
                return Err(FrameError::OtherProtocol);
            }
            let end = usize::from(ip.get_total_length());
            let ends = (ip.get_source().into(), ip.get_destination().into());
            let inner = eth.payload.get(IPV4..end).ok_or(FrameError::Truncated)?;
            ((eth.src, eth.dst), ends, inner)
        }
        Err(FrameError::OtherProtocol) => {
            let eth = ethernet::split(frame, EtherTypes::Ipv6)?;
            let ip = Ipv6Packet::new(eth.payload).ok_or(FrameError::Truncated)?;
            if ip.get_version() != 6 || ip.get_next_header() != IpNextHeaderProtocols::Udp {
                return Err(FrameError::OtherProtocol);
            }
            let end = IPV6 + usize::from(ip.get_payload_length());
            let ends = (ip.get_source().into(), ip.get_destination().into());
            let inner = eth.payload.get(IPV6..end).ok_or(FrameError::Truncated)?;
            ((eth.src, eth.dst), ends, inner)
        }
        Err(error) => return Err(error),
    };
    let header = UdpPacket::new(datagram).ok_or(FrameError::Truncated)?;
    let route = Route {
        eth,
        ip,
        port: (header.get_source(), header.get_destination()),
    };
    let length = usize::from(header.get_length());
    let payload = datagram.get(UDP..length).ok_or(FrameError::Truncated)?;
    Ok((route, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn routes() -> [Route; 2] {
        let eth = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let ends = |from: &str, to: &str| (from.parse().unwrap(), to.parse().unwrap());
        [
            Route {
                eth,
                ip: ends("192.0.2.11", "192.0.2.12"),
                port: (7733, 7734),
            },
            Route {
                eth,
                ip: ends("2001:db8:2::11", "2001:db8:2::12"),
                port: (7733, 7734),
            },
        ]
    }

    #[test]
    fn what_is_written_is_read_again() {
        for route in routes() {
            for payload in [&b""[..], b"x", b"Is this way open?"] {
                let frame = encode(&route, payload).unwrap();
                assert_eq!(parse(&frame).unwrap(), (route, payload));
                // Ethernet pads short frames.
                let padded = [&frame[..], &[0; 20]].concat();
                assert_eq!(parse(&padded).unwrap(), (route, payload));
            }
        }
    }

    #[test]
    fn the_ipv4_form_is_byte_for_byte_what_others_send() {
        let frame = encode(&routes()[0], b"ab").unwrap();
        assert_eq!(
            frame,
            [
                2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0, // Ethernet
                0x45, 0, 0, 30, 0, 0, 0x40, 0, 64, 17, 0xb6, 0xb7, // IPv4
                192, 0, 2, 11, 192, 0, 2, 12, //
                0x1e, 0x35, 0x1e, 0x36, 0, 10, 0xdd, 0xf4, b'a', b'b', // UDP
            ]
        );
    }

    #[test]
    fn families_do_not_mix_and_payloads_have_an_end() {
        let [v4, v6] = routes();
        let mixed = Route {
            ip: (v4.ip.0, v6.ip.1),
            ..v4
        };
        assert_eq!(encode(&mixed, b""), None);
        assert_eq!(encode(&v4, &vec![0; 65_536]), None);
    }

    #[test]
    fn other_things_are_refused() {
        let [v4, v6] = routes().map(|route| encode(&route, b"payload").unwrap());
        for frame in [&v4, &v6] {
            for end in 0..frame.len() {
                assert!(parse(&frame[..end]).is_err(), "{end}");
            }
        }
        let with = |frame: &[u8], at: usize, byte: u8| {
            let mut frame = frame.to_vec();
            frame[at] = byte;
            parse(&frame).unwrap_err()
        };
        assert_eq!(with(&v4, 14 + 9, 6), FrameError::OtherProtocol);
        assert_eq!(with(&v4, 14 + 6, 0x20), FrameError::OtherProtocol);
        assert_eq!(with(&v4, 14, 0x46), FrameError::OtherProtocol);
        assert_eq!(with(&v6, 14 + 6, 0), FrameError::OtherProtocol);
        assert_eq!(with(&v4, 13, 6), FrameError::OtherProtocol);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
