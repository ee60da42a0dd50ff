//! Membership of IPv6 multicast groups.
//!
//! A speaker that answers for an IPv6 VIP has to be a member of its
//! solicited-node group, or a switch that snoops MLD and the filter of the NIC
//! keep the solicitations away. The packet socket receives the frames; the
//! sockets here only hold the memberships.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, Netns, Result, run_in};

/// The group memberships held by this process in one network namespace. They
/// end when this is dropped.
#[derive(Debug)]
pub struct MulticastGroups {
    netns: Netns,
    /// The kernel limits memberships per socket (by `net.core.optmem_max`), so
    /// further sockets are opened as needed. Slots keep their place.
    sockets: Vec<Socket>,
    joined: BTreeMap<(u32, Ipv6Addr), usize>,
}

impl MulticastGroups {
    /// No memberships yet, in the namespace of the calling thread.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn open() -> Result<MulticastGroups> {
        MulticastGroups::open_in(&Netns::current()?)
    }

    /// No memberships yet, in `ns`.
    ///
    /// # Errors
    /// Too many open files.
    pub fn open_in(ns: &Netns) -> Result<MulticastGroups> {
        Ok(MulticastGroups {
            netns: ns.try_clone()?,
            sockets: Vec::new(),
            joined: BTreeMap::new(),
        })
    }

    /// Joins `group` on the interface `ifindex`. Returns whether that was news.
    ///
    /// Groups are not counted: several VIPs may share a solicited-node group, and
    /// one [`Self::leave`] ends it for all of them. [`Self::set`] sees to that.
    ///
    /// # Errors
    /// No such interface, `group` is not multicast, or the kernel has no IPv6
    /// ([`Error::is_not_supported`]).
    pub fn join(&mut self, ifindex: u32, group: Ipv6Addr) -> Result<bool> {
        if self.joined.contains_key(&(ifindex, group)) {
            return Ok(false);
        }
        let what = || format!("join group {group} on interface {ifindex}");
        // The newest socket is the one most likely to have room; an old one has
        // some after many groups were left.
        for slot in (0..self.sockets.len()).rev() {
            match self.sockets[slot].join_multicast_v6(&group, ifindex) {
                Ok(()) => {
                    self.joined.insert((ifindex, group), slot);
                    return Ok(true);
                }
                Err(e) if is_full(&e) => {}
                Err(e) => return Err(Error::os(what(), e)),
            }
        }
        let socket = run_in(&self.netns, || {
            Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))
        })?
        .map_err(|e| Error::os("open multicast socket", e))?;
        socket
            .join_multicast_v6(&group, ifindex)
            .map_err(|e| Error::os(what(), e))?;
        self.sockets.push(socket);
        self.joined.insert((ifindex, group), self.sockets.len() - 1);
        Ok(true)
    }

    /// Leaves `group` on the interface `ifindex`. Returns whether it was joined.
    ///
    /// # Errors
    /// The kernel refuses; an interface that is gone is no error.
    pub fn leave(&mut self, ifindex: u32, group: Ipv6Addr) -> Result<bool> {
        let Some(slot) = self.joined.remove(&(ifindex, group)) else {
            return Ok(false);
        };
        match self.sockets[slot].leave_multicast_v6(&group, ifindex) {
            Ok(()) => Ok(true),
            // The interface went, and the membership with it.
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EADDRNOTAVAIL | libc::ENODEV | libc::ENXIO)
                ) =>
            {
                Ok(true)
            }
            Err(e) => Err(Error::os(
                format!("leave group {group} on interface {ifindex}"),
                e,
            )),
        }
    }

    /// Makes the memberships exactly those of `wanted`: leaves the others, joins
    /// what is missing. Goes on after an error and returns the first.
    ///
    /// # Errors
    /// As [`Self::join`] and [`Self::leave`].
    pub fn set(&mut self, wanted: &BTreeSet<(u32, Ipv6Addr)>) -> Result<()> {
        let surplus: Vec<_> = self
            .joined
            .keys()
            .filter(|key| !wanted.contains(key))
            .copied()
            .collect();
        let mut first = Ok(());
        for (ifindex, group) in surplus {
            first = first.and(self.leave(ifindex, group).map(drop));
        }
        for &(ifindex, group) in wanted {
            first = first.and(self.join(ifindex, group).map(drop));
        }
        first
    }

    /// The memberships held: interface index and group.
    pub fn joined(&self) -> impl Iterator<Item = (u32, Ipv6Addr)> + '_ {
        self.joined.keys().copied()
    }
}

/// Whether the socket has as many memberships as the kernel lets it have.
fn is_full(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}
