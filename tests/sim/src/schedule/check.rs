//! What must hold after a schedule.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lightship_election::{DEFAULT_PATIENCE, MoveReason};

use crate::ms;
use crate::world::{Setup, World};

/// On a network that loses nothing, two nodes that answer for one VIP are down to one. That takes
/// two heartbeats (`scenarios.rs` holds it to that), but half a second more if the one that has to
/// yield is leaving: its successor's claim stays weak for so long after a partition.
const SINGLE: Duration = ms(800);
/// The same where every tenth frame is lost: a claim gets through within a few heartbeats.
const SINGLE_LOSSY: Duration = ms(1_500);

/// The last part of the quiet time, in which nothing may move.
pub(super) const STILL: Duration = ms(1_000);

/// Every VIP is answered this long after the last fault: a fresh speaker listens, twice
/// a node may wait for another that was chosen, and a director may be waited for.
fn answered(setup: &Setup) -> Duration {
    let listens = setup.noticed() + setup.config.interval;
    listens + setup.round() + DEFAULT_PATIENCE * 2 + ms(100) + setup.director_delay
}

/// How long the cluster has to recover.
pub(super) fn quiet(world: &World) -> Duration {
    answered(world.setup()) + STILL + ms(100)
}

/// All that must hold now, the last fault having been at `end`.
pub(super) fn all(world: &World, end: Duration) -> Result<(), String> {
    if let Some(wrong) = &world.wrong {
        return Err(wrong.clone());
    }
    if let Some(wrong) = world.watch.accusations.iter().find(|a| a.wrong) {
        return Err(format!("wrong accusation: {wrong:?}"));
    }
    recovered(world, end)?;
    if let Some(last) = world.watch.moves.last()
        && last.at + STILL > world.now
    {
        return Err(format!("{} still moves at {:?}", last.vip, last.at));
    }
    one_owner_each(world)?;
    clients_know(world)?;
    even(world)
}

/// With rebalancing no node has two VIPs more than another.
fn even(world: &World) -> Result<(), String> {
    if world.setup().rebalance.is_none() {
        return Ok(());
    }
    // A node that was given up once is given nothing for a minute, and as long as it is the best place
    // for the next VIP in the eyes of one that does not know that, neither is any other.
    if !world.watch.accusations.is_empty() {
        return Ok(());
    }
    let running = |(node, _): &(usize, usize)| world.nodes[*node].speaker.is_some();
    let load = world.load().into_iter().enumerate().filter(running);
    let load: Vec<usize> = load.map(|(_, load)| load).collect();
    match (load.iter().max(), load.iter().min()) {
        (Some(most), Some(least)) if *most > least + 1 => Err(format!("not balanced: {load:?}")),
        _ => Ok(()),
    }
}

/// What must hold from the last fault on.
fn recovered(world: &World, end: Duration) -> Result<(), String> {
    let watch = &world.watch;
    let bound = answered(world.setup());
    let late = |until: Option<Duration>| until.is_none_or(|until| until > end + bound);
    if let Some(outage) = watch.outages.iter().find(|o| late(o.until)) {
        return Err(format!("nobody answers for long: {outage:?}"));
    }
    let single = if world.setup().quality.loss > 0 {
        SINGLE_LOSSY
    } else {
        SINGLE
    } + world.setup().round();
    let lasting = watch.doubles.iter().find(|double| {
        // Moves overlap on purpose, so what counts is how long since it began or the fault ended.
        let since = double.from.max(end);
        double.until.unwrap_or(world.now) > since + single
    });
    if let Some(double) = lasting {
        return Err(format!("several answer for long: {double:?}"));
    }
    let mut moves: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
    for moved in watch.moves.iter().filter(|m| m.at > end + bound) {
        if moved.reason != MoveReason::Rebalanced {
            return Err(format!("moves long after the last fault: {moved:?}"));
        }
        let owners = moves.entry(moved.vip).or_default();
        if owners.contains(&moved.node) {
            return Err(format!("moves to and fro: {moved:?}"));
        }
        owners.push(moved.node);
    }
    Ok(())
}

/// Every VIP has exactly one claimant, which alone answers for it, and all speakers know.
///
/// # Errors
/// The first VIP of which that is not so.
pub fn one_owner_each(world: &World) -> Result<(), String> {
    for vip in world.api.vips.keys() {
        let claimants = world.claimants(vip);
        let [owner] = claimants[..] else {
            return Err(format!("{vip} is claimed by {claimants:?}"));
        };
        let answering = world.watch.answering(vip).map(|(node, _)| node);
        let answering: Vec<usize> = answering.filter(|n| world.nodes[*n].serving()).collect();
        if answering != [owner] {
            return Err(format!(
                "{vip} is claimed by {owner}, but {answering:?} answer for it"
            ));
        }
        let owner = &world.nodes[owner].name;
        for speaker in world.nodes.iter().filter_map(|node| node.speaker.as_ref()) {
            let named = speaker.core.owner(vip);
            if named.as_ref() != Some(owner) {
                return Err(format!(
                    "{vip} is held by {owner}, but owner() says {named:?}"
                ));
            }
        }
    }
    Ok(())
}

/// The clients beside every node send each VIP's packets to its owner: what they heard last is what it
/// answers.
///
/// # Errors
/// The first VIP of which that is not so.
pub fn clients_know(world: &World) -> Result<(), String> {
    for vip in world.api.vips.keys() {
        for (owner, _) in world.watch.answering(vip) {
            let mac = world.watch.mac(vip, owner);
            for (node, cache) in world.watch.caches.iter().enumerate() {
                let known = cache.get(vip).copied();
                if known != mac {
                    let owner = &world.nodes[owner].name;
                    let there = &world.nodes[node].name;
                    return Err(format!(
                        "{vip} is at {owner}, {mac:?}, but clients beside {there} were told {known:?} last"
                    ));
                }
            }
        }
    }
    Ok(())
}
