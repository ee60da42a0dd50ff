//! What nodes are fit for, as they say and as is found here: to own VIPs, to direct, to take a share.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Core;
use crate::intent::NodeHealth;
use crate::world::NodeName;

impl Core {
    /// What is known of each node that has been heard, the own one included.
    pub(super) fn health(&self) -> BTreeMap<NodeName, NodeHealth> {
        let mut health: BTreeMap<_, _> = self
            .peers
            .iter()
            .filter_map(|(name, peer)| {
                let told = peer.told.as_ref()?;
                let alive = !peer.buried && self.detector.state(name).node_alive();
                let direct_routing = told.direct_routing;
                Some((
                    name.clone(),
                    NodeHealth {
                        alive,
                        direct_routing,
                        interface: told.interface.clone(),
                        networks: told.networks.clone(),
                        further: told.further.clone(),
                        retired: self.retiring.retired(name),
                        idle: peer.idle,
                        director: peer.director,
                        proven: peer.proven,
                    },
                ))
            })
            .collect();
        let direct_routing = self.directs();
        health.insert(
            self.setup.me.clone(),
            NodeHealth {
                alive: true,
                direct_routing,
                interface: self.setup.interface.clone(),
                networks: self.networks.clone(),
                further: self.further.iter().map(|own| own.told.clone()).collect(),
                retired: self.retiring.retired(&self.setup.me),
                idle: self.shareless(),
                director: self.setup.direct_routing,
                proven: self.proven,
            },
        );
        health
    }

    /// Whether this node's director takes the traffic of a VIP.
    pub(super) fn directed(&self, vip: IpAddr) -> bool {
        self.directs()
            && !self.withheld(vip)
            && self.intent.vips.get(&vip).is_some_and(|v| !v.announce_only)
    }

    /// Whether this node may own VIPs: it is not about to stop, and nothing is wrong with it.
    pub(super) fn can_own(&self) -> bool {
        !self.leaving && self.trouble().is_none()
    }

    /// Whether this node can announce a VIP as soon as it claims it: its owner falls silent when it
    /// hears of the claim.
    pub(super) fn ready(&self) -> bool {
        self.settled && (!self.setup.direct_routing || self.director.applied > 0)
    }

    /// Why this node cannot announce now.
    pub(super) fn trouble(&self) -> Option<String> {
        if !self.uplink.carrier {
            return Some(format!("{} has no carrier", self.setup.interface));
        }
        if !self.uplink.address {
            return Some(format!("{} lost the node's address", self.setup.interface));
        }
        if self.directs() && !self.director.healthy {
            let error = self.director.error.as_deref().unwrap_or("unknown error");
            return Some(format!("its director fails: {error}"));
        }
        None
    }

    /// Whether the own director cannot take the traffic of a VIP, so that the own kube-proxy
    /// has to.
    pub(super) fn withheld(&self, vip: IpAddr) -> bool {
        let refused =
            self.director.failing.contains_key(&vip) && !self.director.programmed.contains(&vip);
        refused || self.uplink_refused(vip).is_some()
    }
}
