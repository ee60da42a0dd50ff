//! Which interfaces of the node are further uplinks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lightship_frames::Mac;
use lightship_membership::heartbeat::{MAX_FURTHER, MAX_FURTHER_NETWORKS};
use lightship_netio::{Link, Result, Rtnl};

use super::{Direct, direct, networks};
use crate::director::{self, VETH_HOST};
use lightship_core::further::{Further, Own};
use lightship_core::world::{Announcement, World};

/// The kinds of links that can be uplinks (`IFLA_INFO_KIND`; a physical NIC has none), those first
/// that are most often: a node has bridges of its own for Pods and containers, and room in heartbeats is
/// short. A macvlan is none: the kernel puts the director's upon the device below it, so that the one
/// would not hear the other.
const KINDS: [&[Option<&str>]; 3] = [
    &[None, Some("bond"), Some("team"), Some("vlan")],
    &[Some("veth")],
    &[Some("bridge"), Some("openvswitch")],
];

/// Finds the further uplinks again and again.
#[derive(Debug, Default)]
pub struct Search {
    /// The director's MACs by the uplinks' indices: one keeps its MAC, whatever the uplink's becomes.
    macs: BTreeMap<u32, Mac>,
}

/// The place of bridges in [`KINDS`].
const BRIDGES: usize = 2;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Those that can be used now, with a carrier and networks, each with its place in [`KINDS`].
    usable: Vec<(usize, Own)>,
    /// The indices of all, those included that have no carrier or address now.
    pub(super) all: Vec<u32>,
}

impl Search {
    /// One that keeps the MACs of the director that is there.
    pub async fn new() -> Self {
        let macs = director::further_macs().await.unwrap_or_default();
        Search { macs }
    }

    /// What is there now.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn find(&mut self, main: u32, world: &World) -> Result<Arc<[Own]>> {
        let rtnl = Rtnl::open()?;
        let (links, direct) = (rtnl.links().await?, direct(&rtnl).await?);
        Ok(self.among(&links, &direct, main).told(Some(world)))
    }

    pub(super) fn among(&mut self, links: &[Link], direct: &[Direct], main: u32) -> Found {
        let mut found = candidates(links, main);
        let all = found.iter().map(|(_, link)| link.index).collect();
        self.macs
            .retain(|index, _| links.iter().any(|l| l.index == *index));
        found.retain(|(_, link)| link.has_carrier());
        let usable = found.into_iter().filter_map(|(kind, link)| {
            let mac = link.mac?;
            let on = direct.iter().filter(|d| d.index == link.index);
            let on = on.map(|d| (d.network, d.prefix));
            let networks = networks(on.collect::<Vec<(IpAddr, u8)>>(), MAX_FURTHER_NETWORKS);
            if networks.is_empty() {
                return None;
            }
            let derived = || Mac::derive_director_mac(&mac.to_string());
            let director_mac = *self.macs.entry(link.index).or_insert_with(derived);
            let own = Own {
                index: link.index,
                told: Further {
                    interface: link.name.as_str().into(),
                    mac: mac.0,
                    director_mac: director_mac.0,
                    networks: networks.into(),
                },
            };
            Some((kind, own))
        });
        Found {
            usable: usable.collect(),
            all,
        }
    }
}

impl Found {
    /// Those that others are told of. Every node has a bridge for its Pods, with a network of its own,
    /// which would only be noise in heartbeats: a bridge has to be needed, by a VIP that is on-link there
    /// or by an L2Announcement that names it. Others that are needed are told before those that are not.
    pub(super) fn told(&self, world: Option<&World>) -> Arc<[Own]> {
        let needed = |own: &Own| {
            let Some(world) = world else { return false };
            let on = |vip: &IpAddr| {
                own.told
                    .networks
                    .iter()
                    .any(|network| network.contains(vip))
            };
            let mut announcements = world.announcements.values();
            let named = |a: &Announcement| {
                !a.interfaces.is_empty() && a.allows_interface(&own.told.interface)
            };
            world.vips.keys().any(on) || announcements.any(named)
        };
        let (first, then): (Vec<_>, Vec<_>) = self.usable.iter().partition(|(_, own)| needed(own));
        let then = then.into_iter().filter(|(kind, _)| *kind < BRIDGES);
        let told = first.into_iter().chain(then).take(MAX_FURTHER);
        told.map(|(_, own)| own.clone()).collect()
    }
}

/// The interfaces that can be further uplinks, were they up: by kind, then by name. A port of a bridge
/// or bond is none, since its frames belong to that.
fn candidates(links: &[Link], main: u32) -> Vec<(usize, &Link)> {
    let mut found: Vec<(usize, &Link)> = links
        .iter()
        .filter(|link| link.index != main && link.master.is_none() && link.mac.is_some())
        .filter(|link| link.name != "lo" && link.name != VETH_HOST)
        .filter_map(|link| {
            let kind = link.kind.as_deref();
            let rank = KINDS.iter().position(|kinds| kinds.contains(&kind))?;
            Some((rank, link))
        })
        .collect();
    found.sort_unstable_by(|(a, one), (b, other)| (a, &one.name).cmp(&(b, &other.name)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use lightship_core::world::Vip;

    fn link(index: u32, name: &str, kind: Option<&str>) -> Link {
        Link {
            index,
            name: name.into(),
            mac: Some(Mac([2, 0, 0, 0, 0, index as u8])),
            mtu: 1500,
            up: true,
            lower_up: true,
            kind: kind.map(Into::into),
            master: None,
            link: None,
            link_netns_id: None,
        }
    }

    fn on(index: u32, network: &str, prefix: u8) -> Direct {
        Direct {
            index,
            network: network.parse().unwrap(),
            prefix,
        }
    }

    #[test]
    fn further_uplinks_are_ethernet_links_with_a_carrier_and_a_network() {
        let mut links = vec![
            link(2, "eth0", None),
            link(3, "cni0", Some("bridge")),
            link(4, "eth1", None),
            link(5, "eth0.20", Some("vlan")),
            link(6, "eth2", None),
            link(7, "kube-ipvs0", Some("dummy")),
            link(8, "eth3", None),
            link(9, "ls-host", Some("veth")),
            link(10, "tun0", None),
        ];
        links[6].master = Some(3);
        links[8].mac = None;
        let direct = [
            on(2, "192.0.2.11", 24),
            on(3, "198.51.100.1", 24),
            on(4, "203.0.113.11", 25),
            on(5, "203.0.113.201", 26),
            on(5, "fe80::1", 64),
            on(7, "192.0.2.200", 32),
            on(8, "192.0.2.77", 24),
            on(10, "192.0.2.78", 24),
        ];
        let mut search = Search::default();
        let names = |found: &Found, world: &World| -> Vec<String> {
            let told = found.told(Some(world));
            let names = told.iter().map(|own| own.told.interface.to_string());
            names.collect()
        };
        let found = search.among(&links, &direct, 2);
        let mut world = World::default();
        assert_eq!(names(&found, &world), ["eth0.20", "eth1"]);
        // A bridge only if it is needed, and what is needed first: there is room for few.
        let vip = "198.51.100.7".parse().unwrap();
        world.vips.insert(vip, Vip::default());
        assert_eq!(names(&found, &world), ["cni0", "eth0.20", "eth1"]);
        world.vips.clear();
        let any = Announcement::default();
        world.announcements.insert("any".into(), any);
        assert_eq!(names(&found, &world), ["eth0.20", "eth1"]);
        let named = Announcement {
            interfaces: vec!["cni*".into()],
            ..Announcement::default()
        };
        world.announcements.insert("one".into(), named);
        assert_eq!(names(&found, &world), ["cni0", "eth0.20", "eth1"]);
        let told = found.told(Some(&world));
        assert_eq!(found.all, [5, 4, 6, 3]);
        assert_eq!(
            *told[1].told.networks,
            ["203.0.113.192/26".parse().unwrap()]
        );
        // The director keeps its MAC there; without a carrier the uplink is not told.
        let before = told[2].director_mac();
        links[2].mac = Some(Mac([2, 9, 9, 9, 9, 9]));
        links[3].lower_up = false;
        let found = search.among(&links, &direct, 2);
        assert_eq!(names(&found, &world), ["cni0", "eth1"]);
        let told = found.told(Some(&world));
        assert_eq!(told[1].director_mac(), before);
        assert_eq!(told[1].told.mac, [2, 9, 9, 9, 9, 9]);
        assert_eq!(found.all, [5, 4, 6, 3]);
    }
}
