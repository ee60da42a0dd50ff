use super::*;
use proptest::prelude::*;

const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x200);
const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x100);
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x200);
const NONE: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const OURS: Mac = Mac([0x02, 0x00, 0x00, 0x00, 0x00, 0xd1]);
const THEIRS: Mac = Mac([0x02, 0x00, 0x00, 0x00, 0x00, 0xc1]);

/// RFC 1071 over the pseudo header of RFC 8200 section 8.1, written plainly and
/// apart from the code under test.
fn checksum(src: Ipv6Addr, dst: Ipv6Addr, icmp: &[u8]) -> u16 {
    let mut bytes = [src.octets(), dst.octets()].concat();
    bytes.extend(u32::try_from(icmp.len()).unwrap().to_be_bytes());
    bytes.extend([0, 0, 0, 58]);
    bytes.extend(icmp);
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A whole frame by hand; `icmp` has zeroes for its checksum, which is filled in.
fn by_hand(eth_dst: Mac, eth_src: Mac, src: Ipv6Addr, dst: Ipv6Addr, icmp: &[u8]) -> Vec<u8> {
    let mut f = Vec::new();
    f.extend(eth_dst.0);
    f.extend(eth_src.0);
    f.extend([0x86, 0xdd]);
    f.extend([0x60, 0, 0, 0]); // version 6, no traffic class, no flow label
    f.extend(u16::try_from(icmp.len()).unwrap().to_be_bytes());
    f.extend([58, 255]); // ICMPv6, hop limit
    f.extend(src.octets());
    f.extend(dst.octets());
    f.extend(icmp);
    let sum = checksum(src, dst, icmp);
    f[56..58].copy_from_slice(&sum.to_be_bytes());
    f
}

/// The message of RFC 4861 sections 4.3 and 4.4.
fn message(kind: u8, flags: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let mut m = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    m.extend(target.octets());
    m.extend(options);
    m
}

fn option(kind: u8, mac: Mac) -> Vec<u8> {
    [&[kind, 1], &mac.0[..]].concat()
}

fn ns(src: Ipv6Addr, dst: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    by_hand(OURS, THEIRS, src, dst, &message(135, 0, VIP, options))
}

fn na(flags: u8, dst: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    by_hand(OURS, THEIRS, VIP, dst, &message(136, flags, VIP, options))
}

#[test]
fn a_frame_written_out_whole() {
    // Not even the checksum (0xf458) is computed here.
    #[rustfmt::skip]
    let bytes = [
        0x33, 0x33, 0x00, 0x00, 0x00, 0x01, // all nodes
        0x02, 0x00, 0x00, 0x00, 0x00, 0xd1,
        0x86, 0xdd,
        0x60, 0x00, 0x00, 0x00, 0x00, 0x20, 0x3a, 0xff,
        0x20, 0x01, 0x0d, 0xb8, 0x00, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x00,
        0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01,
        0x88, 0x00, 0xf4, 0x58, 0x20, 0x00, 0x00, 0x00, // R=0 S=0 O=1
        0x20, 0x01, 0x0d, 0xb8, 0x00, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x00,
        0x02, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0xd1, // target link-layer address
    ];
    assert_eq!(unsolicited_na(OURS, VIP, VIP), bytes);
}

#[test]
fn unsolicited_advertisement() {
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xd1);
    assert_eq!(
        unsolicited_na(OURS, link_local, VIP),
        by_hand(
            Mac([0x33, 0x33, 0, 0, 0, 1]),
            OURS,
            link_local,
            ALL_NODES,
            &message(136, 0x20, VIP, &option(2, OURS)),
        )
    );
}

#[test]
fn solicited_advertisement() {
    assert_eq!(
        solicited_na(OURS, VIP, VIP, THEIRS, CLIENT),
        by_hand(
            THEIRS,
            OURS,
            VIP,
            CLIENT,
            &message(136, 0x60, VIP, &option(2, OURS)),
        )
    );
    // Duplicate address detection is answered to everybody, without the S flag.
    assert_eq!(
        solicited_na(OURS, VIP, VIP, THEIRS, NONE),
        unsolicited_na(OURS, VIP, VIP)
    );
}

#[test]
fn solicitations() {
    let group_mac = Mac([0x33, 0x33, 0xff, 0x00, 0x02, 0x00]);
    assert_eq!(
        neighbor_solicitation(OURS, CLIENT, VIP, None),
        by_hand(
            group_mac,
            OURS,
            CLIENT,
            GROUP,
            &message(135, 0, VIP, &option(1, OURS)),
        )
    );
    assert_eq!(
        neighbor_solicitation(OURS, CLIENT, VIP, Some(THEIRS)),
        by_hand(
            THEIRS,
            OURS,
            CLIENT,
            VIP,
            &message(135, 0, VIP, &option(1, OURS)),
        )
    );
    // Detection: no option, and always to the group.
    assert_eq!(
        neighbor_solicitation(OURS, NONE, VIP, None),
        by_hand(group_mac, OURS, NONE, GROUP, &message(135, 0, VIP, &[]))
    );
    assert_eq!(
        neighbor_solicitation(OURS, NONE, VIP, Some(THEIRS)),
        by_hand(THEIRS, OURS, NONE, GROUP, &message(135, 0, VIP, &[]))
    );
}

#[test]
fn groups_and_their_macs() {
    // The example of RFC 4291 section 2.7.1.
    let ip: Ipv6Addr = "4037::01:800:200e:8c6c".parse().unwrap();
    let group: Ipv6Addr = "ff02::1:ff0e:8c6c".parse().unwrap();
    assert_eq!(solicited_node(ip), group);
    assert_eq!(solicited_node(group), group);
    assert_eq!(
        multicast_mac(group),
        Mac([0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c])
    );
    assert_eq!(multicast_mac(ALL_NODES), Mac([0x33, 0x33, 0, 0, 0, 1]));
}

#[test]
fn a_solicitation_is_read() {
    assert_eq!(
        parse(&ns(CLIENT, GROUP, &option(1, THEIRS))),
        Ok(Ndp::Solicitation {
            target: VIP,
            src: CLIENT,
            dst: GROUP,
            source_ll: Some(THEIRS),
            eth_src: THEIRS,
            eth_dst: OURS,
        })
    );
    // A reachability probe: unicast, without the option.
    let probe = parse(&ns(CLIENT, VIP, &[])).unwrap();
    assert!(matches!(
        probe,
        Ndp::Solicitation {
            dst: VIP,
            source_ll: None,
            ..
        }
    ));
    // Detection, with the nonce option of RFC 7527.
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let dad = parse(&ns(NONE, GROUP, &nonce)).unwrap();
    assert!(matches!(dad, Ndp::Solicitation { src: NONE, .. }));
}

#[test]
fn an_advertisement_is_read() {
    let read = parse(&na(0xa0, ALL_NODES, &option(2, THEIRS))).unwrap();
    assert_eq!(
        read,
        Ndp::Advertisement {
            target: VIP,
            src: VIP,
            flags: NaFlags {
                router: true,
                solicited: false,
                override_: true,
            },
            target_ll: Some(THEIRS),
            eth_src: THEIRS,
            eth_dst: OURS,
        }
    );
    let read = parse(&na(0x40, CLIENT, &[])).unwrap();
    assert!(matches!(
        read,
        Ndp::Advertisement {
            flags: NaFlags {
                router: false,
                solicited: true,
                override_: false
            },
            target_ll: None,
            ..
        }
    ));
}

#[test]
fn unknown_options_are_skipped_and_the_first_address_counts() {
    let options = [
        vec![200, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        option(2, OURS), // a target address option has no meaning here
        option(1, THEIRS),
        option(1, OURS),
    ]
    .concat();
    let read = parse(&ns(CLIENT, GROUP, &options)).unwrap();
    assert!(matches!(
        read,
        Ndp::Solicitation {
            source_ll: Some(THEIRS),
            ..
        }
    ));
}

/// The rules of RFC 4861 sections 7.1.1 and 7.1.2, each broken alone.
#[test]
fn invalid_messages_are_refused() {
    use FrameError::*;
    let good = ns(CLIENT, GROUP, &option(1, THEIRS));
    assert!(parse(&good).is_ok());
    for limit in [0, 1, 64, 254] {
        let mut frame = good.clone();
        frame[21] = limit;
        assert_eq!(parse(&frame), Err(HopLimit));
    }
    for at in 22..good.len() {
        let mut frame = good.clone();
        frame[at] ^= 0x01;
        // The type is looked at first: 134 is a router advertisement.
        let expected = if at == 54 { OtherProtocol } else { Checksum };
        assert_eq!(parse(&frame), Err(expected), "octet {at}");
    }
    let code = {
        let mut m = message(135, 0, VIP, &[]);
        m[1] = 1;
        by_hand(OURS, THEIRS, CLIENT, GROUP, &m)
    };
    let multicast_target = by_hand(
        OURS,
        THEIRS,
        CLIENT,
        GROUP,
        &message(135, 0, ALL_NODES, &[]),
    );
    let multicast_target_na = by_hand(
        OURS,
        THEIRS,
        VIP,
        CLIENT,
        &message(136, 0x60, ALL_NODES, &[]),
    );
    for (what, frame) in [
        ("code", code),
        ("multicast target", multicast_target),
        ("multicast target of an advertisement", multicast_target_na),
        ("from a group", ns(ROUTERS, GROUP, &option(1, THEIRS))),
        (
            "option of length 0",
            ns(CLIENT, GROUP, &[1, 0, 0, 0, 0, 0, 0, 0]),
        ),
        (
            "length 0 after a good option",
            ns(
                CLIENT,
                GROUP,
                &[option(1, THEIRS), vec![9, 0, 0, 0, 0, 0, 0, 0]].concat(),
            ),
        ),
        (
            "option past the end",
            ns(CLIENT, GROUP, &[9, 2, 0, 0, 0, 0, 0, 0]),
        ),
        ("stray octets", ns(CLIENT, GROUP, &[9])),
        (
            "address of 14 octets",
            ns(CLIENT, GROUP, &[&[1, 2][..], &[0; 14]].concat()),
        ),
        ("from :: to unicast", ns(NONE, VIP, &[])),
        ("from :: to all nodes", ns(NONE, ALL_NODES, &[])),
        (
            "from :: with a source address option",
            ns(NONE, GROUP, &option(1, THEIRS)),
        ),
        (
            "solicited multicast",
            na(0x60, ALL_NODES, &option(2, THEIRS)),
        ),
        ("solicited multicast to routers", na(0x40, ROUTERS, &[])),
    ] {
        assert!(
            matches!(parse(&frame), Err(Invalid(_))),
            "{what}: {:?}",
            parse(&frame)
        );
    }
    let short = by_hand(
        OURS,
        THEIRS,
        CLIENT,
        GROUP,
        &message(135, 0, VIP, &[])[..20],
    );
    assert_eq!(parse(&short), Err(Truncated));
}

#[test]
fn other_packets_are_refused() {
    let good = ns(CLIENT, GROUP, &option(1, THEIRS));
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        parse(&frame)
    };
    assert_eq!(with(13, 0x06), Err(FrameError::OtherProtocol)); // not IPv6
    assert_eq!(with(14, 0x40), Err(FrameError::OtherProtocol)); // version 4
    for header in [0, 6, 17, 43, 44, 51, 60] {
        assert_eq!(with(20, header), Err(FrameError::OtherProtocol));
    }
    for kind in [128, 133, 134, 137, 143] {
        assert_eq!(with(54, kind), Err(FrameError::OtherProtocol));
    }
    for tpid in [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]] {
        let tag = [tpid[0], tpid[1], 0x00, 0x64];
        let tagged = [&good[..12], &tag, &good[12..]].concat();
        assert_eq!(parse(&tagged), Err(FrameError::VlanTagged));
    }
}

#[test]
fn padding_is_ignored_and_every_truncation_refused() {
    let mut frame = ns(CLIENT, GROUP, &option(1, THEIRS));
    let whole = parse(&frame);
    for len in 0..frame.len() {
        assert_eq!(parse(&frame[..len]), Err(FrameError::Truncated), "{len}");
    }
    frame.extend([0xee; 9]);
    assert_eq!(parse(&frame), whole);
    // A payload length that says more than there is.
    frame[18] = 0xff;
    assert_eq!(parse(&frame), Err(FrameError::Truncated));
}

fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(Mac)
}

fn unicast() -> impl Strategy<Value = Ipv6Addr> {
    any::<Ipv6Addr>().prop_filter("unicast", |ip| !ip.is_multicast() && !ip.is_unspecified())
}

proptest! {
    #[test]
    fn advertisements_round_trip(
        mac in mac(), src in unicast(), target in unicast(), to_mac in mac(), to in unicast(),
    ) {
        let flags = |solicited| NaFlags { router: false, solicited, override_: true };
        let expect = |solicited, eth_dst| Ok(Ndp::Advertisement {
            target, src, flags: flags(solicited), target_ll: Some(mac), eth_src: mac, eth_dst,
        });
        prop_assert_eq!(
            parse(&unsolicited_na(mac, src, target)),
            expect(false, multicast_mac(ALL_NODES))
        );
        prop_assert_eq!(
            parse(&solicited_na(mac, src, target, to_mac, to)),
            expect(true, to_mac)
        );
    }

    #[test]
    fn solicitations_round_trip(
        mac in mac(), src in unicast(), target in unicast(), to in proptest::option::of(mac()),
        detect: bool,
    ) {
        let src = if detect { NONE } else { src };
        let group = solicited_node(target);
        let dst = if detect || to.is_none() { group } else { target };
        prop_assert_eq!(
            parse(&neighbor_solicitation(mac, src, target, to)),
            Ok(Ndp::Solicitation {
                target, src, dst,
                source_ll: (!detect).then_some(mac),
                eth_src: mac,
                eth_dst: to.unwrap_or_else(|| multicast_mac(group)),
            })
        );
    }

    #[test]
    fn what_is_made_has_the_right_checksum(mac in mac(), src in unicast(), target in unicast()) {
        let frame = neighbor_solicitation(mac, src, target, None);
        let mut icmp = frame[54..].to_vec();
        let sent = u16::from_be_bytes([icmp[2], icmp[3]]);
        icmp[2..4].fill(0);
        prop_assert_eq!(sent, checksum(src, solicited_node(target), &icmp));
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = parse(&bytes);
    }

    /// Random options under a right checksum reach the option walk, which must
    /// neither panic nor run for ever.
    #[test]
    fn random_options_never_panic(
        solicit: bool, flags: u8, options in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let kind = if solicit { 135 } else { 136 };
        let frame = by_hand(OURS, THEIRS, CLIENT, GROUP, &message(kind, flags, VIP, &options));
        let _ = parse(&frame);
    }
}
