//! Which Service holds which address: pure, deterministic, and cheap for pools of any size.
//!
//! [`Allocator`] owns all the state. Pools go in as [`PoolSpec`]s, wishes as [`Request`]s;
//! out come an [`Assignment`] or a [`Refusal`] that says why each pool was of no use. Time is
//! an argument: a [`std::time::Duration`] since an origin of the caller's.
//!
//! The order of choice is part of the contract: the addresses a Service asks for by name; else
//! the pool it names; else the pools restricted to Services like it, by priority and name; else
//! the unrestricted pools by name. Within a pool the lowest free address comes first, whereby
//! one released a short while ago rests until nothing else is free.

mod allocator;
mod family;
mod intervals;
mod pool;
mod range;
mod request;
mod resting;
mod sharing;
mod shelf;

pub use allocator::{Allocator, Assignment, Claims, Holding, Usage};
pub use family::Family;
pub use pool::{OnShrink, Order, Pool, PoolProblem, PoolSpec, Pools};
pub use range::{AddrRange, RangeError};
pub use request::{Considered, Policy, Refusal, Request, ServiceId, Why};
pub use resting::Rest;
pub use sharing::{Backends, Clash, Port, Protocol, Sharing};
