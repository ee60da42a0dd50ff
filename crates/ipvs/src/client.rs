//! A blocking client of the kernel's IPVS.
//!
//! The [`Client`] owns one generic-netlink socket and with it the network
//! namespace in which that socket was opened; it keeps no other state. No call
//! waits longer than the client's timeout for a reply. Calls block the thread:
//! from async code, use a thread of its own.
//!
//! In a namespace whose `lo` was never up, the kernel refuses IPv4 destinations
//! with `EINVAL`: there is no local routing table yet, without which it takes
//! every address for a broadcast one (`inet_addr_type`).

mod apply;
mod link;

use std::time::Duration;

use netlink_packet_core::{DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_GENERIC;

pub use apply::{ApplyError, OpError};
use link::Link;

use crate::codec::{self, FAMILY_NAME, IpvsMessage, Payload};
use crate::diff::Op;
use crate::error::Error;
use crate::model::{
    Destination, DestinationState, Info, Service, ServiceKey, ServiceState, Stats, Timeouts,
};

/// How long a client waits for a reply, unless told otherwise. The kernel
/// answers within the send call, so this only ends what would be a hang.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a dump is taken anew when the table changes under it.
const DUMP_ATTEMPTS: usize = 5;

/// `ENOENT`: how `nlctrl` says that there is no such family.
const ENOENT: i32 = 2;

/// A connection to the IPVS of one network namespace.
#[derive(Debug)]
pub struct Client {
    link: Link,
    family_id: u16,
}

impl Client {
    /// A client for the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::NotSupported`] when the kernel has no IPVS; [`Error::Io`] when
    /// the socket cannot be opened.
    pub fn open() -> Result<Self, Error> {
        Self::new(Socket::new(NETLINK_GENERIC)?)
    }

    /// A client over a generic-netlink socket (`NETLINK_GENERIC`) of the
    /// caller's, for the namespace in which it was opened. The socket is made
    /// blocking, bound, and given timeouts.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub fn new(socket: Socket) -> Result<Self, Error> {
        let mut link = Link::new(socket, DEFAULT_TIMEOUT)?;
        let family_id = resolve_family(&mut link, FAMILY_NAME)?;
        Ok(Self { link, family_id })
    }

    /// Changes how long to wait for a reply.
    ///
    /// # Errors
    /// [`Error::Io`] when the socket refuses, as it does for zero.
    pub fn set_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        self.link.set_timeout(timeout)
    }

    /// All services with their destinations, by key.
    ///
    /// # Errors
    /// Whatever the kernel or the socket says; [`Error::Interrupted`] when
    /// something else keeps changing the table.
    pub fn dump(&mut self) -> Result<Vec<ServiceState>, Error> {
        self.dump_services()?
            .into_iter()
            .map(|(service, stats)| {
                Ok(ServiceState {
                    destinations: self.dump_destinations(service.key)?,
                    service,
                    stats,
                })
            })
            .collect()
    }

    /// All services without their destinations, by key: one request, where [`Self::dump`]
    /// makes one more for each service.
    ///
    /// # Errors
    /// As [`Client::dump`].
    pub fn dump_services(&mut self) -> Result<Vec<(Service, Stats)>, Error> {
        let mut services = self.dump_of(&IpvsMessage::dump_services(), |reply| {
            reply.ipvs()?.service()
        })?;
        services.sort_by_key(|(service, _)| service.key);
        Ok(services)
    }

    /// As [`Self::dump_services`] without the counters, which takes less than half of the time.
    ///
    /// # Errors
    /// As [`Client::dump`].
    pub fn dump_service_settings(&mut self) -> Result<Vec<Service>, Error> {
        let mut services = self.dump_of(&IpvsMessage::dump_services(), |reply| {
            Ok(reply.ipvs_settings()?.service()?.0)
        })?;
        services.sort_by_key(|service| service.key);
        Ok(services)
    }

    /// One service's settings and counters.
    ///
    /// # Errors
    /// [`Error::Kernel`] with `ESRCH` when there is no such service.
    pub fn service(&mut self, key: ServiceKey) -> Result<(Service, Stats), Error> {
        let replies = self.request(IpvsMessage::get_service(key))?;
        Ok(only(&replies)?.service()?)
    }

    /// A service's destinations in insertion order: oldest first. Empty also
    /// when there is no such service.
    ///
    /// # Errors
    /// As [`Client::dump`].
    pub fn dump_destinations(&mut self, key: ServiceKey) -> Result<Vec<DestinationState>, Error> {
        self.destinations_of(key, |reply| reply.ipvs()?.destination(key.family()))
    }

    /// As [`Self::dump_destinations`] without what changes by itself: counters and connections.
    ///
    /// # Errors
    /// As [`Client::dump`].
    pub fn dump_destination_settings(
        &mut self,
        key: ServiceKey,
    ) -> Result<Vec<Destination>, Error> {
        self.destinations_of(key, |reply| {
            let state = reply.ipvs_settings()?.destination(key.family())?;
            Ok(state.destination)
        })
    }

    fn destinations_of<T>(
        &mut self,
        key: ServiceKey,
        read: impl Fn(&Payload<'_>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, Error> {
        let mut destinations = self.dump_of(&IpvsMessage::dump_destinations(key), read)?;
        // The kernel lists the newest first.
        destinations.reverse();
        Ok(destinations)
    }

    /// Applies ops in their order. One that fails does not stop the others.
    ///
    /// # Errors
    /// Each failed op with its error; what is not listed has been done.
    pub fn apply(&mut self, ops: &[Op]) -> Result<(), ApplyError> {
        apply::apply(&mut self.link, self.family_id, ops)
    }

    /// Version and connection table size.
    ///
    /// # Errors
    /// Whatever the kernel or the socket says.
    pub fn info(&mut self) -> Result<Info, Error> {
        let replies = self.request(IpvsMessage::get_info())?;
        Ok(only(&replies)?.info()?)
    }

    /// The namespace's connection timeouts.
    ///
    /// # Errors
    /// Whatever the kernel or the socket says.
    pub fn timeouts(&mut self) -> Result<Timeouts, Error> {
        let replies = self.request(IpvsMessage::get_timeouts())?;
        Ok(only(&replies)?.timeouts())
    }

    /// Sets the namespace's connection timeouts. Zero leaves one as it is.
    ///
    /// # Errors
    /// Whatever the kernel or the socket says.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Error> {
        self.request(IpvsMessage::set_timeouts(timeouts)).map(drop)
    }

    /// Deletes all services of the namespace.
    ///
    /// # Errors
    /// Whatever the kernel or the socket says.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.request(IpvsMessage::flush()).map(drop)
    }

    /// Zeroes the counters of one service, or of all.
    ///
    /// # Errors
    /// Whatever the kernel or the socket says.
    pub fn zero(&mut self, key: Option<ServiceKey>) -> Result<(), Error> {
        self.request(IpvsMessage::zero(key)).map(drop)
    }

    fn request(&mut self, message: IpvsMessage) -> Result<Vec<IpvsMessage>, Error> {
        let sequence = self.link.next_sequence();
        let bytes = codec::encode(message, self.family_id, NLM_F_REQUEST | NLM_F_ACK, sequence);
        let reply = self
            .link
            .exchange(&bytes, sequence, |payload| payload.ipvs())?;
        Ok(reply.messages)
    }

    /// All that a dump lists; each message is read as it comes, and none is kept.
    fn dump_of<T>(
        &mut self,
        message: &IpvsMessage,
        read: impl Fn(&Payload<'_>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.link.next_sequence();
            let bytes = codec::encode(
                message.clone(),
                self.family_id,
                NLM_F_REQUEST | NLM_F_DUMP,
                sequence,
            );
            let reply = self.link.exchange(&bytes, sequence, &read)?;
            if !reply.interrupted {
                return Ok(reply.messages);
            }
        }
        Err(Error::Interrupted)
    }
}

fn resolve_family(link: &mut Link, name: &str) -> Result<u16, Error> {
    let sequence = link.next_sequence();
    let bytes = codec::encode_family_request(name, sequence);
    let reply = link.exchange(&bytes, sequence, |payload| match payload {
        codec::Payload::Data(body) => codec::parse_family_id(body),
        _ => Err("not a data message".into()),
    });
    match reply {
        Ok(reply) => reply
            .messages
            .first()
            .copied()
            .ok_or_else(|| Error::Decode("nlctrl acknowledged without answering".into())),
        Err(Error::Kernel { errno: ENOENT, .. }) => Err(Error::NotSupported),
        Err(error) => Err(error),
    }
}

fn only(replies: &[IpvsMessage]) -> Result<&IpvsMessage, Error> {
    replies
        .first()
        .ok_or_else(|| Error::Decode("the kernel acknowledged without answering".into()))
}

#[cfg(test)]
mod tests;
