//! Counters, general information and connection timeouts.

use std::time::Duration;

/// Counters of a service or destination. Rates are estimates per second.
///
/// The kernel's estimator brings all of them up to date every 2 s, so they lag
/// by as much, and stand still where `net.ipv4.vs.run_estimation` is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients; 0 in direct routing.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients; 0 in direct routing.
    pub out_bytes: u64,
    /// Connections per second.
    pub connection_rate: u64,
    /// Packets from clients per second.
    pub in_packet_rate: u64,
    /// Packets to clients per second.
    pub out_packet_rate: u64,
    /// Bytes from clients per second.
    pub in_byte_rate: u64,
    /// Bytes to clients per second.
    pub out_byte_rate: u64,
}

/// What the kernel says about its IPVS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Version: major, minor, patch.
    pub version: (u8, u8, u8),
    /// Buckets of the connection hash table.
    pub connection_table_size: u32,
}

/// Connection timeouts of a namespace. The kernel keeps whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Established TCP. Zero in a request leaves the value as it is.
    pub tcp: Duration,
    /// TCP after a FIN. Zero in a request leaves the value as it is.
    pub tcp_fin: Duration,
    /// UDP. Zero in a request leaves the value as it is.
    pub udp: Duration,
}
