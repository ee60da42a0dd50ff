//! The speaker: announces virtual IPs and directs their traffic on one node.
//!
//! See [`run`] for the threads, tasks and channels; the pure parts are [`intent`],
//! [`eligibility`], [`grace`], [`schedule`] and [`core`].

pub mod args;
pub mod cache;
pub mod cleanup;
pub mod core;
mod datagrams;
pub mod director;
pub mod drift;
pub mod eligibility;
pub mod events;
pub mod further;
pub mod grace;
pub mod groups;
pub mod guard;
pub mod intent;
pub mod lock;
mod memory;
pub mod metrics;
pub mod node;
pub mod pace;
pub mod path;
pub mod prober;
pub mod proxy;
pub mod replaced;
pub mod report;
pub mod run;
pub mod schedule;
pub mod status;
pub mod uplink;
pub mod watch;
pub mod world;
