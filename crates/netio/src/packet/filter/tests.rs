//! The programs, run by a small interpreter of classic BPF.

use std::net::{Ipv4Addr, Ipv6Addr};

use lightship_frames::{Mac, arp, ndp};
use proptest::prelude::*;

use super::super::bpf;
use super::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// What the program returns for a frame: the octets let through.
fn run(program: &[Op], frame: &[u8], vlan: u32) -> u32 {
    run_tagged(program, frame, (vlan != 0, vlan))
}

/// With whether the frame has a tag, and what stands where the tag would be.
fn run_tagged(program: &[Op], frame: &[u8], (tagged, vlan): (bool, u32)) -> u32 {
    let (mut a, mut x, mut at) = (0_u32, 0_u32, 0_usize);
    let load = |offset: u32, octets: usize| {
        if offset == VLAN_TAG {
            return Some(vlan);
        }
        if offset == VLAN_TAGGED {
            return Some(tagged.into());
        }
        let offset = offset as usize;
        let bytes = frame.get(offset..offset + octets)?;
        Some(
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
        )
    };
    loop {
        let op = program[at];
        at += 1;
        let hit = match op.code {
            bpf::LD_W | bpf::LD_H | bpf::LD_B => {
                let octets = match op.code {
                    bpf::LD_W => 4,
                    bpf::LD_H => 2,
                    _ => 1,
                };
                let Some(value) = load(op.k, octets) else {
                    return 0;
                };
                a = value;
                continue;
            }
            bpf::AND => {
                a &= op.k;
                continue;
            }
            bpf::XOR_X => {
                a ^= x;
                continue;
            }
            bpf::TAX => {
                x = a;
                continue;
            }
            bpf::JA => {
                at += op.k as usize;
                continue;
            }
            bpf::RET => return op.k,
            bpf::JEQ => a == op.k,
            bpf::JGE => a >= op.k,
            bpf::JGT => a > op.k,
            code => panic!("unknown code {code:#x}"),
        };
        at += usize::from(if hit { op.jt } else { op.jf });
    }
}

fn passes(program: &[Op], frame: &[u8]) -> bool {
    match run(program, frame, 0) {
        0 => false,
        0xffff => true,
        cut => panic!("cut to {cut}"),
    }
}

fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, last)
}

fn watched() -> Watched {
    let vips: [IpAddr; 4] = [
        v4(200).into(),
        v4(201).into(),
        v4(210).into(),
        v6(0x200).into(),
    ];
    let nodes: [IpAddr; 2] = [v4(11).into(), v6(0x11).into()];
    Watched {
        asked: vips.into(),
        claimed: vips.into_iter().chain(nodes).collect(),
    }
}

#[test]
fn every_form_of_arp_about_us_passes() {
    let program = watched().program(usize::MAX);
    let client = v4(100);
    for vip in [200, 201, 210].map(v4) {
        for frame in [
            // Broadcast, unicast, a probe; from a VIP's own name.
            arp::probe_request(MAC, client, vip, None),
            arp::probe_request(MAC, client, vip, Some(OTHER)),
            arp::probe_request(MAC, Ipv4Addr::UNSPECIFIED, vip, None),
            arp::probe_request(MAC, vip, client, None),
            arp::gratuitous_request(MAC, vip),
            arp::gratuitous_reply(MAC, vip),
            arp::reply(MAC, vip, OTHER, client),
            arp::reply(MAC, vip, OTHER, Ipv4Addr::UNSPECIFIED),
        ] {
            assert!(passes(&program, &frame), "{vip}: {frame:02x?}");
            assert_eq!(run(&program, &frame, 0x1064), 0, "of a VLAN");
            assert_eq!(run(&program, &frame, 0xe000), 0xffff, "with a priority");
            let taken_off = run_tagged(&program, &frame, (false, 0x1064));
            assert_eq!(taken_off, 0xffff, "on the VLAN's own interface");
            for length in 0..38 {
                assert!(
                    !passes(&program, &frame[..length]) || length >= 32,
                    "{length}"
                );
            }
        }
    }
    let node = arp::reply(MAC, v4(11), OTHER, v4(12));
    assert!(passes(&program, &node), "the answer of a node's kernel");
}

#[test]
fn arp_about_others_does_not_pass() {
    let program = watched().program(usize::MAX);
    for other in [0, 1, 10, 12, 199, 202, 209, 211, 255].map(v4) {
        for frame in [
            arp::probe_request(MAC, v4(100), other, None),
            arp::probe_request(MAC, Ipv4Addr::UNSPECIFIED, other, None),
            arp::gratuitous_request(MAC, other),
            arp::gratuitous_reply(MAC, other),
            arp::reply(MAC, other, OTHER, v4(100)),
            // What is answered to a VIP is no claim of it.
            arp::reply(MAC, other, OTHER, v4(200)),
        ] {
            assert!(!passes(&program, &frame), "{other}: {frame:02x?}");
        }
    }
    let for_node = arp::probe_request(MAC, v4(100), v4(11), None);
    assert!(!passes(&program, &for_node), "a node answers for itself");
}

#[test]
fn every_form_of_ndp_about_us_passes() {
    let program = watched().program(usize::MAX);
    let (vip, client) = (v6(0x200), v6(0x100));
    let dad = Ipv6Addr::UNSPECIFIED;
    for frame in [
        // With and without an option, to the group and to one.
        ndp::neighbor_solicitation(MAC, client, vip, None),
        ndp::neighbor_solicitation(MAC, client, vip, Some(OTHER)),
        ndp::neighbor_solicitation(MAC, dad, vip, None),
        ndp::neighbor_solicitation(MAC, vip, client, None),
        ndp::unsolicited_na(MAC, vip, vip),
        ndp::solicited_na(MAC, client, vip, OTHER, client),
        // The answer of a node's kernel, by its address or a link-local one.
        ndp::solicited_na(MAC, v6(0x11), v6(0x11), OTHER, v6(0x12)),
        ndp::solicited_na(MAC, v6(0xfe), v6(0x11), OTHER, v6(0x12)),
    ] {
        assert!(passes(&program, &frame), "{frame:02x?}");
        assert_eq!(run(&program, &frame, 7), 0, "of a VLAN");
        for length in 0..78 {
            assert!(!passes(&program, &frame[..length]), "{length}");
        }
    }
}

#[test]
fn ndp_about_others_does_not_pass() {
    let program = watched().program(usize::MAX);
    for other in [0, 0x10, 0x12, 0x1ff, 0x201, 0xffff].map(v6) {
        for frame in [
            ndp::neighbor_solicitation(MAC, v6(0x100), other, None),
            ndp::neighbor_solicitation(MAC, Ipv6Addr::UNSPECIFIED, other, None),
            ndp::unsolicited_na(MAC, other, other),
            ndp::solicited_na(MAC, other, other, OTHER, v6(0x200)),
        ] {
            assert!(!passes(&program, &frame), "{other}: {frame:02x?}");
        }
    }
    let for_node = ndp::neighbor_solicitation(MAC, v6(0x100), v6(0x11), None);
    assert!(!passes(&program, &for_node), "a node answers for itself");
    let vip = ndp::unsolicited_na(MAC, v6(0x200), v6(0x200));
    let mut echo = vip.clone();
    echo[54] = 128;
    let mut udp = vip.clone();
    udp[20] = 17;
    let mut ipv4 = vip;
    ipv4[12..14].copy_from_slice(&[0x08, 0x00]);
    for frame in [echo, udp, ipv4] {
        assert!(!passes(&program, &frame), "{frame:02x?}");
    }
}

#[test]
fn nothing_is_wanted_of_nobody() {
    let program = Watched::default().program(usize::MAX);
    assert!(!passes(&program, &arp::gratuitous_reply(MAC, v4(200))));
    assert!(!passes(&program, &ndp::unsolicited_na(MAC, v6(1), v6(1))));
}

/// Whether all jumps of a program stay within it, forwards, and it ends: what the kernel checks.
fn is_sound(program: &[Op]) -> bool {
    let ends = program.last().is_some_and(|op| op.code == bpf::RET);
    let within = |(at, op): (usize, &Op)| {
        let far = match op.code {
            bpf::JA => op.k as usize,
            _ => usize::from(op.jt.max(op.jf)),
        };
        at + 1 + far < program.len()
    };
    let mut jumps = program
        .iter()
        .enumerate()
        .filter(|(_, op)| op.code != bpf::RET);
    ends && program.len() <= MAX && jumps.all(within)
}

#[test]
fn a_thousand_vips_are_told_from_their_neighbours() {
    // No two of them adjacent, so that each needs its own place in the tree.
    let spread = |n: u32| Ipv4Addr::from_bits(0xcb00_7100 + 3 * n);
    let vips: BTreeSet<IpAddr> = (0..1000).map(|n| spread(n).into()).collect();
    let watched = Watched {
        asked: vips.clone(),
        claimed: vips,
    };
    let program = watched.program(usize::MAX);
    assert!(is_sound(&program), "{}", program.len());
    for n in 0..3000 {
        let address = Ipv4Addr::from_bits(0xcb00_7100 + n);
        let frame = arp::probe_request(MAC, v4(1), address, None);
        assert_eq!(passes(&program, &frame), n % 3 == 0, "{address}");
        let frame = arp::gratuitous_reply(MAC, address);
        assert_eq!(passes(&program, &frame), n % 3 == 0, "{address}");
    }
    // A pool in a row is one range.
    let row: BTreeSet<IpAddr> = (0..1000)
        .map(|n| Ipv4Addr::from_bits(0xcb00_7100 + n).into())
        .collect();
    let watched = Watched {
        asked: row.clone(),
        claimed: row,
    };
    assert!(watched.program(usize::MAX).len() < 100);
}

#[test]
fn what_is_too_much_for_the_kernel_is_told_apart_less_finely() {
    let vips: BTreeSet<IpAddr> = (0..5000)
        .flat_map(|n: u32| {
            let v6 = Ipv6Addr::from_bits(v6(0).to_bits() + u128::from(2 * n));
            [
                IpAddr::from(Ipv4Addr::from_bits(0xc633_6400 + 2 * n)),
                v6.into(),
            ]
        })
        .collect();
    let watched = Watched {
        asked: vips.clone(),
        claimed: vips.clone(),
    };
    for limit in [usize::MAX, 100, 1, 0] {
        let program = watched.program(limit);
        assert!(is_sound(&program), "{}", program.len());
        for vip in &vips {
            let frame = match *vip {
                IpAddr::V4(vip) => arp::probe_request(MAC, v4(1), vip, None),
                IpAddr::V6(vip) => ndp::neighbor_solicitation(MAC, v6(1), vip, None),
            };
            assert!(passes(&program, &frame), "{vip} at {limit}");
        }
        let outside = arp::probe_request(MAC, v4(1), v4(2), None);
        assert!(!passes(&program, &outside), "outside of all");
    }
}

fn addresses() -> impl Strategy<Value = BTreeSet<IpAddr>> {
    let v4 = prop_oneof![any::<u32>(), 0xc000_0200..0xc000_0300_u32];
    let v6 = prop_oneof![
        any::<u128>(),
        (0..100_u128).prop_map(|n| v6(0).to_bits() + n)
    ];
    let any = prop_oneof![
        v4.prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))),
        v6.prop_map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))),
    ];
    prop::collection::btree_set(any, 0..120)
}

fn request(target: IpAddr) -> Vec<u8> {
    match target {
        IpAddr::V4(target) => arp::probe_request(MAC, Ipv4Addr::UNSPECIFIED, target, None),
        IpAddr::V6(target) => ndp::neighbor_solicitation(MAC, Ipv6Addr::UNSPECIFIED, target, None),
    }
}

fn announcement(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp::gratuitous_reply(MAC, address),
        IpAddr::V6(address) => ndp::unsolicited_na(MAC, address, address),
    }
}

/// What the filter may not tell apart: see [`KEY`] and [`v6_keys`].
fn key(address: IpAddr) -> (bool, u32) {
    match address {
        IpAddr::V4(v4) => (false, v4.to_bits() & KEY),
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.segments().map(u32::from);
            let high = a ^ c ^ e ^ g;
            let low = b ^ d ^ f ^ h;
            (true, (high << 16 | low) & KEY)
        }
    }
}

proptest! {
    #[test]
    fn exactly_the_watched_pass(
        asked in addresses(),
        claimed in addresses(),
        others in addresses(),
        limit in 0..130_usize,
    ) {
        let unspecified = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        prop_assume!(!unspecified.iter().any(|none| claimed.contains(none)));
        let watched = Watched { asked: asked.clone(), claimed: claimed.clone() };
        let (exact, coarse) = (watched.program(usize::MAX), watched.program(limit));
        prop_assert!(is_sound(&exact) && is_sound(&coarse));
        let keys = |set: &BTreeSet<IpAddr>| -> BTreeSet<_> { set.iter().map(|a| key(*a)).collect() };
        let (asked_keys, claimed_keys) = (keys(&asked), keys(&claimed));
        // The probes' unspecified sender is no key of a claimed address either.
        prop_assume!(!unspecified.iter().any(|none| claimed_keys.contains(&key(*none))));
        for address in asked.iter().chain(&claimed).chain(&others) {
            let wanted = asked_keys.contains(&key(*address));
            prop_assert_eq!(passes(&exact, &request(*address)), wanted, "{}", address);
            prop_assert!(!wanted || passes(&coarse, &request(*address)), "{}", address);
            let wanted = claimed_keys.contains(&key(*address));
            // A gratuitous reply is told by its sender alone.
            prop_assert_eq!(passes(&exact, &announcement(*address)), wanted, "{}", address);
            prop_assert!(!wanted || passes(&coarse, &announcement(*address)), "{}", address);
        }
    }
}

#[test]
fn datagrams_are_told_by_port_and_first_octet() {
    use lightship_frames::udp::{self, Route};

    let filter = Filter::Udp {
        port: 7733,
        first: 0x50,
    };
    let program = filter.program();
    let route = |v6: bool, port| Route {
        eth: (MAC, OTHER),
        ip: if v6 {
            (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into())
        } else {
            (v4(1).into(), v4(2).into())
        },
        port: (1, port),
    };
    for v6 in [false, true] {
        let right = udp::encode(&route(v6, 7733), b"Px").unwrap();
        assert!(passes(&program, &right));
        assert!(!passes(
            &program,
            &udp::encode(&route(v6, 7733), b"Qx").unwrap()
        ));
        assert!(!passes(
            &program,
            &udp::encode(&route(v6, 7733), b"").unwrap()
        ));
        assert!(!passes(
            &program,
            &udp::encode(&route(v6, 7734), b"Px").unwrap()
        ));
        let protocol = if v6 { 14 + 6 } else { 14 + 9 };
        let mut tcp = right.clone();
        tcp[protocol] = 6;
        assert!(!passes(&program, &tcp));
        assert_eq!(run(&program, &right, 100), 0, "of a VLAN");
    }
    let right = udp::encode(&route(false, 7733), b"P").unwrap();
    for (at, octet) in [(14, 0x46), (14 + 6, 0x20), (14 + 7, 1), (13, 6)] {
        let mut other = right.clone();
        other[at] = octet;
        assert!(!passes(&program, &other), "{at}");
    }
    assert!(!passes(&program, &arp::gratuitous_reply(MAC, v4(1))));
}
