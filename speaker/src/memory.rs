//! Keeps the process about as small as what it uses.

use std::time::Duration;

/// From the start until the first look: what was listed at the start has been read by then.
const FIRST: Duration = Duration::from_secs(10);

/// Between two looks; at first as long as the process has run.
const PAUSE: Duration = Duration::from_secs(30);

/// See the module. Lives in the thread that must be on time, see [`lightship_netio::give_back`].
#[derive(Debug)]
pub(crate) struct Memory {
    began: Duration,
    look_at: Duration,
}

impl Memory {
    /// Nothing has been given back yet at `now`.
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            began: now,
            look_at: now + FIRST,
        }
    }

    /// To be called when the next thing that is due is as far away as it gets. Mostly does nothing.
    pub(crate) fn look_after(&mut self, now: Duration) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + PAUSE.min(now - self.began);
        match lightship_netio::give_back() {
            Ok(Some(bytes)) => tracing::debug!(bytes, "free memory given back"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the memory could not be looked after"),
        }
    }
}
