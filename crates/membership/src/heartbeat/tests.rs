use std::net::IpAddr;

use proptest::prelude::*;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::*;

pub(super) fn keys() -> Keys {
    Keys::new(b"correct horse", None)
}

pub(super) fn beat(claims: Vec<Claim>) -> Heartbeat {
    Heartbeat {
        sender: "node1".into(),
        boot_id: 0x0102_0304_0506_0708,
        counter: 42,
        flags: Flags {
            leaving: false,
            can_own: true,
            solicit: false,
            hold: false,
            idle: false,
            tests_paths: false,
            director: false,
            proven: false,
        },
        uplink_mac: [0x02, 0, 0, 0, 0, 0x11],
        director_mac: [0x02, 0, 0, 0, 0, 0x22],
        mode: MODE_DIRECT_ROUTING,
        table_digest: 0xdead_beef,
        page: 0,
        pages: 1,
        interface: "eth0".into(),
        late: Vec::new(),
        networks: ["192.0.2.0/24".parse().unwrap()].into(),
        held_boot: None,
        further: [].into(),
        scope: Some(Scope {
            digest: 0x1122_3344_5566_7788,
            alone: true,
            ..Scope::default()
        }),
        claims,
    }
}

/// Bytes of its scope.
const SCOPE: usize = 1 + 8;

/// The same as of a release that knows no scope.
fn unscoped(claims: Vec<Claim>) -> Heartbeat {
    Heartbeat {
        scope: None,
        ..beat(claims)
    }
}

/// An uplink beside the main one.
fn storage() -> Further {
    Further {
        interface: "eth1".into(),
        mac: [2, 0, 0, 0, 0, 0x33],
        director_mac: [2, 0, 0, 0, 0, 0x44],
        networks: ["198.51.100.0/24".parse().unwrap()].into(),
    }
}

fn claim(vip: &str, epoch: u64) -> Claim {
    let vip = vip.parse().unwrap();
    Claim { vip, epoch }
}

/// Signs a body that `encode` would not write.
fn signed(mut body: Vec<u8>) -> Vec<u8> {
    let tag = keys().current.tag(&body);
    body.extend(tag);
    body
}

/// The body of a good datagram, without its tag.
fn body(claims: Vec<Claim>) -> Vec<u8> {
    let mut datagram = encode(&beat(claims), &keys()).remove(0);
    datagram.truncate(datagram.len() - TAG_LEN);
    datagram
}

#[test]
fn bytes_are_as_documented() {
    let datagrams = encode(&beat(vec![claim("192.0.2.200", 7)]), &keys());
    assert_eq!(datagrams.len(), 1);
    let mut expected = vec![1, 2, 1, 5];
    expected.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    expected.extend([0, 0, 0, 0, 0, 0, 0, 42]);
    expected.extend([2, 0, 0, 0, 0, 0x11, 2, 0, 0, 0, 0, 0x22]);
    expected.extend([0, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef]);
    expected.extend([0, 0, 0, 1, 0, 1]);
    expected.extend(b"node1");
    expected.extend([4, 192, 0, 2, 200, 0, 0, 0, 0, 0, 0, 0, 7]);
    expected.extend(b"\x04eth0");
    expected.push(0);
    expected.extend([1, 4, 24, 192, 0, 2, 0]);
    expected.push(0);
    expected.push(0);
    expected.extend([4, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
    // HMAC-SHA-256(HMAC-SHA-256(secret, label), body), cut to 16 bytes; computed
    // by Python's hmac module.
    expected.extend(TAG);
    assert_eq!(datagrams[0], expected);
}

const TAG: [u8; 16] = [
    0x49, 0x13, 0xb7, 0x29, 0xfc, 0x54, 0x8d, 0x10, 0x1e, 0x0d, 0xad, 0xb0, 0xb6, 0x6a, 0x75, 0x18,
];

#[test]
fn a_thousand_claims_go_in_pages_below_the_limit() {
    let claims: Vec<Claim> = (0..1000u16)
        .map(|n| Claim {
            vip: IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, n]),
            epoch: u64::from(n) + 1,
        })
        .collect();
    let datagrams = encode(&beat(claims.clone()), &keys());
    assert!(datagrams.iter().all(|d| d.len() <= MAX_DATAGRAM));
    let pages: Vec<Heartbeat> = datagrams
        .iter()
        .map(|d| decode(d, &keys()).unwrap())
        .collect();
    // 1,076 bytes of room, 25 per claim.
    assert_eq!(pages.len(), 1000usize.div_ceil(43));
    let first = |page: usize| pages.get(page).map(|page| page.claims[0].vip);
    for (page, at) in pages.iter().zip(0..) {
        assert_eq!((page.page, usize::from(page.pages)), (at, pages.len()));
        let here = usize::from(at);
        let scope = page.scope.unwrap();
        let ends = (first(here).filter(|_| at > 0), first(here + 1));
        assert_eq!((scope.from, scope.until), ends);
        let header = Heartbeat {
            page: 0,
            pages: 1,
            scope: beat(vec![]).scope,
            claims: vec![],
            ..page.clone()
        };
        assert_eq!(header, beat(vec![]));
        assert!(!scope.alone);
    }
    let read: Vec<Claim> = pages.into_iter().flat_map(|page| page.claims).collect();
    assert_eq!(read, claims);
}

#[test]
fn the_promised_number_of_claims_always_fits() {
    let mut heartbeat = beat(vec![]);
    heartbeat.sender = "n".repeat(MAX_NAME).into();
    heartbeat.late = (0..MAX_LATE as u64).collect();
    heartbeat.interface = "i".repeat(MAX_INTERFACE).into();
    heartbeat.held_boot = Some(1);
    let network = IpNet::new(IpAddr::from([0x20; 16]), 64).unwrap();
    heartbeat.networks = vec![network; MAX_NETWORKS].into();
    let further = Further {
        interface: "i".repeat(MAX_INTERFACE).into(),
        networks: vec![network; MAX_FURTHER_NETWORKS].into(),
        ..storage()
    };
    heartbeat.further = vec![further; MAX_FURTHER].into();
    heartbeat.scope = Some(Scope::default());
    heartbeat.claims = (0..MAX_CLAIMS as u128)
        .map(|n| Claim {
            vip: IpAddr::from(n.to_be_bytes()),
            epoch: 1,
        })
        .collect();
    let datagrams = encode(&heartbeat, &keys());
    let read = datagrams
        .iter()
        .map(|d| decode(d, &keys()).unwrap().claims.len());
    assert_eq!(read.sum::<usize>(), MAX_CLAIMS);
}

#[test]
fn keys_rotate_without_a_gap() {
    let old = Keys::new(b"old", None);
    let introducing = Keys::new(b"old", Some(b"new"));
    let swapped = Keys::new(b"new", Some(b"old"));
    let new = Keys::new(b"new", None);
    let read = |from: &Keys, to: &Keys| decode(&encode(&beat(vec![]), from)[0], to);
    for (a, b) in [
        (&old, &introducing),
        (&introducing, &swapped),
        (&swapped, &new),
    ] {
        assert!(read(a, b).is_ok());
        assert!(read(b, a).is_ok());
    }
    assert_eq!(read(&old, &new), Err(DecodeError::BadMac));
    assert_eq!(read(&new, &old), Err(DecodeError::BadMac));
}

#[test]
fn the_key_is_not_the_secret_itself() {
    let body = body(vec![]);
    let mut forged = body.clone();
    let raw = Hmac::<Sha256>::new_from_slice(b"correct horse").unwrap();
    let tag = raw.chain_update(&body).finalize().into_bytes();
    forged.extend(&tag[..TAG_LEN]);
    assert_eq!(decode(&forged, &keys()), Err(DecodeError::BadMac));
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    assert_eq!(
        format!("{:?}", Keys::new(b"hush", Some(b"hush"))),
        "Keys { current: Key(..), previous: Some(Key(..)) }"
    );
}

#[test]
fn refuses_by_length_before_anything_else() {
    let too_long = vec![0; MAX_DATAGRAM + 1];
    let error = decode(&too_long, &keys()).unwrap_err();
    assert_eq!(
        (error, error.reason()),
        (DecodeError::TooLong(1201), "too_long")
    );
    for len in 0..HEADER + TAG_LEN {
        let error = decode(&vec![0; len], &keys()).unwrap_err();
        assert_eq!(
            (error, error.reason()),
            (DecodeError::TooShort(len), "too_short")
        );
    }
}

#[test]
fn every_bit_is_authenticated() {
    let good = &encode(&beat(vec![claim("192.0.2.200", 7)]), &keys())[0];
    assert!(decode(good, &keys()).is_ok());
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode(&bad, &keys()), Err(DecodeError::BadMac), "bit {bit}");
    }
}

#[test]
fn a_future_version_is_told_apart_from_a_wrong_key() {
    let mut future = body(vec![]);
    future[0] = 2;
    let error = decode(&signed(future.clone()), &keys()).unwrap_err();
    assert_eq!(
        (error, error.reason()),
        (DecodeError::Version(2), "version")
    );
    let stranger = Keys::new(b"another", None);
    assert_eq!(decode(&signed(future), &stranger), Err(DecodeError::BadMac));
}

#[test]
fn refuses_authentic_nonsense() {
    let spoiled = |at: usize, value: u8| {
        let mut body = body(vec![claim("192.0.2.200", 7)]);
        body.truncate(body.len() - NETWORKS);
        body[at] = value;
        decode(&signed(body), &keys())
    };
    // Page 1 of 1; no page at all; 65,281 pages.
    assert_eq!(spoiled(41, 1), Err(DecodeError::Malformed("page")));
    assert_eq!(spoiled(43, 0), Err(DecodeError::Malformed("page")));
    assert_eq!(spoiled(42, 255), Err(DecodeError::Malformed("page")));
    // More claims than there are; an unknown family; an empty, a long and a non-UTF-8 name.
    assert_eq!(spoiled(45, 2), Err(DecodeError::Malformed("claim epoch")));
    assert_eq!(spoiled(51, 5), Err(DecodeError::Malformed("claim family")));
    assert_eq!(spoiled(51, 6), Err(DecodeError::Malformed("claim epoch")));
    assert_eq!(spoiled(3, 0), Err(DecodeError::Malformed("sender")));
    assert_eq!(spoiled(3, 200), Err(DecodeError::Malformed("sender")));
    assert_eq!(spoiled(46, 0xff), Err(DecodeError::Malformed("sender")));
    let error = spoiled(3, 0).unwrap_err();
    assert_eq!(error.reason(), "malformed");
}

#[test]
fn fields_of_a_later_release_are_skipped() {
    let mut later = body(vec![claim("192.0.2.200", 7)]);
    later.extend(b"appended");
    let read = decode(&signed(later), &keys()).unwrap();
    assert_eq!(read, beat(vec![claim("192.0.2.200", 7)]));
}

#[test]
fn a_release_that_told_no_interface_is_understood() {
    let mut before = body(vec![claim("192.0.2.200", 7)]);
    before.truncate(before.len() - NETWORKS - 1 - "_eth0".len());
    let read = decode(&signed(before.clone()), &keys()).unwrap();
    assert_eq!((&*read.interface, read.claims.len()), ("", 1));
    assert!(read.networks.is_empty());
    for bad in [&[16][..], &[2, b'e'], &[1, 0xff]] {
        let mut body = before.clone();
        body.extend(bad);
        let error = decode(&signed(body), &keys()).unwrap_err();
        assert_eq!(error, DecodeError::Malformed("interface"));
    }
}

/// The networks field of [`beat`] and what follows: its count, one of IPv4, no held boot id, no
/// further uplink, the scope. Before it is the count of late nodes, one byte.
const NETWORKS: usize = 1 + 6 + 1 + 1 + SCOPE;

#[test]
fn further_uplinks_are_told_and_a_release_that_told_none_is_understood() {
    let mut heartbeat = beat(vec![claim("192.0.2.200", 7)]);
    let before = body(heartbeat.claims.clone());
    heartbeat.further = vec![storage(); 2].into();
    let datagram = &encode(&heartbeat, &keys())[0];
    let mut expected = before[..before.len() - 1 - SCOPE].to_vec();
    expected.push(2);
    for _ in 0..2 {
        expected.extend(b"\x04eth1");
        expected.extend([2, 0, 0, 0, 0, 0x33, 2, 0, 0, 0, 0, 0x44]);
        expected.extend([1, 4, 24, 198, 51, 100, 0]);
    }
    expected.extend(&before[before.len() - SCOPE..]);
    assert_eq!(datagram[..datagram.len() - TAG_LEN], expected);
    assert_eq!(decode(datagram, &keys()).unwrap(), heartbeat);
    // What is beyond the most is left out.
    heartbeat.further = vec![storage(); 9].into();
    let read = decode(&encode(&heartbeat, &keys())[0], &keys()).unwrap();
    assert_eq!(*read.further, vec![storage(); MAX_FURTHER]);

    let older = before[..before.len() - 1 - SCOPE].to_vec();
    let read = decode(&signed(older.clone()), &keys()).unwrap();
    assert_eq!(read, unscoped(vec![claim("192.0.2.200", 7)]));
    let [many, long, short] = [&[5][..], &[1, 16], &[1, 1, b'e', 2, 0, 0]];
    let networks = &[&[1, 0][..], &[0; 12], &[5]].concat();
    for bad in [many, long, short, networks] {
        let error = decode(&signed([&older, bad].concat()), &keys()).unwrap_err();
        assert_eq!(error, DecodeError::Malformed("further uplinks"));
    }
}

#[test]
fn a_held_boot_id_is_told_and_a_release_that_told_none_is_understood() {
    let mut heartbeat = beat(vec![]);
    heartbeat.held_boot = Some(0x0102_0304_0506_0708);
    let datagram = &encode(&heartbeat, &keys())[0];
    assert_eq!(decode(datagram, &keys()).unwrap(), heartbeat);
    let mut before = body(vec![]);
    before.truncate(before.len() - 2 - SCOPE);
    let read = decode(&signed(before.clone()), &keys()).unwrap();
    assert_eq!(read, unscoped(vec![]));
    for bad in [&[2][..], &[1, 0, 0]] {
        let mut body = before.clone();
        body.extend(bad);
        let error = decode(&signed(body), &keys()).unwrap_err();
        assert_eq!(error, DecodeError::Malformed("held boot id"));
    }
}

#[test]
fn a_scope_is_told_and_a_release_that_told_none_is_understood() {
    let before = body(vec![]);
    let before = &before[..before.len() - SCOPE];
    assert_eq!(
        decode(&signed(before.to_vec()), &keys()).unwrap(),
        unscoped(vec![])
    );
    let ends = [
        &[7, 4, 192, 0, 2, 1, 6][..],
        &[0x20; 16],
        &[0, 0, 0, 0, 0, 0, 0, 9],
    ]
    .concat();
    let read = decode(&signed([before, &ends].concat()), &keys()).unwrap();
    let expected = Scope {
        from: Some(IpAddr::from([192, 0, 2, 1])),
        until: Some(IpAddr::from([0x20; 16])),
        digest: 9,
        alone: true,
    };
    assert_eq!(read.scope, Some(expected));
    // Marks of a later release are ignored.
    let later = [before, &[0xf8], &[0; 8]].concat();
    let read = decode(&signed(later), &keys()).unwrap();
    assert_eq!(read.scope, Some(Scope::default()));
    let family = &[&[1, 5][..], &[0; 12]].concat();
    let short = &[&[1, 6][..], &[0; 15]].concat();
    for bad in [&[4, 0, 0][..], &[2], family, short] {
        let error = decode(&signed([before, bad].concat()), &keys()).unwrap_err();
        assert_eq!(error, DecodeError::Malformed("scope"));
    }
}

#[test]
fn a_release_that_told_no_networks_is_understood_and_bad_ones_are_refused() {
    let mut before = body(vec![]);
    before.truncate(before.len() - NETWORKS);
    let read = decode(&signed(before.clone()), &keys()).unwrap();
    assert_eq!((&*read.interface, read.networks.len()), ("eth0", 0));
    let long = [1, 4, 33, 192, 0, 2, 0];
    let family = [1, 5, 24, 192, 0, 2, 0];
    let many = [&[9][..], &[4, 24, 192, 0, 2, 0].repeat(9)].concat();
    let short = [2, 4, 24, 192, 0, 2, 0];
    // Such a datagram ends after the count of late nodes, which is 0.
    for bad in [&long[..], &family, &many, &short] {
        let mut body = before.clone();
        body.extend(bad);
        let error = decode(&signed(body), &keys()).unwrap_err();
        assert_eq!(error, DecodeError::Malformed("networks"));
    }
}

#[test]
fn networks_beyond_the_most_are_left_out() {
    let mut heartbeat = beat(vec![]);
    let all: Vec<IpNet> = (0..20)
        .map(|n| IpNet::new(IpAddr::from([198, 51, 100, n]), 32).unwrap())
        .collect();
    heartbeat.networks = all.clone().into();
    let read = decode(&encode(&heartbeat, &keys())[0], &keys()).unwrap();
    assert_eq!(read.networks[..], all[..MAX_NETWORKS]);
}

#[test]
fn late_nodes_are_told_and_bad_counts_refused() {
    let mut heartbeat = beat(vec![claim("192.0.2.200", 7)]);
    let quiet = encode(&heartbeat, &keys())[0].len();
    heartbeat.late = (1..=20).collect();
    let datagram = &encode(&heartbeat, &keys())[0];
    assert_eq!(datagram.len(), quiet + 8 * MAX_LATE);
    let read = decode(datagram, &keys()).unwrap();
    assert_eq!(read.late, (1..=16).collect::<Vec<u64>>());
    for bad in [&[17][..], &[1, 0, 0], &[2, 0, 0, 0, 0, 0, 0, 0, 0]] {
        let mut body = body(vec![]);
        body.truncate(body.len() - NETWORKS - 1);
        body.extend(bad);
        let error = decode(&signed(body), &keys()).unwrap_err();
        assert_eq!(error, DecodeError::Malformed("late"));
    }
}

#[test]
fn an_overlong_name_is_cut_and_does_not_panic() {
    let mut heartbeat = beat(vec![]);
    heartbeat.sender = "ü".repeat(200).into();
    let read = decode(&encode(&heartbeat, &keys())[0], &keys()).unwrap();
    assert_eq!(&*read.sender, "ü".repeat(126));
}

prop_compose! {
    fn any_claim()(vip in any::<IpAddr>(), epoch in any::<u64>()) -> Claim {
        Claim { vip, epoch }
    }
}

prop_compose! {
    fn any_network()(address in any::<IpAddr>(), prefix in 0..=32u8) -> IpNet {
        IpNet::new(address, prefix).unwrap()
    }
}

prop_compose! {
    fn any_further()(
        interface in "[a-z0-9.-]{0,15}",
        (mac, director_mac) in any::<([u8; 6], [u8; 6])>(),
        networks in proptest::collection::vec(any_network(), 0..=MAX_FURTHER_NETWORKS),
    ) -> Further {
        Further { interface: interface.as_str().into(), mac, director_mac, networks: networks.into() }
    }
}

prop_compose! {
    fn any_beat()(
        name in "[a-z0-9.-]{1,253}",
        (boot_id, counter, table_digest) in any::<(u64, u64, u64)>(),
        flags in any::<u8>().prop_map(Flags::from_bits),
        interface in "[a-z0-9.-]{0,15}",
        networks in proptest::collection::vec(any_network(), 0..=MAX_NETWORKS),
        (uplink_mac, director_mac, mode) in any::<([u8; 6], [u8; 6], u8)>(),
        claims in proptest::collection::btree_set(any_claim(), 0..300),
        late in proptest::collection::vec(any::<u64>(), 0..=MAX_LATE),
        held_boot in any::<Option<u64>>(),
        further in proptest::collection::vec(any_further(), 0..=MAX_FURTHER),
        digest in any::<Option<u64>>(),
    ) -> Heartbeat {
        Heartbeat {
            sender: name.as_str().into(),
            boot_id, counter, table_digest, uplink_mac, director_mac, mode,
            flags,
            page: 0,
            pages: 1,
            interface: interface.as_str().into(),
            late,
            networks: networks.into(),
            held_boot,
            further: further.into(),
            scope: digest.map(|digest| Scope { digest, ..Scope::default() }),
            claims: claims.into_iter().collect(),
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(heartbeat in any_beat()) {
        let datagrams = encode(&heartbeat, &keys());
        let mut claims = Vec::new();
        for (datagram, page) in datagrams.iter().zip(0..) {
            prop_assert!(datagram.len() <= MAX_DATAGRAM);
            let read = decode(datagram, &keys()).unwrap();
            prop_assert_eq!((read.page, usize::from(read.pages)), (page, datagrams.len()));
            claims.extend(read.claims.clone());
            if let Some(scope) = read.scope {
                let first = datagrams.get(usize::from(page) + 1).map(|next| {
                    decode(next, &keys()).unwrap().claims[0].vip
                });
                prop_assert_eq!(scope.from, read.claims.first().map(|c| c.vip).filter(|_| page > 0));
                prop_assert_eq!((scope.until, scope.alone), (first, datagrams.len() == 1));
            }
            let scope = read.scope.map(|scope| Scope { digest: scope.digest, ..Scope::default() });
            let same = Heartbeat { page: 0, pages: 1, claims: vec![], scope, ..read };
            prop_assert_eq!(same, Heartbeat { claims: vec![], ..heartbeat.clone() });
        }
        prop_assert_eq!(claims, heartbeat.claims);
    }

    #[test]
    fn strangers_bytes_are_never_accepted(bytes in proptest::collection::vec(any::<u8>(), 0..1400)) {
        prop_assert!(decode(&bytes, &keys()).is_err());
    }

    #[test]
    fn authentic_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1184)) {
        let _ = decode(&signed(bytes), &keys());
    }

    #[test]
    fn authentic_mutations_never_panic(
        heartbeat in any_beat(),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8),
        cut in any::<usize>(),
    ) {
        let mut body = encode(&heartbeat, &keys()).remove(0);
        body.truncate(body.len() - TAG_LEN);
        for (at, value) in changes {
            let at = at % body.len();
            body[at] = value;
        }
        body.truncate(cut % body.len() + 1);
        if let Ok(read) = decode(&signed(body), &keys()) {
            prop_assert!(read.page < read.pages);
        }
    }
}
