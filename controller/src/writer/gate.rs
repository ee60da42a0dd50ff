//! Holds all requests back while the API server takes none: thousands of objects, each with a pause
//! of its own, would ask it thousands of times a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lightship_kit::pause;
use tokio::time::{Instant, sleep_until};

/// So many failures in a row, of whatever objects, are the API server's and no object's. Fewer may
/// be those of the few requests that it had to turn away.
const PATIENCE: u32 = 8;
/// Longest time that it is shut.
const LONGEST: Duration = Duration::from_secs(3);

/// Shut for a while after failures in a row, open after anything else.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    shut_until: Option<Instant>,
}

impl Gate {
    /// Waits while it is shut.
    pub(super) async fn open(&self) {
        while let Some(until) = self.shut_until() {
            sleep_until(until).await;
        }
    }

    fn shut_until(&self) -> Option<Instant> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.shut_until.filter(|until| *until > Instant::now())
    }

    /// A request has ended: was the API server too busy for it, or away?
    pub(super) fn heard(&self, busy: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy {
            *state = State::default();
            return;
        }
        state.failures = state.failures.saturating_add(1);
        let now = Instant::now();
        // Of those that were let through together, the first to fail shuts it for all.
        if state.failures >= PATIENCE && state.shut_until.is_none_or(|until| until <= now) {
            let rounds = state.failures / PATIENCE;
            state.shut_until = Some(now + pause(rounds, LONGEST));
        }
    }
}
