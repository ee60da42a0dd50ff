//! Several cores on one imaginary LAN: heartbeats and frames are carried by hand, time is
//! a number, and nothing else is left out.

use super::*;

mod claims;
mod conflict;
mod large;
mod lost;
mod pages;
mod paths;
mod peers;
mod placing;
mod saying;
mod tables;
mod uplinks;
use crate::world::{Node, Port, Protocol, Service, ServiceRef, Slice, Vip};

const MS: Duration = Duration::from_millis(1);

fn vip(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, 199 + n])
}

fn name(n: u8) -> NodeName {
    format!("node{n}").into()
}

fn address(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, 10 + n])
}

fn uplink(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn director(n: u8) -> Mac {
    Mac([2, 0xd, 0, 0, 0, n])
}

fn keys() -> Keys {
    Keys::new(b"a secret of 32 bytes, more or less", None)
}

/// Three nodes, one Service under `Local` with an endpoint on each, `vips` VIPs.
fn world(vips: u8) -> Arc<World> {
    let mut world = World::default();
    for n in 1..=3 {
        let v4 = Some([192, 0, 2, 10 + n].into());
        world.nodes.insert(
            name(n),
            Node {
                v4,
                ..Node::default()
            },
        );
    }
    let web = ServiceRef::new("shop", "web");
    let ports = [Port {
        protocol: Protocol::Tcp,
        number: 80,
    }]
    .into();
    world.services.insert(
        web.clone(),
        Service {
            ports,
            local: true,
            ..Service::default()
        },
    );
    let slice = Slice {
        ready: (1..=3).map(name).collect(),
        ..Slice::default()
    };
    world
        .slices
        .or_default(web.clone())
        .insert("web-1".into(), slice);
    for n in 1..=vips {
        world.vips.insert(
            vip(n),
            Vip {
                services: vec![web.clone()],
                ..Vip::default()
            },
        );
    }
    Arc::new(world)
}

fn core(n: u8, world: Arc<World>, saved: &Saved, now: Duration) -> Core {
    let setup = Setup {
        me: name(n),
        boot_id: 1 + now.as_nanos() as u64,
        interval: 100 * MS,
        misses: 4,
        shape: lightship_membership::graph::Shape::DEFAULT,
        uplink_mac: uplink(n),
        director_mac: director(n),
        direct_routing: true,
        interface: "eth0".into(),
        further: [].into(),
        policy: Policy::default(),
        rebalance: None,
        removal_grace: crate::grace::DEFAULT,
        conflict_wait: 40 * MS,
    };
    let found = DirectorReport {
        healthy: true,
        ..DirectorReport::default()
    };
    Core::new(setup, keys(), world, saved, found, now).unwrap()
}

#[derive(Default)]
struct Lan {
    now: Duration,
    cores: BTreeMap<u8, Core>,
    /// Nodes whose kernel answers ARP though no core runs there.
    kernels: BTreeSet<u8>,
    /// Frames by sender, with the time.
    frames: Vec<(u8, Duration, Vec<u8>)>,
    /// Those on further uplinks.
    elsewhere: Vec<(u8, Duration, Via, Vec<u8>)>,
    used: BTreeMap<u8, Arc<[Own]>>,
    groups: BTreeMap<u8, BTreeSet<(Via, std::net::Ipv6Addr)>>,
    directors: BTreeMap<u8, Arc<DirectorIntent>>,
    reports: BTreeMap<u8, Arc<Ownership>>,
    /// What each node's kernel lets through.
    listens: BTreeMap<u8, Listen>,
    /// What each says of others when that changes.
    judged: Vec<(u8, NodeName, PeerState)>,
    /// Directors do not say that they have done what they were asked for.
    slow_directors: bool,
    /// No heartbeat and no frame passes between this node and the others.
    cut: Option<u8>,
}

impl Lan {
    fn with(vips: u8) -> Self {
        let mut lan = Lan::default();
        for n in 1..=3 {
            lan.cores
                .insert(n, core(n, world(vips), &Saved::default(), Duration::ZERO));
        }
        lan
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let ids: Vec<u8> = self.cores.keys().copied().collect();
            for n in ids {
                let core = self.cores.get_mut(&n).unwrap();
                core.tick(self.now);
                let outputs = core.outputs();
                self.carry(n, outputs);
            }
            self.now += 5 * MS;
        }
    }

    fn carry(&mut self, from: u8, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Heartbeat(to, datagram) => {
                    let has = |core: &Core| core.own_addresses().contains(&to);
                    let to = self.cores.iter_mut().find(|(_, core)| has(core));
                    if let Some((n, to)) = to
                        && (self.cut == Some(*n)) == (self.cut == Some(from))
                    {
                        to.on_datagram(address(from), &datagram, self.now);
                    }
                }
                Output::Frame(via, frame) => self.frame(from, &via, frame),
                Output::Director(intent) => {
                    let report = DirectorReport {
                        healthy: true,
                        applied: intent.revision,
                        programmed: intent.vips.clone(),
                        uplinks: intent
                            .uplinks
                            .keys()
                            .map(|name| (name.clone(), None))
                            .collect(),
                        digest: intent.virtuals.len() as u64,
                        ..DirectorReport::default()
                    };
                    if !self.slow_directors {
                        self.cores.get_mut(&from).unwrap().on_director(report);
                    }
                    self.directors.insert(from, intent);
                }
                Output::Report(report) => drop(self.reports.insert(from, report)),
                Output::Listen(to) => drop(self.listens.insert(from, to)),
                Output::Uplinks(used) => drop(self.used.insert(from, used)),
                Output::Groups(groups) => drop(self.groups.insert(from, groups)),
                Output::Peer(node, _, to) => self.judged.push((from, node, to)),
                Output::Paths(_) | Output::Save => {}
            }
        }
    }

    /// A probe for a node whose kernel lives is answered; everything is remembered.
    fn frame(&mut self, from: u8, via: &Via, frame: Vec<u8>) {
        if *via != Via::Main {
            self.elsewhere.push((from, self.now, via.clone(), frame));
            return;
        }
        if let Ok(neighbours::Heard::Question {
            target,
            asker,
            asker_mac,
        }) = neighbours::read(&frame)
        {
            let node = (1..=3).find(|n| address(*n) == target);
            let answers = |n: &u8| self.cores.contains_key(n) || self.kernels.contains(n);
            let passes = |n: &u8| (self.cut == Some(*n)) == (self.cut == Some(from));
            if let Some(n) = node.filter(answers).filter(passes) {
                let answer = neighbours::answer(target, uplink(n), asker, asker_mac).unwrap();
                assert!(self.listens[&from].nodes.contains(&target), "unheard");
                self.cores
                    .get_mut(&from)
                    .unwrap()
                    .on_frame(&Via::Main, &answer, self.now);
            }
        }
        self.frames.push((from, self.now, frame));
    }

    fn owners(&self) -> BTreeMap<IpAddr, Vec<u8>> {
        let mut owners: BTreeMap<IpAddr, Vec<u8>> = BTreeMap::new();
        for (n, core) in &self.cores {
            for (vip, owned) in &core.owned {
                assert!(owned.announced);
                owners.entry(*vip).or_default().push(*n);
            }
        }
        owners
    }

    fn owner(&self, vip: IpAddr) -> u8 {
        let owners = self.owners();
        assert_eq!(owners[&vip].len(), 1, "{owners:?}");
        owners[&vip][0]
    }

    fn weights(&self, on: u8) -> Vec<u32> {
        self.directors[&on]
            .virtuals
            .values()
            .next()
            .unwrap()
            .weights
            .values()
            .copied()
            .collect()
    }

    /// Announcements of VIPs by a node since a time.
    fn announced(&self, by: u8, since: Duration) -> usize {
        let claims = self.frames.iter().filter(|(n, at, frame)| {
            *n == by
                && *at >= since
                && matches!(neighbours::read(frame), Ok(neighbours::Heard::Claim { mac, .. }) if mac == director(by))
        });
        claims.count()
    }
}

#[test]
fn each_vip_gets_one_owner_and_the_vips_are_spread() {
    let mut lan = Lan::with(3);
    lan.run(1_000 * MS);
    let owners: BTreeSet<u8> = (1..=3).map(|n| lan.owner(vip(n))).collect();
    assert_eq!(owners.len(), 3);
    assert_eq!(lan.weights(1), [1, 1, 1]);
    let report = &lan.reports[&lan.owner(vip(1))];
    assert_eq!((report.directors_agreeing, report.directors), (3, 3));
}

#[test]
fn nodes_of_mixed_address_families_hear_each_other() {
    let v6 = |n: u8| -> std::net::Ipv6Addr { format!("2001:db8:2::1{n}").parse().unwrap() };
    let mut mixed = World::clone(&world(1));
    // One of both families, one of IPv6 alone, one of both; then one of IPv4 alone.
    for n in 1..=3 {
        mixed.nodes.get_mut(&name(n)).unwrap().v6 = Some(v6(n));
    }
    mixed.nodes.get_mut(&name(2)).unwrap().v4 = None;
    let mut lan = Lan::default();
    for n in 1..=3 {
        let core = core(n, Arc::new(mixed.clone()), &Saved::default(), lan.now);
        lan.cores.insert(n, core);
    }
    lan.run(1_000 * MS);
    let sees = |lan: &Lan, n: u8, other: u8| lan.cores[&n].detector.state(&name(other));
    for (n, other) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
        assert_eq!(sees(&lan, n, other), PeerState::Alive, "{n} of {other}");
    }
    mixed.nodes.get_mut(&name(3)).unwrap().v6 = None;
    for core in lan.cores.values_mut() {
        core.on_world(Arc::new(mixed.clone()), lan.now);
    }
    lan.run(1_000 * MS);
    assert_eq!(sees(&lan, 1, 3), PeerState::Alive);
    assert_eq!(sees(&lan, 3, 1), PeerState::Alive);
    // These two have no family in common, and it is said.
    assert_eq!(sees(&lan, 2, 3), PeerState::Dead);
    let core = &lan.cores[&2];
    assert_eq!(core.unreachable.iter().collect::<Vec<_>>(), [&name(3)]);
    assert!(lan.cores[&1].unreachable.is_empty());
}

#[test]
fn a_changed_uplink_is_told_to_peers_and_clients_at_once() {
    let mut lan = Lan::with(1);
    // Past the announcements of a take-over.
    lan.run(8_000 * MS);
    let owner = lan.owner(vip(1));
    let (since, mac) = (lan.now, Mac([2, 0xaa, 0, 0, 0, 9]));
    let network = "192.0.2.0/24".parse().unwrap();
    let core = lan.cores.get_mut(&owner).unwrap();
    core.on_networks(Arc::from([network]), since);
    core.on_link("br0".into(), mac, since);
    lan.run(10 * MS);
    assert_eq!(lan.announced(owner, since), 2, "the VIP, in both forms");
    let own = lan.frames.iter().filter(|(n, at, frame)| {
        let claim = neighbours::Heard::Claim {
            address: address(owner),
            mac,
        };
        *n == owner && *at >= since && neighbours::read(frame) == Ok(claim)
    });
    assert_eq!(own.count(), 2, "the node's own address");
    let others: Vec<u8> = (1..=3).filter(|n| *n != owner).collect();
    for n in &others {
        assert_eq!(lan.directors[n].peers[&address(owner)], mac);
    }
    // Frames take another way, and nothing else changed: as a bond does it.
    lan.run(8_000 * MS);
    let since = lan.now;
    lan.cores.get_mut(&owner).unwrap().say_anew(since);
    lan.run(10 * MS);
    assert_eq!(lan.announced(owner, since), 2);
    assert_eq!(lan.owner(vip(1)), owner);
}

#[test]
fn a_takeover_waits_for_the_director_to_know_who_is_dead_but_not_for_ever() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let dead = lan.owner(vip(1));
    lan.cores.remove(&dead);
    lan.slow_directors = true;
    let since = lan.now;
    let announced = |lan: &Lan| (1..=3).map(|n| lan.announced(n, since)).sum::<usize>();
    while !lan.cores.values().any(|core| !core.owned.is_empty()) {
        lan.run(5 * MS);
    }
    lan.run(90 * MS);
    assert_eq!(announced(&lan), 0);
    lan.run(20 * MS);
    assert!(announced(&lan) > 0);
}

#[test]
fn a_dead_owner_is_followed_within_the_timeout_and_its_share_is_rehashed() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let dead = lan.owner(vip(1));
    let died = lan.now;
    lan.cores.remove(&dead);
    lan.run(1_000 * MS);
    let owner = lan.owner(vip(1));
    let first = lan.frames.iter().find(|(n, at, frame)| {
        *n == owner
            && *at > died
            && matches!(neighbours::read(frame), Ok(neighbours::Heard::Claim { .. }))
    });
    let took = first.unwrap().1 - died;
    assert!(took <= 450 * MS, "{took:?}");
    let mut expected = [1, 1, 1];
    expected[usize::from(dead) - 1] = 0;
    assert_eq!(
        lan.weights(owner),
        expected,
        "the dead node stays listed at weight 0"
    );
    lan.run(31_000 * MS);
    assert_eq!(
        lan.weights(owner),
        [1, 1],
        "and is removed after the grace time"
    );
}

#[test]
fn a_silent_speaker_on_a_live_node_loses_its_vips_but_keeps_its_share() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let killed = lan.owner(vip(1));
    lan.cores.remove(&killed);
    lan.kernels.insert(killed);
    lan.run(1_000 * MS);
    let owner = lan.owner(vip(1));
    assert_ne!(owner, killed);
    assert_eq!(lan.weights(owner), [1, 1, 1]);
}

#[test]
fn a_node_without_rules_of_kube_proxy_has_no_share_until_it_has() {
    let mut lan = Lan::with(1);
    let weights = |lan: &Lan| -> Vec<BTreeMap<IpAddr, u32>> {
        let tables = lan.directors.values();
        let all = tables.map(|table| (*table.virtuals.values().next().unwrap().weights).clone());
        all.collect()
    };
    let at = lan.now;
    lan.cores.get_mut(&2).unwrap().on_serves(false, at);
    lan.run(1_000 * MS);
    let without = BTreeMap::from([(address(1), 1), (address(2), 0), (address(3), 1)]);
    assert_eq!(weights(&lan), [without.clone(), without.clone(), without]);
    let at = lan.now;
    lan.cores.get_mut(&2).unwrap().on_serves(true, at);
    lan.run(50 * MS);
    let all = BTreeMap::from([(address(1), 1), (address(2), 1), (address(3), 1)]);
    assert_eq!(weights(&lan), [all.clone(), all.clone(), all]);
}

#[test]
fn a_speaker_back_before_the_timeout_keeps_its_vips_and_begins_no_burst_anew() {
    let mut lan = Lan::with(1);
    lan.run(6_000 * MS);
    let owner = lan.owner(vip(1));
    let mut saved = Saved::default();
    lan.cores[&owner].save(&mut saved);
    lan.cores.remove(&owner);
    lan.kernels.insert(owner);
    lan.run(200 * MS);
    let restarted = lan.now;
    lan.cores
        .insert(owner, core(owner, world(1), &saved, restarted));
    lan.run(90 * MS);
    assert_eq!(lan.announced(owner, restarted), 0);
    lan.run(810 * MS);
    assert_eq!(lan.owner(vip(1)), owner);
    // 0.1 and 0.5 s after the others were heard, in two frames each.
    assert_eq!(lan.announced(owner, restarted), 4);
    for n in (1..=3).filter(|n| *n != owner) {
        assert_eq!(lan.announced(n, restarted), 0);
    }
}

#[test]
fn a_leaving_speaker_hands_over_at_once_and_the_vip_does_not_come_back() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let leaver = lan.owner(vip(1));
    let left = lan.now;
    lan.cores.get_mut(&leaver).unwrap().leave(left);
    lan.run(100 * MS);
    assert!(lan.cores[&leaver].handed_over());
    let owner = lan.owner(vip(1));
    assert_ne!(owner, leaver);
    lan.cores
        .insert(leaver, core(leaver, world(1), &Saved::default(), lan.now));
    lan.run(5_000 * MS);
    assert_eq!(lan.owner(vip(1)), owner, "no fail-back");
}

#[test]
fn only_announced_vips_are_answered_for() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let owner = lan.owner(vip(1));
    let client = (IpAddr::from([192, 0, 2, 100]), Mac([2, 9, 9, 9, 9, 9]));
    for n in 1..=3 {
        let core = lan.cores.get_mut(&n).unwrap();
        core.outputs();
        for target in [vip(1), vip(2)] {
            let question = neighbours::probe(client, (target, Mac::BROADCAST)).unwrap();
            core.on_frame(&Via::Main, &question, lan.now);
        }
        let answers = core.outputs();
        if n == owner {
            let answer = neighbours::answer(vip(1), director(n), client.0, client.1).unwrap();
            assert_eq!(answers, [Output::Frame(Via::Main, answer)]);
        } else {
            assert_eq!(answers, []);
        }
    }
}

#[test]
fn a_vip_that_is_deleted_is_released_and_its_director_state_goes() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    for core in lan.cores.values_mut() {
        core.on_world(world(0), lan.now);
    }
    lan.run(300 * MS);
    assert_eq!(lan.owners(), BTreeMap::new());
    assert!(
        lan.directors
            .values()
            .all(|d| d.vips.is_empty() && d.virtuals.is_empty())
    );
}

#[test]
fn datagrams_with_another_key_are_counted_and_change_nothing() {
    let mut lan = Lan::with(1);
    let mut stranger = core(2, world(1), &Saved::default(), Duration::ZERO);
    stranger.on_keys(Keys::new(b"another secret that nobody here knows", None));
    stranger.tick(Duration::ZERO);
    let core = lan.cores.get_mut(&1).unwrap();
    for output in stranger.outputs() {
        if let Output::Heartbeat(_, datagram) = output {
            core.on_datagram(address(2), &datagram, Duration::ZERO);
        }
    }
    assert_eq!(core.refused().values().sum::<u64>(), 2);
    assert!(core.peers.values().all(|p| p.told.is_none()));
}

#[test]
fn a_rebooting_node_gets_no_share_before_its_speaker_is_heard() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let owner = lan.owner(vip(1));
    let rebooting = (1..=3).find(|n| *n != owner).unwrap();
    let index = usize::from(rebooting) - 1;
    lan.cores.remove(&rebooting);
    lan.run(1_000 * MS);
    assert_eq!(lan.weights(owner)[index], 0);
    // The kernel is up again and answers ARP; kube-proxy and the speaker are not.
    lan.kernels.insert(rebooting);
    lan.run(10_000 * MS);
    assert_eq!(lan.weights(owner)[index], 0);
    let fresh = core(rebooting, world(1), &Saved::default(), lan.now);
    lan.cores.insert(rebooting, fresh);
    lan.run(500 * MS);
    assert_eq!(lan.weights(owner)[index], 1);
}

#[test]
fn a_vip_that_changes_its_mac_is_announced_anew() {
    let mut lan = Lan::with(1);
    lan.run(10_000 * MS);
    let owner = lan.owner(vip(1));
    let mut changed = (*world(1)).clone();
    let policy = crate::world::Announcement {
        announce_only: true,
        ..Default::default()
    };
    changed.announcements.insert("plain".into(), policy);
    let since = lan.now;
    for core in lan.cores.values_mut() {
        core.on_world(Arc::new(changed.clone()), since);
    }
    lan.run(1_000 * MS);
    let claims = lan.frames.iter().filter(|(n, at, frame)| {
        let claim = neighbours::read(frame);
        *n == owner
            && *at >= since
            && matches!(claim, Ok(neighbours::Heard::Claim { mac, .. }) if mac == uplink(owner))
    });
    assert!(claims.count() >= 6, "a burst from the node's own MAC");
}

#[test]
fn a_vip_that_the_director_cannot_hold_is_announced_by_the_nodes_own_mac() {
    let mut lan = Lan::with(2);
    lan.run(1_000 * MS);
    let owner = lan.owner(vip(1));
    let mac_since = |lan: &Lan, since: Duration, which: IpAddr| {
        let mut macs = lan.frames.iter().filter_map(|(n, at, frame)| {
            let claimed = matches!(neighbours::read(frame),
                Ok(neighbours::Heard::Claim { address, .. }) if address == which);
            (*n == owner && *at >= since && claimed).then(|| frame[6..12].to_vec())
        });
        macs.next()
    };
    let good = lan.cores[&owner].director.clone();
    let mut bad = good.clone();
    bad.failing.insert(vip(1), "EINVAL".into());

    // It holds some of it, and goes on with that.
    lan.cores.get_mut(&owner).unwrap().on_director(bad.clone());
    let since = lan.now;
    lan.run(90 * MS);
    assert_eq!(mac_since(&lan, since, vip(1)), None);
    let report = &lan.reports[&owner].vips[&vip(1)];
    assert_eq!(
        (report.direct_routing, report.refused.is_some()),
        (true, true)
    );

    // It holds nothing of it.
    bad.programmed.remove(&vip(1));
    lan.cores.get_mut(&owner).unwrap().on_director(bad);
    let since = lan.now;
    lan.run(90 * MS);
    assert_eq!(
        mac_since(&lan, since, vip(1)),
        Some(uplink(owner).0.to_vec())
    );
    assert!(!lan.reports[&owner].vips[&vip(1)].direct_routing);

    lan.cores.get_mut(&owner).unwrap().on_director(good);
    let since = lan.now;
    lan.run(90 * MS);
    assert_eq!(
        mac_since(&lan, since, vip(1)),
        Some(director(owner).0.to_vec())
    );
    assert_eq!(lan.reports[&owner].vips[&vip(1)].refused, None);
}

#[test]
fn a_node_that_was_cut_off_says_again_what_it_keeps() {
    let mut lan = Lan::with(1);
    lan.run(7_000 * MS);
    let owner = lan.owner(vip(1));
    // Everybody else is gone for a while, which looks the same from inside.
    let others: Vec<u8> = (1..=3).filter(|n| *n != owner).collect();
    for n in &others {
        lan.cores.remove(n);
    }
    lan.run(8_000 * MS);
    let since = lan.now;
    for n in others {
        lan.cores
            .insert(n, core(n, world(1), &Saved::default(), since));
    }
    lan.run(300 * MS);
    assert_eq!(lan.owner(vip(1)), owner);
    assert!(lan.announced(owner, since) >= 2);
}
