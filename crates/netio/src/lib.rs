//! The kernel's side of networking: namespaces, netlink, sysctls, packet sockets
//! and multicast membership.
//!
//! This is the one crate of the workspace with `unsafe` code and the only one
//! that names netlink message types; both stay private to it. It knows nothing
//! of VIPs, Services or nodes: it does what it is told and says what it found.
//!
//! Every socket belongs to the network namespace of the thread that opened it,
//! and stays there wherever it is used from later. So to work in another
//! namespace, open the socket there ([`run_in`]) and use it anywhere, or run a
//! whole thread there ([`spawn_thread_in`]).
//!
//! ```no_run
//! # async fn director() -> lightship_netio::Result<()> {
//! use lightship_netio::{Netns, Route, Rtnl, run_in, sysctl};
//!
//! let director = Netns::create("lightship")?;
//! // /proc/sys/net is that of the thread that looks.
//! run_in(&director, || sysctl::ensure("net.ipv4.conf.all.arp_ignore", "8"))??;
//! // The socket is in the namespace, the task that uses it need not be.
//! let rtnl = Rtnl::open_in(&director)?;
//! let added = rtnl.add_route(&Route::local([192, 0, 2, 200].into())).await?;
//! # let _ = added; Ok(())
//! # }
//! ```
//!
//! - [`Netns`]: named namespaces as `ip netns` makes them
//! - [`Rtnl`]: links, addresses, routes, rules, neighbours
//! - [`Monitor`]: notices of changes to them
//! - [`PacketSocket`]: ARP and NDP frames in and out
//! - [`MulticastGroups`]: membership of solicited-node groups
//! - [`Alarm`]: wakes at a moment that often changes
//! - [`bind_datagram`], [`Awaited`]: UDP at an address that may come and go
//! - [`sysctl`], [`load_module`], [`raise_priority`]: the rest of a node's set-up

mod alarm;
mod async_fd;
mod datagram;
mod error;
mod memory;
mod module;
mod monitor;
mod multicast;
mod netns;
mod packet;
mod priority;
mod rtnl;
pub mod sysctl;

pub use alarm::Alarm;
pub use datagram::{Awaited, bind_datagram};
pub use error::{Error, Result};
pub use lightship_frames::Mac;
pub use memory::{give_back, keep_memory_small};
pub use module::{ModuleState, load_module};
pub use monitor::{Monitor, Notice};
pub use multicast::MulticastGroups;
pub use netns::{NETNS_DIR, Netns, NetnsThread, run_in, spawn_thread_in};
pub use packet::{Filter, PacketMeta, PacketSocket, PacketType, Watched};
pub use priority::{PriorityReport, raise_priority};
pub use rtnl::{
    Address, DefaultRoute, Family, LOOPBACK_INDEX, Link, Macvlan, Neighbour, PROTOCOL, Route,
    RouteKind, Rtnl, Rule, Scope, TABLE_LOCAL, TABLE_MAIN, Veth,
};
