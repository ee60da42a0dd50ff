//! Virtual services and destinations as values. Nothing here knows netlink.

mod destination;
mod flags;
mod key;
mod scheduler;
mod service;
mod stats;

pub use destination::{Destination, DestinationState, Forward, Tunnel, TunnelKind};
pub use flags::ServiceFlags;
pub use key::{Family, Protocol, ServiceKey};
pub use scheduler::Scheduler;
pub use service::{DEFAULT_PERSISTENCE_SECS, Service, ServiceSpec, ServiceState};
pub use stats::{Info, Stats, Timeouts};
