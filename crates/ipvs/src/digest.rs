//! One number for a desired table, equal on two nodes if and (almost surely)
//! only if they want the same table.
//!
//! FNV-1a over a canonical encoding, so it is the same in every process and on
//! every architecture. It detects disagreement, not malice.

use std::net::IpAddr;

use crate::diff::canonical;
use crate::model::{Destination, Family, Forward, Service, ServiceKey, ServiceSpec, TunnelKind};

/// The digest of a desired table.
///
/// The order of the services does not enter; the order of destinations within
/// a service does, as do their weights. Duplicates count as [`crate::plan`]
/// reads them: the first one holds.
#[must_use]
pub fn digest(specs: &[ServiceSpec]) -> u64 {
    let mut digester = Digester::default();
    for spec in canonical(specs).into_values() {
        digester.put(&spec.service, &spec.destinations);
    }
    digester.finish()
}

/// Makes the [`digest`] of a large table without holding all of its specs at once.
#[derive(Default)]
pub struct Digester(Fnv1a);

impl Digester {
    /// Takes the next service. The caller gives them in the order of their keys, and neither
    /// a service nor a destination of one twice.
    pub fn add(&mut self, spec: &ServiceSpec) {
        self.put(&Service::from(spec), &spec.destinations);
    }

    /// The digest of all that was taken.
    #[must_use]
    pub fn finish(self) -> u64 {
        self.0.0
    }

    fn put(&mut self, service: &Service, destinations: &[Destination]) {
        let hash = &mut self.0;
        hash_key(hash, service.key);
        hash.str(service.scheduler.name());
        hash.u32(service.flags.bits());
        hash.u64(destinations.len() as u64);
        for destination in destinations {
            hash_addr(hash, destination.addr);
            hash.u16(destination.port);
            hash.u32(destination.weight);
            hash_forward(hash, destination.forward);
            hash.u32(destination.upper_threshold);
            hash.u32(destination.lower_threshold);
        }
    }
}

fn hash_key(hash: &mut Fnv1a, key: ServiceKey) {
    match key {
        ServiceKey::Address {
            addr,
            protocol,
            port,
        } => {
            hash.u8(1);
            hash_addr(hash, addr);
            hash.u8(protocol.into());
            hash.u16(port);
        }
        ServiceKey::FwMark { family, mark } => {
            hash.u8(2);
            hash.u8(match family {
                Family::V4 => 4,
                Family::V6 => 6,
            });
            hash.u32(mark);
        }
    }
}

fn hash_addr(hash: &mut Fnv1a, addr: IpAddr) {
    match addr {
        IpAddr::V4(v4) => {
            hash.u8(4);
            hash.bytes(&v4.octets());
        }
        IpAddr::V6(v6) => {
            hash.u8(6);
            hash.bytes(&v6.octets());
        }
    }
}

fn hash_forward(hash: &mut Fnv1a, forward: Forward) {
    hash.u8(crate::codec::forward_to_kernel(forward));
    if let Forward::Tunnel(tunnel) = forward {
        hash.u8(match tunnel.kind {
            TunnelKind::Ipip => 0,
            TunnelKind::Gue => 1,
            TunnelKind::Gre => 2,
            TunnelKind::Other(number) => number,
        });
        hash.u16(tunnel.port);
        hash.u16(tunnel.flags);
    }
}

/// 64-bit FNV-1a.
struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv1a {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// Length first, so that two neighbouring strings cannot blend.
    fn str(&mut self, value: &str) {
        self.u64(value.len() as u64);
        self.bytes(value.as_bytes());
    }
}

#[cfg(test)]
mod tests;
