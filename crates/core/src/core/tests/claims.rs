//! Claims that cross: moves while a director lags, claims of the same epoch, answers of a peer that was
//! not heard yet, and claims that are resumed while others stand.

use lightship_membership::{Heartbeat, Scope, decode};

use super::*;

/// So long after a defence the next one may follow.
const DEFENCE_IS_OVER: Duration = Duration::from_millis(1_100);

/// A heartbeat of `from` as it would be now, with these claims instead of its own.
fn beat(from: &mut Core, claims: &[(IpAddr, u64)]) -> Heartbeat {
    let datagram = from.heartbeat(false, false, None).remove(0);
    let mut beat = decode(&datagram, &keys()).unwrap();
    let claims = claims.iter().copied();
    let made = claims.clone().filter(|(_, epoch)| *epoch > 0);
    let digest = lightship_election::digest(made);
    beat.scope = beat.scope.map(|scope| Scope { digest, ..scope });
    beat.claims = claims
        .map(|(vip, epoch)| lightship_membership::Claim { vip, epoch })
        .collect();
    beat
}

#[test]
fn who_takes_a_vip_from_a_live_owner_answers_at_once_though_its_director_lags() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let owner = lan.owner(vip(1));
    let target = owner % 3 + 1;
    lan.slow_directors = true;
    let mut asked = (*world(1)).clone();
    asked.vips.get_mut(&vip(1)).unwrap().move_to = Some(name(target));
    // So that directors have something to do.
    let slices = asked.slices.iter_mut().flat_map(|(_, of)| of.values_mut());
    slices.for_each(|slice| drop(slice.ready.pop_first()));
    let (asked, now) = (Arc::new(asked), lan.now);
    for core in lan.cores.values_mut() {
        core.on_world(asked.clone(), now);
    }
    for _ in 0..40 {
        lan.run(5 * MS);
        let answers = |core: &Core| core.owned.get(&vip(1)).is_some_and(|owned| owned.announced);
        assert!(lan.cores.values().any(answers), "at {:?}", lan.now);
    }
    assert_eq!(lan.owner(vip(1)), target);
    assert!(lan.directors[&target].revision > 1);
}

#[test]
fn a_fresh_speaker_claims_nothing_before_its_director_has_its_first_table() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let owner = lan.owner(vip(1));
    let target = owner % 3 + 1;
    let mut asked = (*world(1)).clone();
    asked.vips.get_mut(&vip(1)).unwrap().pin_to = Some(name(target));
    let asked = Arc::new(asked);
    lan.cores.remove(&target);
    lan.slow_directors = true;
    let fresh = core(target, asked.clone(), &Saved::default(), lan.now);
    lan.cores.insert(target, fresh);
    let now = lan.now;
    for core in lan.cores.values_mut() {
        core.on_world(asked.clone(), now);
    }
    lan.run(300 * MS);
    assert_eq!(lan.owner(vip(1)), owner);
    let intent = lan.directors[&target].clone();
    let report = DirectorReport {
        healthy: true,
        applied: intent.revision,
        programmed: intent.vips.clone(),
        ..DirectorReport::default()
    };
    lan.cores.get_mut(&target).unwrap().on_director(report);
    lan.run(20 * MS);
    assert_eq!(lan.owner(vip(1)), target);
}

#[test]
fn a_claim_of_the_same_epoch_is_answered_by_who_keeps_the_vip() {
    let mut lan = Lan::with(8);
    lan.run(10_000 * MS);
    let mut kept = 0;
    for n in 1..=8 {
        let owner = lan.owner(vip(n));
        let rival = owner % 3 + 1;
        let epoch = lan.cores[&owner].owned[&vip(n)].epoch;
        let beat = beat(lan.cores.get_mut(&rival).unwrap(), &[(vip(n), epoch)]);
        let (now, core) = (lan.now, lan.cores.get_mut(&owner).unwrap());
        core.on_heartbeat(address(rival), &beat, now);
        core.tick(now);
        let outputs = core.outputs();
        lan.carry(owner, outputs);
        if lan.cores[&owner].owned.contains_key(&vip(n)) {
            kept += 1;
            assert!(lan.announced(owner, now) > 0, "{}", vip(n));
        }
        lan.run(3_000 * MS);
    }
    assert!(kept > 0);
}

#[test]
fn who_claims_a_vip_again_in_the_same_words_is_answered_again() {
    let mut lan = Lan::with(1);
    lan.run(10_000 * MS);
    let owner = lan.owner(vip(1));
    let rival = owner % 3 + 1;
    let mut now = lan.now;
    let mut said = Vec::new();
    for _ in 0..2 {
        now += DEFENCE_IS_OVER;
        let beat = beat(lan.cores.get_mut(&rival).unwrap(), &[(vip(1), 1)]);
        let core = lan.cores.get_mut(&owner).unwrap();
        core.on_heartbeat(address(rival), &beat, now);
        said.push(core.peers[&name(rival)].content);
        assert_eq!(core.defended.get(&vip(1)), Some(&now));
    }
    assert!(said[0].is_some() && said[0] == said[1]);
}

#[test]
fn what_a_peer_said_is_looked_at_again_when_the_world_is_another_one() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let core = lan.cores.get_mut(&1).unwrap();
    let said = |core: &Core| core.peers.values().any(|peer| peer.content.is_some());
    assert!(said(core));
    core.on_world(world(2), lan.now);
    assert!(!said(core));
}

#[test]
fn what_answers_before_its_first_heartbeat_is_no_stranger_once_it_is_heard() {
    let mut lan = Lan::with(1);
    lan.cores.retain(|n, _| *n == 1);
    // The others are not there, so it takes the VIP, and asks the LAN first.
    while lan.cores[&1].owned.is_empty() {
        lan.run(5 * MS);
    }
    let IpAddr::V4(address_of_vip) = vip(1) else {
        unreachable!()
    };
    let answer = lightship_frames::arp::gratuitous_reply(director(2), address_of_vip);
    let (now, first) = (lan.now, lan.cores.get_mut(&1).unwrap());
    first.on_frame(&Via::Main, &answer, now);
    assert!(first.conflicts.foreign(vip(1)).is_some());
    let mut late = core(2, world(1), &Saved::default(), now);
    first.on_heartbeat(address(2), &beat(&mut late, &[]), now);
    assert_eq!(first.conflicts.foreign(vip(1)), None);
    lan.run(100 * MS);
    assert!(lan.announced(1, now) > 0);
}

#[test]
fn a_resumed_claim_is_announced_at_once_where_a_lower_one_stood_meanwhile() {
    for (theirs, said) in [(None, false), (Some(6), true)] {
        let saved = Saved {
            claims: [(vip(1), 7)].into(),
            ..Saved::default()
        };
        let mut lan = Lan::with(1);
        lan.cores.remove(&1);
        let back = core(1, world(1), &saved, lan.now);
        lan.cores.insert(1, back);
        let claims = theirs.map(|epoch| (vip(1), epoch));
        let beat = beat(lan.cores.get_mut(&2).unwrap(), claims.as_slice());
        let now = lan.now;
        let core = lan.cores.get_mut(&1).unwrap();
        core.tick(now);
        core.on_heartbeat(address(2), &beat, now);
        lan.run(90 * MS);
        assert_eq!(lan.owner(vip(1)), 1);
        assert_eq!(lan.announced(1, now) > 0, said, "{theirs:?}");
    }
}

#[test]
fn one_late_heartbeat_of_each_peer_is_no_minority_but_silence_is_before_anyone_is_given_up() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    // The world comes anew, so that the core looks at everything.
    let majority = |lan: &mut Lan| {
        let (now, core) = (lan.now, lan.cores.get_mut(&1).unwrap());
        core.on_world(world(1), now);
        core.tick(now);
        core.majority
    };
    lan.cut = Some(1);
    let suspects = |lan: &Lan| {
        let state = |n| lan.cores[&1].detector.state(&name(n));
        [2, 3].iter().all(|n| state(*n) == PeerState::Suspect)
    };
    while !suspects(&lan) {
        lan.run(5 * MS);
    }
    assert!(majority(&mut lan));
    lan.run(80 * MS);
    assert!(suspects(&lan) && !majority(&mut lan));
    lan.cut = None;
    lan.run(100 * MS);
    assert!(lan.cores[&1].majority, "looked at again without being told");
}

#[test]
fn a_speaker_that_wakes_says_anew_what_another_announced_and_took_to_its_grave() {
    let mut lan = Lan::with(1);
    lan.run(8_000 * MS);
    let owner = lan.owner(vip(1));
    let stopped = lan.cores.remove(&owner).unwrap();
    // Its kernel lives, and its speaker does not.
    lan.kernels.insert(owner);
    lan.run(600 * MS);
    let taker = lan.owner(vip(1));
    assert!(lan.announced(taker, lan.now - 600 * MS) > 0);
    lan.cores.remove(&taker);
    lan.kernels.remove(&owner);
    lan.cores.insert(owner, stopped);
    let since = lan.now;
    lan.run(1_000 * MS);
    let last = lan.owner(vip(1));
    assert!(
        lan.announced(last, since) > 0,
        "clients go on asking {taker}"
    );
}

#[test]
fn the_end_of_a_rivals_claim_is_answered_once_also_soon_after_the_claim_was() {
    let mut lan = Lan::with(1);
    lan.run(10_000 * MS);
    let owner = lan.owner(vip(1));
    let rival = owner % 3 + 1;
    let start = lan.now;
    let mut at = |after: u32, ended: bool| {
        let yielded = beat(lan.cores.get_mut(&rival).unwrap(), &[(vip(1), 0)]);
        let core = lan.cores.get_mut(&owner).unwrap();
        let now = start + after * MS;
        if ended {
            core.on_heartbeat(address(rival), &yielded, now);
        }
        core.tick(now);
        let outputs = core.outputs();
        let frames = outputs.iter().filter(|o| matches!(o, Output::Frame(..)));
        frames.count() > 0
    };
    assert!(at(0, true), "what a claim is answered by begins");
    assert!(at(550, false), "and goes on");
    assert!(at(600, true), "it ends: begun anew");
    assert!(!at(670, true), "told again");
    assert!(at(700, false), "goes on again");
}

#[test]
fn who_yields_a_vip_says_so_for_three_heartbeats_and_the_owner_wins_the_last_clients_back() {
    let mut lan = Lan::with(1);
    lan.run(10_000 * MS);
    let owner = lan.owner(vip(1));
    let rival = owner % 3 + 1;
    let epoch = lan.cores[&owner].owned[&vip(1)].epoch;
    // Another one has had it for long, and this one hears of it only now.
    let higher = beat(lan.cores.get_mut(&rival).unwrap(), &[(vip(1), epoch + 2)]);
    let (now, core) = (lan.now, lan.cores.get_mut(&owner).unwrap());
    core.on_heartbeat(address(rival), &higher, now);
    core.tick(now);
    assert!(!core.owned.contains_key(&vip(1)));
    let (mut told, mut last) = (0, now);
    let mut at = now;
    while at < now + 1_000 * MS {
        core.tick(at);
        for output in core.outputs() {
            if let Output::Heartbeat(to, datagram) = output
                && to == address(rival)
            {
                let claims = decode(&datagram, &keys()).unwrap().claims;
                if claims.iter().any(|c| c.vip == vip(1) && c.epoch == 0) {
                    (told, last) = (told + 1, at);
                }
            }
        }
        at += 5 * MS;
    }
    assert!(told >= 3 && last < now + core.setup.interval * 3, "{told}");

    // To the owner it is a claim below its own, and to everybody else none.
    let mut lan = Lan::with(1);
    lan.run(10_000 * MS);
    let owner = lan.owner(vip(1));
    for (n, says) in [(owner, true), (owner % 3 + 1, false)] {
        let from = (1..=3)
            .find(|other| *other != owner && *other != n)
            .unwrap();
        let yielded = beat(lan.cores.get_mut(&from).unwrap(), &[(vip(1), 0)]);
        let (now, core) = (lan.now, lan.cores.get_mut(&n).unwrap());
        core.on_heartbeat(address(from), &yielded, now);
        core.tick(now);
        let outputs = core.outputs();
        assert_eq!(core.owner(&vip(1)), Some(name(owner)));
        lan.carry(n, outputs);
        assert_eq!(lan.announced(n, now) > 0, says, "node{n}");
    }
}

/// A watch brings the two VIPs of a Service one after the other, and not to all at the same moment: two nodes
/// may take one of them with equal claims. Who follows the one that kept it follows that one, and not nobody.
#[test]
fn who_follows_the_winner_of_two_first_claims_says_so() {
    let mut ties = 0;
    for (odd, first) in (1..=3).flat_map(|odd| [(odd, 1), (odd, 2)]) {
        let mut lan = Lan::with(0);
        lan.run(1_000 * MS);
        let mut half = World::clone(&world(2));
        half.vips.remove(&vip(3 - first));
        let mut said = Vec::new();
        for (n, core) in &mut lan.cores {
            let known = if *n == odd {
                half.clone()
            } else {
                World::clone(&world(2))
            };
            core.on_world(Arc::new(known), lan.now);
            core.tick(lan.now);
            said.push((*n, core.outputs()));
        }
        let takers = |lan: &Lan, vip| -> Vec<u8> {
            let takes = lan
                .cores
                .iter()
                .filter(|(_, core)| core.owned.contains_key(&vip));
            takes.map(|(n, _)| *n).collect()
        };
        let twice = [vip(1), vip(2)].map(|vip| takers(&lan, vip).len() == 2);
        let twice = (0..2).find(|at| twice[*at]).map(|at| vip(1 + at as u8));
        for (n, outputs) in said {
            lan.carry(n, outputs);
        }
        let now = lan.now;
        lan.cores.get_mut(&odd).unwrap().on_world(world(2), now);
        lan.run(2_000 * MS);
        let Some(tied) = twice else {
            continue;
        };
        ties += 1;
        let before = lan.owner(tied);
        lan.cores.remove(&before);
        lan.run(2_000 * MS);
        let moved = lan.reports[&lan.owner(tied)].vips[&tied].moved.clone();
        let moved = moved.map(|moved| (moved.from, moved.reason));
        let expected = (Some(name(before)), "OwnerDied".to_owned());
        assert_eq!(moved, Some(expected), "{tied}, {odd} knew {first} alone");
    }
    assert!(ties > 0, "no two nodes took the same");
}
