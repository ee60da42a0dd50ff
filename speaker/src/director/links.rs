//! The director's namespace and links, and whether they still are as they were made.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lightship_frames::Mac;
use lightship_netio::{Family, Link, Macvlan, Monitor, Netns, Route, Rtnl, Scope, Veth, run_in};

use tokio::sync::watch;

use super::further::{self, Further, Wanted};
use super::{Error, Plan, settings};
use crate::uplink::{Current, Uplink};

/// The name of the director's network namespace.
pub(crate) const NETNS: &str = "lightship";
/// The macvlan on the uplink, in the namespace: clients send to it.
pub(super) const MACVLAN: &str = "ls-dir";
/// The host's end of the veth pair: the own node's share comes in by it.
pub const VETH_HOST: &str = "ls-host";
/// The namespace's end of the veth pair.
pub(super) const VETH_DIRECTOR: &str = "ls-self";
/// All of ours in the namespace, but for those on further uplinks.
pub(crate) const LINKS: [&str; 2] = [MACVLAN, VETH_DIRECTOR];

/// An address for [`VETH_HOST`], link scope and used by nobody. Loose reverse path filtering
/// drops everything that comes in by an interface without any address
/// (net/ipv4/fib_frontend.c, `__fib_validate_source`).
const VETH_ADDRESS: [u8; 4] = [169, 254, 255, 1];

/// The director's links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Links {
    /// Index of the macvlan within the namespace.
    pub(super) macvlan: u32,
    /// Index of the veth within the namespace.
    pub(super) veth: u32,
    /// MAC of the host's end of the veth.
    pub(super) host_mac: Mac,
    /// Those on further uplinks.
    pub(super) further: Further,
    /// What the director itself needs to answer clients (ping, ICMP errors): the uplinks'
    /// networks and the host's routers, by way of the macvlans.
    pub(super) answers: BTreeSet<Route>,
}

impl Links {
    /// The names of those by which frames come and go.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let further = self.further.links.values();
        LINKS.into_iter().chain(further.map(|link| &*link.name))
    }
}

/// The uplinks' indices, the main one's first, each with that of the macvlan on it.
type Outlets = Vec<(u32, u32)>;

/// How long links count as they were found, as long as the kernel tells of no change.
const REREAD: Duration = Duration::from_secs(30);

/// What links were made for, what they are, and when they were looked at.
struct Found {
    uplink: Uplink,
    wanted: Option<Wanted>,
    links: Links,
    at: Instant,
}

/// The two namespaces, and a handle on each that works from any thread.
pub(super) struct Ground {
    plan: Plan,
    /// The links as last read, until something changes.
    found: Option<Found>,
    /// The routes to clients as last read, until the host's change, with the links they are of.
    answers: Option<(Outlets, BTreeSet<Route>)>,
    pub(super) netns: Netns,
    host_ns: Netns,
    host: Rtnl,
    inside: Rtnl,
}

impl Ground {
    /// From the host's namespace; makes the director's if it is not there.
    pub(super) fn open(plan: Plan) -> Result<Self, Error> {
        let netns = Netns::create(NETNS)?;
        Ok(Ground {
            plan,
            found: None,
            answers: None,
            host_ns: Netns::current()?,
            host: Rtnl::open()?,
            inside: Rtnl::open_in(&netns)?,
            netns,
        })
    }

    /// Notices of changes on the host.
    pub(super) fn host_monitor(&self) -> Result<Monitor, Error> {
        Ok(Monitor::open_in(&self.host_ns)?)
    }

    /// The uplink, to hear of its changes.
    pub(super) fn uplink(&self) -> watch::Receiver<Current> {
        self.plan.uplink.clone()
    }

    /// Somebody else changed something, which was put back.
    pub(super) fn mended(&self, what: &str) {
        self.plan.drift.director(what);
    }

    /// Something changed in the namespace, which may be links.
    pub(super) fn distrust_links(&mut self) {
        self.found = None;
    }

    /// Something changed on the host that links or the routes to clients may depend on.
    pub(super) fn distrust(&mut self) {
        self.distrust_links();
        self.answers = None;
    }

    /// Makes what is missing or wrong, and says what that was. `wanted`: the further uplinks; none: what
    /// is there stays as it is.
    pub(super) async fn links(
        &mut self,
        wanted: Option<&Wanted>,
        made: &mut Vec<String>,
    ) -> Result<Links, Error> {
        if Netns::restore(NETNS, &self.netns)? {
            made.push(format!("the name {NETNS} of the namespace"));
        }
        let uplink = self.plan.uplink.borrow_and_update().link.clone();
        let found = self.found.take().filter(|found| {
            let same = found.uplink == uplink && found.wanted.as_ref() == wanted;
            same && found.at.elapsed() < REREAD
        });
        let found = match found {
            Some(found) => found,
            None => Found {
                at: Instant::now(),
                links: self.look(&uplink, wanted, made).await?,
                wanted: wanted.cloned(),
                uplink,
            },
        };
        let links = found.links.clone();
        // What was refused is tried again, though nothing changes.
        let refused = links.further.uplinks.values().any(Option::is_some);
        self.found = (!refused).then_some(found);
        Ok(links)
    }

    async fn look(
        &mut self,
        uplink: &Uplink,
        wanted: Option<&Wanted>,
        made: &mut Vec<String>,
    ) -> Result<Links, Error> {
        // The MTU may be newer than the uplink's last news.
        let parent = self.host.require_link_of(uplink.index).await?;
        let mtu = parent.mtu;
        let macvlan = self.macvlan(uplink.index, made).await?;
        let (outer, inner) = self.veth(uplink, mtu, made).await?;
        for (rtnl, link) in [
            (&self.inside, &macvlan),
            (&self.inside, &inner),
            (&self.host, &outer),
        ] {
            follow(rtnl, link, mtu, made).await?;
        }
        let address = VETH_ADDRESS.into();
        if self
            .host
            .add_address(outer.index, address, 32, Scope::Link)
            .await?
        {
            made.push(format!("{address} on {VETH_HOST}"));
        }
        let (host_mac, _) = veth_macs(uplink.mac);
        let further = match wanted {
            None => Further::default(),
            Some(all) => further::links(&self.host, &self.inside, &self.netns, all, made).await?,
        };
        let mut outlets = vec![(uplink.index, macvlan.index)];
        outlets.extend(further.links.iter().map(|(of, link)| (*of, link.index)));
        let answers = match self.answers.take() {
            Some((of, answers)) if of == outlets => answers,
            _ => self.answers(&outlets).await?,
        };
        self.answers = Some((outlets, answers.clone()));
        Ok(Links {
            macvlan: macvlan.index,
            veth: inner.index,
            host_mac: outer.mac.unwrap_or(host_mac),
            further,
            answers,
        })
    }

    /// Sets what the kernel does with these links, and in the namespace. Says which settings were not as they should be.
    pub(super) fn settings(&self, links: &Links) -> Result<Vec<String>, Error> {
        let mut changed = run_in(&self.host_ns, settings::host)??;
        changed.extend(settings::inside(links.names())?);
        Ok(changed)
    }

    async fn macvlan(&self, parent: u32, made: &mut Vec<String>) -> Result<Link, Error> {
        let mac = self.plan.mac;
        if let Some(link) = self.inside.link_by_name(MACVLAN).await? {
            if link.mac == Some(mac) && link.link == Some(parent) {
                return Ok(link);
            }
            self.inside.delete_link(link.index).await?;
        }
        let wanted = Macvlan {
            name: MACVLAN.into(),
            mac,
            parent,
        };
        let made_it = self.host.create_macvlan(&wanted, Some(&self.netns)).await;
        made_it.map_err(Error::of_macvlan)?;
        made.push(format!("link {MACVLAN}"));
        Ok(self.inside.require_link(MACVLAN).await?)
    }

    /// Both ends of the veth pair, the host's first.
    async fn veth(
        &self,
        uplink: &Uplink,
        mtu: u32,
        made: &mut Vec<String>,
    ) -> Result<(Link, Link), Error> {
        let (host_mac, self_mac) = veth_macs(uplink.mac);
        let outer = self.host.link_by_name(VETH_HOST).await?;
        let inner = self.inside.link_by_name(VETH_DIRECTOR).await?;
        match (outer, inner) {
            // Nobody else sees their MACs, so a pair stays when the uplink has another one.
            (Some(outer), Some(inner)) if pair(&outer, &inner) => return Ok((outer, inner)),
            (Some(outer), _) => drop(self.host.delete_link(outer.index).await?),
            (None, Some(inner)) => drop(self.inside.delete_link(inner.index).await?),
            (None, None) => {}
        }
        let veth = Veth {
            name: VETH_HOST.into(),
            mac: host_mac,
            peer_name: VETH_DIRECTOR.into(),
            peer_mac: self_mac,
            mtu,
        };
        self.host.create_veth(&veth, Some(&self.netns)).await?;
        made.push(format!("links {VETH_HOST} and {VETH_DIRECTOR}"));
        let outer = self.host.require_link(VETH_HOST).await?;
        Ok((outer, self.inside.require_link(VETH_DIRECTOR).await?))
    }

    /// The routes by which the director's own packets reach clients. The kernel resolves these
    /// by ARP with no sender address and by NDP with a link-local one, so no VIP is ever named.
    async fn answers(&self, outlets: &[(u32, u32)]) -> Result<BTreeSet<Route>, Error> {
        let addresses = self.host.addresses().await?;
        let mut routes = BTreeSet::<Route>::new();
        for (uplink, macvlan) in outlets {
            let networks = addresses.iter().filter(|a| {
                let link_local = matches!(a.addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
                a.index == *uplink && !link_local && a.prefix < Family::of(a.addr).bits()
            });
            for network in networks {
                let route = Route::on_link_network(network.addr, network.prefix, *macvlan);
                // Of two uplinks on one network the main one is enough.
                let same = |r: &Route| (r.dst, r.prefix) == (route.dst, route.prefix);
                if !routes.iter().any(same) {
                    routes.insert(route);
                }
            }
        }
        for family in [Family::V4, Family::V6] {
            let Some(default) = self.host.default_route(family).await? else {
                continue;
            };
            let by = outlets.iter().find(|(of, _)| *of == default.ifindex);
            // A router of the other family (RFC 5549) needs more than this can say.
            let gateway = default.gateway.filter(|ip| Family::of(*ip) == family);
            let route = by.zip(gateway);
            routes
                .extend(route.map(|((_, macvlan), gateway)| Route::default_via(gateway, *macvlan)));
        }
        Ok(routes)
    }
}

/// The MAC of the macvlan that is there on this uplink.
pub(super) async fn present_mac(uplink: &Uplink) -> Result<Option<Mac>, Error> {
    if !Netns::exists(NETNS) {
        return Ok(None);
    }
    let inside = Rtnl::open_in(&Netns::open(NETNS)?)?;
    let link = inside.link_by_name(MACVLAN).await?;
    let link = link.filter(|link| link.link == Some(uplink.index));
    Ok(link.and_then(|link| link.mac).filter(Mac::is_local_admin))
}

/// The MACs of the veth pair's ends, the host's first.
fn veth_macs(uplink: Mac) -> (Mac, Mac) {
    let derive = |end| Mac::derive_director_mac(&format!("{uplink} {end}"));
    (derive("host"), derive("self"))
}

/// Whether these are the two ends of a veth pair.
fn pair(outer: &Link, inner: &Link) -> bool {
    let veth = |link: &Link| link.kind.as_deref() == Some("veth") && link.mac.is_some();
    veth(outer) && veth(inner) && outer.link == Some(inner.index) && inner.link == Some(outer.index)
}

/// Brings a link up with the uplink's MTU, if it is not so already.
pub(super) async fn follow(
    rtnl: &Rtnl,
    link: &Link,
    mtu: u32,
    made: &mut Vec<String>,
) -> Result<(), Error> {
    if link.mtu != mtu {
        rtnl.set_mtu(link.index, mtu).await?;
        made.push(format!("MTU {mtu} of {}", link.name));
    }
    if !link.up {
        rtnl.set_up(link.index, true).await?;
        made.push(format!("{} up", link.name));
    }
    Ok(())
}
