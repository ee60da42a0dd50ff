use super::*;
use proptest::prelude::*;

const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const OURS: Mac = Mac([0x02, 0x00, 0x00, 0x00, 0x00, 0xd1]);
const THEIRS: Mac = Mac([0x02, 0x00, 0x00, 0x00, 0x00, 0xc1]);

/// An ARP frame written field by field as in RFC 826, "Packet format".
#[rustfmt::skip]
fn by_hand(dst: [u8; 6], src: [u8; 6], op: u8, sha: [u8; 6], spa: [u8; 4], tha: [u8; 6], tpa: [u8; 4]) -> Vec<u8> {
    let mut f = Vec::new();
    f.extend(dst);
    f.extend(src);
    f.extend([0x08, 0x06]);       // ether type: address resolution
    f.extend([0x00, 0x01]);       // ar$hrd: Ethernet
    f.extend([0x08, 0x00]);       // ar$pro: IPv4
    f.extend([6, 4]);             // ar$hln, ar$pln
    f.extend([0x00, op]);         // ar$op
    f.extend(sha);
    f.extend(spa);
    f.extend(tha);
    f.extend(tpa);
    f
}

const ALL: [u8; 6] = [0xff; 6];
const ZERO: [u8; 6] = [0; 6];
const VIP4: [u8; 4] = [192, 0, 2, 200];
const CLIENT4: [u8; 4] = [192, 0, 2, 100];

#[test]
fn gratuitous_forms() {
    // RFC 5227 section 2.3: an announcement is a request with sender = target.
    assert_eq!(
        gratuitous_request(OURS, VIP),
        by_hand(ALL, OURS.0, 1, OURS.0, VIP4, ZERO, VIP4)
    );
    // RFC 5944 section 4.6: in the reply the target MAC is the new MAC too.
    assert_eq!(
        gratuitous_reply(OURS, VIP),
        by_hand(ALL, OURS.0, 2, OURS.0, VIP4, OURS.0, VIP4)
    );
}

#[test]
fn answers() {
    assert_eq!(
        reply(OURS, VIP, THEIRS, CLIENT),
        by_hand(THEIRS.0, OURS.0, 2, OURS.0, VIP4, THEIRS.0, CLIENT4)
    );
    // To a probe: its sender address was 0.0.0.0.
    assert_eq!(
        reply(OURS, VIP, THEIRS, Ipv4Addr::UNSPECIFIED),
        by_hand(THEIRS.0, OURS.0, 2, OURS.0, VIP4, THEIRS.0, [0; 4])
    );
}

#[test]
fn questions() {
    // RFC 5227 section 2.1.1: sender address all zero, broadcast.
    assert_eq!(
        probe_request(OURS, Ipv4Addr::UNSPECIFIED, VIP, None),
        by_hand(ALL, OURS.0, 1, OURS.0, [0; 4], ZERO, VIP4)
    );
    assert_eq!(
        probe_request(OURS, CLIENT, VIP, Some(THEIRS)),
        by_hand(THEIRS.0, OURS.0, 1, OURS.0, CLIENT4, ZERO, VIP4)
    );
}

#[test]
fn what_is_what() {
    let probe = parse(&probe_request(OURS, Ipv4Addr::UNSPECIFIED, VIP, None)).unwrap();
    assert!(probe.is_probe() && !probe.is_gratuitous());
    let request = parse(&probe_request(OURS, CLIENT, VIP, None)).unwrap();
    assert!(!request.is_probe() && !request.is_gratuitous());
    for garp in [gratuitous_request(OURS, VIP), gratuitous_reply(OURS, VIP)] {
        let garp = parse(&garp).unwrap();
        assert!(garp.is_gratuitous() && !garp.is_probe());
    }
}

#[test]
fn padding_is_ignored() {
    let mut frame = gratuitous_reply(OURS, VIP);
    let bare = parse(&frame);
    frame.resize(60, 0xee);
    assert_eq!(parse(&frame), bare);
}

#[test]
fn every_truncation_is_refused() {
    let frame = reply(OURS, VIP, THEIRS, CLIENT);
    assert_eq!(frame.len(), 42);
    for len in 0..frame.len() {
        assert_eq!(parse(&frame[..len]), Err(FrameError::Truncated), "{len}");
    }
}

#[test]
fn tagged_frames_are_refused() {
    let frame = gratuitous_request(OURS, VIP);
    for tpid in [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]] {
        let tag = [tpid[0], tpid[1], 0x00, 0x64];
        let tagged = [&frame[..12], &tag, &frame[12..]].concat();
        assert_eq!(parse(&tagged), Err(FrameError::VlanTagged));
    }
}

#[test]
fn other_kinds_are_refused() {
    let good = gratuitous_request(OURS, VIP);
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        parse(&frame)
    };
    assert_eq!(with(13, 0x00), Err(FrameError::OtherProtocol)); // IPv4
    assert_eq!(with(15, 6), Err(FrameError::UnsupportedArp)); // IEEE 802
    assert_eq!(with(16, 0x86), Err(FrameError::UnsupportedArp)); // not IPv4
    assert_eq!(with(18, 8), Err(FrameError::UnsupportedArp)); // hardware length
    assert_eq!(with(19, 16), Err(FrameError::UnsupportedArp)); // protocol length
    for op in [0, 3, 4, 8, 9, 255] {
        assert_eq!(with(21, op), Err(FrameError::UnsupportedArp)); // RARP, InARP
    }
}

fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(Mac)
}

prop_compose! {
    fn arps()(
        request: bool, sender_mac in mac(), sender_ip: Ipv4Addr, target_mac in mac(),
        target_ip: Ipv4Addr, eth_src in mac(), eth_dst in mac(),
    ) -> Arp {
        let op = if request { ArpOp::Request } else { ArpOp::Reply };
        Arp { op, sender_mac, sender_ip, target_mac, target_ip, eth_src, eth_dst }
    }
}

proptest! {
    #[test]
    fn round_trip(arp in arps()) {
        prop_assert_eq!(parse(&encode(&arp)), Ok(arp));
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = parse(&bytes);
    }

    #[test]
    fn damaged_frames_never_panic(
        arp in arps(), at in 0_usize..42, byte: u8, len in 0_usize..80,
    ) {
        let mut frame = encode(&arp);
        frame[at] = byte;
        frame.resize(len, 0);
        let _ = parse(&frame);
    }
}
