//! The speaker: announces virtual IPs and directs their traffic on one node.
//!
//! See [`run`] for the threads, tasks and channels. What decides is pure and in the crate
//! [`lightship_core`]; here is what feeds it and carries out what it says.

pub mod args;
pub mod cleanup;
mod datagrams;
pub mod director;
pub mod drift;
pub mod events;
pub mod groups;
pub mod guard;
pub mod lock;
mod memory;
pub mod metrics;
pub mod node;
pub mod prober;
pub mod proxy;
pub mod replaced;
pub mod report;
pub mod run;
pub mod status;
pub mod uplink;
pub mod watch;
