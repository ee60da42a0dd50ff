//! Heartbeats, from whoever can send to the port; and from who has the key.

use std::net::IpAddr;
use std::sync::LazyLock;

use lightship_membership::heartbeat::{Further, MAX_CLAIMS, TAG_LEN};
use lightship_membership::{Claim, Draft, Flags, Heartbeat, Keys, Scope, Turns, decode, encode};

use super::{Target, kind};

pub(super) const TARGET: Target = Target {
    name: "heartbeat",
    run,
    repair: |datagram| repair(datagram),
    seeds,
};

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::new(b"for tests", None));

fn run(datagram: &[u8]) -> String {
    let beat = match decode(datagram, &KEYS) {
        Ok(beat) => beat,
        Err(error) => return kind(error),
    };
    // What was understood is said again in one page, in order.
    let again = encode(&beat, &KEYS);
    let [again] = &again[..] else {
        panic!("{} pages of one", again.len());
    };
    let again = decode(again, &KEYS).expect("own heartbeats are understood");
    let mut claims = beat.claims.clone();
    claims.sort_unstable();
    // Once, however often it was said.
    claims.dedup();
    let expected = Heartbeat {
        page: 0,
        pages: 1,
        scope: beat.scope.map(|scope| Scope {
            digest: scope.digest,
            alone: true,
            ..Scope::default()
        }),
        claims,
        ..beat.clone()
    };
    assert_eq!(again, expected);
    let v6 = beat.claims.iter().any(|claim| claim.vip.is_ipv6());
    let named = !beat.interface.is_empty();
    let late = beat.late.len().min(2);
    let networks = beat.networks.len().min(2);
    let claims = beat.claims.len().min(4);
    let further = beat.further.len().min(2);
    let scope = beat.scope.map(|scope| {
        let ends = [scope.from, scope.until];
        (ends.map(|end| end.map(|end| end.is_ipv6())), scope.alone)
    });
    format!(
        "{:?} {claims} {v6} {named} {late} {networks} {further} {scope:?}",
        beat.flags
    )
}

fn repair(datagram: &mut [u8]) {
    let Some(body) = datagram.len().checked_sub(TAG_LEN) else {
        return;
    };
    let tag = KEYS.current.tag(&datagram[..body]);
    datagram[body..].copy_from_slice(&tag);
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let beat = |claims: Vec<Claim>| Heartbeat {
        sender: "node1".into(),
        boot_id: 1_700_000_000_000_000_000,
        counter: 7,
        flags: Flags {
            can_own: true,
            ..Flags::default()
        },
        uplink_mac: [2, 0, 0, 0, 0, 1],
        director_mac: [2, 0xd, 0, 0, 0, 1],
        mode: 1,
        table_digest: 0x0123_4567_89ab_cdef,
        page: 0,
        pages: 1,
        interface: "eth0".into(),
        late: Vec::new(),
        networks: ["192.0.2.0/24", "2001:db8:2::/64"]
            .iter()
            .map(|network| network.parse().expect("a network"))
            .collect(),
        held_boot: None,
        further: [].into(),
        scope: Some(Scope {
            digest: 0xfedc_ba98_7654_3210,
            ..Scope::default()
        }),
        claims,
    };
    let claim = |vip: IpAddr| Claim { vip, epoch: 3 };
    let v4 = claim([192, 0, 2, 200].into());
    let v6 = claim([0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x200].into());
    let many = (0..MAX_CLAIMS.min(300) as u32)
        .map(|n| claim(std::net::Ipv4Addr::from_bits(0xc633_6400 + n).into()));
    let mut many_uplinks = beat(vec![v4]);
    many_uplinks.further = ["eth1", "bond0.20"]
        .map(|interface| Further {
            interface: interface.into(),
            mac: [2, 0, 0, 0, 0, 2],
            director_mac: [2, 0xd, 0, 0, 0, 2],
            networks: many_uplinks.networks.clone(),
        })
        .into();
    let mut seeds = vec![
        ("uplinks".to_owned(), encode(&many_uplinks, &KEYS).remove(0)),
        ("none".to_owned(), encode(&beat(vec![]), &KEYS).remove(0)),
        (
            "both".to_owned(),
            encode(&beat(vec![v4, v6]), &KEYS).remove(0),
        ),
    ];
    let many = beat(many.collect());
    // As a release wrote it that knew no scope.
    let unscoped = Heartbeat {
        scope: None,
        ..many.clone()
    };
    let older = encode(&unscoped, &KEYS).remove(0);
    seeds.push(("older".to_owned(), older));
    // A page with news from another one, both ends of its scope, and IPv6 among them.
    let mut mixed = many.clone();
    mixed.claims.push(v6);
    let news = |vip: &IpAddr| *vip == v6.vip;
    let mut draft = Draft::by_turns(mixed, news, &mut Turns::default());
    for datagram in draft.due(1, &KEYS) {
        seeds.push(("news".to_owned(), datagram.to_vec()));
    }
    for (page, datagram) in encode(&many, &KEYS).into_iter().enumerate() {
        seeds.push((format!("page-{page}"), datagram));
    }
    seeds
}
