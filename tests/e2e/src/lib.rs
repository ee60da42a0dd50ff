//! Driving the whole system on the lab and measuring it from the client's side: what the
//! tests in `tests/`, `cargo xtask demo` and `cargo xtask bench` have in common.
//!
//! - [`scene`]: a healthy lab with pods, and Services to point at them
//! - [`probe`]: the measuring programs on the client
//! - [`experiment`]: crash, planned move, killed speaker: cause it and count what it cost
//! - [`vip`], [`director`], [`neighbours`]: what Kubernetes, the nodes' kernels and the LAN say
//! - [`object`]: conditions of objects, and waiting for them
//! - [`metrics`]: what daemons tell on their monitoring ports
//! - [`timeline`]: moments from the speakers' logs
//! - [`second_lan`], [`guest`]: a further LAN, and clients that share a node's machine
//! - [`drops`]: what kernels dropped, for tests that failed
//! - [`crowd`]: very many Services
//! - [`uplink`]: an uplink that goes and comes back
//! - [`leftovers`]: that a lab leaves nothing

pub mod crowd;
pub mod director;
pub mod drops;
pub mod experiment;
pub mod figures;
pub mod guest;
pub mod leftovers;
pub mod metrics;
#[cfg(test)]
mod named;
pub mod neighbours;
pub mod object;
pub mod probe;
pub mod scene;
pub mod second_lan;
pub mod timeline;
pub mod uplink;
pub mod vip;
