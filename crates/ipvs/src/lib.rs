//! IPVS (the kernel's layer 4 load balancer) over generic netlink.
//!
//! - [`model`]: what a virtual service and its destinations are, in std types.
//! - [`codec`]: those values to and from `IPVS` generic-netlink messages.
//! - [`diff`]: [`plan`] turns a desired and an actual table into the fewest
//!   [`Op`]s; pure. Keeps the destination order alike on all nodes, which the
//!   `mh` scheduler needs.
//! - [`outcome`]: the table that a plan leaves, for callers who write alone.
//! - [`digest()`]: one number for a desired table, for nodes to compare.
//! - [`client`]: a blocking [`Client`] over a socket of the caller's, which
//!   reads the table and applies ops.
//!
//! IPVS state belongs to a network namespace, so it is the namespace in which
//! the socket was opened that a [`Client`] sees.
//!
//! ```no_run
//! use lightship_ipvs::{Client, Destination, Protocol, Scheduler, ServiceFlags, ServiceKey, ServiceSpec, plan};
//!
//! let desired = [ServiceSpec {
//!     key: ServiceKey::new("192.0.2.200".parse()?, Protocol::Tcp, 443),
//!     scheduler: Scheduler::MH,
//!     flags: ServiceFlags::MH_FALLBACK | ServiceFlags::MH_PORT,
//!     destinations: vec![
//!         Destination::direct("192.0.2.11".parse()?, 443, 1),
//!         Destination::direct("192.0.2.12".parse()?, 443, 1),
//!     ],
//! }];
//! let mut client = Client::open()?;
//! let ops = plan(&desired, &client.dump()?);
//! client.apply(&ops)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

pub mod client;
pub mod codec;
pub mod diff;
pub mod digest;
mod error;
pub mod model;

pub use client::{ApplyError, Client, OpError};
pub use diff::{Op, outcome, plan};
pub use digest::{Digester, digest};
pub use error::Error;
pub use model::{
    Destination, DestinationState, Family, Forward, Info, Protocol, Scheduler, Service,
    ServiceFlags, ServiceKey, ServiceSpec, ServiceState, Stats, Timeouts, Tunnel, TunnelKind,
};
