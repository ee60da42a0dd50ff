//! Gives Services of type LoadBalancer their addresses.
//!
//! ```text
//!  Leadership ──Authority──┐ (which replica acts: lease.rs, pure; leader.rs, I/O)
//!                          ▼
//!  Watchers ──Input──▶ run loop ──▶ Core (pure: decides) ──Action──▶ Writer (one task per object) ──▶ API server
//!  (watch.rs)              │                               Publisher (events)
//!                          └── lightship_ipam::Allocator
//! ```
//!
//! One task, the loop in [`run()`], owns [`core::Core`], which holds all state and does no I/O:
//! what the watchers saw goes in, what should be written comes out. Nothing is in memory
//! only: Services and VirtualIPs say who holds what, so the next leader adopts it from there.
//! A replica that does not lead holds none of this.
//!
//! Beside it, if asked for, [`node_failure`] tells Kubernetes early of dead nodes.

pub mod adapter;
mod clock;
pub mod core;
pub mod heartbeat_key;
pub mod leader;
pub mod lease;
pub mod metrics;
pub mod model;
pub mod node_failure;
pub mod publish;
pub mod run;
pub mod sink;
pub mod throttle;
pub mod watch;
pub mod writer;

pub use run::{Options, run};
