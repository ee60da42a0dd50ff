//! The director's IPVS table: what it should hold, in the kernel's terms.

use std::net::IpAddr;

use lightship_ipvs::{
    Destination, Protocol as IpvsProtocol, Scheduler, ServiceFlags, ServiceKey, ServiceSpec,
    ServiceState,
};

use lightship_core::intent::{PortKey, Virtual};
use lightship_core::world::{Port, Protocol};

/// One service to program, with its destinations in canonical order.
///
/// That order is by node address, and so is the same on every node: `mh` fills its
/// table in list order (net/netfilter/ipvs/ip_vs_mh.c), and only equal tables send a
/// flow to the same node whoever forwards it. Weights are 1 or 0, never a count of Pods:
/// any other change of weight would move flows of nodes that did not change.
pub(super) fn spec(key: &PortKey, wanted: &Virtual) -> ServiceSpec {
    // A slot whose node has weight 0 falls back to another node instead of being refused.
    let mut flags = ServiceFlags::MH_FALLBACK;
    if wanted.scheduling.hash_client_port {
        flags |= ServiceFlags::MH_PORT;
    }
    if wanted.scheduling.one_packet {
        flags |= ServiceFlags::ONEPACKET;
    }
    let port = key.port.number;
    let weights = wanted.weights.iter();
    ServiceSpec {
        key: service_key(key),
        scheduler: Scheduler::MH,
        flags,
        destinations: weights
            .map(|(ip, w)| Destination::direct(*ip, port, *w))
            .collect(),
    }
}

/// In the kernel's terms. The order of keys is the same.
pub(super) fn service_key(key: &PortKey) -> ServiceKey {
    ServiceKey::new(key.vip, protocol(key.port.protocol), key.port.number)
}

fn protocol(protocol: Protocol) -> IpvsProtocol {
    match protocol {
        Protocol::Tcp => IpvsProtocol::Tcp,
        Protocol::Udp => IpvsProtocol::Udp,
        Protocol::Sctp => IpvsProtocol::Sctp,
    }
}

/// The VIP that a service is of; none for one by firewall mark.
pub(super) fn vip(key: ServiceKey) -> Option<IpAddr> {
    match key {
        ServiceKey::Address { addr, .. } => Some(addr),
        ServiceKey::FwMark { .. } => None,
    }
}

/// The destinations that a table holds, in the core's terms.
pub(super) fn destinations(table: &[ServiceState]) -> Vec<(PortKey, IpAddr)> {
    let mut found = Vec::new();
    for service in table {
        let ServiceKey::Address {
            protocol,
            addr,
            port,
            ..
        } = service.service.key
        else {
            continue;
        };
        let protocol = match protocol {
            IpvsProtocol::Tcp => Protocol::Tcp,
            IpvsProtocol::Udp => Protocol::Udp,
            IpvsProtocol::Sctp => Protocol::Sctp,
            IpvsProtocol::Other(_) => continue,
        };
        let key = PortKey {
            vip: addr,
            port: Port {
                protocol,
                number: port,
            },
        };
        found.extend(
            service
                .destinations
                .iter()
                .map(|d| (key, d.destination.addr)),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use lightship_core::intent::Scheduling;

    #[test]
    fn a_service_is_mh_with_fallback_and_its_destinations_are_sorted() {
        let vip: IpAddr = "192.0.2.200".parse().unwrap();
        let key = |number, protocol| PortKey {
            vip,
            port: Port { protocol, number },
        };
        let weights = [(3, 1), (1, 0), (2, 1)].map(|(n, w)| (IpAddr::from([192, 0, 2, 10 + n]), w));
        let scheduling = |hash_client_port, one_packet| Scheduling {
            hash_client_port,
            one_packet,
        };
        let specs = [
            (key(80, Protocol::Tcp), scheduling(true, false)),
            (key(53, Protocol::Udp), scheduling(false, true)),
        ]
        .map(|(key, scheduling)| {
            let weights = Arc::new(weights.into());
            spec(
                &key,
                &Virtual {
                    scheduling,
                    weights,
                },
            )
        });
        assert_eq!(
            specs[0].flags,
            ServiceFlags::MH_FALLBACK | ServiceFlags::MH_PORT
        );
        assert_eq!(
            specs[1].flags,
            ServiceFlags::MH_FALLBACK | ServiceFlags::ONEPACKET
        );
        for spec in &specs {
            let list: Vec<_> = spec
                .destinations
                .iter()
                .map(|d| (d.addr.to_string(), d.weight))
                .collect();
            let expected = [("192.0.2.11", 0), ("192.0.2.12", 1), ("192.0.2.13", 1)];
            assert_eq!(list, expected.map(|(ip, w)| (ip.to_owned(), w)));
        }
    }
}
