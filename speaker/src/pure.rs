//! The speaker's decisions without its shell: the root of the crate `lightship-core`, which the
//! simulator drives.
//!
//! The modules are the speaker's own. A new one that [`core`] uses is to be named here as in
//! `lib.rs`; that this crate has neither tokio nor a Kubernetes client shows that they are pure.

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
