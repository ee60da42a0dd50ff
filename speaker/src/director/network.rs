//! The director's routes and neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lightship_frames::Mac;
use lightship_netio::{
    Family, LOOPBACK_INDEX, Neighbour, PROTOCOL, Result, Route, RouteKind, Rtnl, TABLE_LOCAL,
    TABLE_MAIN,
};

use super::links::Links;
use lightship_core::core::DirectorIntent;

/// Routes and neighbours within the director's namespace.
pub(super) struct Network {
    rtnl: Rtnl,
    links: Links,
    /// What was last put in place, to skip reading routes for an unchanged intent.
    nodes: Option<(BTreeSet<IpAddr>, BTreeMap<IpAddr, Mac>)>,
    vips: Option<BTreeSet<IpAddr>>,
}

/// What became of the local routes.
#[derive(Debug, Default)]
pub(super) struct Locals {
    /// The VIPs that are local.
    pub(super) present: BTreeSet<IpAddr>,
    /// Those of which the kernel refused to make or remove the route.
    pub(super) failed: BTreeMap<IpAddr, String>,
    /// How many routes were made or removed.
    pub(super) changes: usize,
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
            vips: None,
        })
    }

    /// Takes links that were made anew, or other routes to clients.
    pub(super) fn set_links(&mut self, links: Links) {
        if self.links != links {
            self.links = links;
            self.nodes = None;
        }
    }

    /// The VIPs that are local here.
    pub(super) async fn vips(&self) -> Result<BTreeSet<IpAddr>> {
        let mut vips = BTreeSet::new();
        for family in [Family::V4, Family::V6] {
            let routes = self.local_routes(family).await?;
            vips.extend(routes.iter().map(|route| route.dst));
        }
        Ok(vips)
    }

    /// Makes these VIPs local: as routes, not as addresses, so that the kernel
    /// delivers their packets to IPVS but never speaks ARP or NDP for them. Those in `hold`
    /// stay as they are, and all others cease to be local.
    pub(super) async fn set_vips(
        &mut self,
        wanted: &BTreeSet<IpAddr>,
        hold: &BTreeSet<IpAddr>,
    ) -> Result<Locals> {
        if hold.is_empty() && self.vips.as_ref() == Some(wanted) {
            return Ok(Locals {
                present: wanted.clone(),
                ..Locals::default()
            });
        }
        let mut locals = Locals::default();
        for family in [Family::V4, Family::V6] {
            let present = self.local_routes(family).await?;
            let kept = present.iter().filter(|r| hold.contains(&r.dst)).copied();
            let wanted: BTreeSet<Route> = wanted
                .difference(hold)
                .filter(|vip| Family::of(**vip) == family)
                .map(|vip| Route::local(*vip))
                .chain(kept)
                .collect();
            let mut now = present.clone();
            for route in present.difference(&wanted) {
                match self.rtnl.delete_route(route).await {
                    Ok(_) => drop(now.remove(route)),
                    Err(error) => drop(locals.failed.insert(route.dst, error.to_string())),
                }
                locals.changes += 1;
            }
            for route in wanted.difference(&present) {
                match self.rtnl.replace_route(route).await {
                    Ok(()) => drop(now.insert(*route)),
                    Err(error) => drop(locals.failed.insert(route.dst, error.to_string())),
                }
                locals.changes += 1;
            }
            locals.present.extend(now.iter().map(|route| route.dst));
        }
        self.vips = locals.failed.is_empty().then(|| locals.present.clone());
        Ok(locals)
    }

    /// Lets frames reach every node: an own route and a permanent neighbour entry for each,
    /// so that forwarding needs no ARP. The own node is behind the veth pair. Returns what it
    /// changed; an entry that the kernel refuses does not keep the others from being made. `look`: others may have
    /// changed neighbours, of which there is no notice.
    pub(super) async fn nodes(
        &mut self,
        intent: &DirectorIntent,
        look: bool,
        refused: &mut Vec<String>,
    ) -> Result<Vec<String>> {
        let (own, peers) = (&intent.own, &intent.peers);
        let known = self.nodes.as_ref();
        if !look && known.is_some_and(|(o, p)| o == own && p == peers) {
            return Ok(Vec::new());
        }
        let asked = (own.clone(), peers.clone());
        let own = intent
            .own
            .iter()
            .map(|ip| (self.links.veth, *ip, self.links.host_mac));
        let peers = intent
            .peers
            .iter()
            .map(|(ip, mac)| (self.links.macvlan, *ip, *mac));
        let wanted: Vec<(u32, IpAddr, Mac)> = own.chain(peers).collect();
        let mut changed = Vec::new();

        let present = self.rtnl.neighbours().await?;
        let has = |n: &Neighbour, (dev, ip, mac): &(u32, IpAddr, Mac)| {
            n.permanent && n.ifindex == *dev && n.ip == *ip && n.mac == Some(*mac)
        };
        for entry in wanted.iter().filter(|w| !present.iter().any(|n| has(n, w))) {
            match self.rtnl.replace_neighbour(entry.0, entry.1, entry.2).await {
                Ok(()) => changed.push(format!("neighbour {} {}", entry.1, entry.2)),
                // A kernel without IPv6 still directs IPv4.
                Err(error) if entry.1.is_ipv6() && error.is_not_supported() => {}
                Err(error) => refused.push(error.to_string()),
            }
        }
        if self.nodes.as_ref() != Some(&asked) {
            for family in [Family::V4, Family::V6] {
                let node_routes = wanted
                    .iter()
                    .filter(|(_, ip, _)| Family::of(*ip) == family)
                    .map(|(dev, ip, _)| Route::on_link(*ip, *dev));
                let answers = self.links.answers.iter().copied();
                let routes = node_routes.chain(answers.filter(|r| r.family() == family));
                self.routes(family, &routes.collect(), &mut changed, refused)
                    .await?;
            }
        }
        let stale = present.iter().filter(|n| {
            n.permanent
                && !wanted
                    .iter()
                    .any(|(dev, ip, _)| n.ifindex == *dev && n.ip == *ip)
        });
        for neighbour in stale {
            let (dev, ip) = (neighbour.ifindex, neighbour.ip);
            if self.rtnl.delete_neighbour(dev, ip).await? {
                changed.push(format!("no neighbour {ip}"));
            }
        }
        self.nodes = refused.is_empty().then_some(asked);
        Ok(changed)
    }

    /// Makes the main table's routes of ours these. What takes the place of another comes
    /// first, so that there is no moment without either.
    async fn routes(
        &self,
        family: Family,
        wanted: &BTreeSet<Route>,
        changed: &mut Vec<String>,
        refused: &mut Vec<String>,
    ) -> Result<()> {
        let present = self.rtnl.list_routes(TABLE_MAIN, family).await?;
        let ours: BTreeSet<Route> = present
            .into_iter()
            .filter(|r| r.protocol == PROTOCOL)
            .collect();
        for route in wanted.difference(&ours) {
            match self.rtnl.replace_route(route).await {
                Ok(()) => changed.push(format!("route {route}")),
                Err(error) if family == Family::V6 && error.is_not_supported() => {}
                Err(error) => refused.push(error.to_string()),
            }
        }
        for route in ours.difference(wanted) {
            if self.rtnl.delete_route(route).await? {
                changed.push(format!("no route {route}"));
            }
        }
        Ok(())
    }

    /// Forgets what was put in place, so that all routes are read again.
    pub(super) fn distrust(&mut self) {
        self.nodes = None;
        self.vips = None;
    }

    async fn local_routes(&self, family: Family) -> Result<BTreeSet<Route>> {
        let all = self.rtnl.list_routes(TABLE_LOCAL, family).await?;
        let ours = |r: &Route| r.protocol == PROTOCOL && r.kind == RouteKind::Local;
        Ok(all.into_iter().filter(ours).collect())
    }
}
