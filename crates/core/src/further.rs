//! Uplinks beside the main one, and on which of its uplinks a node announces a VIP. Pure.
//!
//! The main uplink is the one on the LAN of the nodes: heartbeats and what directors send to nodes go by
//! it. A further uplink is on a LAN of clients, and only for ingress: VIPs are announced there, and their
//! traffic comes in. All nodes judge alike, by what each says of its uplinks in its heartbeats.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use lightship_frames::Mac;
use serde::{Deserialize, Serialize};

use crate::eligibility::on_link;

/// A further uplink as its node tells of it. One that has no carrier is not told, so that other nodes
/// take over what was announced there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Further {
    /// Its name.
    pub interface: Arc<str>,
    /// Its own MAC.
    pub mac: [u8; 6],
    /// The MAC of the node's director there.
    pub director_mac: [u8; 6],
    /// The networks whose hosts are neighbours there.
    pub networks: Arc<[IpNet]>,
}

/// A further uplink of the own node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Its index.
    pub index: u32,
    /// What is told of it.
    pub told: Further,
}

impl Own {
    /// Its own MAC.
    pub fn mac(&self) -> Mac {
        Mac(self.told.mac)
    }

    /// The MAC of the director there.
    pub fn director_mac(&self) -> Mac {
        Mac(self.told.director_mac)
    }
}

impl From<&lightship_membership::heartbeat::Further> for Further {
    fn from(told: &lightship_membership::heartbeat::Further) -> Self {
        Further {
            interface: told.interface.clone(),
            mac: told.mac,
            director_mac: told.director_mac,
            networks: told.networks.clone(),
        }
    }
}

impl From<&Further> for lightship_membership::heartbeat::Further {
    fn from(further: &Further) -> Self {
        lightship_membership::heartbeat::Further {
            interface: further.interface.clone(),
            mac: further.mac,
            director_mac: further.director_mac,
            networks: further.networks.clone(),
        }
    }
}

/// One of a node's uplinks.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// The main one, whatever its name is at the moment.
    #[default]
    Main,
    /// The further one of this name.
    Further(Arc<str>),
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Via::Main => f.write_str("the main uplink"),
            Via::Further(name) => f.write_str(name),
        }
    }
}

/// Where a node announces a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// On which uplink.
    pub via: Via,
    /// Whether the VIP is on a network of that uplink; `None` if the node did not say.
    pub on_link: Option<bool>,
}

/// The uplink on which a node announces a VIP: of those that are allowed the main one if the VIP is
/// on-link there, else the first by name on which it is; else, as it is on-link on none, the main one
/// (a router leads the VIP there), and where that is not allowed the first by name.
///
/// `main`: name (empty if not known) and networks of the main uplink.
pub fn place(
    main: (&str, &[IpNet]),
    further: &[Further],
    allows: impl Fn(&str) -> bool,
    address: IpAddr,
) -> Option<Place> {
    let on_main = allows(main.0).then(|| on_link(main.1, address));
    if on_main == Some(Some(true)) || further.is_empty() {
        let on_link = on_main?;
        return Some(Place {
            via: Via::Main,
            on_link,
        });
    }
    let mut allowed: Vec<&Further> = further.iter().filter(|f| allows(&f.interface)).collect();
    allowed.sort_unstable_by(|a, b| a.interface.cmp(&b.interface));
    let here = |f: &&&Further| on_link(&f.networks, address) == Some(true);
    if let Some(found) = allowed.iter().find(here) {
        return Some(Place {
            via: Via::Further(found.interface.clone()),
            on_link: Some(true),
        });
    }
    match (on_main, allowed.first()) {
        (Some(on_link), _) => Some(Place {
            via: Via::Main,
            on_link,
        }),
        (None, Some(first)) => Some(Place {
            via: Via::Further(first.interface.clone()),
            on_link: on_link(&first.networks, address),
        }),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn further(interface: &str, networks: &[&str]) -> Further {
        let networks = networks.iter().map(|n| n.parse().unwrap());
        Further {
            interface: interface.into(),
            networks: networks.collect(),
            ..Further::default()
        }
    }

    fn via(allowed: &[&str], address: &str) -> Option<(String, Option<bool>)> {
        let main: [IpNet; 1] = ["192.0.2.0/24".parse().unwrap()];
        let further = [
            further("eth2", &["198.51.100.0/24", "2001:db8:20::/64"]),
            further("eth1", &["203.0.113.0/24", "198.51.100.0/24"]),
        ];
        let allows = |name: &str| allowed.is_empty() || allowed.contains(&name);
        let place = place(("eth0", &main), &further, allows, address.parse().unwrap())?;
        let name = match place.via {
            Via::Main => "eth0".to_owned(),
            Via::Further(name) => name.to_string(),
        };
        Some((name, place.on_link))
    }

    #[test]
    fn a_vip_is_announced_where_it_is_on_link_the_main_uplink_first() {
        let on = |name: &str| Some((name.to_owned(), Some(true)));
        let off = |name: &str| Some((name.to_owned(), Some(false)));
        assert_eq!(via(&[], "192.0.2.200"), on("eth0"));
        assert_eq!(via(&[], "198.51.100.200"), on("eth1"), "the first by name");
        assert_eq!(via(&[], "2001:db8:20::200"), on("eth2"));
        assert_eq!(via(&[], "2001:db8:99::1"), off("eth0"), "on-link nowhere");
        // Only what the announcement names.
        assert_eq!(via(&["eth0"], "198.51.100.200"), off("eth0"));
        assert_eq!(via(&["eth2"], "198.51.100.200"), on("eth2"));
        assert_eq!(via(&["eth2"], "192.0.2.200"), off("eth2"));
        assert_eq!(via(&["eth1", "eth2"], "2001:db8:99::1"), off("eth1"));
        assert_eq!(via(&["eth7"], "192.0.2.200"), None);
    }

    #[test]
    fn a_node_that_did_not_say_announces_on_its_main_uplink() {
        let vip = "192.0.2.200".parse().unwrap();
        let main = Place {
            via: Via::Main,
            on_link: None,
        };
        assert_eq!(place(("", &[]), &[], |_| true, vip), Some(main));
        assert_eq!(place(("eth0", &[]), &[], |_| false, vip), None);
    }
}
