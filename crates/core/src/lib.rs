//! The speaker's decisions without its shell: the speaker drives it with sockets, a clock and the
//! API server, the simulator with virtual ones. It has neither tokio nor a Kubernetes client.
//!
//! See [`core`] for what decides; [`intent`], [`eligibility`], [`grace`] and [`schedule`] are
//! what it decides by, [`world`] what it knows of the cluster, [`cache`] what outlives the process.

pub mod cache;
pub mod core;
pub mod eligibility;
pub mod further;
pub mod grace;
pub mod intent;
pub mod pace;
pub mod path;
pub mod schedule;
pub mod world;
