//! ARP and NDP: what a frame on the uplink means to us, and the frames we send.

use std::net::IpAddr;

use lightship_frames::arp::{self, ArpOp};
use lightship_frames::ndp::{self, Ndp};
use lightship_frames::{FrameError, Mac};

/// What a received frame says, as far as a speaker cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Somebody asks for an address.
    Question {
        /// The address.
        target: IpAddr,
        /// Who asks; unspecified for a probe or duplicate address detection.
        asker: IpAddr,
        /// Where an answer goes.
        asker_mac: Mac,
    },
    /// Somebody says that an address is theirs.
    Claim {
        /// The address.
        address: IpAddr,
        /// The MAC it is claimed for.
        mac: Mac,
    },
}

/// Reads a frame.
///
/// # Errors
/// When it is no ARP or neighbour message, or breaks their rules.
pub(super) fn read(frame: &[u8]) -> Result<Heard, FrameError> {
    match arp::parse(frame) {
        Ok(packet) if packet.op == ArpOp::Request && !packet.is_gratuitous() => {
            Ok(Heard::Question {
                target: packet.target_ip.into(),
                asker: packet.sender_ip.into(),
                asker_mac: packet.sender_mac,
            })
        }
        Ok(packet) => Ok(Heard::Claim {
            address: packet.sender_ip.into(),
            mac: packet.sender_mac,
        }),
        Err(FrameError::OtherProtocol) => Ok(match ndp::parse(frame)? {
            Ndp::Solicitation {
                target,
                src,
                source_ll,
                eth_src,
                ..
            } => Heard::Question {
                target: target.into(),
                asker: src.into(),
                asker_mac: source_ll.unwrap_or(eth_src),
            },
            Ndp::Advertisement {
                target,
                target_ll,
                eth_src,
                ..
            } => Heard::Claim {
                address: target.into(),
                mac: target_ll.unwrap_or(eth_src),
            },
        }),
        Err(error) => Err(error),
    }
}

/// The answer to a question for `vip`, which is at `mac`.
pub(super) fn answer(vip: IpAddr, mac: Mac, asker: IpAddr, asker_mac: Mac) -> Option<Vec<u8>> {
    match (vip, asker) {
        (IpAddr::V4(vip), IpAddr::V4(asker)) => Some(arp::reply(mac, vip, asker_mac, asker)),
        (IpAddr::V6(vip), IpAddr::V6(asker)) => {
            Some(ndp::solicited_na(mac, vip, vip, asker_mac, asker))
        }
        _ => None,
    }
}

/// The frames that tell the LAN that `vip` is at `mac` now. For IPv4 both forms of
/// gratuitous ARP, because some gear heeds only one of them.
pub(super) fn announcement(vip: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match vip {
        IpAddr::V4(vip) => {
            vec![
                arp::gratuitous_request(mac, vip),
                arp::gratuitous_reply(mac, vip),
            ]
        }
        IpAddr::V6(vip) => vec![ndp::unsolicited_na(mac, vip, vip)],
    }
}

/// Asks the kernel of a node whether it lives: unicast, so that it costs the other
/// nodes nothing.
pub(super) fn probe(own: (IpAddr, Mac), node: (IpAddr, Mac)) -> Option<Vec<u8>> {
    match (own.0, node.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            Some(arp::probe_request(own.1, from, to, Some(node.1)))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            Some(ndp::neighbor_solicitation(own.1, from, to, Some(node.1)))
        }
        _ => None,
    }
}

/// Asks everybody on the LAN who has an address. From the unspecified address it is a probe that
/// touches no cache (RFC 5227 section 2.1.1, RFC 4862 section 5.4.2).
pub(super) fn question(own: (IpAddr, Mac), target: IpAddr) -> Option<Vec<u8>> {
    match (own.0, target) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Some(arp::probe_request(own.1, from, to, None)),
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            Some(ndp::neighbor_solicitation(own.1, from, to, None))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn pairs() -> [(IpAddr, IpAddr); 2] {
        [
            (
                "192.0.2.200".parse().unwrap(),
                "192.0.2.100".parse().unwrap(),
            ),
            (
                "2001:db8:2::200".parse().unwrap(),
                "2001:db8:2::100".parse().unwrap(),
            ),
        ]
    }

    #[test]
    fn a_question_is_answered_and_the_answer_reads_as_a_claim() {
        for (vip, client) in pairs() {
            let question = probe((client, THEIRS), (vip, OURS)).unwrap();
            let Heard::Question {
                target,
                asker,
                asker_mac,
            } = read(&question).unwrap()
            else {
                panic!("{vip}: not a question");
            };
            assert_eq!((target, asker, asker_mac), (vip, client, THEIRS));
            let frame = answer(target, OURS, asker, asker_mac).unwrap();
            assert_eq!(
                read(&frame).unwrap(),
                Heard::Claim {
                    address: vip,
                    mac: OURS
                }
            );
        }
    }

    #[test]
    fn announcements_read_as_claims_in_every_form() {
        for (vip, _) in pairs() {
            for frame in announcement(vip, OURS) {
                assert_eq!(
                    read(&frame).unwrap(),
                    Heard::Claim {
                        address: vip,
                        mac: OURS
                    }
                );
            }
        }
    }
}
