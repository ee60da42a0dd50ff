//! A seeded simulator that drives the speakers' real core.
//!
//! Time is virtual and all chance comes from one seed, so a run is the same every time
//! and a failing seed is replayed by its number. Simulated are only what surrounds the
//! core: clocks, the network, the kernel and the director, the API server, and what befalls nodes.
//! Who owns a VIP is not taken from the core's word: clients on the LAN ask by ARP and neighbour
//! solicitation and hear its announcements.
//!
//! * [`speaker`]: one process: the core, what its shell does around it, and its machine;
//! * [`api`]: nodes and VIPs as the API server tells of them;
//! * [`net`]: delay, jitter, loss, duplication, blocked links;
//! * [`world`]: the event queue, the nodes, their faults, the LAN;
//! * [`watch`]: what is observed from outside: who answers, outages, moves, accusations;
//! * [`schedule`]: random fault schedules and what must hold during and after each;
//! * [`measure`]: figures from many runs.

use std::time::Duration;

pub mod api;
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
