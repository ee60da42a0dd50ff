//! Random fault schedules and what must hold during and after each.
//!
//! A schedule disturbs a running cluster for a while, then mends everything and
//! waits. Checked are
//!
//! 1. after the quiet time every VIP has exactly one node that claims it and answers for it, all running
//!    speakers name the same one, all clients were told its MAC last, and nothing has moved for a second;
//! 2. no accusation is wrong, on two of five networks although they lose every 50th or 10th frame;
//! 3. with rebalancing the spread is even within one, if no node was given up meanwhile;
//! 4. nobody takes anything in the first instant after having been stopped;
//! 5. after the last fault every VIP is answered within the bound, and soon by one node only;
//! 6. after that nothing moves but to even the spread out, and no VIP moves to and fro;
//! 7. at any time, also between the faults: no VIP moves for a reason that is none, or moves twice to
//!    the same node without a fault in between;
//! 8. at any time: no speaker stops to answer for a VIP by its own decision, which every planned move
//!    is, while nobody else answers who could.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lightship_membership::Config;
use lightship_membership::graph::Shape;

use crate::ms;
use crate::net::Quality;
use crate::rng::Rng;
use crate::world::{Setup, World};

mod check;
mod storm;

pub use check::{clients_know, one_owner_each};

/// When faults begin, after the last node started: the others have settled. Without loss, that one has too.
const CALM: Duration = ms(600);
/// How long faults go on.
const STORM: Duration = ms(2_500);
/// More quiet time for each VIP that may move to even the spread out.
const QUIET_PER_MOVE: Duration = ms(160);

/// The setup that a seed stands for.
pub fn setup(seed: u64) -> Setup {
    let mut rng = Rng::new(seed ^ 0x5e_70_9a);
    let jitter = [ms(0), ms(1), ms(5), ms(40)][rng.index(4)];
    // Many claims and many nodes cost the most time and matter to few of the rules.
    let vips = match rng.pick(0..400) {
        0 => 130,
        1..5 => 30,
        few => [1, 1, 2, 4][few as usize % 4],
    };
    let nodes = match rng.pick(0..100) {
        0 if vips < 30 => rng.pick(7..13),
        1..13 if vips < 30 => rng.pick(5..7),
        _ => rng.pick(2..5),
    };
    let shape = shape(nodes as usize, &mut rng);
    let jitter = if shape == Shape::DEFAULT {
        jitter
    } else {
        // Whom two watchers have lost has 70 ms to answer, several times for what is lost.
        jitter.min(ms(5))
    };
    Setup {
        seed,
        nodes: nodes as usize,
        vips,
        quality: Quality {
            loss: [0, 0, 0, 20, 100][rng.index(5)],
            duplicates: [0, 0, 20][rng.index(3)],
            jitter,
            ..Quality::default()
        },
        rebalance: [None, None, Some(ms(150))][rng.index(3)],
        stagger: [ms(20), ms(300), ms(1_500)][rng.index(3)],
        direct_routing: rng.chance(875),
        director_delay: [ms(3), ms(3), ms(30), ms(150)][rng.index(4)],
        apart: rng.chance(250),
        config: Config {
            shape,
            ..Config::default()
        },
        ..Setup::default()
    }
}

/// In every third cluster of more than three nodes not all beat to all, as else in those of more than 64.
fn shape(nodes: usize, rng: &mut Rng) -> Shape {
    const ALL_TO_ALL: usize = 3;
    if nodes <= ALL_TO_ALL || rng.chance(667) {
        return Shape::DEFAULT;
    }
    // One at least does not watch.
    let most = (nodes - 2).min(4) as u64;
    Shape {
        all_to_all: ALL_TO_ALL,
        watchers: rng.pick(1..most + 1) as usize,
        distant_every: rng.pick(2..11) as u32,
        distant_at_once: 15,
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
        "{timeline}\nseed {seed}: {what}\nreplay: cargo run -p lightship-sim -- replay {seed}"
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
    // What befalls a node counts as the cause of what follows for so much longer where not all beat to all, and is
    // to be over before the faults begin.
    let setup = world.setup();
    let longer = (setup.noticed() - setup.config.timeout()) * 2 + setup.round();
    let calm = setup.stagger + CALM + longer;
    let end = calm + STORM;
    storm::plan(
        world,
        &mut Rng::new(seed.wrapping_mul(0x9e37_79b9)),
        calm,
        end,
    );
    world.run_until(end + check::quiet(world));
    // Evening the spread out takes a pause for each move; it is given that, but no more than it needs.
    // Where frames are lost, a client may miss an announcement and the next one, but not the one after
    // five seconds too.
    let lossy = world.setup().quality.loss > 0;
    let repeats = if lossy { ms(6_000) } else { ms(0) };
    let latest = end + check::quiet(world) + moves(world) + repeats;
    world.ask_all();
    while check::all(world, end).is_err() && world.now < latest {
        world.run_until((world.now + check::STILL / 4).min(latest));
        world.ask_all();
    }
    check::all(world, end)
}

/// The time that evening the spread out may take.
fn moves(world: &World) -> Duration {
    let vips = world.api.vips.len() as u32;
    let rebalances = world.setup().rebalance.is_some();
    (QUIET_PER_MOVE + world.setup().round()) * if rebalances { vips } else { 0 }
}

/// Runs the schedules of all `seeds` on as many threads as there are processors.
///
/// # Errors
/// As [`run`], for the first seed that was found to fail.
pub fn run_all(seeds: std::ops::Range<u64>) -> Result<(), String> {
    let end = seeds.end;
    run_while(seeds.start, |seed| seed < end).map(drop)
}

/// Runs schedules from `first` on for about so long, and returns how many; says each minute how far it is.
///
/// # Errors
/// As [`run`], for the first seed that was found to fail.
pub fn run_for(first: u64, time: Duration) -> Result<u64, String> {
    let began = Instant::now();
    let minutes = AtomicU64::new(0);
    run_while(first, |seed| {
        let minute = began.elapsed().as_secs() / 60;
        if minutes.fetch_max(minute, Ordering::Relaxed) < minute {
            eprintln!(
                "{minute} min: {} schedules, the next is {seed}",
                seed - first
            );
        }
        began.elapsed() < time
    })
}

/// Runs schedules from `first` on while `more` says so of the next one, and returns how many.
fn run_while(first: u64, more: impl Fn(u64) -> bool + Sync) -> Result<u64, String> {
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let (done, failed) = (AtomicU64::new(0), Mutex::new(None));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !more(seed) {
                        return;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    if let Err(what) = run(seed) {
                        stop.store(true, Ordering::Relaxed);
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.get_or_insert(what);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    let failed = failed.unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(done.into_inner()), Err)
}
