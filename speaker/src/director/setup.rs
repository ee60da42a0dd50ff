//! The director's namespace, links and settings.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use lightship_frames::Mac;
use lightship_ipvs::{Client, Timeouts};
use lightship_netio::{
    Family, Link, Macvlan, ModuleState, Netns, Route, Rtnl, Scope, Veth, run_in, sysctl,
};

use super::{Error, Plan};

/// The name of the director's network namespace.
pub(super) const NETNS: &str = "lightship";
/// The macvlan on the uplink, in the namespace: clients send to it.
const MACVLAN: &str = "ls-dir";
/// The host's end of the veth pair: the own node's share comes in by it.
pub const VETH_HOST: &str = "ls-host";
/// The namespace's end of the veth pair.
const VETH_DIRECTOR: &str = "ls-self";

/// An address for [`VETH_HOST`], link scope and used by nobody. Loose reverse path filtering
/// drops everything that comes in by an interface without any address
/// (net/ipv4/fib_frontend.c, `__fib_validate_source`).
const VETH_ADDRESS: [u8; 4] = [169, 254, 255, 1];

/// The director's links.
#[derive(Clone, Debug)]
pub(super) struct Links {
    /// Index of the macvlan within the namespace.
    pub(super) macvlan: u32,
    /// Index of the veth within the namespace.
    pub(super) veth: u32,
    /// MAC of the host's end of the veth.
    pub(super) host_mac: Mac,
    /// What the director itself needs to answer clients (ping, ICMP errors): the uplink's
    /// networks and the host's routers, by way of the macvlan.
    pub(super) answers: Vec<Route>,
}

/// Loads what the director needs and says what is missing.
pub(super) async fn check_kernel() -> Result<(), Error> {
    let load = tokio::task::spawn_blocking(|| {
        // `mh` and macvlan load themselves where modprobe works for the kernel; asking
        // for them here gives the reason when it does not.
        ["ip_vs", "ip_vs_mh", "macvlan", "veth"].map(|m| (m, lightship_netio::load_module(m)))
    });
    let states = load
        .await
        .unwrap_or_else(|_| unreachable!("loading modules does not panic"));
    match Client::open() {
        Ok(_) => Ok(()),
        Err(lightship_ipvs::Error::NotSupported) => {
            let reason = match &states[0].1 {
                ModuleState::Unavailable { reason } => reason.clone(),
                _ => "the module is there but offers no netlink family".into(),
            };
            Err(Error::Unsupported {
                what: "the kernel lacks IPVS (module ip_vs)",
                reason: format!("{reason}; load it with: modprobe ip_vs ip_vs_mh"),
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes the links, or adopts those that are there and right.
pub(super) async fn links(plan: &Plan, netns: &Netns) -> Result<Links, Error> {
    let host = Rtnl::open()?;
    let inside = run_in(netns, Rtnl::open)??;
    let wanted = Macvlan {
        name: MACVLAN.into(),
        mac: plan.mac,
        parent: plan.uplink.index,
    };
    let is_right = |link: &Link| link.mac == Some(plan.mac) && link.link == Some(plan.uplink.index);
    if let Some(old) = inside
        .link_by_name(MACVLAN)
        .await?
        .filter(|link| !is_right(link))
    {
        tracing::info!(link = MACVLAN, "made anew: it was on another uplink");
        inside.delete_link(old.index).await?;
    }
    host.create_macvlan(&wanted, Some(netns)).await?;
    let macvlan = inside.require_link(MACVLAN).await?;

    let host_mac = Mac::derive_director_mac(&format!("{} host", plan.uplink.mac));
    let self_mac = Mac::derive_director_mac(&format!("{} self", plan.uplink.mac));
    let veth = Veth {
        name: VETH_HOST.into(),
        mac: host_mac,
        peer_name: VETH_DIRECTOR.into(),
        peer_mac: self_mac,
        mtu: plan.uplink.mtu,
    };
    let outer = host.link_by_name(VETH_HOST).await?;
    let whole = outer
        .as_ref()
        .is_some_and(|link| link.mac == Some(host_mac))
        && inside.link_by_name(VETH_DIRECTOR).await?.is_some();
    if let Some(old) = outer.filter(|_| !whole) {
        host.delete_link(old.index).await?;
    }
    host.create_veth(&veth, Some(netns)).await?;
    let outer = host.require_link(VETH_HOST).await?;
    let inner = inside.require_link(VETH_DIRECTOR).await?;

    host_settings()?;
    for link in [&macvlan, &inner] {
        follow(&inside, link, plan.uplink.mtu).await?;
    }
    follow(&host, &outer, plan.uplink.mtu).await?;
    host.add_address(outer.index, VETH_ADDRESS.into(), 32, Scope::Link)
        .await?;
    let answers = answers(&host, plan.uplink.index, macvlan.index).await?;
    Ok(Links {
        macvlan: macvlan.index,
        veth: inner.index,
        host_mac,
        answers,
    })
}

/// The routes by which the director's own packets reach clients. The kernel resolves these
/// by ARP with no sender address and by NDP with a link-local one, so no VIP is ever named.
async fn answers(host: &Rtnl, uplink: u32, macvlan: u32) -> Result<Vec<Route>, Error> {
    let addresses = host.addresses().await?;
    let networks = addresses.iter().filter(|a| {
        let link_local = matches!(a.addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
        a.index == uplink && !link_local && a.prefix < Family::of(a.addr).bits()
    });
    let mut routes: BTreeSet<Route> = networks
        .map(|a| Route::on_link_network(a.addr, a.prefix, macvlan))
        .collect();
    for family in [Family::V4, Family::V6] {
        let default = host.default_route(family).await?;
        let gateway = default
            .filter(|d| d.ifindex == uplink)
            .and_then(|d| d.gateway);
        routes.extend(gateway.map(|gateway| Route::default_via(gateway, macvlan)));
    }
    Ok(routes.into_iter().collect())
}

/// Brings a link up with the uplink's MTU, if it is not so already.
async fn follow(rtnl: &Rtnl, link: &Link, mtu: u32) -> Result<(), Error> {
    if link.mtu != mtu {
        rtnl.set_mtu(link.index, mtu).await?;
    }
    if !link.up {
        rtnl.set_up(link.index, true).await?;
    }
    Ok(())
}

/// What the host's end of the veth needs. It is the only host interface that is touched.
fn host_settings() -> Result<(), Error> {
    for (name, value) in [
        // A client's packet comes in here, but the route to the client is by the uplink:
        // strict filtering (1) would drop it. The kernel takes the greater of this and
        // `all`, so 2 wins over a strict host (Documentation/networking/ip-sysctl.rst).
        ("net/ipv4/conf/ls-host/rp_filter", "2"),
        ("net/ipv4/conf/ls-host/forwarding", "1"),
        ("net/ipv4/conf/ls-host/send_redirects", "0"),
        ("net/ipv4/conf/ls-host/accept_redirects", "0"),
        ("net/ipv6/conf/ls-host/accept_ra", "0"),
        ("net/ipv6/conf/ls-host/forwarding", "1"),
    ] {
        sysctl::ensure(name, value)?;
    }
    Ok(())
}

/// The namespace's settings. Called by the director's thread, within the namespace.
///
/// A new namespace takes over the host's current values, so each one that matters is set.
pub(super) fn settings(_links: &Links) -> Result<(), Error> {
    // Nothing is forwarded here: IPVS sends by LOCAL_OUT.
    sysctl::ensure("net/ipv4/ip_forward", "0")?;
    for interface in ["all", "default", MACVLAN, VETH_DIRECTOR] {
        for (name, value) in [
            // Clients' packets come in without a route back to them.
            ("rp_filter", "0"),
            // The kernel answers no ARP at all: the speaker alone does.
            ("arp_ignore", "8"),
            // Never name a VIP as the sender of an ARP request.
            ("arp_announce", "2"),
            ("send_redirects", "0"),
            ("accept_redirects", "0"),
        ] {
            sysctl::ensure(&format!("net/ipv4/conf/{interface}/{name}"), value)?;
        }
        for (name, value) in [
            ("disable_ipv6", "0"),
            ("accept_ra", "0"),
            ("autoconf", "0"),
            ("forwarding", "0"),
        ] {
            sysctl::ensure(&format!("net/ipv6/conf/{interface}/{name}"), value)?;
        }
    }
    for (name, value) in [
        // A director that never saw the SYN takes a flow over in the middle.
        ("sloppy_tcp", "1"),
        ("sloppy_sctp", "1"),
        // No connection tracking: nothing here needs it, and every packet would pay for it.
        ("conntrack", "0"),
        // ICMP errors of a flow without an entry (path MTU after a take-over) follow its hash.
        ("schedule_icmp", "1"),
        // A flow whose node was removed is scheduled anew instead of being dropped for ever.
        ("expire_nodest_conn", "1"),
        // A new connection from a port that was used before is scheduled as new.
        ("conn_reuse_mode", "3"),
        // Under memory pressure half-open entries go first.
        ("drop_entry", "1"),
        // 1 would switch the director off.
        ("backup_only", "0"),
        // Rate estimators stall packets where there are many services.
        ("run_estimation", "0"),
        ("pmtu_disc", "1"),
    ] {
        // Kernels differ in what they have; what is missing has the wanted effect there or none.
        sysctl::ensure(&format!("net/ipv4/vs/{name}"), value)?;
    }
    Ok(())
}

/// Whether flows of a destination that is not there are scheduled anew (the normal case).
pub(super) fn expire_nodest(on: bool) -> Result<(), Error> {
    sysctl::ensure("net/ipv4/vs/expire_nodest_conn", if on { "1" } else { "0" })?;
    Ok(())
}

/// How long IPVS keeps entries: an idle established connection keeps its node across
/// changes of the table for 15 minutes, after that it follows its hash.
pub(super) fn timeouts(ipvs: &mut Client) -> Result<(), Error> {
    let wanted = Timeouts {
        tcp: Duration::from_secs(900),
        tcp_fin: Duration::from_secs(60),
        udp: Duration::from_secs(60),
    };
    if ipvs.timeouts()? != wanted {
        ipvs.set_timeouts(wanted)?;
    }
    Ok(())
}
