//! The codec against what ipvsadm and Linux really exchange.
//!
//! `tests/fixtures/ipvsadm.txt` holds captured datagrams, each under the
//! command that caused it; `tests/uml/capture.sh` made it.

use std::net::SocketAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};

use super::*;
use crate::diff::Op;
use crate::model::*;

/// The family's number in the captures.
const FAMILY: u16 = 0x1c;

/// The datagrams that belong to a command: requests, then replies.
pub(crate) fn captured(command: &str) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut lines = include_str!("../../tests/fixtures/ipvsadm.txt").lines();
    let title = format!("$ ipvsadm {command}");
    assert!(lines.any(|line| line == title), "no capture of {title:?}");
    lines
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with('#'))
        .map(unhex)
        .partition(|datagram| datagram[6] & 1 != 0)
}

fn unhex(line: &str) -> Vec<u8> {
    line.as_bytes()
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect()
}

/// The last request of a command, which is the one that does its work.
fn captured_request(command: &str) -> Vec<u8> {
    captured(command).0.pop().unwrap()
}

/// Sequence and port number are the sender's choice.
fn without_sequence_and_port(datagram: &[u8]) -> Vec<u8> {
    let mut datagram = datagram.to_vec();
    datagram[8..16].fill(0);
    datagram
}

fn parse(datagram: &[u8]) -> IpvsMessage {
    let mut all = frames(datagram);
    let message = all.next().unwrap().unwrap().payload.ipvs().unwrap();
    assert!(all.next().is_none(), "one message expected");
    message
}

fn assert_bytes(message: IpvsMessage, flags: u16, command: &str) {
    assert_eq!(
        encode(message, FAMILY, flags, 0),
        without_sequence_and_port(&captured_request(command)),
        "{command}"
    );
}

fn tcp(addr: &str, port: u16) -> ServiceKey {
    ServiceKey::new(addr.parse().unwrap(), Protocol::Tcp, port)
}

fn udp(addr: &str, port: u16) -> ServiceKey {
    ServiceKey::new(addr.parse().unwrap(), Protocol::Udp, port)
}

fn direct(addr: &str, port: u16, weight: u32) -> Destination {
    Destination::direct(addr.parse().unwrap(), port, weight)
}

const MH: ServiceFlags = ServiceFlags::MH_FALLBACK;

fn mh_port() -> ServiceFlags {
    MH | ServiceFlags::MH_PORT
}

#[test]
fn services_are_byte_for_byte_what_ipvsadm_sends() {
    let mh = |key, flags| Service::new(key, Scheduler::MH, flags);
    let persistent = |key, timeout_secs, netmask| Service {
        timeout_secs,
        netmask,
        ..Service::new(key, Scheduler::WLC, ServiceFlags::PERSISTENT)
    };
    let sctp = ServiceKey::new("192.0.2.200".parse().unwrap(), Protocol::Sctp, 132);
    let mark = |family, mark| ServiceKey::FwMark { family, mark };
    let sip = Service {
        timeout_secs: 60,
        persistence_engine: Some("sip".into()),
        ..Service::new(
            udp("192.0.2.201", 5060),
            Scheduler::WLC,
            ServiceFlags::PERSISTENT | ServiceFlags::ONEPACKET,
        )
    };
    for (command, service) in [
        (
            "-A -t 192.0.2.200:443 -s mh -b mh-fallback,mh-port",
            mh(tcp("192.0.2.200", 443), mh_port()),
        ),
        (
            "-A -t [2001:db8:2::200]:443 -s mh -b mh-fallback,mh-port",
            mh(tcp("2001:db8:2::200", 443), mh_port()),
        ),
        (
            "-A -u 192.0.2.200:53 -s mh -b mh-fallback,mh-port -o",
            mh(udp("192.0.2.200", 53), mh_port() | ServiceFlags::ONEPACKET),
        ),
        (
            "-A --sctp-service 192.0.2.200:132 -s rr",
            Service::new(sctp, Scheduler::RR, ServiceFlags::NONE),
        ),
        ("-A -f 7 -s mh -b mh-fallback", mh(mark(Family::V4, 7), MH)),
        (
            "-A -f 8 -6 -s mh -b mh-fallback",
            mh(mark(Family::V6, 8), MH),
        ),
        (
            "-A -t 192.0.2.201:80 -s wlc -p 600 -M 255.255.255.0",
            persistent(tcp("192.0.2.201", 80), 600, 24),
        ),
        (
            "-A -t [2001:db8:2::201]:80 -s wlc -p 600 -M 64",
            persistent(tcp("2001:db8:2::201", 80), 600, 64),
        ),
        ("-A -u 192.0.2.201:5060 -s wlc -p 60 --pe sip -o", sip),
        (
            "-A -t 192.0.2.200:443 -s nonesuch",
            Service::new(
                tcp("192.0.2.200", 443),
                Scheduler::new("nonesuch").unwrap(),
                ServiceFlags::NONE,
            ),
        ),
    ] {
        let message = IpvsMessage::from_op(&Op::NewService(service));
        assert_bytes(message, NLM_F_REQUEST | NLM_F_ACK, command);
    }
    assert_bytes(
        IpvsMessage::from_op(&Op::SetService(mh(tcp("192.0.2.200", 443), MH))),
        NLM_F_REQUEST | NLM_F_ACK,
        "-E -t 192.0.2.200:443 -s mh -b mh-fallback",
    );
}

/// With a destination or a deletion, ipvsadm sends the service's settings too,
/// all unset. We send the key alone, which is what the kernel reads.
#[test]
fn destinations_are_what_ipvsadm_sends_less_unset_service_settings() {
    let v4 = tcp("192.0.2.200", 443);
    let v6 = tcp("2001:db8:2::200", 443);
    let sctp = ServiceKey::new("192.0.2.200".parse().unwrap(), Protocol::Sctp, 132);
    let tunnel = |node: &str, tunnel| Destination {
        forward: Forward::Tunnel(tunnel),
        ..direct(node, 132, 1)
    };
    let gue = Tunnel {
        kind: TunnelKind::Gue,
        port: 6080,
        flags: 0,
    };
    let gre = Tunnel {
        kind: TunnelKind::Gre,
        port: 0,
        flags: 1,
    };
    let masqueraded = Destination {
        forward: Forward::Masquerade,
        upper_threshold: 100,
        lower_threshold: 50,
        ..direct("192.0.2.11", 53, 3)
    };
    let mark = |family, mark| ServiceKey::FwMark { family, mark };
    for (command, op) in [
        (
            "-a -t 192.0.2.200:443 -r 192.0.2.11:443 -g -w 1",
            Op::NewDest(v4, direct("192.0.2.11", 443, 1)),
        ),
        (
            "-e -t 192.0.2.200:443 -r 192.0.2.12:443 -g -w 0",
            Op::SetDest(v4, direct("192.0.2.12", 443, 0)),
        ),
        (
            "-a -t [2001:db8:2::200]:443 -r [2001:db8:2::11]:443 -g -w 1",
            Op::NewDest(v6, direct("2001:db8:2::11", 443, 1)),
        ),
        (
            "-a -u 192.0.2.200:53 -r 192.0.2.11:53 -m -w 3 -x 100 -y 50",
            Op::NewDest(udp("192.0.2.200", 53), masqueraded),
        ),
        (
            "-a --sctp-service 192.0.2.200:132 -r 192.0.2.11:132 -i -w 1",
            Op::NewDest(sctp, tunnel("192.0.2.11", Tunnel::IPIP)),
        ),
        (
            "-a --sctp-service 192.0.2.200:132 -r 192.0.2.12:132 -i --tun-type gue --tun-port 6080 -w 1",
            Op::NewDest(sctp, tunnel("192.0.2.12", gue)),
        ),
        (
            "-a --sctp-service 192.0.2.200:132 -r 192.0.2.13:132 -i --tun-type gre --tun-csum -w 1",
            Op::NewDest(sctp, tunnel("192.0.2.13", gre)),
        ),
        (
            "-a -f 7 -r 192.0.2.11:0 -g -w 1",
            Op::NewDest(mark(Family::V4, 7), direct("192.0.2.11", 0, 1)),
        ),
        (
            "-a -f 8 -6 -r [2001:db8:2::11]:0 -g -w 1",
            Op::NewDest(mark(Family::V6, 8), direct("2001:db8:2::11", 0, 1)),
        ),
        (
            "-d -t 192.0.2.200:443 -r 192.0.2.13:443",
            Op::DelDest(v4, "192.0.2.13:443".parse().unwrap()),
        ),
        (
            "-d -t [2001:db8:2::200]:443 -r [2001:db8:2::11]:443",
            Op::DelDest(v6, "[2001:db8:2::11]:443".parse().unwrap()),
        ),
        ("-D -t [2001:db8:2::200]:443", Op::DelService(v6)),
        ("-D -f 8 -6", Op::DelService(mark(Family::V6, 8))),
    ] {
        let deletes_destination = matches!(op, Op::DelDest(..));
        let ours = encode(
            IpvsMessage::from_op(&op),
            FAMILY,
            NLM_F_REQUEST | NLM_F_ACK,
            0,
        );
        let mut theirs = parse(&captured_request(command));
        for attr in &mut theirs.attrs {
            match attr {
                Attr::Service(attrs) => {
                    let settings = attrs.split_off(attrs.len() - 4);
                    assert_eq!(
                        settings[..3],
                        [
                            ServiceAttr::SchedName(String::new()),
                            ServiceAttr::Flags {
                                flags: 0,
                                mask: u32::MAX
                            },
                            ServiceAttr::Timeout(0),
                        ],
                        "{command}"
                    );
                    assert!(matches!(settings[3], ServiceAttr::Netmask(_)));
                }
                Attr::Dest(attrs) if deletes_destination => attrs.truncate(3),
                _ => {}
            }
        }
        let theirs = encode(theirs, FAMILY, NLM_F_REQUEST | NLM_F_ACK, 0);
        assert_eq!(ours, theirs, "{command}");
    }
}

#[test]
fn the_other_requests_are_byte_for_byte_what_ipvsadm_sends() {
    let ack = NLM_F_REQUEST | NLM_F_ACK;
    assert_bytes(IpvsMessage::flush(), ack, "-C");
    assert_bytes(IpvsMessage::zero(None), ack, "-Z");
    assert_bytes(IpvsMessage::get_timeouts(), ack, "-L --timeout");
    assert_bytes(
        IpvsMessage::set_timeouts(Timeouts {
            tcp: Duration::from_secs(3600),
            tcp_fin: Duration::from_secs(61),
            udp: Duration::from_secs(62),
        }),
        ack,
        "--set 3600 61 62",
    );
    // ipvsadm asks for acknowledgements of dumps too; the kernel sends none.
    let dump = NLM_F_REQUEST | NLM_F_DUMP | NLM_F_ACK;
    let (requests, _) = captured("-L -n");
    assert_eq!(
        encode(IpvsMessage::dump_services(), FAMILY, dump, 0),
        without_sequence_and_port(&requests[0])
    );
    for request in &requests[1..] {
        let message = parse(request);
        let Attr::Service(key) = &message.attrs[0] else {
            panic!("{message:?}");
        };
        assert_eq!(message.command, Command::GetDest);
        assert!(!key.is_empty());
        assert_eq!(
            encode(message, FAMILY, dump, 0),
            without_sequence_and_port(request)
        );
    }
    let dumped = encode(
        IpvsMessage::dump_destinations(ServiceKey::FwMark {
            family: Family::V4,
            mark: 7,
        }),
        FAMILY,
        dump,
        0,
    );
    assert!(
        requests
            .iter()
            .any(|request| without_sequence_and_port(request) == dumped)
    );
}

#[test]
fn the_family_is_asked_for_as_libnl_does() {
    let (requests, replies) = captured("-A -t 192.0.2.200:443 -s mh -b mh-fallback,mh-port");
    let theirs = without_sequence_and_port(&requests[0]);
    let mut ours = encode_family_request(FAMILY_NAME, 0);
    // libnl says version 1 of nlctrl, netlink-packet-generic 2; the kernel
    // looks at neither.
    assert_eq!((theirs[17], ours[17]), (1, 2));
    ours[17] = 1;
    assert_eq!(ours, theirs);

    let frame = frames(&replies[0]).next().unwrap().unwrap();
    let Payload::Data(body) = frame.payload else {
        panic!("{frame:?}");
    };
    assert_eq!(parse_family_id(body).unwrap(), FAMILY);
}

#[test]
fn the_kernels_info_and_timeouts_are_read() {
    let (_, replies) = captured("-A -t 192.0.2.200:443 -s mh -b mh-fallback,mh-port");
    let info = replies
        .iter()
        .flat_map(|datagram| frames(datagram))
        .filter_map(|frame| frame.unwrap().payload.ipvs().ok())
        .find(|message| message.command == Command::SetInfo)
        .unwrap();
    assert_eq!(
        info.info().unwrap(),
        Info {
            version: (1, 2, 1),
            connection_table_size: 4096
        }
    );

    let (_, replies) = captured("-L --timeout");
    assert_eq!(
        parse(&replies[0]).timeouts(),
        Timeouts {
            tcp: Duration::from_secs(900),
            tcp_fin: Duration::from_secs(120),
            udp: Duration::from_secs(300),
        }
    );
}

#[test]
fn the_kernels_dump_is_read() {
    let (requests, replies) = captured("-L -n");
    // One reply datagram may hold many messages; the sequence and port number
    // tell which dump it belongs to.
    let of = |request: &[u8]| -> Vec<IpvsMessage> {
        let messages: Vec<_> = replies
            .iter()
            .filter(|reply| reply[8..16] == request[8..16])
            .flat_map(|reply| frames(reply))
            .map(|frame| frame.unwrap().payload)
            .collect();
        assert!(matches!(
            messages.last(),
            Some(Payload::Done {
                errno: 0,
                message: None
            })
        ));
        messages[..messages.len() - 1]
            .iter()
            .map(|payload| payload.ipvs().unwrap())
            .collect()
    };
    let services: Vec<Service> = of(&requests[0])
        .iter()
        .map(|message| message.service().unwrap().0)
        .collect();
    assert_eq!(services.len(), 9);
    let held = |key| services.iter().find(|service| service.key == key).unwrap();
    assert_eq!(
        *held(tcp("192.0.2.200", 443)),
        Service::new(tcp("192.0.2.200", 443), Scheduler::MH, MH)
    );
    assert_eq!(
        *held(tcp("2001:db8:2::200", 443)),
        Service::new(tcp("2001:db8:2::200", 443), Scheduler::MH, mh_port())
    );
    assert_eq!(
        *held(udp("192.0.2.200", 53)),
        Service::new(
            udp("192.0.2.200", 53),
            Scheduler::MH,
            mh_port() | ServiceFlags::ONEPACKET
        )
    );
    let grouped = held(tcp("192.0.2.201", 80));
    assert_eq!((grouped.timeout_secs, grouped.netmask), (600, 24));
    let grouped = held(tcp("2001:db8:2::201", 80));
    assert_eq!((grouped.timeout_secs, grouped.netmask), (600, 64));
    let sip = held(udp("192.0.2.201", 5060));
    assert_eq!(sip.persistence_engine.as_deref(), Some("sip"));

    let destinations = |key: ServiceKey| -> Vec<Destination> {
        let wanted = IpvsMessage::dump_destinations(key);
        let request = requests
            .iter()
            .find(|request| parse(request) == wanted)
            .unwrap();
        of(request)
            .iter()
            .map(|message| message.destination(key.family()).unwrap().destination)
            .collect()
    };
    assert_eq!(
        destinations(tcp("192.0.2.200", 443)),
        [
            direct("192.0.2.13", 443, 1),
            direct("192.0.2.12", 443, 0),
            direct("192.0.2.11", 443, 1),
        ],
        "the newest comes first"
    );
    assert_eq!(
        destinations(tcp("2001:db8:2::200", 443)),
        [direct("2001:db8:2::11", 443, 1)]
    );
    let sctp = ServiceKey::new("192.0.2.200".parse().unwrap(), Protocol::Sctp, 132);
    let methods: Vec<Forward> = destinations(sctp)
        .iter()
        .map(|destination| destination.forward)
        .collect();
    assert_eq!(
        methods,
        [
            Forward::Tunnel(Tunnel {
                kind: TunnelKind::Gre,
                port: 0,
                flags: 1
            }),
            Forward::Tunnel(Tunnel {
                kind: TunnelKind::Gue,
                port: 6080,
                flags: 0
            }),
            Forward::Tunnel(Tunnel::IPIP),
        ]
    );
}

#[test]
fn the_kernels_refusals_are_read() {
    for (command, expected) in [
        ("-A -t 192.0.2.200:443 -s nonesuch", 2),
        ("-D -t 192.0.2.200:443", 3),
    ] {
        let (_, replies) = captured(command);
        let frame = frames(replies.last().unwrap()).next().unwrap().unwrap();
        assert_eq!(
            frame.payload,
            Payload::Ack {
                errno: expected,
                message: None
            },
            "{command}"
        );
    }
}

/// Laid out by hand as `netlink_ack` of `net/netlink/af_netlink.c` does it, with
/// the request capped and not. (The client's tests read a real one.)
#[test]
fn an_extended_acks_text_is_read() {
    let text = b"Attribute failed policy validation\0";
    for (flags, request) in [(0x300_u16, 16_usize), (0x200, 24)] {
        let mut body = (-22_i32).to_ne_bytes().to_vec();
        let mut header = vec![0; request];
        header[..4].copy_from_slice(&24_u32.to_ne_bytes());
        body.extend(header);
        // An offset attribute, then the text.
        body.extend([8, 0, 2, 0, 20, 0, 0, 0]);
        body.extend(u16::try_from(4 + text.len()).unwrap().to_ne_bytes());
        body.extend(1_u16.to_ne_bytes());
        body.extend(text);
        body.push(0);
        let mut datagram = u32::try_from(16 + body.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        datagram.extend(2_u16.to_ne_bytes());
        datagram.extend(flags.to_ne_bytes());
        datagram.extend([7, 0, 0, 0, 0, 0, 0, 0]);
        datagram.extend(body);
        let frame = frames(&datagram).next().unwrap().unwrap();
        assert_eq!(
            frame.payload,
            Payload::Ack {
                errno: 22,
                message: Some("Attribute failed policy validation".into())
            }
        );
    }
}

#[test]
fn every_captured_message_survives_reading_and_writing() {
    let mut count = 0;
    for line in include_str!("../../tests/fixtures/ipvsadm.txt").lines() {
        if line.is_empty() || line.starts_with(['$', '#']) {
            continue;
        }
        let datagram = unhex(line);
        for frame in frames(&datagram) {
            let frame = frame.unwrap();
            let Payload::Data(body) = frame.payload else {
                continue;
            };
            if datagram[4] != 0x1c {
                continue;
            }
            let message = frame.payload.ipvs().unwrap();
            let written = encode(message.clone(), FAMILY, 0, 0);
            // The kernel's own replies lack the nested bit, ours never do: so
            // compare values, and lengths.
            assert_eq!(written.len(), 16 + body.len());
            assert_eq!(parse(&written), message);
            count += 1;
        }
    }
    assert!(count > 60, "only {count} messages");
}

#[test]
fn settings_are_the_reply_without_counters() {
    let mut count = 0;
    let (_, replies) = captured("-L -n");
    for frame in replies.iter().flat_map(|reply| frames(reply)) {
        let payload = frame.unwrap().payload;
        let Ok(whole) = payload.ipvs() else {
            continue;
        };
        let settings = payload.ipvs_settings().unwrap();
        let mut expected = whole.clone();
        for attr in &mut expected.attrs {
            match attr {
                Attr::Service(attrs) => attrs.retain(|attr| {
                    !matches!(attr, ServiceAttr::Stats(_) | ServiceAttr::Stats64(_))
                }),
                Attr::Dest(attrs) => {
                    attrs.retain(|attr| !matches!(attr, DestAttr::Stats(_) | DestAttr::Stats64(_)))
                }
                _ => {}
            }
        }
        count += usize::from(expected != whole);
        assert_eq!(settings, expected);
    }
    assert!(count > 9, "only {count} had counters");
}

#[test]
fn what_does_not_identify_itself_is_refused_and_not_a_panic() {
    for attrs in [
        vec![],
        vec![Attr::Service(vec![])],
        vec![Attr::Service(vec![ServiceAttr::Family(7)])],
        vec![Attr::Service(vec![
            ServiceAttr::Family(2),
            ServiceAttr::FwMark(1),
        ])],
        vec![Attr::Dest(vec![])],
        vec![Attr::Dest(vec![DestAttr::Addr([0; 16]), DestAttr::Port(1)])],
    ] {
        let message = IpvsMessage {
            command: Command::NewService,
            attrs,
        };
        assert!(message.service().is_err(), "{message:?}");
        assert!(message.destination(Family::V4).is_err(), "{message:?}");
        assert!(message.info().is_err(), "{message:?}");
    }
}

#[test]
fn a_destination_of_an_old_kernel_has_its_services_family() {
    let message = IpvsMessage {
        command: Command::NewDest,
        attrs: vec![Attr::Dest(vec![
            DestAttr::Addr([0xfe; 16]),
            DestAttr::Port(80),
            DestAttr::FwdMethod(3),
        ])],
    };
    let key = |family| -> SocketAddr { message.destination(family).unwrap().destination.key() };
    assert_eq!(key(Family::V4).to_string(), "254.254.254.254:80");
    assert!(key(Family::V6).is_ipv6());
}
