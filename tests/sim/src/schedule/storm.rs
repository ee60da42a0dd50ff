//! The faults of a schedule.

use std::sync::Arc;
use std::time::Duration;

use lightship_core::world::World as Api;

use crate::api;
use crate::ms;
use crate::rng::Rng;
use crate::world::{Fault, World};

/// How far a wall clock may jump: a year.
const CLOCK: u64 = 365 * 24 * 3_600 * 1_000;

/// Plans faults between `calm` and `end`, each with its end before the storm is over.
pub(super) fn plan(world: &mut World, rng: &mut Rng, calm: Duration, end: Duration) {
    let nodes = world.nodes.len();
    let usual = world.api.clone();
    let faults = rng.pick(1..6);
    for _ in 0..faults {
        let from = calm + rng.up_to(end - calm - ms(200));
        let until = from + rng.up_to(end - from);
        let (begin, mended) = fault(&usual, rng, nodes);
        begin.into_iter().for_each(|fault| world.at(from, fault));
        world.at(until, mended);
    }
    // Faults overlap, so one's end may have come before another's begin.
    world.at(end, Fault::Heal);
    world.at(end, Fault::Api(usual));
    for node in 0..nodes {
        let carrier = true;
        let broken = false;
        world.at(end, Fault::Continue { node });
        world.at(end, Fault::Carrier { node, carrier });
        world.at(end, Fault::Director { node, broken });
        world.at(end, Fault::Boot { node });
    }
}

/// A fault and what ends it.
fn fault(usual: &Arc<Api>, rng: &mut Rng, nodes: usize) -> (Vec<Fault>, Fault) {
    let node = rng.index(nodes);
    let other = (node + 1 + rng.index(nodes - 1)) % nodes;
    let back = Fault::StartSpeaker { node };
    let usually = || Fault::Api(usual.clone());
    let (begin, end) = match rng.pick(0..17) {
        0 => (Fault::Crash { node }, Fault::Boot { node }),
        1 => (Fault::KillSpeaker { node }, back),
        2 => (Fault::Terminate { node }, back),
        3 => (Fault::Pause { node }, Fault::Continue { node }),
        4 => {
            let carrier = |carrier| Fault::Carrier { node, carrier };
            (carrier(false), carrier(true))
        }
        5 => {
            let director = |broken| Fault::Director { node, broken };
            (director(true), director(false))
        }
        6 => (Fault::Partition { side: vec![node] }, Fault::Heal),
        7 => {
            let side = vec![node, other];
            (Fault::Partition { side }, Fault::Heal)
        }
        8 => {
            let side = side(rng, nodes);
            (Fault::Partition { side }, Fault::Heal)
        }
        9 => {
            let (from, to) = (node, other);
            (Fault::OneWay { from, to }, Fault::Heal)
        }
        10 => (Fault::Mute { side: vec![node] }, Fault::Heal),
        11 => {
            let side = side(rng, nodes);
            (Fault::Mute { side }, Fault::Heal)
        }
        12 => {
            let excluded = |api: &mut Api| api::node(api, node, |n| n.excluded = true);
            (Fault::Api(api::with(usual, excluded)), usually())
        }
        13 => {
            let drained = |api: &mut Api| api::node(api, node, |n| n.drained = true);
            (Fault::Api(api::with(usual, drained)), usually())
        }
        14 => {
            let moves = rng.chance(500);
            let asked = |api: &mut Api| wish(api, node, moves);
            (Fault::Api(api::with(usual, asked)), usually())
        }
        15 => {
            let age = rng.up_to(ms(3_000));
            (Fault::KillSpeaker { node }, Fault::StartOld { node, age })
        }
        _ => {
            let by = rng.pick(0..2 * CLOCK) as i64 - CLOCK as i64;
            let (stop, start) = if rng.chance(500) {
                (Fault::Crash { node }, Fault::Boot { node })
            } else {
                (Fault::KillSpeaker { node }, back)
            };
            return (vec![stop, Fault::ClockJump { node, by }], start);
        }
    };
    (vec![begin], end)
}

/// Some of the nodes, at least one and not all.
fn side(rng: &mut Rng, nodes: usize) -> Vec<usize> {
    let some: Vec<usize> = (0..nodes).filter(|_| rng.chance(500)).collect();
    match some.len() {
        0 => vec![0],
        all if all == nodes => vec![nodes - 1],
        _ => some,
    }
}

/// Every third VIP is wanted on `node`: pinned there, or to be moved once.
fn wish(api: &mut Api, node: usize, moves: bool) {
    for (_, vip) in api.vips.iter_mut().step_by(3) {
        let place = if moves {
            &mut vip.move_to
        } else {
            &mut vip.pin_to
        };
        *place = Some(api::name(node));
    }
}
