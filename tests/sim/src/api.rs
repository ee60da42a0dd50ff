//! What the API server says in the simulated cluster, and the addresses on its LAN.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use lightship_core::world::{
    Node, NodeName, Port, Protocol, Service, ServiceRef, Slice, Vip, World as Api,
};
use lightship_frames::Mac;

/// Nodes in each of the IPv4 networks.
const PER_NETWORK: usize = 250;

/// The name of a node.
pub fn name(node: usize) -> NodeName {
    format!("node{}", node + 1).into()
}

/// A node's IPv4 address.
fn v4(node: usize) -> Ipv4Addr {
    let last = (node % PER_NETWORK + 1) as u8;
    if node < PER_NETWORK {
        Ipv4Addr::new(192, 0, 2, last)
    } else {
        Ipv4Addr::new(203, 0, 113, last)
    }
}

/// A node's IPv6 address.
fn v6(node: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, node as u16 + 1)
}

/// The node that has an address.
pub fn node_at(address: IpAddr) -> Option<usize> {
    let node = match address {
        IpAddr::V4(address) => match address.octets() {
            [192, 0, 2, last] => usize::from(last),
            [203, 0, 113, last] => usize::from(last) + PER_NETWORK,
            _ => return None,
        },
        IpAddr::V6(address) => match address.segments() {
            [0x2001, 0xdb8, 1, .., last] => usize::from(last),
            _ => return None,
        },
    };
    node.checked_sub(1)
}

/// The MAC of a node's uplink.
pub fn uplink(node: usize) -> Mac {
    let [high, low] = (node as u16).to_be_bytes();
    Mac([2, 0, 0, 0, high, low])
}

/// The MAC of a node's director.
pub fn director(node: usize) -> Mac {
    let [high, low] = (node as u16).to_be_bytes();
    Mac([2, 0xd, 0, 0, high, low])
}

/// The `n`-th VIP: the two families by turns, as long as the IPv4 prefix lasts.
pub fn vip(n: usize) -> IpAddr {
    let half = (n / 2) as u16;
    match u8::try_from(half) {
        Ok(low) if n.is_multiple_of(2) => IpAddr::from([198, 51, 100, low]),
        _ => IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, n as u16 % 2, half]),
    }
}

/// A cluster of so many nodes, and so many VIPs of one Service; every node may own each.
pub fn cluster(nodes: usize, vips: usize) -> Api {
    let mut api = Api::default();
    for node in 0..nodes {
        let machine = Node {
            v4: Some(v4(node)),
            v6: Some(v6(node)),
            ..Node::default()
        };
        api.nodes.insert(name(node), machine);
    }
    let web = ServiceRef::new("shop", "web");
    let http = Port {
        protocol: Protocol::Tcp,
        number: 80,
    };
    let service = Service {
        ports: [http].into(),
        ..Service::default()
    };
    api.services.insert(web.clone(), service);
    for (slice, ipv6) in [("web-4", false), ("web-6", true)] {
        let slices = api.slices.or_default(web.clone());
        let slice_of = Slice {
            ipv6,
            elsewhere: true,
            ..Slice::default()
        };
        slices.insert(slice.to_owned(), slice_of);
    }
    for n in 0..vips {
        let used = Vip {
            services: vec![web.clone()],
            ..Vip::default()
        };
        api.vips.insert(vip(n), used);
    }
    api
}

/// `api`, changed by `change`.
pub fn with(api: &Arc<Api>, change: impl FnOnce(&mut Api)) -> Arc<Api> {
    let mut api = Api::clone(api);
    change(&mut api);
    Arc::new(api)
}

/// Changes one node.
///
/// # Panics
/// If there is no such node.
pub fn node(api: &mut Api, node: usize, change: impl FnOnce(&mut Node)) {
    change(api.nodes.get_mut(&name(node)).expect("a known node"));
}
