//! One speaker that holds VIPs of several pages, and what another one makes of its heartbeats on a network that
//! loses, delays and doubles them, while claims come, go and are raised, and the speaker restarts.

use lightship_membership::graph::{Graph, Shape};

use super::large::{at, beat_of, large_world, node, outputs, saying};
use super::*;

/// A sequence of numbers that look random.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// The number of the speaker that holds the VIPs, and of the one that listens and may own none.
const HOLDER: u16 = 0;
const LISTENER: u16 = 1;

/// Of so many nodes the listener is not one of those that watch the holder, and hears it seldom.
fn many() -> u16 {
    let distant = |nodes: &u16| {
        let names = (0..*nodes).map(node).collect();
        !Graph::new(&Shape::DEFAULT, &node(HOLDER), &names).watched_by(&node(LISTENER))
    };
    (80..500).find(distant).unwrap()
}

struct Pair {
    chance: Chance,
    now: Duration,
    holder: Core,
    listener: Core,
    /// All VIPs that there ever are.
    all: Arc<World>,
    /// On their way: when they arrive, from whom.
    flying: Vec<(Duration, u16, Arc<[u8]>)>,
    /// No datagram arrives before.
    deaf_until: [Duration; 2],
    /// One in so many is lost; none: no frame is lost, delayed or doubled.
    loss: Option<u64>,
    /// Of each VIP that the holder claims, its last heartbeat before it did, and whether a later one has come
    /// and the listener knew of the claim.
    held: BTreeMap<IpAddr, ((u64, u64), bool)>,
    sent: u64,
}

impl Pair {
    fn new(seed: u64, nodes: u16, vips: usize) -> Self {
        let mut all = World::clone(&large_world(nodes));
        let more: Vec<IpAddr> = all.vips.keys().skip(vips).copied().collect();
        for vip in more {
            all.vips.remove(&vip);
        }
        let all = Arc::new(all);
        let none = Saved::default();
        let [holder, mut listener] =
            [HOLDER, LISTENER].map(|n| core(n as u8, all.clone(), &none, Duration::ZERO));
        let cut = UplinkState {
            carrier: false,
            ..UplinkState::FINE
        };
        listener.on_uplink(cut, Duration::ZERO);
        Pair {
            chance: Chance(seed),
            now: Duration::ZERO,
            holder,
            listener,
            all,
            flying: Vec::new(),
            deaf_until: [Duration::ZERO; 2],
            loss: None,
            held: BTreeMap::new(),
            sent: 0,
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.deliver();
            self.holder.tick(self.now);
            let said = outputs(&mut self.holder);
            self.carry(HOLDER, said);
            self.listener.tick(self.now);
            let said = self.listener.outputs();
            self.carry(LISTENER, said);
            self.look();
            self.now += 5 * MS;
        }
    }

    fn carry(&mut self, from: u16, outputs: Vec<Output>) {
        let other = at(HOLDER + LISTENER - from);
        for output in outputs {
            let Output::Heartbeat(to, datagram) = output else {
                continue;
            };
            if to != other {
                continue;
            }
            self.sent += u64::from(from == HOLDER);
            let Some(loss) = self.loss else {
                self.flying.push((self.now, from, datagram));
                continue;
            };
            if self.chance.one_in(50) {
                self.flying
                    .push((self.now + 30 * MS, from, datagram.clone()));
            }
            if !self.chance.one_in(loss) {
                let late = MS * self.chance.below(25) as u32;
                self.flying.push((self.now + late, from, datagram));
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let mut due: Vec<_> = self.flying.extract_if(.., |(at, ..)| *at <= now).collect();
        if self.loss.is_some() {
            // They overtake each other.
            for n in 0..due.len() {
                let other = self.chance.below(due.len() as u64) as usize;
                due.swap(n, other);
            }
        }
        for (_, from, datagram) in due {
            let to = usize::from(HOLDER + LISTENER - from);
            if self.now < self.deaf_until[to] {
                continue;
            }
            let core = match from {
                HOLDER => &mut self.listener,
                _ => &mut self.holder,
            };
            core.on_datagram(at(from), &datagram, self.now);
            // Before and after each datagram, so that nothing is made good unseen.
            self.look();
        }
    }

    /// What the listener knows of the holder's claims.
    fn known(&self, vip: &IpAddr) -> bool {
        let mut claimants = self.listener.election.claimants(vip);
        claimants.any(|name| *name == node(HOLDER))
    }

    /// Nothing that is claimed all the time may be known and then unknown.
    fn look(&mut self) {
        let claims = self.holder.claims();
        let claimed: BTreeSet<IpAddr> = claims.iter().map(|claim| claim.vip).collect();
        self.held.retain(|vip, _| claimed.contains(vip));
        let last = (self.holder.setup.boot_id, self.holder.counter);
        let mut newest = self.listener.guard.newest();
        let heard = newest
            .find(|(name, _)| **name == node(HOLDER))
            .map(|(_, heard)| heard);
        for vip in claimed {
            let known = self.known(&vip);
            let (before, was_known) = self.held.get(&vip).copied().unwrap_or((last, false));
            assert!(known || !was_known, "{vip} at {:?}", self.now);
            let known = known && heard > Some(before);
            self.held.insert(vip, (before, known));
        }
    }

    /// Does the listener know just what the holder claims?
    fn agrees(&self) -> bool {
        let claims = self.holder.claims();
        let claims: BTreeMap<IpAddr, u64> = claims.iter().map(|c| (c.vip, c.epoch)).collect();
        self.all.vips.keys().all(|vip| {
            let owner = self.listener.election.owner(vip);
            owner.map(|(_, epoch)| epoch) == claims.get(vip).copied()
        })
    }

    /// Until the listener knows just what the holder claims.
    fn agree(&mut self) -> Duration {
        let start = self.now;
        while !self.agrees() {
            assert!(self.now < start + Duration::from_secs(30), "never");
            self.run(5 * MS);
        }
        self.now - start
    }

    /// Some VIPs come or go.
    fn change(&mut self, at_once: u64) {
        let mut world = World::clone(&self.holder.world);
        for _ in 0..1 + self.chance.below(at_once) {
            let n = self.chance.below(self.all.vips.len() as u64) as usize;
            let (vip, what) = self.all.vips.iter().nth(n).unwrap();
            if world.vips.remove(vip).is_none() {
                world.vips.insert(*vip, what.clone());
            }
        }
        let now = self.now;
        self.holder.on_world(Arc::new(world), now);
    }

    /// A node that may own nothing claims one of the VIPs above the holder, which raises its claim.
    fn top(&mut self) {
        let claims = self.holder.claims();
        let Some(claim) = claims.get(self.chance.below(claims.len().max(1) as u64) as usize) else {
            return;
        };
        let claims = vec![lightship_membership::Claim {
            vip: claim.vip,
            epoch: claim.epoch + 2,
        }];
        let mut beat = saying(2, 1 + self.now.as_millis() as u64, claims);
        beat.flags.can_own = false;
        let now = self.now;
        self.holder.on_heartbeat(at(2), &beat, now);
    }

    /// The holder's speaker restarts, with what it knew, or without.
    fn restart(&mut self) {
        let mut saved = Saved::default();
        if !self.chance.one_in(3) {
            self.holder.save(&mut saved);
        }
        let world = self.holder.world.clone();
        self.holder = core(HOLDER as u8, world, &saved, self.now);
        self.held.clear();
    }
}

fn random_history(seed: u64, nodes: u16, vips: usize) {
    let mut pair = Pair::new(seed, nodes, vips);
    pair.run(1_000 * MS);
    assert_eq!(pair.holder.owned.len(), vips);
    pair.loss = Some(10);
    for _ in 0..60 {
        match pair.chance.below(20) {
            0..=11 => pair.change(3),
            12..=13 => pair.change(vips as u64),
            14..=16 => pair.top(),
            17 => {
                let side = pair.chance.below(2) as usize;
                let time = MS * (100 + pair.chance.below(1_500)) as u32;
                pair.deaf_until[side] = pair.now + time;
            }
            18 => pair.restart(),
            _ => pair.run(1_000 * MS),
        }
        let time = MS * (5 * pair.chance.below(40)) as u32;
        pair.run(time);
    }
    // Whatever was lost: once nothing is, a heartbeat and an answer are enough, after the pause between questions.
    pair.loss = None;
    pair.deaf_until = [pair.now; 2];
    // What a node that is back from the dead or new takes is not over yet.
    let round = pair.listener.setup.interval * pair.holder.rota.round();
    pair.run(1_000 * MS);
    let time = pair.agree();
    assert!(time <= round + 500 * MS, "after {time:?}");
    assert!(
        pair.listener
            .refused()
            .keys()
            .all(|why| ["stale", "replayed", "old_boot"].contains(why))
    );
}

#[test]
fn what_a_node_claims_all_the_time_is_never_taken_for_gone_and_in_the_end_all_is_known() {
    for seed in 0..10 {
        random_history(seed, 3, 150);
    }
}

#[test]
fn so_it_is_in_a_large_cluster() {
    for seed in 0..5 {
        random_history(seed, many(), 150);
    }
}

/// A listener that hears nothing while a claim changes, and not so long that anybody is given up, has the rest of
/// the heartbeats tell it.
#[test]
fn who_missed_all_heartbeats_with_a_change_asks_for_the_claims() {
    for nodes in [3, many()] {
        let mut pair = Pair::new(1, nodes, 900);
        pair.run(1_500 * MS);
        assert!(pair.agrees() && pair.holder.pages > 20);
        let heard = pair.sent;
        for _ in 0..5 {
            pair.deaf_until[usize::from(LISTENER)] = pair.now + 215 * MS;
            pair.change(1);
            pair.run(215 * MS);
            assert!(!pair.agrees());
            let round = pair.listener.setup.interval * pair.holder.rota.round();
            let time = pair.agree();
            assert!(time <= round + 10 * MS, "{nodes} nodes: {time:?}");
            pair.run(1_000 * MS);
        }
        // Among few the listener also looks whether the holder lives, some times, and is answered each time. Else
        // it is a heartbeat in each round, those with news, and one answer.
        let most = if nodes == 3 { 5 * 120 } else { 5 * 40 };
        let sent = pair.sent - heard;
        assert!(sent < most, "{nodes} nodes: {sent}");
        let state = pair.listener.detector.state(&node(HOLDER));
        assert_eq!(state, PeerState::Alive);
    }
}

/// During an upgrade: a speaker of a release that knows no scope hears the pages of one that does.
#[test]
fn a_release_that_knows_no_scope_goes_on_to_know_all_claims_and_forgets_what_has_ended() {
    let mut pair = Pair::new(1, 3, 150);
    let old = |datagram: &[u8]| {
        let mut beat = lightship_membership::decode(datagram, &keys()).unwrap();
        beat.scope = None;
        beat
    };
    let mut ms = 0;
    for change in 0..20 {
        for _ in 0..300 {
            let now = MS * 5 * ms;
            ms += 1;
            pair.holder.tick(now);
            for output in outputs(&mut pair.holder) {
                if let Output::Heartbeat(to, datagram) = output
                    && to == at(LISTENER)
                {
                    pair.listener.on_heartbeat(at(HOLDER), &old(&datagram), now);
                    pair.look();
                }
            }
            pair.listener.tick(now);
            pair.listener.outputs();
            let mut beat = beat_of(LISTENER, u64::from(ms) + 1);
            (beat.flags.can_own, beat.claims) = (false, Vec::new());
            pair.holder.on_heartbeat(at(LISTENER), &beat, now);
        }
        assert!(pair.agrees() && pair.holder.pages > 2, "change {change}");
        pair.now = MS * 5 * ms;
        pair.change(3);
    }
}
