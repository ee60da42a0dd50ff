//! Pauses between attempts.

use std::fmt::Debug;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::{Config, Error, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_millis(100);

/// The pause after the `attempt`th failure: doubling from 0.1 s up to `longest`, and by chance
/// down to half of that, so that what failed together does not come back together.
pub fn pause(attempt: u32, longest: Duration) -> Duration {
    jittered(attempt, longest, rand::random_range(0.5..1.0))
}

fn jittered(attempt: u32, longest: Duration, jitter: f64) -> Duration {
    let doubled = FIRST.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1).min(20)));
    doubled.min(longest).mul_f64(jitter)
}

/// A watch that is begun again after each failure, with pauses of at most 3 s. kube's own grow
/// to 30 s, so that after a short outage of the API server the world would stay that old for so
/// long; a few watches that ask every few seconds are no burden.
///
/// That the server no longer knows the version to go on from (410 Expired) is no failure: it is
/// what a server says that was restarted, and a new list follows.
pub fn watch<K>(api: Api<K>, config: Config) -> impl Stream<Item = Result<Event<K>, Error>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let events = watcher(api, config).filter_map(|event| async {
        if expired(&event) {
            tokio::time::sleep(pause(1, FIRST)).await;
            return None;
        }
        Some(event)
    });
    events.boxed().backoff(watch_pauses())
}

/// The pauses of a watch. Every list begins with a success of its own, so only a while without
/// failure starts them over.
pub fn watch_pauses() -> impl Backoff {
    ResetTimerBackoff::new(WatchPauses::new(), Duration::from_secs(10))
}

fn expired<K>(event: &Result<Event<K>, Error>) -> bool {
    matches!(event, Err(Error::WatchError(status)) if status.code == 410)
}

struct WatchPauses {
    attempt: u32,
}

/// Longest pause of a watcher.
const LONGEST_WATCH: Duration = Duration::from_secs(3);

impl WatchPauses {
    fn new() -> Self {
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
    use k8s_openapi::api::core::v1::Service;
    use kube::core::Status;

    use super::*;

    #[test]
    fn an_expired_version_is_told_from_a_failure() {
        let status = |code| Status {
            code,
            ..Status::default()
        };
        let event = |code| -> Result<Event<Service>, Error> {
            Err(Error::WatchError(status(code).boxed()))
        };
        assert!(expired(&event(410)) && !expired(&event(403)));
        assert!(!expired::<Service>(&Ok(Event::Init)));
    }

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
