//! Clusters in which not everybody watches everybody.

use std::collections::BTreeSet;
use std::time::Duration;

use lightship_membership::Config;
use lightship_membership::graph::{Graph, Shape};
use lightship_sim::api;
use lightship_sim::ms;
use lightship_sim::schedule::one_owner_each;
use lightship_sim::world::{Fault, Setup, World, vip};

fn settled(nodes: usize, seed: u64, loss: u32) -> World {
    let mut setup = Setup {
        seed,
        nodes,
        vips: 20,
        stagger: ms(20),
        ..Setup::default()
    };
    setup.quality.loss = loss;
    let mut world = World::new(setup);
    world.run_until(ms(1500));
    one_owner_each(&world).expect("settled");
    world
}

/// Silence after which a speaker is given up, and the slack of timers, ways and directors.
fn noticed() -> Duration {
    Config::default().timeout() + ms(15)
}

fn after(world: &mut World, time: Duration) {
    world.run_until(world.now + time);
}

/// Frames that a node sends, and about as many are received, in the next second.
fn frames_per_second(world: &mut World) -> f64 {
    let before = world.net.sent;
    after(world, ms(1000));
    (world.net.sent - before) as f64 / world.nodes.len() as f64
}

/// In how many intervals each node gets a heartbeat of each other one.
fn intervals(nodes: usize) -> u32 {
    Shape::DEFAULT.round(nodes)
}

/// Heartbeats that a node sends in a second while nothing is new: one in each interval to each of its
/// watchers, and one in each round to each of the others.
fn heartbeats_per_second(nodes: usize) -> f64 {
    let watchers = Shape::DEFAULT.watchers;
    let distant = (nodes - 1 - watchers) as f64 / f64::from(intervals(nodes));
    (watchers as f64 + distant) / Config::default().interval.as_secs_f64()
}

#[test]
fn of_500_nodes_all_know_of_a_crash_as_soon_as_in_a_small_cluster() {
    let mut world = settled(500, 1, 0);
    assert_eq!(agreeing(&world, 500), [(500, 500)].into());
    let (begun, differs) = (world.now, 499);
    world.befall(Fault::Table {
        node: differs,
        other: true,
    });
    let frames = frames_per_second(&mut world);
    let heartbeats = heartbeats_per_second(500);
    println!("sent {frames:.0} frames/s per node; {heartbeats:.0} heartbeats are due");
    assert!(frames < heartbeats * 1.3, "{frames}");
    assert!(world.watch.accusations.is_empty());
    let known = begun + round(&world);
    world.run_until(known);
    assert_eq!(agreeing(&world, differs), [(499, 500)].into());
    let (start, node) = (world.now, world.claimants(&vip(0))[0]);
    world.befall(Fault::Crash { node });
    after(&mut world, ms(1000));
    let last = given_up_by_all(&world, node) - start;
    println!("seen by all after {last:?}");
    assert!(last <= noticed(), "{last:?}");
    let outages = world.watch.outages.iter().filter(|o| o.from >= start);
    assert!(outages.clone().count() > 0);
    for outage in outages {
        let until = outage.until.expect("taken over");
        assert!(until - start <= (noticed() + ms(10)), "{outage:?}");
    }
    one_owner_each(&world).unwrap();
}

/// In which each node gets a heartbeat of each other one and reads it, with the slack of as many timers.
fn round(world: &World) -> Duration {
    let every = intervals(world.nodes.len());
    (Config::default().interval + ms(1)) * every + gather(world) + ms(5)
}

/// When the last of the other nodes gave this one up, which nobody did wrongly, nor another one.
fn given_up_by_all(world: &World, node: usize) -> Duration {
    let seen = world.watch.accusations.iter();
    assert!(seen.clone().all(|a| a.of == node && !a.wrong));
    let by: BTreeSet<usize> = seen.clone().map(|a| a.by).collect();
    assert_eq!(by.len(), world.nodes.len() - 1);
    seen.map(|a| a.at).max().expect("accused")
}

/// For so long heartbeats may wait in a socket.
fn gather(world: &World) -> Duration {
    let mut speakers = world.nodes.iter().filter_map(|n| n.speaker.as_ref());
    speakers.next().expect("one runs").core.gather()
}

/// Of how many directors the speakers but this one's say that they hold the own table, and of how many
/// in all.
fn agreeing(world: &World, but: usize) -> BTreeSet<(usize, usize)> {
    let others = world.nodes.iter().enumerate().filter(|(n, _)| *n != but);
    let speakers = others.filter_map(|(_, node)| node.speaker.as_ref());
    let reports = speakers.map(|speaker| &speaker.report);
    reports
        .map(|told| (told.directors_agreeing, told.directors))
        .collect()
}

#[test]
fn that_directors_tables_differ_is_said_within_a_round_of_heartbeats() {
    let mut world = settled(100, 1, 0);
    assert_eq!(agreeing(&world, 100), [(100, 100)].into());
    for (other, same, own) in [(true, 99, 1), (false, 100, 100)] {
        world.befall(Fault::Table { node: 0, other });
        let time = round(&world);
        after(&mut world, time);
        assert_eq!(agreeing(&world, 0), [(same, 100)].into(), "{other}");
        let its = world.nodes[0].speaker.as_ref().expect("it runs");
        assert_eq!(its.report.directors_agreeing, own, "{other}");
    }
}

#[test]
fn a_large_cluster_stands_the_loss_of_every_tenth_frame() {
    let mut world = settled(100, 1, 100);
    let moves = world.watch.moves.len();
    let frames = frames_per_second(&mut world);
    let heartbeats = heartbeats_per_second(100);
    println!("sent {frames:.0} frames/s per node; {heartbeats:.0} heartbeats are due");
    // Who misses heartbeats asks, and is answered.
    assert!(frames < heartbeats * 1.5, "{frames}");
    after(&mut world, ms(8_000));
    assert!(world.watch.accusations.is_empty());
    assert_eq!(world.watch.moves.len(), moves);
    let (start, node) = (world.now, world.claimants(&vip(0))[0]);
    world.befall(Fault::Crash { node });
    after(&mut world, ms(2000));
    let outages = world.watch.outages.iter().filter(|o| o.from >= start);
    for outage in outages {
        // The one that is to take it may miss several of the first words.
        let until = outage.until.expect("taken over");
        assert!(until - start <= ms(420), "{outage:?}");
    }
    assert!(world.watch.accusations.iter().all(|a| !a.wrong));
    one_owner_each(&world).unwrap();
}

/// Its kernel answers, so its speaker is given the time of a late one.
#[test]
fn of_100_nodes_all_give_up_a_killed_speaker_on_a_live_node() {
    let mut world = settled(100, 1, 0);
    let (start, node) = (world.now, world.claimants(&vip(0))[0]);
    world.befall(Fault::KillSpeaker { node });
    after(&mut world, ms(1000));
    let last = given_up_by_all(&world, node) - start;
    println!("given up by all after {last:?}");
    assert!(last <= ms(350) + gather(&world) + ms(15), "{last:?}");
    one_owner_each(&world).unwrap();
}

/// Nobody is left whose task it is to tell of the first one: each speaker finds out by itself.
#[test]
fn a_node_that_dies_with_all_its_watchers_is_missed_after_two_rounds() {
    let within = |nodes: usize| Config::default().timeout_unaided(nodes);
    assert_eq!((within(65), within(500)), (ms(1_540), ms(4_900)));
    let mut world = settled(100, 1, 0);
    let names: BTreeSet<_> = world.api.nodes.keys().cloned().collect();
    let owner = world.claimants(&vip(0))[0];
    let graph = Graph::new(&Shape::DEFAULT, &world.nodes[owner].name, &names);
    let dies = |n: &usize| *n == owner || graph.watched_by(&world.nodes[*n].name);
    let dead: BTreeSet<usize> = (0..100).filter(dies).collect();
    assert_eq!(dead.len(), 1 + Shape::DEFAULT.watchers);
    let start = world.now;
    for node in &dead {
        world.befall(Fault::Crash { node: *node });
    }
    let time = within(100) + gather(&world) + ms(15);
    after(&mut world, time);
    let seen = world.watch.accusations.iter();
    assert!(seen.clone().all(|a| dead.contains(&a.of) && !a.wrong));
    for of in &dead {
        let by: BTreeSet<usize> = seen.clone().filter(|a| a.of == *of).map(|a| a.by).collect();
        assert_eq!(by.len(), 100 - dead.len(), "{of}");
    }
    let its = seen.filter(|a| a.of == owner).map(|a| a.at - start);
    let (first, last) = (its.clone().min(), its.max());
    println!("its death was seen between {first:?} and {last:?} after it");
    // A death that is told of is seen in a third of a second.
    assert!(first > Some(ms(600)), "{first:?}");
    after(&mut world, ms(600));
    one_owner_each(&world).unwrap();
}

#[test]
fn a_large_cluster_heals_to_what_the_greater_part_of_it_had() {
    for (seed, small) in [(1, 1), (2, 20), (3, 45)] {
        let mut world = settled(100, seed, 0);
        world.befall(Fault::Partition {
            side: (0..small).collect(),
        });
        after(&mut world, ms(4000));
        let greater: Vec<usize> = world
            .vips()
            .iter()
            .map(|vip| {
                let claimants = world.claimants(vip);
                let there: Vec<_> = claimants.iter().filter(|n| **n >= small).collect();
                assert!(
                    there.len() == 1 && claimants.len() == 2,
                    "{vip} {claimants:?}"
                );
                *there[0]
            })
            .collect();
        world.befall(Fault::Heal);
        // An interval of the distant ones, and then two heartbeats.
        after(&mut world, ms(1010) + Config::default().interval * 2);
        one_owner_each(&world).unwrap_or_else(|what| panic!("{small} cut off: {what}"));
        let owners: Vec<usize> = world
            .vips()
            .iter()
            .map(|vip| world.claimants(vip)[0])
            .collect();
        assert_eq!(owners, greater, "{small} cut off");
        let moves = world.watch.moves.len();
        after(&mut world, ms(4000));
        assert_eq!(world.watch.moves.len(), moves, "{small} cut off");
    }
}

#[test]
fn a_planned_move_in_a_large_cluster_has_no_moment_without_owner() {
    let mut world = settled(100, 1, 0);
    let (start, node) = (world.now, world.claimants(&vip(0))[0]);
    world.befall(Fault::Terminate { node });
    after(&mut world, ms(3000));
    assert!(world.nodes[node].speaker.is_none());
    assert!(world.watch.outages.iter().all(|o| o.from < start));
    one_owner_each(&world).unwrap();
    world.befall(Fault::StartSpeaker { node });
    after(&mut world, ms(3000));
    assert!(world.watch.accusations.iter().all(|a| !a.wrong));
    one_owner_each(&world).unwrap();
}

/// Past 64 nodes, and again past 150, all beat more seldom; who has not heard of the new nodes yet expects
/// more than that.
#[test]
fn a_cluster_that_grows_accuses_nobody_while_its_nodes_know_different_sizes() {
    let mut world = World::new(Setup {
        nodes: 80,
        vips: 20,
        stagger: ms(20),
        api_skew: ms(2000),
        ..Setup::default()
    });
    let all = world.api.clone();
    let new = 60..80;
    let few = api::with(&all, |api| {
        for node in new.clone() {
            api.nodes.remove(&api::name(node));
        }
    });
    // They are not there yet.
    for node in new.clone() {
        world.befall(Fault::Crash { node });
    }
    world.befall(Fault::Api(few));
    world.run_until(ms(4000));
    one_owner_each(&world).expect("settled");
    let moves = world.watch.moves.len();
    world.befall(Fault::Api(all));
    let sent: Vec<u64> = (0..8)
        .map(|_| {
            let before = world.net.sent;
            after(&mut world, ms(250));
            world.net.sent - before
        })
        .collect();
    println!("sent in each quarter of a second: {sent:?}");
    assert!(sent[7] * 10 < sent[0] * 8, "all knew the same: {sent:?}");
    for node in new {
        world.befall(Fault::Boot { node });
    }
    after(&mut world, ms(3000));
    assert!(world.watch.accusations.is_empty());
    let moved = &world.watch.moves[moves..];
    assert!(moved.is_empty(), "{moved:?}");
    one_owner_each(&world).unwrap();
    let known = |node: &usize| {
        let speaker = world.nodes[*node].speaker.as_ref();
        speaker.is_some_and(|speaker| speaker.report.directors == 80)
    };
    assert_eq!((0..80).filter(known).count(), 80);
}

/// A cluster of more than 150 nodes has a longer round.
#[test]
fn a_cluster_of_252_nodes_heals_to_one_owner_within_its_longer_round() {
    let mut world = World::new(Setup {
        nodes: 252,
        vips: 2,
        // All hear each other for the first time in few steps, which is what takes the time.
        stagger: ms(1),
        ..Setup::default()
    });
    world.run_until(ms(1200));
    one_owner_each(&world).expect("settled");
    let owners: Vec<usize> = world
        .vips()
        .iter()
        .map(|vip| world.claimants(vip)[0])
        .collect();
    let cut = (0..252).find(|node| !owners.contains(node)).expect("one");
    let side = vec![cut];
    world.befall(Fault::Partition { side });
    let time = round(&world) * 2 + noticed();
    after(&mut world, time);
    for vip in world.vips() {
        assert_eq!(world.claimants(&vip).len(), 2, "{vip}");
    }
    world.befall(Fault::Heal);
    let time = round(&world) + Config::default().interval * 2;
    after(&mut world, time);
    one_owner_each(&world).unwrap();
    let now: Vec<usize> = world
        .vips()
        .iter()
        .map(|vip| world.claimants(vip)[0])
        .collect();
    assert_eq!(now, owners);
}
