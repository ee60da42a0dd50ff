//! Figures from many runs, for the tests' bounds and for people.

use std::time::Duration;

use lightship_membership::Config;

use crate::ms;
use crate::world::{Fault, Setup, World};

/// Sorted samples.
#[derive(Debug, Clone)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Sorts them.
    pub fn new(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    /// The smallest sample that at least `per_mille` in 1,000 do not exceed.
    pub fn at(&self, per_mille: usize) -> Duration {
        let rank = (self.0.len() * per_mille).div_ceil(1000).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    /// The greatest.
    pub fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (p50, p99) = (ms(self.at(500)), ms(self.at(990)));
        let (max, n) = (ms(self.max()), self.len());
        write!(
            f,
            "p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms of {n}"
        )
    }
}

/// Crashes the owner of the first VIP in a settled cluster, once per seed: for each of its VIPs
/// the time from the crash until another node answers.
pub fn takeovers(setup: &Setup, seeds: std::ops::Range<u64>) -> Samples {
    let outages = seeds.flat_map(|seed| {
        let mut world = World::new(Setup {
            seed,
            ..setup.clone()
        });
        let crash = ms(3000) + Duration::from_micros(seed * 7919 % 100_000);
        world.run_until(crash);
        let node = world.claimants(&crate::world::vip(0))[0];
        world.befall(Fault::Crash { node });
        world.run_until(crash + ms(5000));
        let now = world.now;
        let lasted = world
            .watch
            .outages
            .into_iter()
            .filter(|outage| outage.from >= crash);
        lasted
            .map(move |outage| outage.until.unwrap_or(now) - outage.from)
            .collect::<Vec<_>>()
    });
    Samples::new(outages.collect())
}

/// What a network that loses frames does to a healthy cluster.
#[derive(Debug, Clone, Copy)]
pub struct LossFigures {
    /// Virtual time that the cluster ran, after settling.
    pub time: Duration,
    /// Speakers given up although nothing was wrong with them.
    pub wrong_accusations: usize,
    /// Moves that these led to.
    pub moves: usize,
    /// Frames sent by all nodes, per node and second.
    pub frames_per_node: f64,
}

/// Runs a healthy cluster for `time`.
pub fn under_loss(setup: &Setup, time: Duration) -> LossFigures {
    let settled = ms(3000);
    let mut world = World::new(setup.clone());
    world.run_until(settled);
    let (accused, moved, sent) = (
        world.watch.accusations.len(),
        world.watch.moves.len(),
        world.net.sent,
    );
    world.run_until(settled + time);
    let frames = (world.net.sent - sent) as f64;
    LossFigures {
        time,
        wrong_accusations: world.watch.accusations.len() - accused,
        moves: world.watch.moves.len() - moved,
        frames_per_node: frames / time.as_secs_f64() / setup.nodes as f64,
    }
}

/// What one pace of heartbeats gives and costs, for the table in `docs/failover.md`.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The pace.
    pub config: Config,
    /// From a crash to the next node that answers.
    pub takeover: Samples,
    /// Speakers given up wrongly among ten nodes, in an hour each, where every tenth frame is lost.
    pub wrong: Vec<usize>,
    /// Frames that a speaker sends in a second, among so many nodes.
    pub frames: Vec<(usize, f64)>,
}

/// Measures `config`: 300 crashes, an hour of loss for each of `hours` seeds, and clusters of 64 and 500.
pub fn profile(config: Config, hours: u64) -> Profile {
    let setup = Setup {
        config,
        ..Setup::default()
    };
    let hour = |seed| {
        let mut setup = Setup {
            seed,
            nodes: 10,
            vips: 20,
            ..setup.clone()
        };
        setup.quality.loss = 100;
        under_loss(&setup, Duration::from_secs(3_600)).wrong_accusations
    };
    let frames = |nodes| {
        let setup = Setup {
            nodes,
            vips: 20,
            stagger: ms(20),
            ..setup.clone()
        };
        (nodes, under_loss(&setup, ms(4_000)).frames_per_node)
    };
    Profile {
        config,
        takeover: takeovers(&setup, 0..300),
        wrong: (1..=hours).map(hour).collect(),
        frames: [64, 500].map(frames).to_vec(),
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Config {
            interval, misses, ..
        } = self.config;
        write!(
            f,
            "{} ms x {misses}: {}; ",
            interval.as_millis(),
            self.takeover
        )?;
        write!(f, "wrong accusations in an hour {:?}", self.wrong)?;
        for (nodes, frames) in &self.frames {
            write!(f, "; {frames:.0} frames/s among {nodes}")?;
        }
        Ok(())
    }
}
