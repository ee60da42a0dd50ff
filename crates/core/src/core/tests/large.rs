//! One core among 499 peers and 1,000 VIPs: what its part in the membership costs.

use lightship_membership::graph::Shape;
use lightship_membership::rota::REPEATS;
use lightship_membership::{Flags, Heartbeat, Rota, Scope, encode};

use super::*;

const NODES: u16 = 500;
const VIPS: u16 = 1_000;

pub(super) fn node(n: u16) -> NodeName {
    format!("node{n}").into()
}

pub(super) fn at(n: u16) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 1, n])
}

pub(super) fn large_world(nodes: u16) -> Arc<World> {
    let mut world = World::default();
    for n in 0..nodes {
        let IpAddr::V6(v6) = at(n) else {
            continue;
        };
        let v6 = Some(v6);
        let found = Node {
            v6,
            ..Node::default()
        };
        world.nodes.insert(node(n), found);
    }
    for n in 0..VIPS {
        let address = IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, n]);
        world.vips.insert(address, Vip::default());
    }
    Arc::new(world)
}

/// What node `n` says: of 500 nodes each owns every 500th VIP, and further ones none.
pub(super) fn beat_of(n: u16, counter: u64) -> Heartbeat {
    let owned = (n..VIPS).step_by(NODES.into()).filter(|_| n < NODES);
    let claims = owned.map(|n| lightship_membership::Claim {
        vip: IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, n]),
        epoch: 2,
    });
    saying(n, counter, claims.collect())
}

pub(super) fn saying(n: u16, counter: u64, claims: Vec<lightship_membership::Claim>) -> Heartbeat {
    let digest = lightship_election::digest(claims.iter().map(|c| (c.vip, c.epoch)));
    Heartbeat {
        sender: node(n),
        boot_id: 1,
        counter,
        flags: Flags {
            can_own: true,
            ..Flags::default()
        },
        uplink_mac: [2, 0, 0, 0, (n >> 8) as u8, n as u8],
        director_mac: [2, 1, 0, 0, (n >> 8) as u8, n as u8],
        mode: 1,
        table_digest: 0,
        page: 0,
        pages: 1,
        interface: "eth0".into(),
        late: Vec::new(),
        networks: [].into(),
        held_boot: None,
        further: [].into(),
        scope: Some(Scope {
            digest,
            ..Scope::default()
        }),
        claims,
    }
}

#[test]
fn among_500_nodes_membership_costs_fewer_than_2000_small_packets_a_second() {
    costs_few_small_packets(NODES);
}

#[test]
fn among_600_nodes_it_costs_no_more() {
    costs_few_small_packets(600);
}

fn costs_few_small_packets(nodes: u16) {
    let world = large_world(nodes);
    let names: BTreeSet<NodeName> = world.nodes.keys().cloned().collect();
    let mut core = core(0, world, &Saved::default(), Duration::ZERO);
    let me = name(0);
    let mut rotas: Vec<(u16, Rota)> = (1..nodes)
        .map(|n| (n, Rota::new(node(n), Shape::DEFAULT)))
        .collect();
    for (_, rota) in &mut rotas {
        rota.set_nodes(&names);
        rota.tell_all();
    }
    let (mut sent, mut got, mut busy) = (0, 0, Duration::ZERO);
    let (quiet, end) = (Duration::from_secs(1), Duration::from_secs(4));
    let mut now = Duration::ZERO;
    while now < end {
        let due: Vec<(IpAddr, Vec<u8>)> = rotas
            .iter_mut()
            // At first all, as answers to the own first heartbeat; then each in its own millisecond.
            .filter(|(n, _)| now.is_zero() || now.as_millis() % 100 == u128::from(*n % 100))
            .flat_map(|(n, rota)| {
                let page = rota.page(&me);
                rota.sent();
                let counter = 1 + now.as_millis() as u64;
                let datagrams = page.map(|_| encode(&beat_of(*n, counter), &keys()));
                datagrams
                    .into_iter()
                    .flatten()
                    .map(|d| (at(*n), d))
                    .collect::<Vec<_>>()
            })
            .collect();
        let began = std::time::Instant::now();
        for (from, datagram) in &due {
            core.on_datagram(*from, datagram, now);
        }
        core.tick(now);
        let out = core.outputs();
        if now >= quiet {
            busy += began.elapsed();
            got += due.len();
            for output in out {
                if let Output::Heartbeat(_, datagram) = output {
                    sent += 1;
                    assert!(datagram.len() <= lightship_membership::heartbeat::MAX_DATAGRAM);
                }
            }
        }
        now += MS;
    }
    let seconds = (end - quiet).as_secs_f64();
    let (sent, got) = (f64::from(sent) / seconds, got as f64 / seconds);
    let busy = busy.as_secs_f64() / seconds * 1e3;
    println!("{nodes} nodes: sent {sent:.0}/s, received {got:.0}/s, core {busy:.1} ms/s");
    // It knows all VIPs and their owners, and took none.
    assert_eq!(core.intent.vips.len(), usize::from(VIPS));
    let vip = IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, 777]);
    let owner = core.election.owner(&vip).map(|(owner, _)| owner);
    assert_eq!(owner, Some(node(277)));
    assert!(core.refused().is_empty(), "{:?}", core.refused());
    assert!((200.0..450.0).contains(&sent) && (200.0..450.0).contains(&got));
}

/// One endpoint among 1,000 VIPs with two ports and 100 nodes each: the director is given a table
/// in which all but two services are the very ones that it has.
#[test]
fn one_endpoint_of_a_large_table_touches_one_service_only() {
    let mut world = World::clone(&large_world(NODES));
    let reference = |n: u16| ServiceRef::new("shop", format!("web{n}"));
    for (n, (_, vip)) in world.vips.iter_mut().enumerate() {
        let reference = reference(n as u16);
        vip.services = vec![reference.clone()];
        let port = |number| Port {
            protocol: Protocol::Tcp,
            number,
        };
        let service = Service {
            ports: [port(80), port(443)].into(),
            local: true,
            ..Service::default()
        };
        world.services.insert(reference.clone(), service);
        let slice = Slice {
            ipv6: true,
            ready: (0..100).map(|k| node((n as u16 + k) % NODES)).collect(),
            ..Slice::default()
        };
        world
            .slices
            .insert(reference, [("one".into(), slice)].into());
    }
    let world = Arc::new(world);
    let mut core = core(0, world.clone(), &Saved::default(), Duration::ZERO);
    for n in 1..NODES {
        for datagram in encode(&beat_of(n, 1), &keys()) {
            core.on_datagram(at(n), &datagram, Duration::ZERO);
        }
    }
    let director = |core: &mut Core, now| {
        core.tick(now);
        let mut intents = core
            .outputs()
            .into_iter()
            .filter_map(|output| match output {
                Output::Director(intent) => Some(intent),
                _ => None,
            });
        intents.next_back()
    };
    let before = director(&mut core, MS).unwrap();
    assert_eq!(before.virtuals.len(), 2 * usize::from(VIPS));
    assert!(before.virtuals.values().all(|v| v.weights.len() == 100));

    let mut changed = World::clone(&world);
    let slices = changed.slices.get_mut(&reference(700)).unwrap();
    slices
        .values_mut()
        .for_each(|slice| assert!(slice.ready.remove(&node(201))));
    let changed = Arc::new(changed);
    let began = std::time::Instant::now();
    core.on_world(changed, MS * 2);
    let after = director(&mut core, MS * 2).unwrap();
    println!("one endpoint: {:?}", began.elapsed());
    let same = |key: &PortKey| {
        let (was, is) = (&before.virtuals[key].weights, &after.virtuals[key].weights);
        Arc::ptr_eq(was, is)
    };
    let touched: Vec<_> = after.virtuals.keys().filter(|key| !same(key)).collect();
    assert_eq!(touched.len(), 2);
    assert_eq!(after.virtuals[touched[0]].weights[&at(201)], 0);
}

/// The outputs of a core whose director does at once what it is told.
pub(super) fn outputs(core: &mut Core) -> Vec<Output> {
    let outputs = core.outputs();
    for output in &outputs {
        if let Output::Director(intent) = output {
            core.on_director(DirectorReport {
                healthy: true,
                applied: intent.revision,
                programmed: intent.vips.clone(),
                ..DirectorReport::default()
            });
        }
    }
    outputs
}

const FEW: u16 = 64;

/// A core that holds all VIPs among few nodes.
fn holder(world: &Arc<World>) -> Core {
    let claims = world.vips.keys().map(|vip| (*vip, 2)).collect();
    let saved = Saved {
        claims,
        ..Saved::default()
    };
    core(0, world.clone(), &saved, Duration::ZERO)
}

/// Runs a core from one millisecond to another among [`FEW`] nodes that claim nothing, and returns what it sends one
/// of them, by time.
fn run(core: &mut Core, time: std::ops::Range<u64>) -> Vec<(u64, Heartbeat)> {
    let mut sent = Vec::new();
    for ms in time {
        let now = MS * ms as u32;
        for n in (1..FEW).filter(|n| ms % 70 == u64::from(*n % 70)) {
            for datagram in encode(&saying(n, 1 + ms, Vec::new()), &keys()) {
                core.on_datagram(at(n), &datagram, now);
            }
        }
        core.tick(now);
        for output in outputs(core) {
            if let Output::Heartbeat(to, datagram) = output
                && to == at(7)
            {
                let beat = lightship_membership::decode(&datagram, &keys()).unwrap();
                sent.push((ms, beat));
            }
        }
    }
    sent
}

/// Among so few nodes each gets every heartbeat, but one page of it: a thousand claims are many.
#[test]
fn who_holds_1000_vips_sends_a_peer_one_datagram_an_interval_also_after_a_change() {
    let world = large_world(FEW);
    let mut core = holder(&world);
    run(&mut core, 0..1_000);
    assert_eq!(core.owned.len(), usize::from(VIPS));
    let quiet = run(&mut core, 1_000..4_000);
    let pages: BTreeSet<u16> = quiet.iter().map(|(_, beat)| beat.page).collect();
    assert!(pages.len() > 20 && pages.len() == usize::from(quiet[0].1.pages));
    // Its interval is 100 ms here.
    assert!((29..=31).contains(&quiet.len()), "{}", quiet.len());
    let most = quiet.iter().map(|(_, beat)| beat.claims.len()).max();

    let mut changed = World::clone(&world);
    let gone = *changed.vips.keys().next_back().unwrap();
    changed.vips.remove(&gone);
    core.on_world(Arc::new(changed), MS * 4_000);
    let told = run(&mut core, 4_000..4_000 + 100 * u64::from(REPEATS));
    let times: Vec<u64> = told.iter().map(|(ms, _)| *ms).collect();
    assert_eq!(times, [4_000, 4_100, 4_200]);
    for (_, beat) in &told {
        let ends = |claim: &&lightship_membership::Claim| claim.vip == gone && claim.epoch == 0;
        assert_eq!(beat.claims.iter().filter(ends).count(), 1);
        assert!(beat.claims.len() > 20 && Some(beat.claims.len()) <= most);
        assert!(beat.scope.unwrap().alone);
    }
    let later = run(&mut core, 4_300..5_000);
    assert_eq!(later.len(), 7);
    let named = |claim: &lightship_membership::Claim| claim.vip == gone;
    assert!(!later.iter().any(|(_, beat)| beat.claims.iter().any(named)));
}

/// What another node had: more than a datagram holds, and fewer than all.
#[test]
fn three_hundred_vips_that_are_taken_at_once_are_told_at_once_in_as_few_datagrams_as_they_take() {
    const HELD: u16 = 700;
    let world = large_world(FEW);
    let vip = |n: u16| IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, n]);
    let claims = (0..HELD).map(|n| (vip(n), 2)).collect();
    let saved = Saved {
        claims,
        ..Saved::default()
    };
    let mut core = core(0, world, &saved, Duration::ZERO);
    // All others are there, and may own nothing; one of them has the rest and is left to go silent.
    let rest = (HELD..VIPS).map(|n| lightship_membership::Claim {
        vip: vip(n),
        epoch: 2,
    });
    let theirs = encode(&saying(3, 1, rest.collect()), &keys());
    for datagram in theirs {
        core.on_datagram(at(3), &datagram, Duration::ZERO);
    }
    let mut sent: Vec<(u64, Heartbeat)> = Vec::new();
    for ms in 0..1_500 {
        let now = MS * ms as u32;
        for n in (1..FEW).filter(|n| *n != 3 && ms % 70 == u64::from(*n % 70)) {
            let mut beat = saying(n, 1 + ms, Vec::new());
            beat.flags.can_own = false;
            for datagram in encode(&beat, &keys()) {
                core.on_datagram(at(n), &datagram, now);
            }
        }
        core.tick(now);
        for output in outputs(&mut core) {
            if let Output::Heartbeat(to, datagram) = output
                && to == at(7)
            {
                sent.push((
                    ms,
                    lightship_membership::decode(&datagram, &keys()).unwrap(),
                ));
            }
        }
    }
    assert_eq!(core.owned.len(), usize::from(VIPS));
    let taken = |beat: &Heartbeat| {
        let new = beat.claims.iter().filter(|claim| claim.epoch > 2);
        new.map(|claim| claim.vip).collect::<BTreeSet<_>>()
    };
    let first = sent.iter().find(|(_, beat)| !taken(beat).is_empty());
    let began = first.expect("taken").0;
    let of = |time: u64| sent.iter().filter(move |(ms, _)| *ms == time);
    for time in [began, began + 100, began + 200] {
        let all: BTreeSet<IpAddr> = of(time).flat_map(|(_, beat)| taken(beat)).collect();
        assert_eq!(all.len(), usize::from(VIPS - HELD), "at {time}");
        // Of 43 claims each; all would be 24.
        assert!(of(time).count() <= 8, "{}", of(time).count());
    }
    assert_eq!(of(began + 300).count(), 1);
}
