//! Random fault schedules and what must hold after each.
//!
//! A schedule disturbs a running cluster for a while, then mends everything and
//! waits. Checked are
//!
//! 1. after the quiet time every VIP with a fit node has exactly one owner, all running
//!    speakers name the same one, and nothing has moved for a second;
//! 2. no accusation is wrong, on a third of the networks although they lose every 50th or 10th frame;
//! 3. with rebalancing the spread is even within one;
//! 4. nobody takes anything in the first instant after having been stopped;
//! 5. after the last fault every VIP is answered within the bound, and soon by one node only;
//! 6. after that nothing moves but to even the spread out, and no VIP moves to and fro;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lightship_election::MoveReason;

use crate::ms;
use crate::net::Quality;
use crate::rng::Rng;
use crate::world::{Fault, Setup, World};

/// Every VIP is answered this long after the last fault: a fresh speaker listens for 1 s, and twice
/// a node may wait 0.5 s for another that was chosen.
const ANSWERED: Duration = ms(2_200);
/// On a network that loses nothing, two nodes that answer for one VIP are down to one. That takes
/// two heartbeats (`scenarios.rs` holds it to that), but half a second more if the one that has to
/// yield is leaving: its successor's claim stays weak for so long after a partition.
const SINGLE: Duration = ms(800);
/// The same where every tenth frame is lost: a claim gets through within a few heartbeats.
const SINGLE_LOSSY: Duration = ms(1_500);

/// When faults begin, after the last node started: the others have settled. Without loss, that one has too.
const CALM: Duration = ms(600);
/// How long faults go on.
const STORM: Duration = ms(4_000);
/// How long the cluster has to recover.
const QUIET: Duration = ms(3_300);
/// More of it for each VIP that may move to even the spread out.
const QUIET_PER_MOVE: Duration = ms(160);
/// The last part of the quiet time, in which nothing may move.
const STILL: Duration = ms(1_000);

/// The setup that a seed stands for.
pub fn setup(seed: u64) -> Setup {
    let mut rng = Rng::new(seed ^ 0x5e_70_9a);
    let jitter = [ms(0), ms(1), ms(5), ms(40)][rng.index(4)];
    // Claims that fill several datagrams cost the most time and matter to few of the rules.
    let vips = match rng.pick(0..40) {
        0 => 130,
        few => [1, 2, 5, 12, 30][few as usize % 5],
    };
    Setup {
        seed,
        nodes: rng.pick(2..7) as usize,
        vips,
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
pub fn run(seed: u64) -> Result<(), String> {
    let Err(what) = play(&mut World::new(setup(seed)), seed) else {
        return Ok(());
    };
    // A run is the same every time: only of one that fails is the timeline of use.
    let timeline = tell(seed).watch.timeline();
    Err(format!(
        "seed {seed}: {what}\n{timeline}\nreplay: cargo run -p lightship-sim -- replay {seed}"
    ))
}

/// Runs the schedule of `seed` and keeps its timeline, whatever comes of it.
pub fn tell(seed: u64) -> World {
    let mut world = World::new(setup(seed));
    world.watch.tell();
    let _ = play(&mut world, seed);
    world
}

fn play(world: &mut World, seed: u64) -> Result<(), String> {
    let calm = calm(world);
    let end = calm + STORM;
    storm(world, &mut Rng::new(seed.wrapping_mul(0x9e37_79b9)), calm);
    world.run_until(end + QUIET);
    // Evening the spread out takes a pause for each move; it is given that, but no more than it needs.
    let latest = end + quiet(world);
    while check(world, end).is_err() && world.now < latest {
        world.run_until((world.now + STILL / 4).min(latest));
    }
    check(world, end)
}

/// Runs the schedules of all `seeds` on as many threads as there are processors.
///
/// # Errors
/// As [`run`], for the first seed that was found to fail.
pub fn run_all(seeds: std::ops::Range<u64>) -> Result<(), String> {
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if let Err(what) = run(seed) {
                        next.store(seeds.end, Ordering::Relaxed);
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.get_or_insert(what);
                        return;
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    failed
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}

fn calm(world: &World) -> Duration {
    world.stagger() + CALM
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
fn storm(world: &mut World, rng: &mut Rng, calm: Duration) {
    let nodes = world.nodes.len();
    let faults = rng.pick(1..6);
    for _ in 0..faults {
        let from = calm + rng.up_to(STORM - ms(200));
        let until = from + rng.up_to(calm + STORM - from);
        let node = rng.index(nodes);
        let other = (node + 1 + rng.index(nodes - 1)) % nodes;
        let (begin, end) = match rng.pick(0..12) {
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
            8 => (exclude(world, node), Fault::SetVips(world.vips.clone())),
            9 => (drain(world, node), Fault::SetVips(world.vips.clone())),
            10 => (pin(world, node), Fault::SetVips(world.vips.clone())),
            _ => (
                Fault::Partition {
                    side: (0..nodes).filter(|n| n % 2 == 0).collect(),
                },
                Fault::Heal,
            ),
        };
        world.at(from, begin);
        world.at(until, end);
    }
    // Faults overlap, so one's end may have come before another's begin.
    let end = calm + STORM;
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
        Arc::make_mut(&mut candidates.nodes).remove(&world.nodes[node].name);
    }
    Fault::SetVips(vips)
}

/// `node` is to be avoided.
fn drain(world: &World, node: usize) -> Fault {
    let mut vips = world.vips.clone();
    for candidates in vips.values_mut() {
        Arc::make_mut(&mut candidates.avoid).insert(world.nodes[node].name.clone());
    }
    Fault::SetVips(vips)
}

/// Every third VIP is wanted on `node`.
fn pin(world: &World, node: usize) -> Fault {
    let mut vips = world.vips.clone();
    for candidates in vips.values_mut().step_by(3) {
        candidates.wanted = Some(world.nodes[node].name.clone());
    }
    Fault::SetVips(vips)
}

fn check(world: &World, end: Duration) -> Result<(), String> {
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
    recovered(world, end)?;
    one_owner_each(world)?;
    if let Some(hasty) = &world.hasty {
        return Err(format!("{hasty} on waking, before hearing the others"));
    }
    Ok(())
}

/// What must hold from the last fault on.
fn recovered(world: &World, end: Duration) -> Result<(), String> {
    let watch = &world.watch;
    let late = |until: Option<Duration>, bound| until.is_none_or(|until| until > end + bound);
    if let Some(outage) = watch.outages.iter().find(|o| late(o.until, ANSWERED)) {
        return Err(format!("nobody answers for long: {outage:?}"));
    }
    let bound = if world.loses() { SINGLE_LOSSY } else { SINGLE };
    let lasting = watch.doubles.iter().find(|double| {
        // Moves overlap on purpose, so what counts is how long since it began or the fault ended.
        let since = double.from.max(end);
        double.until.unwrap_or(world.now) > since + bound
    });
    if let Some(double) = lasting {
        return Err(format!("several answer for long: {double:?}"));
    }
    let mut moves: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
    for moved in watch.moves.iter().filter(|m| m.at > end + ANSWERED) {
        if moved.reason != MoveReason::Rebalanced {
            return Err(format!("moves without cause: {moved:?}"));
        }
        let owners = moves.entry(moved.vip).or_default();
        if owners.contains(&moved.node) {
            return Err(format!("moves to and fro: {moved:?}"));
        }
        owners.push(moved.node);
    }
    Ok(())
}

/// Every VIP has exactly one claimant, and everybody knows.
///
/// # Errors
/// The first VIP of which that is not so.
pub fn one_owner_each(world: &World) -> Result<(), String> {
    for vip in world.vips.keys() {
        let claimants = world.claimants(vip);
        let [owner] = claimants[..] else {
            return Err(format!("{vip} is claimed by {claimants:?}"));
        };
        let owner = &world.nodes[owner].name;
        for speaker in world.nodes.iter().filter_map(|node| node.speaker.as_ref()) {
            let named = speaker.election.owner(vip).map(|(node, _)| node);
            if named.as_ref() != Some(owner) {
                return Err(format!(
                    "{vip} is held by {owner}, but owner() says {named:?}"
                ));
            }
        }
    }
    Ok(())
}
