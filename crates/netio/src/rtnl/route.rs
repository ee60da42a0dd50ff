//! Routes.
//!
//! A [`Route`] is in a normal form, so that one made by a constructor equals the
//! same one read back from the kernel, and wanted and present routes can be
//! compared as sets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
    RouteVia,
};

use super::address::Scope;
use super::{Family, LOOPBACK_INDEX, PROTOCOL, Rtnl, TABLE_LOCAL, TABLE_MAIN};
use super::{unless_exists, unless_missing};
use crate::Result;

/// What happens to a packet that a route matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// It is sent on.
    Unicast,
    /// It is for this host.
    Local,
    /// It is dropped without a word.
    Blackhole,
    /// Another kind (`RTN_*`).
    Other(u8),
}

impl RouteKind {
    fn from_netlink(kind: RouteType) -> RouteKind {
        match kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::Local => RouteKind::Local,
            RouteType::BlackHole => RouteKind::Blackhole,
            other => RouteKind::Other(other.into()),
        }
    }

    fn to_netlink(self) -> RouteType {
        match self {
            RouteKind::Unicast => RouteType::Unicast,
            RouteKind::Local => RouteType::Local,
            RouteKind::Blackhole => RouteType::BlackHole,
            RouteKind::Other(raw) => raw.into(),
        }
    }
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The table it is in.
    pub table: u32,
    /// Destination network.
    pub dst: IpAddr,
    /// Length of its prefix, in bits.
    pub prefix: u8,
    /// What happens to a packet.
    pub kind: RouteKind,
    /// Index of the interface to send by; none for [`RouteKind::Blackhole`].
    pub dev: Option<u32>,
    /// The router to send to.
    pub gateway: Option<IpAddr>,
    /// Whether the gateway is on the link although no address of ours says so.
    pub onlink: bool,
    /// How far the destination is; always [`Scope::Global`] for IPv6.
    pub scope: Scope,
    /// Among routes to the same network the lowest wins.
    pub metric: u32,
    /// Who made it; [`PROTOCOL`] if this crate did.
    pub protocol: u8,
}

/// What the kernel gives an IPv6 route that names no metric (`IP6_RT_PRIO_USER`).
const V6_METRIC: u32 = 1024;

impl Route {
    /// `local IP dev lo table local`: packets to `ip` are for this host, though no
    /// interface has that address, so the kernel never speaks ARP or NDP for it.
    pub fn local(ip: IpAddr) -> Route {
        Route {
            table: TABLE_LOCAL,
            kind: RouteKind::Local,
            dev: Some(LOOPBACK_INDEX),
            ..Route::plain(ip, Scope::Host)
        }
    }

    /// `IP dev DEV scope link`: `ip` is a neighbour on `dev`.
    pub fn on_link(ip: IpAddr, dev: u32) -> Route {
        Route {
            dev: Some(dev),
            ..Route::plain(ip, Scope::Link)
        }
    }

    /// `NETWORK/PREFIX dev DEV scope link`, of the network that `ip` is in: all of its
    /// hosts are neighbours on `dev`.
    pub fn on_link_network(ip: IpAddr, prefix: u8, dev: u32) -> Route {
        let prefix = prefix.min(Family::of(ip).bits());
        let dst = match ip {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::from(Ipv4Addr::from_bits(ip.to_bits() & mask))
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::from(Ipv6Addr::from_bits(ip.to_bits() & mask))
            }
        };
        Route {
            prefix,
            ..Route::on_link(dst, dev)
        }
    }

    /// `default via GATEWAY dev DEV onlink`: needs no address of ours in the
    /// gateway's network.
    pub fn default_via(gateway: IpAddr, dev: u32) -> Route {
        Route {
            dev: Some(dev),
            gateway: Some(gateway),
            onlink: true,
            ..Route::plain_default(Family::of(gateway))
        }
    }

    /// `blackhole IP table TABLE`: packets to `ip` are dropped.
    pub fn blackhole(ip: IpAddr, table: u32) -> Route {
        Route {
            table,
            kind: RouteKind::Blackhole,
            ..Route::plain(ip, Scope::Global)
        }
    }

    /// `blackhole default table TABLE`: whatever the table has no other route for
    /// is dropped.
    pub fn blackhole_default(family: Family, table: u32) -> Route {
        Route {
            table,
            kind: RouteKind::Blackhole,
            ..Route::plain_default(family)
        }
    }

    /// The same route in another table.
    pub fn in_table(self, table: u32) -> Route {
        Route { table, ..self }
    }

    /// The family.
    pub fn family(&self) -> Family {
        Family::of(self.dst)
    }

    fn plain(ip: IpAddr, scope: Scope) -> Route {
        let family = Family::of(ip);
        Route {
            table: TABLE_MAIN,
            dst: ip,
            prefix: family.bits(),
            kind: RouteKind::Unicast,
            dev: None,
            gateway: None,
            onlink: false,
            scope: if family == Family::V6 {
                Scope::Global
            } else {
                scope
            },
            metric: if family == Family::V6 { V6_METRIC } else { 0 },
            protocol: PROTOCOL,
        }
    }

    fn plain_default(family: Family) -> Route {
        Route {
            prefix: 0,
            ..Route::plain(unspecified(family), Scope::Global)
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Unicast => {}
            RouteKind::Local => f.write_str("local ")?,
            RouteKind::Blackhole => f.write_str("blackhole ")?,
            RouteKind::Other(raw) => write!(f, "type {raw} ")?,
        }
        write!(f, "{}/{}", self.dst, self.prefix)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(dev) = self.dev {
            write!(f, " dev {dev}")?;
        }
        write!(f, " table {}", self.table)
    }
}

/// Where packets go for which there is no better route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Index of the interface.
    pub ifindex: u32,
    /// The router; none on a point-to-point link.
    pub gateway: Option<IpAddr>,
    /// Its metric: the lowest of all default routes.
    pub metric: u32,
}

impl Rtnl {
    /// The routes of a family in a table. Empty if there is no such table.
    /// Routes over several next hops show the first.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn list_routes(&self, table: u32, family: Family) -> Result<Vec<Route>> {
        let found = self.dump_routes(table, family).await?;
        Ok(found.iter().filter_map(read).collect())
    }

    /// Adds a route. Returns `false` if the table has one to the same network
    /// with the same metric, be it another kind or by another interface.
    ///
    /// # Errors
    /// No such interface, or it is down.
    pub async fn add_route(&self, route: &Route) -> Result<bool> {
        unless_exists(
            self.change(
                RouteNetlinkMessage::NewRoute(message(route)),
                NLM_F_CREATE | NLM_F_EXCL,
                || format!("add route {route}"),
            )
            .await,
        )
    }

    /// Adds a route in place of the one to the same network with the same metric,
    /// if there is one, without a moment in which there is none.
    ///
    /// # Errors
    /// No such interface, or it is down.
    pub async fn replace_route(&self, route: &Route) -> Result<()> {
        self.change(
            RouteNetlinkMessage::NewRoute(message(route)),
            NLM_F_CREATE | NLM_F_REPLACE,
            || format!("replace route {route}"),
        )
        .await
    }

    /// Deletes just this route. Returns whether it was there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn delete_route(&self, route: &Route) -> Result<bool> {
        unless_missing(
            self.change(RouteNetlinkMessage::DelRoute(message(route)), 0, || {
                format!("delete route {route}")
            })
            .await,
        )
    }

    /// The default route of a family in the main table, the one with the lowest
    /// metric if there are several.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn default_route(&self, family: Family) -> Result<Option<DefaultRoute>> {
        let all = self.default_routes(family).await?;
        Ok(all.into_iter().min_by_key(|route| route.metric))
    }

    /// All default routes of a family in the main table; one over several next hops
    /// comes once for each.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn default_routes(&self, family: Family) -> Result<Vec<DefaultRoute>> {
        let found = self.dump_routes(TABLE_MAIN, family).await?;
        let defaults = found.into_iter().filter(|message| {
            let header = &message.header;
            header.destination_prefix_length == 0 && header.kind == RouteType::Unicast
        });
        Ok(defaults
            .flat_map(|message| default_hops(&message))
            .collect())
    }

    async fn dump_routes(&self, table: u32, family: Family) -> Result<Vec<RouteMessage>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family.to_netlink();
        message.attributes = vec![RouteAttribute::Table(table)];
        let found = match self
            .dump(RouteNetlinkMessage::GetRoute(message), "list routes")
            .await
        {
            Err(e) if e.is_not_found() => return Ok(Vec::new()),
            other => other?,
        };
        let messages = found.into_iter().filter_map(|found| match found {
            RouteNetlinkMessage::NewRoute(message) => Some(message),
            _ => None,
        });
        Ok(messages
            // Kernels before 4.20 know no filter and list all tables; one without
            // IPv6 answers for all the families that it has.
            .filter(|message| {
                table_of(message) == table
                    && Family::of_netlink(message.header.address_family) == Some(family)
            })
            .collect())
    }
}

fn table_of(message: &RouteMessage) -> u32 {
    let mut attributes = message.attributes.iter();
    let named = attributes.find_map(|a| match a {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    named.unwrap_or(u32::from(message.header.table))
}

/// The next hops of a default route.
fn default_hops(message: &RouteMessage) -> Vec<DefaultRoute> {
    let mut metric = 0;
    let mut single = (None, None);
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Oif(dev) => single.0 = Some(*dev),
            RouteAttribute::MultiPath(all) => {
                hops.extend(all.iter().map(|hop| {
                    let gateway = hop.attributes.iter().find_map(gateway);
                    (Some(hop.interface_index), gateway)
                }));
            }
            other => single.1 = single.1.or(gateway(other)),
        }
    }
    hops.push(single);
    hops.into_iter()
        .filter_map(|(dev, gateway)| {
            Some(DefaultRoute {
                ifindex: dev?,
                gateway,
                metric,
            })
        })
        .collect()
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(gateway) => from_netlink(gateway),
        // An IPv4 route by an IPv6 router (RFC 5549).
        RouteAttribute::Via(RouteVia::Inet6(ip)) => Some((*ip).into()),
        RouteAttribute::Via(RouteVia::Inet(ip)) => Some((*ip).into()),
        _ => None,
    }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn to_netlink(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}

fn from_netlink(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = route.family().to_netlink();
    message.header.destination_prefix_length = route.prefix;
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.scope = RouteScope::from(route.scope.to_raw());
    message.header.kind = route.kind.to_netlink();
    if route.onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    // The header has room for tables to 255 only; the attribute is always right.
    message.attributes.push(RouteAttribute::Table(route.table));
    if route.prefix != 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(to_netlink(route.dst)));
    }
    if let Some(gateway) = route.gateway {
        message
            .attributes
            .push(RouteAttribute::Gateway(to_netlink(gateway)));
    }
    if let Some(dev) = route.dev {
        message.attributes.push(RouteAttribute::Oif(dev));
    }
    if route.metric != 0 {
        message
            .attributes
            .push(RouteAttribute::Priority(route.metric));
    }
    message
}

fn read(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let family = Family::of_netlink(header.address_family)?;
    let mut route = Route {
        table: table_of(message),
        dst: unspecified(family),
        prefix: header.destination_prefix_length,
        kind: RouteKind::from_netlink(header.kind),
        dev: None,
        gateway: None,
        onlink: header.flags.contains(RouteFlags::Onlink),
        scope: Scope::from_raw(header.scope.into()),
        metric: 0,
        protocol: header.protocol.into(),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(dst) => route.dst = from_netlink(dst)?,
            RouteAttribute::Gateway(gateway) => route.gateway = from_netlink(gateway),
            RouteAttribute::Oif(dev) => route.dev = Some(*dev),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::MultiPath(hops) => {
                let first = hops.first()?;
                route.dev = Some(first.interface_index);
                route.gateway = first.attributes.iter().find_map(gateway);
            }
            _ => {}
        }
    }
    if route.kind == RouteKind::Blackhole {
        // IPv6 says lo, IPv4 says nothing.
        route.dev = None;
    }
    Some(route)
}
