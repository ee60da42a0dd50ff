//! Timing of the failure detector.

use std::time::Duration;

use thiserror::Error;

use crate::graph::Shape;

/// Timing of the failure detector. All speakers of a cluster must use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Time between two heartbeats of a speaker. 10 ms to 10 s.
    pub interval: Duration,
    /// Intervals of silence after which a speaker is gone. 2 to 100. At 70 ms and 4, a
    /// crash is seen 210 to 280 ms after it happened.
    pub misses: u32,
    /// Silence after which the node is probed. At least one interval, less than the timeout.
    /// Shorter leaves time for more probes, but asks nodes whose heartbeat is only a little late.
    pub probe_after: Duration,
    /// Time between two probes of a node that is late. From 1 ms up to `interval`. Shorter makes
    /// packet loss harmless: each probe is another chance for a life sign. A node that is already given up is
    /// probed once per interval, a dead one ever more rarely.
    pub probe_interval: Duration,
    /// How long a speaker that said goodbye counts as still handing over after its
    /// last heartbeat. Says only when `Leaving` becomes `Left`. At least one interval.
    pub leave_linger: Duration,
    /// Who beats to whom.
    pub shape: Shape,
}

impl Default for Config {
    /// 70 ms and 4 misses; `docs/failover.md` has the figures of others.
    fn default() -> Self {
        Self::new(Duration::from_millis(70), 4)
    }
}

/// A [`Config`] that cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// See [`Config::interval`].
    #[error("heartbeat interval must be 10 ms to 10 s, not {0:?}")]
    Interval(Duration),
    /// See [`Config::misses`].
    #[error("misses must be 2 to 100, not {0}")]
    Misses(u32),
    /// See [`Config::probe_after_misses`].
    #[error("probes must start after {min:?} or later but before {timeout:?}, not {got:?}")]
    ProbeAfter {
        /// What was given.
        got: Duration,
        /// The heartbeat interval.
        min: Duration,
        /// The interval times the misses.
        timeout: Duration,
    },
    /// See [`Config::probe_interval`].
    #[error("probe interval must be 1 ms up to the heartbeat interval, not {0:?}")]
    ProbeInterval(Duration),
    /// See [`Config::leave_linger`].
    #[error("leave linger must be at least the heartbeat interval, not {0:?}")]
    LeaveLinger(Duration),
}

impl Config {
    /// This pace, and all else in proportion to it.
    pub fn new(interval: Duration, misses: u32) -> Self {
        Self {
            interval,
            misses,
            probe_after: (interval * misses / 2).min(interval * 2),
            probe_interval: interval / 6,
            leave_linger: interval * 2,
            shape: Shape::DEFAULT,
        }
    }

    /// Silence after which a speaker, or a node that is probed, is gone.
    pub fn timeout(&self) -> Duration {
        self.interval * self.misses
    }

    /// Silence after which even those give a node up that it beats to only now and then, in a cluster of so many nodes,
    /// though nobody who watches it said that it is late.
    pub fn timeout_unaided(&self, nodes: usize) -> Duration {
        match self.shape.round(nodes) {
            1 => self.timeout(),
            round => self.late_after_rounds(round) + self.probing(),
        }
    }

    /// Silence after which a node is probed of which a heartbeat comes in so many intervals.
    pub(super) fn late_after_rounds(&self, round: u32) -> Duration {
        self.interval * round * 2
    }

    /// How long a node is probed before it is given up.
    pub fn probing(&self) -> Duration {
        self.timeout().saturating_sub(self.probe_after)
    }

    /// Checks that the values make sense, also together.
    ///
    /// # Errors
    /// Names the first value that does not, and its limits.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let limits = Duration::from_millis(10)..=Duration::from_secs(10);
        if !limits.contains(&self.interval) {
            return Err(ConfigError::Interval(self.interval));
        }
        if !(2..=100).contains(&self.misses) {
            return Err(ConfigError::Misses(self.misses));
        }
        let (min, timeout) = (self.interval, self.timeout());
        if !(min..timeout).contains(&self.probe_after) {
            let got = self.probe_after;
            return Err(ConfigError::ProbeAfter { got, min, timeout });
        }
        if !(Duration::from_millis(1)..=self.interval).contains(&self.probe_interval) {
            return Err(ConfigError::ProbeInterval(self.probe_interval));
        }
        if self.leave_linger < self.interval {
            return Err(ConfigError::LeaveLinger(self.leave_linger));
        }
        Ok(())
    }
}
