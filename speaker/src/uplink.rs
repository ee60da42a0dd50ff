//! The uplinks: the main one is the interface on the LAN of the nodes, those beside it are on further
//! LANs of clients ([`lightship_core::further`]).
//!
//! [`watch`] follows them by the kernel's notices while the speaker runs: it may go, come back as
//! another interface, and change its name, MAC or MTU; the node's address may change, or move to a
//! bridge. Everybody who needs the main uplink holds a receiver of [`Current`].

mod further;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ipnet::IpNet;
use lightship_frames::Mac;
use lightship_membership::heartbeat::MAX_NETWORKS;
use lightship_netio::{Address, Family, Link, Monitor, Notice, RouteKind, Rtnl, TABLE_MAIN};
use tokio::sync::watch;

use lightship_core::core::UplinkState;
use lightship_core::further::Own;
use lightship_core::world::{Node, NodeName, World};

pub use further::Search;

/// The main uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its own MAC: peers' directors send this node's share there.
    pub mac: Mac,
    /// Its MTU in octets, which the director's links take over.
    pub mtu: u32,
}

impl Uplink {
    /// None of an interface that is no Ethernet.
    fn of(link: &Link) -> Option<Uplink> {
        Some(Uplink {
            name: link.name.clone(),
            index: link.index,
            mac: link.mac?,
            mtu: link.mtu,
        })
    }
}

/// The uplink as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// As it is, or was last if it is gone.
    pub link: Uplink,
    /// Whether it can be used.
    pub state: UplinkState,
    /// Grows whenever frames take another way than before, although the link is the same.
    pub reroutes: u64,
}

impl Current {
    /// One that was just found.
    pub fn new(link: Uplink) -> Self {
        Current {
            link,
            state: UplinkState::FINE,
            reroutes: 0,
        }
    }
}

/// Which interface is the uplink.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The one of this name, whatever addresses it has; else the one with the node's InternalIP.
    pub name: Option<String>,
    /// The own node.
    pub node: NodeName,
}

impl Choice {
    /// The address that it should carry.
    fn address(&self, world: Option<&World>) -> Option<IpAddr> {
        match self.name {
            Some(_) => None,
            None => world?.nodes.get(&self.node)?.main_address(),
        }
    }
}

/// Finds the uplink: the named one, else the one that carries the node's InternalIP.
///
/// # Errors
/// When there is no such interface or it has no MAC.
pub async fn find(name: Option<&str>, node: &Node) -> anyhow::Result<Uplink> {
    let rtnl = Rtnl::open()?;
    let link = match (name, node.main_address()) {
        (Some(name), _) => rtnl
            .require_link(name)
            .await
            .with_context(|| format!("--uplink {name}"))?,
        (None, Some(address)) => {
            let found = rtnl
                .addresses()
                .await?
                .into_iter()
                .find(|a| a.addr == address);
            let Some(found) = found else {
                bail!(
                    "no interface carries {address}, the InternalIP of this node's Node object; \
                    is --node-name right? Else name the interface on the LAN by --uplink"
                );
            };
            rtnl.link(found.index)
                .await?
                .context("the uplink went away")?
        }
        (None, None) => bail!("the Node object has no InternalIP; name the interface by --uplink"),
    };
    Uplink::of(&link).with_context(|| {
        format!(
            "{} is no Ethernet interface; name one that is by --uplink",
            link.name
        )
    })
}

/// Between two looks at networks and further uplinks for changes of routes, or of interfaces that are none, alone: a
/// routing daemon may change thousands. Looking takes at most a twentieth of the time.
const ROUTES: Duration = Duration::from_millis(50);

/// The first of such changes after a while waits so long for those that come with it: an interface gets its
/// carrier and its addresses one after another.
const GATHER: Duration = Duration::from_millis(20);

/// Where it is told what is seen.
#[derive(Debug)]
pub struct Told {
    /// The main uplink.
    pub current: watch::Sender<Current>,
    /// The networks on it.
    pub networks: watch::Sender<Arc<[IpNet]>>,
    /// The further uplinks that can be used.
    pub further: watch::Sender<Arc<[Own]>>,
}

/// Follows the uplinks by the kernel's notices until no receiver of the main one is left.
pub async fn watch(
    choice: Choice,
    mut world: watch::Receiver<Option<Arc<World>>>,
    mut search: Search,
    told: Told,
) {
    loop {
        if let Err(error) = follow(&choice, &mut world, &mut search, &told).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "cannot watch the uplink; trying on"
            );
        }
        if told.current.is_closed() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What a notice asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Nothing.
    None,
    /// To read the networks and further uplinks again, when there is time.
    Routes,
    /// To read everything again now.
    All,
}

async fn follow(
    choice: &Choice,
    world: &mut watch::Receiver<Option<Arc<World>>>,
    search: &mut Search,
    told: &Told,
) -> anyhow::Result<()> {
    let current = &told.current;
    // Opened before the first look, so that no change falls between.
    let mut monitor = Monitor::open()?;
    let rtnl = Rtnl::open()?;
    // When the networks are to be read again, and before when not for changes of routes alone.
    let mut due = Some(Instant::now());
    let mut rested = Instant::now();
    let mut found = further::Found::default();
    loop {
        let address = choice.address(world.borrow_and_update().as_deref());
        let before = current.borrow().clone();
        let mut now = look(&rtnl, choice, address, &before).await?;
        if now.link.index != before.link.index {
            due = Some(Instant::now());
        }
        current.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
        if due.is_some_and(|at| at <= Instant::now()) {
            due = None;
            let began = Instant::now();
            let (links, direct) = (rtnl.links().await?, direct(&rtnl).await?);
            rested = Instant::now() + (began.elapsed() * 20).max(ROUTES);
            // Without a carrier the kernel has no routes there, but the LAN is the same when it is
            // back, of which there is a notice.
            if now.state.carrier {
                tell(&told.networks, on_link(&direct, now.link.index).into());
            }
            found = search.among(&links, &direct, now.link.index);
        }
        tell(&told.further, found.told(world.borrow().as_deref()));
        loop {
            let later = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let look = tokio::select! {
                notice = monitor.next() => match notice? {
                    Notice::Rerouted { index } => {
                        let uplinks = found.all.iter().chain([&now.link.index]);
                        for uplink in uplinks {
                            if carries(&rtnl, index, *uplink).await {
                                now.reroutes += 1;
                                tracing::info!(uplink, "frames take another way");
                                current.send_replace(now.clone());
                                break;
                            }
                        }
                        Look::None
                    }
                    notice => concerns(notice, &now, &found.all),
                },
                Ok(()) = world.changed() => {
                    let world = world.borrow_and_update().clone();
                    tell(&told.further, found.told(world.as_deref()));
                    let wanted = choice.address(world.as_deref());
                    if wanted == address { Look::None } else { Look::All }
                }
                () = later => break,
                () = current.closed() => return Ok(()),
            };
            match look {
                Look::None => {}
                Look::Routes => due = due.or(Some(rested.max(Instant::now() + GATHER))),
                Look::All => {
                    due = Some(Instant::now());
                    break;
                }
            }
        }
    }
}

/// Sends what is not what was sent last.
pub(crate) fn tell<T: PartialEq>(to: &watch::Sender<T>, found: T) {
    to.send_if_modified(|before| {
        let changed = *before != found;
        *before = found;
        changed
    });
}

/// What changed, as far as the uplinks are concerned.
fn concerns(notice: Notice, now: &Current, candidates: &[u32]) -> Look {
    // While it is away any interface may turn out to be it.
    let whole = now.state == UplinkState::FINE;
    match notice {
        Notice::Link { index, .. } | Notice::Address { index, .. } => {
            if index == now.link.index || !whole || candidates.contains(&index) {
                Look::All
            } else {
                // It may be a new one, and is most often a Pod's.
                Look::Routes
            }
        }
        Notice::Lost => Look::All,
        Notice::Route { .. } => Look::Routes,
        Notice::Rule { .. } | Notice::Rerouted { .. } => Look::None,
    }
}

/// Whether frames of the interface `upper` go by `lower`: it is that, or a port of it.
async fn carries(rtnl: &Rtnl, lower: u32, upper: u32) -> bool {
    let mut at = lower;
    // A bond in a bridge is as deep as it gets; links cannot form a circle.
    for _ in 0..4 {
        if at == upper {
            return true;
        }
        match rtnl.link(at).await {
            Ok(Some(Link {
                master: Some(master),
                ..
            })) => at = master,
            _ => return false,
        }
    }
    false
}

/// The networks whose hosts are neighbours on an interface: those of its addresses, and those that
/// routes without a gateway lead to (as a router's advertisement makes them, RFC 4861 section 6.3.4).
fn on_link(direct: &[Direct], index: u32) -> Vec<IpNet> {
    let on = direct.iter().filter(|d| d.index == index);
    networks(on.map(|d| (d.network, d.prefix)), MAX_NETWORKS)
}

/// Something that is a neighbour on an interface.
#[derive(Clone, Copy, Debug)]
struct Direct {
    index: u32,
    network: IpAddr,
    prefix: u8,
}

/// What [`on_link`] looks at, of all interfaces.
async fn direct(rtnl: &Rtnl) -> lightship_netio::Result<Vec<Direct>> {
    let addresses = rtnl.addresses().await?.into_iter();
    let mut all: Vec<Direct> = addresses
        .map(|a| Direct {
            index: a.index,
            network: a.addr,
            prefix: a.prefix,
        })
        .collect();
    for family in [Family::V4, Family::V6] {
        let routes = rtnl.list_routes(TABLE_MAIN, family).await?.into_iter();
        let direct = routes.filter(|r| r.gateway.is_none() && r.kind == RouteKind::Unicast);
        all.extend(direct.filter_map(|route| {
            Some(Direct {
                index: route.dev?,
                network: route.dst,
                prefix: route.prefix,
            })
        }));
    }
    Ok(all)
}

/// The widest come first, because a heartbeat has room for `most`. What holds one address
/// or all is no network of neighbours, and link-local ones are on every link.
fn networks(all: impl IntoIterator<Item = (IpAddr, u8)>, most: usize) -> Vec<IpNet> {
    let all = all.into_iter();
    let networks =
        all.filter_map(|(address, prefix)| Some(IpNet::new(address, prefix).ok()?.trunc()));
    let of_use = |network: &IpNet| {
        let link_local = match network.addr() {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
        };
        let prefix = network.prefix_len();
        prefix > 0 && prefix < network.max_prefix_len() && !link_local
    };
    let networks: Vec<IpNet> = networks.filter(of_use).collect();
    let mut networks = IpNet::aggregate(&networks);
    networks.sort_unstable_by_key(|network| (network.prefix_len(), *network));
    // The own node must go by what the others hear.
    networks.truncate(most);
    networks
}

async fn look(
    rtnl: &Rtnl,
    choice: &Choice,
    address: Option<IpAddr>,
    before: &Current,
) -> anyhow::Result<Current> {
    let mut carried = true;
    let link = match &choice.name {
        Some(name) => rtnl.link_by_name(name).await?,
        None => {
            let last = rtnl.link(before.link.index).await?;
            let addresses = match address {
                Some(_) => rtnl.addresses().await?,
                None => Vec::new(),
            };
            let home = home(&addresses, address, before.link.index);
            carried = home.is_some() || address.is_none();
            match home {
                Some(index) if index != before.link.index => rtnl.link(index).await?.or(last),
                _ => last,
            }
        }
    };
    let found = link
        .as_ref()
        .and_then(|link| Some((link, Uplink::of(link)?)));
    let Some((link, uplink)) = found else {
        return Ok(Current {
            state: UplinkState {
                carrier: false,
                address: carried,
            },
            ..before.clone()
        });
    };
    Ok(Current {
        link: uplink,
        state: UplinkState {
            carrier: link.has_carrier(),
            address: carried,
        },
        reroutes: before.reroutes,
    })
}

/// The interface that carries the address: the one of before if it still does.
fn home(addresses: &[Address], address: Option<IpAddr>, before: u32) -> Option<u32> {
    let mut carriers = addresses.iter().filter(|a| Some(a.addr) == address);
    let first = carriers.clone().next()?.index;
    let same = carriers.any(|a| a.index == before);
    Some(if same { before } else { first })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(all: &[(&str, u8)]) -> Vec<String> {
        let all = all
            .iter()
            .map(|(ip, prefix)| (ip.parse().unwrap(), *prefix));
        let networks = networks(all, MAX_NETWORKS);
        networks.iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn networks_are_those_of_neighbours_and_each_is_told_once() {
        let all = [
            ("2001:db8:2::11", 64),
            ("2001:db8:2::", 64),
            ("192.0.2.11", 24),
            ("192.0.2.0", 24),
            // A secondary address, a route to a single host, and one to everything.
            ("198.51.100.130", 25),
            ("203.0.113.7", 32),
            ("0.0.0.0", 0),
            ("2001:db8:2::17", 128),
            ("fe80::1", 64),
            ("169.254.7.7", 16),
            ("ff00::", 8),
        ];
        let expected = ["192.0.2.0/24", "198.51.100.128/25", "2001:db8:2::/64"];
        assert_eq!(found(&all), expected);
    }

    #[test]
    fn the_widest_are_kept_where_there_are_too_many() {
        let mut all: Vec<(String, u8)> = (0..20)
            .map(|n| (format!("198.51.100.{}", n * 8), 30))
            .collect();
        all.push(("192.0.2.1".into(), 24));
        let all: Vec<(&str, u8)> = all.iter().map(|(ip, prefix)| (&**ip, *prefix)).collect();
        let found = found(&all);
        assert_eq!((found.len(), &*found[0]), (MAX_NETWORKS, "192.0.2.0/24"));
    }
}
