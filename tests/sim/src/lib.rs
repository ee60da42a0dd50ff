//! A seeded simulator that drives the real detector, election and heartbeat codec.
//!
//! Time is virtual and all chance comes from one seed, so a run is the same every time
//! and a failing seed is replayed by its number. Simulated are only what surrounds the
//! product: clocks, the network and what befalls nodes.
//!
//! * [`speaker`]: the wiring of the pure crates, as the speaker daemon does it;
//! * [`net`]: delay, jitter, loss, duplication, blocked links;
//! * [`world`]: the event queue, the nodes, their faults;
//! * [`watch`]: what is observed from outside: who answers, outages, accusations;
//! * [`schedule`]: random fault schedules and what must hold after each.
//! * [`measure`]: figures from many runs.

use std::time::Duration;

pub mod measure;
pub mod net;
pub mod rng;
pub mod schedule;
pub mod speaker;
pub mod watch;
pub mod world;

/// Milliseconds, for readable scenarios.
pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
