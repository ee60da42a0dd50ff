//! Destinations (real servers) of a service.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::Stats;

/// How packets reach a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forward {
    /// NAT (`ipvsadm -m`).
    Masquerade,
    /// Delivered to this host.
    LocalNode,
    /// Encapsulated (`ipvsadm -i`).
    Tunnel(Tunnel),
    /// Direct routing (`ipvsadm -g`): only the link-layer address changes.
    DirectRouting,
    /// Transparent cache bypass.
    Bypass,
    /// A method this crate does not know; three bits.
    Other(u8),
}

/// Encapsulation of [`Forward::Tunnel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// Encapsulation.
    pub kind: TunnelKind,
    /// UDP port (GUE).
    pub port: u16,
    /// `IP_VS_TUNNEL_ENCAP_FLAG_*`.
    pub flags: u16,
}

impl Tunnel {
    /// Plain IP in IP.
    pub const IPIP: Self = Self {
        kind: TunnelKind::Ipip,
        port: 0,
        flags: 0,
    };
}

/// Encapsulation type of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelKind {
    /// IP in IP.
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// GRE.
    Gre,
    /// A type this crate does not know.
    Other(u8),
}

/// One destination of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// Real server's address.
    pub addr: IpAddr,
    /// Real server's port. Direct routing and tunnels cannot change ports, so
    /// there it equals the service's; 0 in a firewall-mark service.
    pub port: u16,
    /// Share of new connections; 0 = quiesced.
    pub weight: u32,
    /// Forwarding method.
    pub forward: Forward,
    /// No new connections above this count; 0 = no limit.
    pub upper_threshold: u32,
    /// New connections again below this count; 0 = three quarters of upper.
    pub lower_threshold: u32,
}

impl Destination {
    /// A direct-routing destination without thresholds.
    #[must_use]
    pub const fn direct(addr: IpAddr, port: u16, weight: u32) -> Self {
        Self {
            addr,
            port,
            weight,
            forward: Forward::DirectRouting,
            upper_threshold: 0,
            lower_threshold: 0,
        }
    }

    /// What identifies the destination in its service.
    #[must_use]
    pub const fn key(&self) -> SocketAddr {
        SocketAddr::new(self.addr, self.port)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} weight {}", self.key(), self.weight)
    }
}

/// A destination as found in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DestinationState {
    /// Its settings.
    pub destination: Destination,
    /// Established connections.
    pub active_connections: u32,
    /// Other connection entries.
    pub inactive_connections: u32,
    /// Persistence templates.
    pub persistent_connections: u32,
    /// Its counters.
    pub stats: Stats,
}

impl From<Destination> for DestinationState {
    /// A destination that has seen no traffic.
    fn from(destination: Destination) -> Self {
        Self {
            destination,
            active_connections: 0,
            inactive_connections: 0,
            persistent_connections: 0,
            stats: Stats::default(),
        }
    }
}
