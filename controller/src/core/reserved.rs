//! Addresses that belong to nodes, routers and the subnets they are on: no pool gives them away,
//! whatever it contains.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Core;
use crate::model::{Change, NodeView, SpeakerView};

impl Core {
    pub(super) fn nodes_changed(&mut self, change: Change<NodeView>) {
        match change {
            Change::Applied(view) => {
                // Nodes change all the time, their addresses hardly ever.
                if self.nodes.get(&view.name) == Some(&view.addresses) {
                    return;
                }
                self.nodes.insert(view.name, view.addresses);
            }
            Change::Gone(view) => {
                self.nodes.remove(&view.name);
            }
            Change::Listed(views) => {
                self.listed.nodes = true;
                let views = views.into_iter();
                self.nodes = views.map(|view| (view.name, view.addresses)).collect();
            }
        }
        self.reserve();
    }

    pub(super) fn speakers_changed(&mut self, change: Change<SpeakerView>) {
        match change {
            Change::Applied(view) => {
                if self.speakers.get(&view.name) == Some(&view) {
                    return;
                }
                self.speakers.insert(view.name.clone(), view);
            }
            Change::Gone(view) => {
                self.speakers.remove(&view.name);
            }
            Change::Listed(views) => {
                self.listed.speakers = true;
                let views = views.into_iter();
                self.speakers = views.map(|view| (view.name.clone(), view)).collect();
            }
        }
        self.reserve();
    }

    /// Tells the allocator whose addresses are not to be given away.
    pub(super) fn reserve(&mut self) {
        if !self.started {
            return;
        }
        let mut reserved: BTreeMap<IpAddr, Arc<str>> = BTreeMap::new();
        let mut claim = |address: IpAddr, whose: String| {
            reserved.entry(address).or_insert_with(|| whose.into());
        };
        for (name, addresses) in &self.nodes {
            for address in addresses {
                claim(*address, format!("an address of node {name}"));
            }
        }
        for speaker in self.speakers.values() {
            for network in &speaker.networks {
                claim(
                    network.addr(),
                    format!("an address of node {}", speaker.name),
                );
            }
        }
        for gateway in self.speakers.values().flat_map(|speaker| &speaker.gateways) {
            claim(*gateway, "the nodes' default gateway".into());
        }
        for network in self.speakers.values().flat_map(|speaker| &speaker.networks) {
            for (address, what) in ends(network) {
                claim(
                    address,
                    format!("the {what} address of {}", network.trunc()),
                );
            }
        }
        if reserved == self.reserved {
            return;
        }
        self.reserved = reserved.clone();
        self.allocator.set_reserved(reserved);
        self.stale_pools.extend(self.pools.keys().cloned());
        self.revisit = true;
    }
}

/// The addresses of a network that no host may have: of IPv4 the first and the last, unless it
/// is a point-to-point link (RFC 3021 section 2.1); of IPv6 the first, the subnet-router anycast
/// address (RFC 4291 section 2.6.1), unless it is one (RFC 6164 section 5.1).
fn ends(network: &IpNet) -> Vec<(IpAddr, &'static str)> {
    match network {
        IpNet::V4(v4) if v4.prefix_len() < 31 => vec![
            (v4.network().into(), "network"),
            (v4.broadcast().into(), "broadcast"),
        ],
        IpNet::V6(v6) if v6.prefix_len() < 127 => {
            vec![(v6.network().into(), "subnet-router anycast")]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_networks() {
        let ends = |text: &str| -> Vec<String> {
            let network: IpNet = text.parse().unwrap();
            let ends = ends(&network);
            ends.iter()
                .map(|(address, _)| address.to_string())
                .collect()
        };
        assert_eq!(ends("192.0.2.11/24"), ["192.0.2.0", "192.0.2.255"]);
        assert_eq!(ends("192.0.2.11/31"), [""; 0]);
        assert_eq!(ends("192.0.2.11/32"), [""; 0]);
        assert_eq!(ends("2001:db8::11/64"), ["2001:db8::"]);
        assert_eq!(ends("2001:db8::11/127"), [""; 0]);
    }
}
