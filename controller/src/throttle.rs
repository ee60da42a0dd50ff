//! A token bucket: how fast requests may follow each other.

use std::time::Duration;

/// How many requests the API server is asked for at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// In the long run, per second.
    pub per_second: f64,
    /// At once after a pause.
    pub burst: f64,
}

impl Default for Rate {
    /// More than an API server does on two processors: such a one is spared by the number of
    /// requests under way. This leaves something of a large one to others. The burst is for a
    /// thousand Services (a VirtualIP and a status each).
    fn default() -> Self {
        Self {
            per_second: 3000.0,
            burst: 2000.0,
        }
    }
}

impl Rate {
    /// Checks the numbers.
    ///
    /// # Errors
    /// If one is too small, with its flag.
    pub fn checked(self) -> Result<Self, String> {
        if !self.per_second.is_finite() || self.per_second <= 0.0 {
            return Err("--api-qps must be greater than 0".into());
        }
        if !self.burst.is_finite() || self.burst < 1.0 {
            return Err("--api-burst must be at least 1".into());
        }
        Ok(self)
    }
}

/// Hands out moments to send a request at. Time is a duration since any fixed moment.
#[derive(Clone, Debug)]
pub(crate) struct Throttle {
    interval: Duration,
    /// The longest that the bucket may be ahead: what a full one holds, as time.
    slack: Duration,
    /// When the bucket would be empty and filled up again, were it drained at the long-run rate.
    level: Duration,
}

impl Throttle {
    pub(crate) fn new(rate: Rate) -> Self {
        let interval = Duration::from_secs_f64(1.0 / rate.per_second);
        Self {
            interval,
            slack: interval.mul_f64(rate.burst - 1.0),
            level: Duration::ZERO,
        }
    }

    /// Takes a token; returns the moment at which the request may be sent.
    pub(crate) fn take(&mut self, now: Duration) -> Duration {
        let at = now.max(self.level.saturating_sub(self.slack));
        self.level = self.level.max(now) + self.interval;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_burst_goes_out_at_once_and_the_rest_at_the_rate() {
        let mut throttle = Throttle::new(Rate {
            per_second: 10.0,
            burst: 5.0,
        });
        let moments: Vec<_> = (0..8).map(|_| throttle.take(at(100.0))).collect();
        assert_eq!(&moments[..5], [at(100.0); 5]);
        assert_eq!(&moments[5..], [at(100.1), at(100.2), at(100.3)]);
    }

    #[test]
    fn a_pause_fills_the_bucket_but_not_beyond_the_burst() {
        let mut throttle = Throttle::new(Rate {
            per_second: 10.0,
            burst: 5.0,
        });
        for _ in 0..5 {
            throttle.take(at(0.0));
        }
        // Two tokens have come back.
        assert_eq!(throttle.take(at(0.2)), at(0.2));
        assert_eq!(throttle.take(at(0.2)), at(0.2));
        assert_eq!(throttle.take(at(0.2)), at(0.3));
        let later: Vec<_> = (0..6).map(|_| throttle.take(at(1000.0))).collect();
        assert_eq!(&later[..5], [at(1000.0); 5]);
        assert_eq!(later[5], at(1000.1));
    }

    #[test]
    fn odd_rates_are_refused() {
        let rate = |per_second, burst| Rate { per_second, burst }.checked();
        assert!(rate(0.0, 1.0).unwrap_err().contains("--api-qps"));
        assert!(rate(f64::NAN, 1.0).unwrap_err().contains("--api-qps"));
        assert!(rate(1.0, 0.0).unwrap_err().contains("--api-burst"));
        assert!(rate(0.5, 1.0).is_ok());
    }
}
