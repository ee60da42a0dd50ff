//! An alarm for one moment that often changes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

use crate::async_fd::{OwnsFd, register_to_read};
use crate::{Error, Result};

/// Wakes at a moment, by a timer of the kernel's (timerfd_create(2)).
///
/// The runtime's own timers are kept in a wheel of milliseconds that is turned every 64 of them, and setting one
/// that is due before all others wakes the runtime itself: up to three wakes for one. This one wakes once, and within
/// microseconds.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<Timer>,
    set: Option<Instant>,
}

#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

// SAFETY: TimerFd owns its descriptor and closes it only when dropped.
unsafe impl OwnsFd for Timer {}

impl Alarm {
    /// One that is not set.
    ///
    /// # Errors
    /// The process has no descriptor left.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new() -> Result<Self> {
        let error = |e| Error::os("make a timer", e);
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(|e| error(e.into()))?;
        Ok(Alarm {
            timer: register_to_read(Timer(timer)).map_err(error)?,
            set: None,
        })
    }

    /// Waits until `at`. Safe to cancel.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn wait_until(&mut self, at: Instant) -> io::Result<()> {
        if at <= Instant::now() {
            // Who is always late would never let the runtime look at its sockets else.
            tokio::task::yield_now().await;
        }
        loop {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if self.set != Some(at) {
                self.set(left)?;
                self.set = Some(at);
            }
            let mut ready = self.timer.readable().await?;
            // Set anew meanwhile, it may not have gone off; then nothing can be read.
            if let Ok(read) = ready.try_io(|timer| Ok(timer.get_ref().0.wait()?)) {
                read?;
                // There is nothing more to read until it goes off again.
                ready.clear_ready();
                self.set = None;
            }
        }
    }

    /// Zero would stop it.
    fn set(&self, left: Duration) -> io::Result<()> {
        let left = Expiration::OneShot(TimeSpec::from_duration(left));
        let timer = &self.timer.get_ref().0;
        Ok(timer.set(left, TimerSetTimeFlags::empty())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn it_goes_off_when_it_was_last_set_to_and_not_before() {
        let mut alarm = Alarm::new().unwrap();
        let start = Instant::now();
        alarm.wait_until(start).await.unwrap();
        for _ in 0..3 {
            let at = Instant::now() + 20 * MS;
            alarm.wait_until(at).await.unwrap();
            assert!(Instant::now() >= at);
        }
        // Given up and set later, also when it went off meanwhile, or earlier.
        for (first, then) in [(10, 60), (60_000, 10), (5, 40)] {
            let now = Instant::now();
            let given_up = alarm.wait_until(now + first * MS);
            let _ = tokio::time::timeout(MS, given_up).await;
            std::thread::sleep(8 * MS);
            alarm.wait_until(now + then * MS).await.unwrap();
            let took = now.elapsed();
            assert!(took >= then * MS, "{took:?}");
        }
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
