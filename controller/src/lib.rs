//! Gives Services of type LoadBalancer their addresses.
//!
//! ```text
//!  watchers ──Input──▶ run loop ──▶ Core (pure: decides) ──Action──▶ Writer (one task per object) ──▶ API server
//!  (watch.rs)                        │                               Publisher (events)
//!                                    └── lightship_ipam::Allocator
//! ```
//!
//! One task, the loop in [`run()`], owns [`core::Core`], which holds all state and does no I/O:
//! what the watchers saw goes in, what should be written comes out. Nothing is in memory
//! only: Services and VirtualIPs say who holds what, so a restart adopts it from there.

pub mod adapter;
mod backoff;
pub mod core;
pub mod heartbeat_key;
pub mod model;
pub mod publish;
pub mod run;
pub mod sink;
pub mod watch;
pub mod writer;

pub use run::{Options, run};
