use super::*;
use proptest::prelude::*;

/// A netlink message: header, then the body, padded to 4.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(HEADER + body.len())
        .unwrap()
        .to_ne_bytes()
        .to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn read(bytes: &[u8]) -> Vec<Notice> {
    let mut notices = VecDeque::new();
    parse(bytes, &mut notices);
    notices.into()
}

/// The fixed part of a link message for the interface 7.
fn link(family: u8) -> Vec<u8> {
    let mut body = vec![family, 0, 1, 0];
    body.extend(7_u32.to_ne_bytes());
    body.extend([0; 8]);
    body
}

#[test]
fn several_messages_in_a_datagram() {
    let mut address = vec![libc::AF_INET as u8, 24, 0, 0];
    address.extend(9_u32.to_ne_bytes());
    let mut bytes = message(libc::RTM_NEWLINK, &link(0));
    // An odd length, so that the next one starts only after padding.
    bytes.extend(message(libc::RTM_DELROUTE, &[libc::AF_INET6 as u8; 13]));
    bytes.extend(message(libc::RTM_DELADDR, &address));
    bytes.extend(message(libc::RTM_NEWRULE, &[libc::AF_INET as u8; 12]));
    bytes.extend(message(libc::RTM_DELLINK, &link(0)));
    assert_eq!(
        read(&bytes),
        [
            Notice::Link {
                index: 7,
                gone: false
            },
            Notice::Route { family: Family::V6 },
            Notice::Address {
                index: 9,
                gone: true
            },
            Notice::Rule { family: Family::V4 },
            Notice::Link {
                index: 7,
                gone: true
            },
        ]
    );
}

/// An attribute, padded to 4.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[test]
fn a_switch_of_a_bond_is_told_from_other_changes() {
    let changed = Notice::Link {
        index: 7,
        gone: false,
    };
    // IFLA_IFNAME with an odd length before it, IFLA_MTU after it.
    let with = |event: &[u8]| {
        let mut body = link(0);
        body.extend(attribute(3, b"bond0\0\0"));
        body.extend(attribute(44, event));
        body.extend(attribute(4, &1500_u32.to_ne_bytes()));
        read(&message(libc::RTM_NEWLINK, &body))
    };
    for event in 0..=6_u32 {
        let notices = with(&event.to_ne_bytes());
        if [3, 4, 5].contains(&event) {
            assert_eq!(notices, [changed, Notice::Rerouted { index: 7 }], "{event}");
        } else {
            assert_eq!(notices, [changed], "{event}");
        }
    }
    assert_eq!(with(&[]), [changed]);
}

#[test]
fn repeats_are_one_notice() {
    let bytes = message(libc::RTM_NEWLINK, &link(0)).repeat(5);
    assert_eq!(read(&bytes).len(), 1);
}

#[test]
fn a_port_that_leaves_its_bridge_is_not_gone() {
    let bytes = message(libc::RTM_DELLINK, &link(libc::AF_BRIDGE as u8));
    assert_eq!(
        read(&bytes),
        [Notice::Link {
            index: 7,
            gone: false
        }]
    );
}

#[test]
fn what_is_no_notice_is_skipped() {
    let mut bytes = message(libc::RTM_NEWNEIGH, &[0; 12]);
    bytes.extend(message(libc::RTM_NEWROUTE, &[libc::AF_MPLS as u8; 12]));
    bytes.extend(message(libc::RTM_NEWLINK, &[0; 3]));
    bytes.extend(message(libc::RTM_NEWLINK, &link(0)));
    assert_eq!(read(&bytes).len(), 1);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        read(&bytes);
    }

    #[test]
    fn random_lengths_never_panic(len: u32, kind in 16_u16..40, body: Vec<u8>) {
        let mut bytes = message(kind, &body);
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        read(&bytes);
    }
}
