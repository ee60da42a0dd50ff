//! Links, addresses, routes, rules and neighbours, over rtnetlink.
//!
//! [`Rtnl`] is a handle on a netlink socket that a task of the runtime serves.
//! Everything acts on the namespace in which it was opened. No netlink message
//! type leaves this module; an operation that finds its work already done says so
//! with `Ok(false)` instead of failing.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::AsyncSocket;
use tokio::sync::Mutex;

use crate::{Error, Netns, Result, run_in};

mod address;
mod link;
mod neighbour;
mod route;
mod rule;

pub use address::{Address, Scope};
pub use link::{Link, Macvlan, Veth};
pub use neighbour::Neighbour;
pub use route::{DefaultRoute, Route, RouteKind};
pub use rule::Rule;

/// Index of `lo` in every network namespace.
pub const LOOPBACK_INDEX: u32 = 1;
/// The routing table of addresses of this host.
pub const TABLE_LOCAL: u32 = 255;
/// The routing table used when none is named.
pub const TABLE_MAIN: u32 = 254;

/// The originator that routes and rules made by this crate carry
/// (`rtm_protocol`, `FRA_PROTOCOL`), so that ours can be told from others'.
/// Not one of those listed in `include/uapi/linux/rtnetlink.h`.
pub const PROTOCOL: u8 = 76;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(ip: std::net::IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// Bits of an address.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    pub(crate) fn from_raw(raw: u8) -> Option<Family> {
        match i32::from(raw) {
            libc::AF_INET => Some(Family::V4),
            libc::AF_INET6 => Some(Family::V6),
            _ => None,
        }
    }

    fn of_netlink(family: AddressFamily) -> Option<Family> {
        match family {
            AddressFamily::Inet => Some(Family::V4),
            AddressFamily::Inet6 => Some(Family::V6),
            _ => None,
        }
    }

    fn to_netlink(self) -> AddressFamily {
        match self {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        }
    }
}

/// A handle on a netlink socket. Cheap to clone; the socket closes with the last.
#[derive(Debug, Clone)]
pub struct Rtnl {
    handle: rtnetlink::Handle,
    /// The kernel runs one dump per socket at a time and answers others EBUSY.
    dump: Arc<Mutex<()>>,
}

/// How often a dump is tried again when the tables changed under it.
const DUMP_TRIES: usize = 8;
const DUMP_PAUSE: Duration = Duration::from_millis(2);

impl Rtnl {
    /// Opens a socket in the namespace of the calling thread, served by a task of
    /// the current tokio runtime, which must have its timers enabled.
    ///
    /// # Errors
    /// No netlink socket to be had.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open() -> Result<Rtnl> {
        // Strict checking: the kernel filters dumps (by routing table) itself.
        let (mut connection, handle, _) = rtnetlink::new_connection_with_strict_check()
            .map_err(|e| Error::os("open rtnetlink socket", e))?;
        // An answer that ends without its end mark means that the connection
        // broke; without these two it would look like success.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        // The kernel's own words on errors, and not our request sent back to us.
        let socket = connection.socket_mut().socket_mut();
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        tokio::spawn(connection);
        Ok(Rtnl {
            handle,
            dump: Arc::new(Mutex::new(())),
        })
    }

    /// As [`Self::open`], in `ns`.
    ///
    /// # Errors
    /// As [`Self::open`] and [`run_in`].
    pub fn open_in(ns: &Netns) -> Result<Rtnl> {
        run_in(ns, Rtnl::open)?
    }

    /// Sends a request that changes something and waits for the kernel's verdict.
    async fn change(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: impl Fn() -> String,
    ) -> Result<()> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.send(request, &what)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(e) = answer.payload {
                return verdict(&e, &what);
            }
        }
        Err(Error::Closed { what: what() })
    }

    /// Asks for one object.
    async fn get(
        &self,
        message: RouteNetlinkMessage,
        what: impl Fn() -> String,
    ) -> Result<RouteNetlinkMessage> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST;
        let mut answers = self.send(request, &what)?;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => return Ok(message),
                NetlinkPayload::Error(e) => verdict(&e, &what)?,
                _ => {}
            }
        }
        Err(Error::Closed { what: what() })
    }

    /// Asks for all objects of a kind; consistent, for a dump during which the
    /// table changed is done again.
    async fn dump(
        &self,
        message: RouteNetlinkMessage,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let what = || what.to_owned();
        let _one_at_a_time = self.dump.lock().await;
        let (mut last, mut busy) = (Vec::new(), None);
        for _ in 0..DUMP_TRIES {
            match self.dump_once(message.clone(), &what).await {
                Ok((found, true)) => return Ok(found),
                Ok((found, false)) => last = found,
                Err(e) if e.is_busy() => busy = Some(e),
                Err(e) => return Err(e),
            }
            // Give the storm, or the rest of a dump whose caller was cancelled,
            // a moment to pass.
            tokio::time::sleep(DUMP_PAUSE).await;
        }
        if let (true, Some(e)) = (last.is_empty(), busy) {
            return Err(e);
        }
        // A table that never rests (many routes, much churn): what was seen is
        // true of most of it, and a notice for the rest is on its way.
        Ok(last)
    }

    /// Returns what was found and whether it is a consistent picture.
    async fn dump_once(
        &self,
        message: RouteNetlinkMessage,
        what: &impl Fn() -> String,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool)> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.send(request, what)?;
        let mut found = Vec::new();
        let mut consistent = true;
        while let Some(answer) = answers.next().await {
            consistent &= answer.header.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => found.push(message),
                NetlinkPayload::Error(e) => verdict(&e, what)?,
                NetlinkPayload::Done(done) if done.code != 0 => {
                    return Err(Error::os(
                        what(),
                        std::io::Error::from_raw_os_error(done.code.abs()),
                    ));
                }
                NetlinkPayload::Done(_) => return Ok((found, consistent)),
                NetlinkPayload::Overrun(_) => consistent = false,
                _ => {}
            }
        }
        Err(Error::Closed { what: what() })
    }

    fn send<W: Fn() -> String>(
        &self,
        request: NetlinkMessage<RouteNetlinkMessage>,
        what: &W,
    ) -> Result<impl futures::Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + use<W>> {
        self.handle
            .clone()
            .request(request)
            .map_err(|_| Error::Closed { what: what() })
    }
}

/// Turns an acknowledgement into a result.
fn verdict(answer: &ErrorMessage, what: &impl Fn() -> String) -> Result<()> {
    if answer.code.is_none() {
        return Ok(());
    }
    Err(Error::Os {
        what: what(),
        source: answer.to_io(),
        detail: words(&answer.header),
    })
}

/// The text in an extended acknowledgement: attributes after the header of our
/// request (`NLMSGERR_ATTR_MSG`).
fn words(echo: &[u8]) -> Option<String> {
    let attributes = echo.get(16..)?;
    netlink_packet_core::NlasIterator::new(attributes)
        .flatten()
        .find(|nla| nla.kind() == NLMSGERR_ATTR_MSG)
        .map(|nla| {
            String::from_utf8_lossy(nla.value())
                .trim_end_matches('\0')
                .to_owned()
        })
        .filter(|text| !text.is_empty())
}

const NLMSGERR_ATTR_MSG: u16 = 1;

/// Turns "it is there already" into `Ok(false)`.
fn unless_exists(done: Result<()>) -> Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(e) if e.os_error() == Some(libc::EEXIST) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Turns "there is no such thing" into `Ok(false)`.
fn unless_missing(done: Result<()>) -> Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(e) if e.is_not_found() => Ok(false),
        Err(e) => Err(e),
    }
}
