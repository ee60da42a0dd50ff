//! The simulated LAN: what happens to a frame between two nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::rng::Rng;

/// How good the network is.
#[derive(Debug, Clone, Copy)]
pub struct Quality {
    /// Frames lost, in 1,000.
    pub loss: u32,
    /// Frames delivered twice, in 1,000.
    pub duplicates: u32,
    /// Shortest way.
    pub delay: Duration,
    /// Added at random, evenly from zero up to this; more than the pause between frames reorders them.
    pub jitter: Duration,
}

impl Default for Quality {
    fn default() -> Self {
        Self {
            loss: 0,
            duplicates: 0,
            delay: Duration::from_micros(100),
            jitter: Duration::from_micros(400),
        }
    }
}

/// Links between nodes, by index. Every direction stands for itself.
#[derive(Debug, Clone, Default)]
pub struct Net {
    /// How good it is.
    pub quality: Quality,
    /// Blocked directions.
    blocked: BTreeSet<(usize, usize)>,
    /// When a direction was last blocked or freed.
    changed: BTreeMap<(usize, usize), Duration>,
    /// Frames handed to the network so far.
    pub sent: u64,
}

impl Net {
    /// A network of this quality with all ways open.
    pub fn new(quality: Quality) -> Self {
        Self {
            quality,
            ..Self::default()
        }
    }

    /// The delays after which copies of a frame arrive; none if it is lost.
    pub fn carry(&mut self, from: usize, to: usize, rng: &mut Rng) -> Vec<Duration> {
        self.sent += 1;
        let quality = self.quality;
        if self.blocked(from, to) || rng.chance(quality.loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(rng.chance(quality.duplicates));
        (0..copies)
            .map(|_| quality.delay + rng.up_to(quality.jitter))
            .collect()
    }

    /// The delays of a bundle of frames that is not lost as a whole: whoever sends them decides the fate
    /// of each.
    pub fn carry_whole(&mut self, from: usize, to: usize, rng: &mut Rng) -> Option<Duration> {
        let quality = self.quality;
        (!self.blocked(from, to)).then(|| quality.delay + rng.up_to(quality.jitter))
    }

    /// Is this direction blocked?
    pub fn blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.contains(&(from, to))
    }

    /// Blocks or frees one direction.
    pub fn set_blocked(&mut self, from: usize, to: usize, blocked: bool, now: Duration) {
        if self.blocked(from, to) == blocked {
            return;
        }
        if blocked {
            self.blocked.insert((from, to));
        } else {
            self.blocked.remove(&(from, to));
        }
        self.changed.insert((from, to), now);
    }

    /// Since when this direction is open, if it is.
    pub fn open_since(&self, from: usize, to: usize) -> Option<Duration> {
        let since = self.changed.get(&(from, to)).copied().unwrap_or_default();
        (!self.blocked(from, to)).then_some(since)
    }
}
