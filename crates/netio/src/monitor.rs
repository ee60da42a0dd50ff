//! Notices that something about links, addresses, routes or rules has changed.
//!
//! A notice says what to look at again, not what is now the case: by the time it
//! is read, more may have happened. So no more than the kind and the interface is
//! taken from the kernel's message, and a caller that reads again after each
//! notice never has to poll.

use std::collections::VecDeque;
use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

use crate::async_fd::{readable, register};
use crate::rtnl::Family;
use crate::{Error, Netns, Result, run_in};

#[cfg(test)]
mod tests;

/// Something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Notice {
    /// A link came, went, or changed: state, carrier, MAC, MTU, name.
    Link {
        /// Its index.
        index: u32,
        /// Whether it went.
        gone: bool,
    },
    /// An address came, went, or changed.
    Address {
        /// Index of its link.
        index: u32,
        /// Whether it went.
        gone: bool,
    },
    /// A route of this family came, went, or changed.
    Route {
        /// The family.
        family: Family,
    },
    /// What goes through a link takes another way now: a bond switched to another port, or the
    /// machine moved to another host. Who has been told of addresses on it should be told again.
    Rerouted {
        /// Its index.
        index: u32,
    },
    /// A policy rule of this family came or went.
    Rule {
        /// The family.
        family: Family,
    },
    /// The kernel had to drop notices: read everything again.
    Lost,
}

/// The stream of [`Notice`]s of one network namespace.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<Socket>,
    pending: VecDeque<Notice>,
}

/// A storm (a thousand routes at once) must fit; what does not becomes [`Notice::Lost`].
const RECEIVE_BUFFER: usize = 1 << 20;

impl Monitor {
    /// Listens in the namespace of the calling thread. Within a tokio runtime.
    ///
    /// Read the state after this call, not before, or a change in between is missed.
    ///
    /// # Errors
    /// No netlink socket to be had.
    pub fn open() -> Result<Monitor> {
        let what = "open netlink monitor";
        let open = || -> io::Result<AsyncFd<Socket>> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.set_non_blocking(true)?;
            // Quietly cut to net.core.rmem_max; fewer notices then fit.
            socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
            socket.bind(&SocketAddr::new(0, GROUPS))?;
            register(socket)
        };
        Ok(Monitor {
            socket: open().map_err(|e| Error::os(what, e))?,
            pending: VecDeque::new(),
        })
    }

    /// As [`Self::open`], in `ns`.
    ///
    /// # Errors
    /// As [`Self::open`] and [`run_in`].
    pub fn open_in(ns: &Netns) -> Result<Monitor> {
        run_in(ns, Monitor::open)?
    }

    /// Waits for the next notice. Safe to cancel.
    ///
    /// # Errors
    /// The socket failed. Lost notices are no error but [`Notice::Lost`].
    pub async fn next(&mut self) -> Result<Notice> {
        loop {
            if let Some(notice) = self.pending.pop_front() {
                return Ok(notice);
            }
            let mut ready = readable(&self.socket)
                .await
                .map_err(|e| Error::os("wait for netlink notices", e))?;
            match ready.try_io(|socket| socket.get_ref().recv_from_full()) {
                // Port 0 is the kernel; anybody else's message is no notice.
                Ok(Ok((bytes, from))) if from.port_number() == 0 => {
                    parse(&bytes, &mut self.pending);
                }
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    drain(self.socket.get_ref());
                    return Ok(Notice::Lost);
                }
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Err(Error::os("receive netlink notices", e)),
            }
        }
    }
}

/// Throws away what is queued. After an overrun the kernel goes on dropping
/// notices, without saying so again, until the queue is empty
/// (`net/netlink/af_netlink.c`, `NETLINK_S_CONGESTED`); what changes while the
/// caller reads everything again must be noticed.
fn drain(socket: &Socket) {
    loop {
        match socket.recv_from_full() {
            Ok(_) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOBUFS | libc::EINTR)) => {}
            Err(_) => return,
        }
    }
}

const fn group(number: i32) -> u32 {
    1 << (number - 1)
}

const GROUPS: u32 = group(libc::RTNLGRP_LINK as i32)
    | group(libc::RTNLGRP_IPV4_IFADDR as i32)
    | group(libc::RTNLGRP_IPV6_IFADDR as i32)
    | group(libc::RTNLGRP_IPV4_ROUTE as i32)
    | group(libc::RTNLGRP_IPV6_ROUTE as i32)
    | group(libc::RTNLGRP_IPV4_RULE as i32)
    | group(libc::RTNLGRP_IPV6_RULE as i32);

/// Octets of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Reads the messages of a datagram. By hand, for only the fixed part of each is
/// of use and a message with attributes unknown to a codec must not get lost.
fn parse(mut bytes: &[u8], notices: &mut VecDeque<Notice>) {
    while let Some(header) = bytes.first_chunk::<HEADER>() {
        let [l0, l1, l2, l3, t0, t1, ..] = *header;
        let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let Some(body) = bytes.get(HEADER..len) else {
            return;
        };
        let kind = u16::from_ne_bytes([t0, t1]);
        let found = [notice(kind, body), rerouted(kind, body)];
        for notice in found.into_iter().flatten() {
            // A change often comes as several messages; one look will do.
            if notices.back() != Some(&notice) {
                notices.push_back(notice);
            }
        }
        // Messages start at multiples of 4 (NLMSG_ALIGN).
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn notice(kind: u16, body: &[u8]) -> Option<Notice> {
    // ifinfomsg and ifaddrmsg both have the interface index at 4; all bodies
    // begin with the family.
    let index = || Some(u32::from_ne_bytes(*body.get(4..)?.first_chunk()?));
    let family = || Family::from_raw(*body.first()?);
    match kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => Some(Notice::Link {
            index: index()?,
            gone: kind == libc::RTM_DELLINK
                // AF_BRIDGE: a port left its bridge; the link itself is there.
                && i32::from(*body.first()?) != libc::AF_BRIDGE,
        }),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => Some(Notice::Address {
            index: index()?,
            gone: kind == libc::RTM_DELADDR,
        }),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => Some(Notice::Route { family: family()? }),
        libc::RTM_NEWRULE | libc::RTM_DELRULE => Some(Notice::Rule { family: family()? }),
        _ => None,
    }
}

/// Octets of `struct ifinfomsg`, and of `struct nlattr`.
const LINK_HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;

/// `IFLA_EVENT` (`include/uapi/linux/if_link.h`): why the kernel sends the message, if it is not a
/// change of the link itself.
const IFLA_EVENT: u16 = 44;

/// Its values `IFLA_EVENT_BONDING_FAILOVER`, `IFLA_EVENT_NOTIFY_PEERS` and
/// `IFLA_EVENT_IGMP_RESEND`. A bond sends all three when it switches; the last is the only one
/// that a bridge passes on from a port (`br_device_event`), the second is that of a virtual machine
/// that was moved (virtio, Hyper-V, Xen) and of a team.
const REROUTED: [u32; 3] = [3, 4, 5];

fn rerouted(kind: u16, body: &[u8]) -> Option<Notice> {
    if kind != libc::RTM_NEWLINK {
        return None;
    }
    let index = u32::from_ne_bytes(*body.get(4..)?.first_chunk()?);
    let mut rest = body.get(LINK_HEADER..)?;
    while let Some([l0, l1, t0, t1]) = rest.first_chunk::<ATTRIBUTE_HEADER>() {
        let len = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let value = rest.get(ATTRIBUTE_HEADER..len)?;
        if u16::from_ne_bytes([*t0, *t1]) == IFLA_EVENT {
            let event = u32::from_ne_bytes(*value.first_chunk()?);
            return REROUTED
                .contains(&event)
                .then_some(Notice::Rerouted { index });
        }
        // Attributes start at multiples of 4 (NLA_ALIGN).
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}
