//! Pauses between attempts.

use std::time::Duration;

use kube::runtime::utils::Backoff;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_millis(100);

/// The pause after the `attempt`th failure: doubling from 0.1 s up to `longest`, and by chance
/// down to half of that, so that what failed together does not come back together.
pub(crate) fn pause(attempt: u32, longest: Duration) -> Duration {
    jittered(attempt, longest, rand::random_range(0.5..1.0))
}

fn jittered(attempt: u32, longest: Duration, jitter: f64) -> Duration {
    let doubled = FIRST.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1).min(20)));
    doubled.min(longest).mul_f64(jitter)
}

/// The same for watchers. kube's own goes up to 30 s, so that after a short outage of the
/// API server Services would wait that long for their addresses; four watches that ask every few seconds
/// are no burden.
pub(crate) struct WatchPauses {
    attempt: u32,
}

/// Longest pause of a watcher.
const LONGEST_WATCH: Duration = Duration::from_secs(3);

impl WatchPauses {
    pub(crate) fn new() -> Self {
        Self { attempt: 0 }
    }
}

impl Iterator for WatchPauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.attempt = self.attempt.saturating_add(1);
        Some(pause(self.attempt, LONGEST_WATCH))
    }
}

impl Backoff for WatchPauses {
    fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_bounded() {
        let longest = Duration::from_secs(30);
        assert_eq!(jittered(1, longest, 1.0), Duration::from_millis(100));
        assert_eq!(jittered(4, longest, 0.5), Duration::from_millis(400));
        assert_eq!(jittered(u32::MAX, longest, 1.0), longest);
    }

    #[test]
    fn a_watcher_starts_over_after_a_reset() {
        let mut pauses = WatchPauses::new();
        let late = pauses.by_ref().take(20).last();
        assert!(late.is_some_and(|pause| pause >= LONGEST_WATCH / 2));
        pauses.reset();
        assert!(pauses.next().is_some_and(|pause| pause <= FIRST));
    }
}
