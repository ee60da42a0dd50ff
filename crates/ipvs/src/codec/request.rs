//! Requests, from model values and ops.

use std::net::SocketAddr;
use std::time::Duration;

use super::message::{Attr, IpvsMessage};
use super::{Command, dest, service};
use crate::diff::Op;
use crate::model::{Destination, Service, ServiceKey, Timeouts};

/// Requests.
impl IpvsMessage {
    /// The request that carries an op out.
    #[must_use]
    pub fn from_op(op: &Op) -> Self {
        match op {
            Op::NewService(service) => Self::full_service(Command::NewService, service),
            Op::SetService(service) => Self::full_service(Command::SetService, service),
            Op::DelService(key) => Self::service_key(Command::DelService, *key),
            Op::NewDest(key, destination) => Self::full_dest(Command::NewDest, *key, destination),
            Op::SetDest(key, destination) => Self::full_dest(Command::SetDest, *key, destination),
            Op::DelDest(key, destination) => Self::dest_key(*key, *destination),
        }
    }

    /// Read all services (with the dump flag).
    #[must_use]
    pub fn dump_services() -> Self {
        Self::bare(Command::GetService)
    }

    /// Read one service (without the dump flag).
    #[must_use]
    pub fn get_service(key: ServiceKey) -> Self {
        Self::service_key(Command::GetService, key)
    }

    /// Read all destinations of a service (with the dump flag).
    #[must_use]
    pub fn dump_destinations(key: ServiceKey) -> Self {
        Self::service_key(Command::GetDest, key)
    }

    /// Read version and table size.
    #[must_use]
    pub fn get_info() -> Self {
        Self::bare(Command::GetInfo)
    }

    /// Read connection timeouts.
    #[must_use]
    pub fn get_timeouts() -> Self {
        Self::bare(Command::GetConfig)
    }

    /// Set connection timeouts.
    #[must_use]
    pub fn set_timeouts(timeouts: Timeouts) -> Self {
        let seconds = |value: Duration| u32::try_from(value.as_secs()).unwrap_or(u32::MAX);
        Self {
            command: Command::SetConfig,
            attrs: vec![
                Attr::TimeoutTcp(seconds(timeouts.tcp)),
                Attr::TimeoutTcpFin(seconds(timeouts.tcp_fin)),
                Attr::TimeoutUdp(seconds(timeouts.udp)),
            ],
        }
    }

    /// Zero the counters of one service, or all counters.
    #[must_use]
    pub fn zero(key: Option<ServiceKey>) -> Self {
        match key {
            Some(key) => Self::service_key(Command::Zero, key),
            None => Self::bare(Command::Zero),
        }
    }

    /// Delete all services.
    #[must_use]
    pub fn flush() -> Self {
        Self::bare(Command::Flush)
    }

    fn bare(command: Command) -> Self {
        Self {
            command,
            attrs: Vec::new(),
        }
    }

    fn full_service(command: Command, service: &Service) -> Self {
        Self {
            command,
            attrs: vec![Attr::Service(service::full_attrs(service))],
        }
    }

    fn service_key(command: Command, key: ServiceKey) -> Self {
        Self {
            command,
            attrs: vec![Attr::Service(service::key_attrs(key))],
        }
    }

    fn full_dest(command: Command, key: ServiceKey, destination: &Destination) -> Self {
        Self {
            command,
            attrs: vec![
                Attr::Service(service::key_attrs(key)),
                Attr::Dest(dest::full_attrs(destination)),
            ],
        }
    }

    fn dest_key(key: ServiceKey, destination: SocketAddr) -> Self {
        Self {
            command: Command::DelDest,
            attrs: vec![
                Attr::Service(service::key_attrs(key)),
                Attr::Dest(dest::key_attrs(destination)),
            ],
        }
    }
}
