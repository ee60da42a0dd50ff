//! Round trips over random values, and random bytes into the decoder.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, NLM_F_REQUEST};
use proptest::prelude::*;

use super::*;
use crate::diff::Op;
use crate::model::*;

fn any_addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

fn any_key() -> impl Strategy<Value = ServiceKey> {
    prop_oneof![
        (any_addr(), any::<u8>(), any::<u16>())
            .prop_map(|(addr, protocol, port)| { ServiceKey::new(addr, protocol.into(), port) }),
        (any::<bool>(), 1_u32..).prop_map(|(v6, mark)| ServiceKey::FwMark {
            family: if v6 { Family::V6 } else { Family::V4 },
            mark,
        }),
    ]
}

fn any_service() -> impl Strategy<Value = Service> {
    (
        any_key(),
        "[a-z]{1,15}",
        any::<u32>(),
        any::<u32>(),
        any::<u8>(),
        prop::option::of("[a-z]{1,15}"),
    )
        .prop_map(
            |(key, scheduler, flags, timeout_secs, netmask, persistence_engine)| Service {
                key,
                scheduler: Scheduler::new(scheduler).unwrap(),
                flags: ServiceFlags::from_kernel(flags),
                timeout_secs,
                netmask: netmask % (key.family().host_prefix() + 1),
                persistence_engine,
            },
        )
}

fn any_forward() -> impl Strategy<Value = Forward> {
    prop_oneof![
        Just(Forward::Masquerade),
        Just(Forward::LocalNode),
        Just(Forward::DirectRouting),
        Just(Forward::Bypass),
        (5_u8..8).prop_map(Forward::Other),
        (any::<u8>(), any::<u16>(), any::<u16>()).prop_map(|(kind, port, flags)| {
            Forward::Tunnel(Tunnel {
                kind: match kind {
                    0 => TunnelKind::Ipip,
                    1 => TunnelKind::Gue,
                    2 => TunnelKind::Gre,
                    other => TunnelKind::Other(other),
                },
                port,
                flags,
            })
        }),
    ]
}

fn any_destination() -> impl Strategy<Value = Destination> {
    (
        any_addr(),
        any::<u16>(),
        any::<u32>(),
        any_forward(),
        any::<u32>(),
        any::<u32>(),
    )
        .prop_map(
            |(addr, port, weight, forward, upper_threshold, lower_threshold)| Destination {
                addr,
                port,
                weight,
                forward,
                upper_threshold,
                lower_threshold,
            },
        )
}

fn through_the_wire(message: IpvsMessage, sequence: u32) -> IpvsMessage {
    let bytes = encode(message, 0x1c, NLM_F_REQUEST, sequence);
    let mut all = frames(&bytes);
    let frame = all.next().unwrap().unwrap();
    assert_eq!(frame.sequence, sequence);
    assert!(all.next().is_none());
    frame.payload.ipvs().unwrap()
}

/// An attribute of a kind nobody has defined yet.
fn unknown(value: Vec<u8>) -> DefaultNla {
    DefaultNla::new(900, value)
}

proptest! {
    #[test]
    fn services_round_trip(service in any_service(), sequence: u32, extra: Vec<u8>) {
        let mut message = IpvsMessage::from_op(&Op::NewService(service.clone()));
        // What a newer kernel might add is no obstacle, at either level.
        if let Attr::Service(attrs) = &mut message.attrs[0] {
            attrs.push(ServiceAttr::Other(unknown(extra.clone())));
        }
        message.attrs.push(Attr::Other(unknown(extra)));
        let back = through_the_wire(message.clone(), sequence);
        prop_assert_eq!(&back, &message);
        let (read, stats) = back.service().unwrap();
        prop_assert_eq!(read, service);
        prop_assert_eq!(stats, Stats::default());
    }

    #[test]
    fn destinations_round_trip(
        key in any_key(),
        destination in any_destination(),
        counters: [u64; 10],
        wide: bool,
        extra: Vec<u8>,
    ) {
        let mut message = IpvsMessage::from_op(&Op::NewDest(key, destination));
        let stats: Vec<StatsAttr> = (1..)
            .zip(counters)
            .map(|(kind, value)| StatsAttr::Counter(kind, if wide {
                Counter::U64(value)
            } else {
                Counter::U32(value as u32)
            }))
            .collect();
        if let Attr::Dest(attrs) = &mut message.attrs[1] {
            attrs.push(DestAttr::ActiveConns(7));
            attrs.push(DestAttr::Other(unknown(extra)));
            attrs.push(if wide { DestAttr::Stats64(stats) } else { DestAttr::Stats(stats) });
        }
        let back = through_the_wire(message.clone(), 1);
        prop_assert_eq!(&back, &message);
        let state = back.destination(key.family()).unwrap();
        prop_assert_eq!(state.destination, destination);
        prop_assert_eq!(state.active_connections, 7);
        let expect = |place: usize| if wide { counters[place] } else { u64::from(counters[place] as u32) };
        prop_assert_eq!(state.stats.connections, expect(0));
        prop_assert_eq!(state.stats.out_bytes, expect(4));
        prop_assert_eq!(state.stats.out_byte_rate, expect(9));
    }

    /// Random bytes, and random damage to real datagrams, never panic.
    #[test]
    fn noise_never_panics(bytes: Vec<u8>) {
        read_all(&bytes);
    }

    #[test]
    fn framed_noise_never_panics(
        kind in prop_oneof![Just(2_u16), Just(3), Just(0x1c), any::<u16>()],
        flags: u16,
        command in 0_u8..20,
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = u32::try_from(20 + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend([command, 1, 0, 0]);
        bytes.extend(body);
        read_all(&bytes);
    }

    #[test]
    fn damaged_datagrams_never_panic(
        pick: prop::sample::Index,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut: prop::sample::Index,
    ) {
        let (requests, replies) = super::tests::captured("-L -n");
        let datagrams: Vec<_> = requests.into_iter().chain(replies).collect();
        let mut bytes = pick.get(&datagrams).clone();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        read_all(&bytes);
    }
}

/// Does everything that a client does with a datagram.
fn read_all(bytes: &[u8]) {
    let _ = parse_family_id(bytes);
    for frame in frames(bytes) {
        let Ok(frame) = frame else { continue };
        if let Payload::Data(body) = frame.payload {
            let _ = parse_family_id(body);
        }
        if let Ok(message) = frame.payload.ipvs() {
            let _ = message.service();
            let _ = message.destination(Family::V4);
            let _ = message.destination(Family::V6);
            let _ = message.info();
            let _ = message.timeouts();
        }
    }
}
