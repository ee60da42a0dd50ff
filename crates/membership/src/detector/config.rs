//! Timing of the failure detector.

use std::time::Duration;

use thiserror::Error;

/// Timing of the failure detector. All speakers of a cluster must use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Time between two heartbeats of a speaker. 10 ms to 10 s.
    pub interval: Duration,
    /// Intervals of silence after which a speaker is gone. 2 to 100. At 100 ms and 4, a
    /// crash is seen 300 to 400 ms after it happened.
    pub misses: u32,
    /// Intervals of silence after which the node is probed. At least 1, below `misses`.
    pub probe_after_misses: u32,
    /// Time between two probes of a node that is late. From 1 ms up to `interval`. Shorter makes
    /// packet loss harmless: each probe is another chance for a life sign. A node that is already given up is
    /// probed once per interval, a dead one ever more rarely.
    pub probe_interval: Duration,
    /// How long a speaker that said goodbye counts as still handing over after its
    /// last heartbeat. Says only when `Leaving` becomes `Left`. At least one interval.
    pub leave_linger: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            misses: 4,
            probe_after_misses: 2,
            probe_interval: Duration::from_millis(25),
            leave_linger: Duration::from_millis(200),
        }
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
    #[error("probes must start after 1 to {max} misses, not {got}")]
    ProbeAfter {
        /// What was given.
        got: u32,
        /// One less than `misses`.
        max: u32,
    },
    /// See [`Config::probe_interval`].
    #[error("probe interval must be 1 ms up to the heartbeat interval, not {0:?}")]
    ProbeInterval(Duration),
    /// See [`Config::leave_linger`].
    #[error("leave linger must be at least the heartbeat interval, not {0:?}")]
    LeaveLinger(Duration),
}

impl Config {
    /// Silence after which a speaker, or a node that is probed, is gone.
    pub fn timeout(&self) -> Duration {
        self.interval * self.misses
    }

    /// Silence after which a node is probed.
    pub fn probe_after(&self) -> Duration {
        self.interval * self.probe_after_misses
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
        if !(1..self.misses).contains(&self.probe_after_misses) {
            let (got, max) = (self.probe_after_misses, self.misses - 1);
            return Err(ConfigError::ProbeAfter { got, max });
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
