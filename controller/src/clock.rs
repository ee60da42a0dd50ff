//! The time, for decisions about who leads.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since the machine started, counting also while it slept and while this process was
/// stopped (`CLOCK_BOOTTIME`, clock_gettime(2); `Instant` stands still while the machine sleeps).
pub(crate) fn since_boot() -> Duration {
    // Without that clock, which every Linux since 2.6.39 has, nobody may lead: at the end of time
    // every tenure is over.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on() {
        let before = since_boot();
        std::thread::sleep(Duration::from_millis(5));
        assert!(since_boot() - before >= Duration::from_millis(5));
    }
}
