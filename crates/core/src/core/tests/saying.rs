//! What is said on the LAN: order, tries after a failure, after a partition, and to neighbour
//! solicitations of every kind.

use lightship_frames::ndp::{self, NaFlags, Ndp};

use super::*;

/// The first announcement of each VIP by its new owner since a time, in the order of the wire.
fn first_words(lan: &Lan, since: Duration) -> Vec<(IpAddr, Duration)> {
    let mut seen = BTreeSet::new();
    let claims = lan.frames.iter().filter_map(|(_, at, frame)| {
        let Ok(neighbours::Heard::Claim { address, .. }) = neighbours::read(frame) else {
            return None;
        };
        (*at >= since && frame[0] == 0xff && seen.insert(address)).then_some((address, *at))
    });
    claims.collect()
}

#[test]
fn many_new_addresses_are_probed_and_announced_at_the_documented_rate() {
    let mut lan = Lan::with(0);
    lan.run(1_000 * MS);
    let mut many = (*world(1)).clone();
    let like = many.vips.remove(&vip(1)).unwrap();
    for n in 0..600u16 {
        let vip = IpAddr::from([198, 51, (n >> 8) as u8, n as u8]);
        many.vips.insert(vip, (*like).clone());
    }
    let (many, since) = (Arc::new(many), lan.now);
    for core in lan.cores.values_mut() {
        core.on_world(many.clone(), since);
    }
    lan.run(2_000 * MS);
    assert_eq!(first_words(&lan, since).len(), 600);
    for n in 1..=3 {
        let of_node = lan
            .frames
            .iter()
            .filter(|(by, at, _)| *by == n && *at >= since);
        let of_node: Vec<Duration> = of_node.map(|(_, at, _)| *at).collect();
        for at in &of_node {
            let slot = of_node.iter().filter(|t| (*at..*at + 20 * MS).contains(*t));
            assert!(slot.count() <= crate::pace::FRAMES, "node {n} at {at:?}");
        }
    }
}

#[test]
fn what_a_dead_node_had_is_said_before_what_is_new() {
    let mut lan = Lan::with(30);
    lan.run(10_000 * MS);
    let dead = lan.owner(vip(1));
    let had: BTreeSet<IpAddr> = lan.cores[&dead].owned.keys().copied().collect();
    let died = lan.now;
    lan.cores.remove(&dead);
    // New ones that are probed for when the others have to be taken over.
    lan.run(335 * MS);
    let mut more = (*world(30)).clone();
    let like = more.vips[&vip(1)].clone();
    for n in 0..200 {
        more.vips.insert([198, 51, 100, n].into(), like.clone());
    }
    let more = Arc::new(more);
    for core in lan.cores.values_mut() {
        core.on_world(more.clone(), lan.now);
    }
    lan.run(2_000 * MS);
    let words = first_words(&lan, died);
    let taken = words.iter().filter(|(vip, _)| had.contains(vip));
    let last = taken.map(|(_, at)| *at).max().unwrap();
    assert!(last - died <= 450 * MS, "{:?}", last - died);
    // Some of the new ones were ready by then, and had to wait.
    let new = words.iter().filter(|(vip, _)| !had.contains(vip));
    assert!(new.clone().any(|(_, at)| *at > last) && new.count() >= 200);
}

#[test]
fn the_winner_of_a_double_claim_announces_anew_and_the_loser_is_silent() {
    let mut lan = Lan::with(1);
    lan.run(10_000 * MS);
    let owner = lan.owner(vip(1));
    lan.cut = Some(owner);
    lan.run(10_000 * MS);
    let both = lan.owners()[&vip(1)].clone();
    assert_eq!(both.len(), 2, "each side has an owner");
    lan.cut = None;
    let healed = lan.now;
    lan.run(300 * MS);
    let winner = lan.owner(vip(1));
    assert!(lan.announced(winner, healed) >= 2, "clients are won back");
    let loser = both.into_iter().find(|n| *n != winner).unwrap();
    lan.run(60_000 * MS);
    // Nothing after the word of the winner.
    let last = |n: u8| {
        let claims = lan.frames.iter().filter(|(by, _, frame)| {
            *by == n && matches!(neighbours::read(frame), Ok(neighbours::Heard::Claim { .. }))
        });
        claims.map(|(_, at, _)| *at).max().unwrap_or_default()
    };
    assert!(last(loser) <= healed + 200 * MS);
    assert!(last(winner) > last(loser));
}

#[test]
fn an_announcement_or_a_probe_that_the_socket_refuses_is_tried_again() {
    let mut core = core(1, world(0), &Saved::default(), Duration::ZERO);
    let mut now = 1_000 * MS;
    core.tick(now);
    core.outputs();
    core.on_world(world(1), now);
    let mut tick = |refuse: bool| {
        core.tick(now);
        let mut frames = Vec::new();
        for output in core.outputs() {
            match output {
                Output::Director(intent) => core.on_director(DirectorReport {
                    healthy: true,
                    applied: intent.revision,
                    programmed: intent.vips.clone(),
                    ..DirectorReport::default()
                }),
                // Towards everybody; nodes that are silent are asked by their address.
                Output::Frame(_, frame) if frame[0] == 0xff => {
                    if refuse {
                        core.on_unsent(&frame, now);
                    }
                    frames.push((now, neighbours::read(&frame).unwrap()));
                }
                _ => {}
            }
        }
        now = core.next_deadline(now);
        frames
    };
    let mut turns = |refuse: bool, count: usize| {
        let mut said = Vec::new();
        while said.len() < count {
            said.extend(tick(refuse));
        }
        said
    };
    let is_probe = |heard: &neighbours::Heard| matches!(heard, neighbours::Heard::Question { .. });
    let refused = turns(true, 20);
    assert!(refused.iter().all(|(_, heard)| is_probe(heard)));
    let probes = turns(false, 2);
    assert!(probes.iter().all(|(_, heard)| is_probe(heard)));
    // Neither form of the announcement gets through at first.
    let refused = turns(true, 10);
    assert!(refused.iter().all(|(_, heard)| !is_probe(heard)));
    let (from, to) = (refused[0].0, refused[9].0);
    assert!(to - from <= 5 * crate::schedule::RETRY, "{:?}", to - from);
    let said = turns(false, 2);
    assert!(said[0].0 - to <= crate::schedule::RETRY);
}

#[test]
fn solicitations_of_every_kind_get_the_answer_of_rfc_4861() {
    let address: std::net::Ipv6Addr = "2001:db8:2::200".parse().unwrap();
    let client: std::net::Ipv6Addr = "2001:db8:2::100".parse().unwrap();
    let client_mac = Mac([2, 9, 9, 9, 9, 9]);
    let mut both = (*world(0)).clone();
    let like = world(1).vips[&vip(1)].clone();
    both.vips.insert(address.into(), like);
    for (name, node) in both.nodes.iter_mut() {
        let last = u16::from(*name.as_bytes().last().unwrap());
        node.v6 = Some([0x2001, 0xdb8, 2, 0, 0, 0, 0, last].into());
    }
    let mut lan = Lan::default();
    let both = Arc::new(both);
    for n in 1..=3 {
        let core = core(n, both.clone(), &Saved::default(), Duration::ZERO);
        lan.cores.insert(n, core);
    }
    lan.run(1_000 * MS);
    let owner = lan.owner(address.into());
    let core = lan.cores.get_mut(&owner).unwrap();
    core.outputs();

    let group = ndp::neighbor_solicitation(client_mac, client, address, None);
    let unicast = ndp::neighbor_solicitation(client_mac, client, address, Some(director(owner)));
    let any = std::net::Ipv6Addr::UNSPECIFIED;
    let detection = ndp::neighbor_solicitation(client_mac, any, address, None);
    let cases = [
        ("to the group", group.clone(), false),
        ("unicast", unicast.clone(), false),
        ("to the group, no option", without_option(group), false),
        ("unicast, no option", without_option(unicast), false),
        ("duplicate address detection", detection, true),
    ];
    for (case, question, to_all) in cases {
        core.on_frame(&Via::Main, &question, lan.now);
        let answers = core.outputs();
        let [Output::Frame(_, answer)] = &answers[..] else {
            panic!("{case}: {answers:?}")
        };
        let (dst, eth) = if to_all {
            (ndp::ALL_NODES, ndp::multicast_mac(ndp::ALL_NODES))
        } else {
            (client, client_mac)
        };
        let expected = Ndp::Advertisement {
            target: address,
            src: address,
            flags: NaFlags {
                router: false,
                solicited: !to_all,
                override_: true,
            },
            target_ll: Some(director(owner)),
            eth_src: director(owner),
            eth_dst: eth,
        };
        assert_eq!(ndp::parse(answer), Ok(expected), "{case}");
        let sent_to: [u8; 16] = answer[38..54].try_into().unwrap();
        assert_eq!(sent_to, dst.octets(), "{case}");
    }
}

/// The same solicitation without its source link-layer address option.
fn without_option(mut frame: Vec<u8>) -> Vec<u8> {
    let (ip, icmp) = (14, 54);
    frame.truncate(icmp + 24);
    frame[ip + 5] = 24;
    // The checksum over the pseudo-header and the message (RFC 8200 section 8.1).
    frame[icmp + 2..icmp + 4].fill(0);
    let words = frame[ip + 8..].chunks(2);
    let sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = sum + 24 + 58;
    let folded = (sum >> 16) + (sum & 0xffff);
    let folded = ((folded >> 16) + folded) as u16;
    frame[icmp + 2..icmp + 4].copy_from_slice(&(!folded).to_be_bytes());
    frame
}
