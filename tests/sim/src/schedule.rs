//! Random fault schedules and what must hold after each.
//!
//! A schedule disturbs a running cluster for a while, then mends everything and
//! waits. Checked are
//!
//! 1. after the quiet time every VIP with a fit node has exactly one owner, all running
//!    speakers name the same one, and nothing has moved for a second;
//! 2. no accusation is wrong, on a third of the networks although they lose every 50th or 10th frame;
//! 3. with rebalancing the spread is even within one;
//! 4. nobody takes anything in the first instant after having been stopped.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::ms;
use crate::net::Quality;
use crate::rng::Rng;
use crate::world::{Fault, Setup, World};

/// When faults begin: the cluster has settled.
const CALM: Duration = ms(2_500);
/// How long faults go on.
const STORM: Duration = ms(6_000);
/// How long the cluster has to recover.
const QUIET: Duration = ms(4_000);
/// More of it for each VIP that may move to even the spread out.
const QUIET_PER_MOVE: Duration = ms(160);
/// The last part of the quiet time, in which nothing may move.
const STILL: Duration = ms(1_000);

/// The setup that a seed stands for.
pub fn setup(seed: u64) -> Setup {
    let mut rng = Rng::new(seed ^ 0x5e_70_9a);
    let jitter = [ms(0), ms(1), ms(5), ms(40)][rng.index(4)];
    Setup {
        seed,
        nodes: rng.pick(2..7) as usize,
        vips: [1, 2, 5, 12, 30, 130][rng.index(6)],
        quality: Quality {
            loss: [0, 0, 0, 20, 100][rng.index(5)],
            duplicates: [0, 0, 20][rng.index(3)],
            jitter,
            ..Quality::default()
        },
        rebalance: [None, None, Some(ms(150))][rng.index(3)],
        stagger: [ms(20), ms(300), ms(1_500)][rng.index(3)],
        ..Setup::default()
    }
}

/// Runs the schedule of `seed`.
///
/// # Errors
/// What did not hold, and the timeline of the run.
pub fn run(seed: u64) -> Result<World, String> {
    let mut world = World::new(setup(seed));
    storm(&mut world, &mut Rng::new(seed.wrapping_mul(0x9e37_79b9)));
    world.run_until(CALM + STORM + quiet(&world));
    match check(&world) {
        Ok(()) => Ok(world),
        Err(what) => Err(format!(
            "seed {seed}: {what}\n{}\nreplay: cargo run -p lightship-sim -- replay {seed}",
            world.watch.timeline()
        )),
    }
}

fn quiet(world: &World) -> Duration {
    let moves = if world.rebalances() {
        world.vips.len() as u32
    } else {
        0
    };
    QUIET + QUIET_PER_MOVE * moves
}

/// Plans faults, each with its end before the storm is over.
fn storm(world: &mut World, rng: &mut Rng) {
    let nodes = world.nodes.len();
    let faults = rng.pick(1..6);
    for _ in 0..faults {
        let from = CALM + rng.up_to(STORM - ms(200));
        let until = from + rng.up_to(CALM + STORM - from);
        let node = rng.index(nodes);
        let other = (node + 1 + rng.index(nodes - 1)) % nodes;
        let (begin, end) = match rng.pick(0..9) {
            0 => (Fault::Crash { node }, Fault::Boot { node }),
            1 => (Fault::KillSpeaker { node }, Fault::ResumeSpeaker { node }),
            2 => (Fault::Terminate { node }, Fault::StartSpeaker { node }),
            3 => (Fault::Pause { node }, Fault::Continue { node }),
            4 => (
                Fault::CanOwn {
                    node,
                    can_own: false,
                },
                Fault::CanOwn {
                    node,
                    can_own: true,
                },
            ),
            5 => (Fault::Partition { side: vec![node] }, Fault::Heal),
            6 => (
                Fault::Partition {
                    side: vec![node, other],
                },
                Fault::Heal,
            ),
            7 => (
                Fault::OneWay {
                    from: node,
                    to: other,
                },
                Fault::Heal,
            ),
            _ => (exclude(world, node), Fault::SetVips(world.vips.clone())),
        };
        world.at(from, begin);
        world.at(until, end);
    }
    // Faults overlap, so one's end may have come before another's begin.
    let end = CALM + STORM;
    world.at(end, Fault::Heal);
    world.at(end, Fault::SetVips(world.vips.clone()));
    for node in 0..nodes {
        world.at(end, Fault::Continue { node });
        world.at(
            end,
            Fault::CanOwn {
                node,
                can_own: true,
            },
        );
        world.at(end, Fault::Boot { node });
    }
}

/// Policy no longer allows `node`.
fn exclude(world: &World, node: usize) -> Fault {
    let mut vips = world.vips.clone();
    for candidates in vips.values_mut() {
        candidates.nodes.remove(&world.nodes[node].name);
    }
    Fault::SetVips(vips)
}

fn check(world: &World) -> Result<(), String> {
    one_owner_each(world)?;
    if let Some(last) = world.watch.moves.last()
        && last.at + STILL > world.now
    {
        return Err(format!("{} still moves at {:?}", last.vip, last.at));
    }
    let running = |(node, _): &(usize, usize)| world.nodes[*node].speaker.is_some();
    let load = world.load().into_iter().enumerate().filter(running);
    let load: Vec<usize> = load.map(|(_, load)| load).collect();
    let (most, least) = (load.iter().max(), load.iter().min());
    if world.rebalances() && most > least.map(|least| least + 1).as_ref() {
        return Err(format!("not balanced: {load:?}"));
    }
    if let Some(wrong) = world.watch.accusations.iter().find(|a| a.wrong) {
        return Err(format!("wrong accusation: {wrong:?}"));
    }
    if let Some(hasty) = &world.hasty {
        return Err(format!("{hasty} on waking, before hearing the others"));
    }
    Ok(())
}

/// Every VIP has exactly one claimant, and everybody knows.
pub fn one_owner_each(world: &World) -> Result<(), String> {
    for vip in world.vips.keys() {
        let claimants = world.claimants(vip);
        let [owner] = claimants[..] else {
            return Err(format!("{vip} is claimed by {claimants:?}"));
        };
        let owner = &world.nodes[owner].name;
        let named: BTreeSet<_> = names(world, vip);
        if named.iter().any(|named| named.as_deref() != Some(owner)) {
            return Err(format!(
                "{vip} is held by {owner}, but owner() says {named:?}"
            ));
        }
    }
    Ok(())
}

fn names(world: &World, vip: &IpAddr) -> BTreeSet<Option<String>> {
    let speakers = world.nodes.iter().filter_map(|node| node.speaker.as_ref());
    speakers
        .map(|speaker| {
            speaker
                .election
                .owner(vip)
                .map(|(node, _)| node.to_string())
        })
        .collect()
}
