//! Neighbour solicitations and advertisements from the LAN.

use std::net::Ipv6Addr;

use lightship_frames::Mac;
use lightship_frames::ndp::{self, Ndp};

use super::{Target, kind};

pub(super) const TARGET: Target = Target {
    name: "ndp",
    run,
    repair: |frame| repair(frame),
    seeds,
};

fn run(frame: &[u8]) -> String {
    match ndp::parse(frame) {
        Err(error) => kind(error),
        Ok(Ndp::Solicitation {
            target,
            src,
            dst,
            source_ll,
            eth_src,
            ..
        }) => {
            assert!(!target.is_multicast());
            assert!(!src.is_unspecified() || (dst.is_multicast() && source_ll.is_none()));
            // Whoever asks gets an answer that is understood.
            let to = source_ll.unwrap_or(eth_src);
            let answer = ndp::solicited_na(eth_src, target, target, to, src);
            let Ok(Ndp::Advertisement { flags, .. }) = ndp::parse(&answer) else {
                panic!("the answer breaks the rules: {answer:02x?}");
            };
            assert_eq!(flags.solicited, !src.is_unspecified());
            format!(
                "solicitation {} {}",
                src.is_unspecified(),
                source_ll.is_some()
            )
        }
        Ok(Ndp::Advertisement {
            target,
            flags,
            target_ll,
            ..
        }) => {
            assert!(!target.is_multicast());
            format!("advertisement {flags:?} {}", target_ll.is_some())
        }
    }
}

/// The hop limit, the length and the checksum.
fn repair(frame: &mut [u8]) {
    const ICMP: usize = 14 + 40;
    if frame.len() < ICMP + 4 {
        return;
    }
    frame[21] = 255;
    let length = frame.len() - ICMP;
    frame[18..20].copy_from_slice(&(length as u16).to_be_bytes());
    frame[ICMP + 2..ICMP + 4].fill(0);
    // RFC 8200 section 8.1: the addresses, the length and the next header are summed as well.
    let words = frame[22..].chunks(2).map(|word| match word {
        [high, low] => u32::from(*high) << 8 | u32::from(*low),
        rest => u32::from(rest[0]) << 8,
    });
    let mut sum = words.sum::<u32>() + length as u32 + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[ICMP + 2..ICMP + 4].copy_from_slice(&(!sum as u16).to_be_bytes());
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let (us, them) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    let at = |last| Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, last);
    let (vip, client) = (at(0x200), at(0x100));
    let none = Ipv6Addr::UNSPECIFIED;
    // A nonce (RFC 3971 section 5.3.2), as Linux sends it with its own probes (RFC 7527).
    let mut nonce = ndp::neighbor_solicitation(them, none, vip, None);
    nonce.extend([14, 1, 1, 2, 3, 4, 5, 6]);
    repair(&mut nonce);
    let seeds = [
        (
            "solicitation",
            ndp::neighbor_solicitation(them, client, vip, None),
        ),
        (
            "solicitation-unicast",
            ndp::neighbor_solicitation(them, client, vip, Some(us)),
        ),
        (
            "detection",
            ndp::neighbor_solicitation(them, none, vip, None),
        ),
        ("detection-nonce", nonce),
        ("unsolicited", ndp::unsolicited_na(us, vip, vip)),
        ("solicited", ndp::solicited_na(us, vip, vip, them, client)),
    ];
    seeds.map(|(name, frame)| (name.to_owned(), frame)).into()
}
