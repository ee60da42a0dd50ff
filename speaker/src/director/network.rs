//! The director's routes and neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lightship_frames::Mac;
use lightship_netio::{
    Family, LOOPBACK_INDEX, Neighbour, PROTOCOL, Result, Route, RouteKind, Rtnl, TABLE_LOCAL,
    TABLE_MAIN,
};

use super::setup::Links;
use crate::core::DirectorIntent;

/// Routes and neighbours within the director's namespace.
pub(super) struct Network {
    rtnl: Rtnl,
    links: Links,
    /// What was last put in place, to skip reading it all for an unchanged intent.
    nodes: Option<(BTreeSet<IpAddr>, BTreeMap<IpAddr, Mac>)>,
}

impl Network {
    /// Within the namespace.
    pub(super) async fn open(links: Links) -> Result<Self> {
        let rtnl = Rtnl::open()?;
        rtnl.set_up(LOOPBACK_INDEX, true).await?;
        Ok(Network {
            rtnl,
            links,
            nodes: None,
        })
    }

    /// The VIPs that are local here.
    pub(super) async fn vips(&self) -> Result<BTreeSet<IpAddr>> {
        let mut vips = BTreeSet::new();
        for family in [Family::V4, Family::V6] {
            vips.extend(
                self.local_routes(family)
                    .await?
                    .iter()
                    .map(|route| route.dst),
            );
        }
        Ok(vips)
    }

    /// Makes exactly these VIPs local: as routes, not as addresses, so that the kernel
    /// delivers their packets to IPVS but never speaks ARP or NDP for them.
    pub(super) async fn set_vips(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>> {
        for family in [Family::V4, Family::V6] {
            let wanted: BTreeSet<Route> = wanted
                .iter()
                .filter(|vip| Family::of(**vip) == family)
                .map(|vip| Route::local(*vip))
                .collect();
            let present = self.local_routes(family).await?;
            self.differ(&wanted, &present).await?;
        }
        Ok(wanted.clone())
    }

    /// Lets frames reach every node: an own route and a permanent neighbour entry for each,
    /// so that forwarding needs no ARP. The own node is behind the veth pair.
    pub(super) async fn nodes(&mut self, intent: &DirectorIntent) -> Result<()> {
        let asked = (intent.own.clone(), intent.peers.clone());
        if self.nodes.as_ref() == Some(&asked) {
            return Ok(());
        }
        let own = intent
            .own
            .iter()
            .map(|ip| (self.links.veth, *ip, self.links.host_mac));
        let peers = intent
            .peers
            .iter()
            .map(|(ip, mac)| (self.links.macvlan, *ip, *mac));
        let wanted: Vec<(u32, IpAddr, Mac)> = own.chain(peers).collect();

        let present = self.rtnl.neighbours().await?;
        let has = |n: &Neighbour, (dev, ip, mac): &(u32, IpAddr, Mac)| {
            n.permanent && n.ifindex == *dev && n.ip == *ip && n.mac == Some(*mac)
        };
        for entry in wanted.iter().filter(|w| !present.iter().any(|n| has(n, w))) {
            match self.rtnl.replace_neighbour(entry.0, entry.1, entry.2).await {
                // A kernel without IPv6 still directs IPv4.
                Err(error) if entry.1.is_ipv6() && error.is_not_supported() => {}
                result => result?,
            }
        }
        for family in [Family::V4, Family::V6] {
            let mut routes: BTreeSet<Route> = wanted
                .iter()
                .filter(|(_, ip, _)| Family::of(*ip) == family)
                .map(|(dev, ip, _)| Route::on_link(*ip, *dev))
                .collect();
            let answers = self.links.answers.iter().filter(|r| r.family() == family);
            routes.extend(answers.copied());
            let present = self.rtnl.list_routes(TABLE_MAIN, family).await?;
            let ours: BTreeSet<Route> = present
                .into_iter()
                .filter(|r| r.protocol == PROTOCOL)
                .collect();
            self.differ(&routes, &ours).await?;
        }
        let stale = present.iter().filter(|n| {
            n.permanent
                && !wanted
                    .iter()
                    .any(|(dev, ip, _)| n.ifindex == *dev && n.ip == *ip)
        });
        for neighbour in stale {
            self.rtnl
                .delete_neighbour(neighbour.ifindex, neighbour.ip)
                .await?;
        }
        self.nodes = Some(asked);
        Ok(())
    }

    /// Forgets what was put in place, so that all is read again.
    pub(super) fn distrust(&mut self) {
        self.nodes = None;
    }

    async fn local_routes(&self, family: Family) -> Result<BTreeSet<Route>> {
        let all = self.rtnl.list_routes(TABLE_LOCAL, family).await?;
        let ours = |r: &Route| r.protocol == PROTOCOL && r.kind == RouteKind::Local;
        Ok(all.into_iter().filter(ours).collect())
    }

    async fn differ(&self, wanted: &BTreeSet<Route>, present: &BTreeSet<Route>) -> Result<()> {
        for route in present.difference(wanted) {
            self.rtnl.delete_route(route).await?;
        }
        for route in wanted.difference(present) {
            match self.rtnl.replace_route(route).await {
                Err(error) if route.family() == Family::V6 && error.is_not_supported() => {}
                result => result?,
            }
        }
        Ok(())
    }
}
