//! What the director needs of the kernel: modules, sysctls, timeouts.

use std::time::Duration;

use lightship_ipvs::{Client, Family, Op, Scheduler, Service, ServiceFlags, ServiceKey, Timeouts};
use lightship_netio::ModuleState;
use lightship_netio::sysctl::{self, Ensured};

use super::Error;

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
                reason: format!("{reason}; load it by: modprobe -a ip_vs ip_vs_mh; {AFTERWARDS}"),
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// The mode is chosen once.
const AFTERWARDS: &str = "then restart this node's speaker";

/// Whether IPVS can use the scheduler `mh`, seen by a service that no packet can meet: by a firewall
/// mark that nothing sets. Without it each VIP would be refused, one by one. Called within the
/// namespace.
///
/// A mark of IPv4 also tells of nodes that have IPv6 alone: schedulers belong to no family, and of the two
/// IPv4 is the one that every IPVS has. No address is needed; the namespace never has one of IPv4.
pub(super) fn check_scheduler(ipvs: &mut Client) -> Result<(), Error> {
    let key = ServiceKey::FwMark {
        family: Family::V4,
        mark: PROBE_MARK,
    };
    let service = Service::new(key, Scheduler::MH, ServiceFlags::MH_FALLBACK);
    let added = ipvs.apply(&[Op::NewService(service)]);
    let Some(failure) = added.err().and_then(|e| e.failures.into_iter().next()) else {
        let _ = ipvs.apply(&[Op::DelService(key)]);
        return Ok(());
    };
    match failure.error.errno() {
        Some(ENOENT) => Err(Error::Unsupported {
            what: "the kernel's IPVS lacks the scheduler mh (module ip_vs_mh, Linux 4.18)",
            reason: format!(
                "{}; load it by: modprobe ip_vs_mh; {AFTERWARDS}",
                failure.error
            ),
        }),
        // One that was stopped amid its start left it.
        Some(EEXIST) => Ok(()),
        _ => Err(failure.error.into()),
    }
}

/// The mark of the service that is added and deleted again at the start.
const PROBE_MARK: u32 = 7733;

/// What the kernel says of a scheduler that it does not know, and of a service that is there.
const ENOENT: i32 = 2;
const EEXIST: i32 = 17;

/// What the host's end of the veth needs. It is the only host interface that is touched.
/// Says which were not as they should be.
pub(super) fn host() -> Result<Vec<String>, Error> {
    let mut changed = Vec::new();
    for (name, value) in [
        // A client's packet comes in here, but the route to the client is by the uplink:
        // strict filtering (1) would drop it. The kernel takes the greater of this and
        // `all`, so 2 wins over a strict host (Documentation/networking/ip-sysctl.rst).
        ("net/ipv4/conf/ls-host/rp_filter", "2"),
        // The packet goes on to a Pod.
        ("net/ipv4/conf/ls-host/forwarding", "1"),
        ("net/ipv6/conf/ls-host/forwarding", "1"),
        // What comes in here and leaves by the uplink is meant to, and the director is no router
        // whose advice or advertisements the host should take.
        ("net/ipv4/conf/ls-host/send_redirects", "0"),
        ("net/ipv4/conf/ls-host/accept_redirects", "0"),
        ("net/ipv6/conf/ls-host/accept_ra", "0"),
    ] {
        ensure(name, value, &mut changed)?;
    }
    Ok(changed)
}

fn ensure(name: &str, value: &str, changed: &mut Vec<String>) -> Result<(), Error> {
    if sysctl::ensure(name, value)? == Ensured::Changed {
        changed.push(format!("{name} = {value}"));
    }
    Ok(())
}

/// The namespace's settings. Called by the director's thread, within the namespace.
///
/// A new namespace takes over the host's current values, so each one that matters is set.
/// Says which were not as they should be.
pub(super) fn inside<'a>(links: impl Iterator<Item = &'a str>) -> Result<Vec<String>, Error> {
    let mut changed = Vec::new();
    // Nothing is forwarded here: IPVS sends by LOCAL_OUT.
    ensure("net/ipv4/ip_forward", "0", &mut changed)?;
    for interface in ["all", "default"].into_iter().chain(links) {
        for (name, value) in [
            // Clients' packets come in without a route back to them.
            ("rp_filter", "0"),
            // The kernel answers no ARP at all: the speaker alone does.
            ("arp_ignore", "8"),
            // Never name a VIP as the sender of an ARP request.
            ("arp_announce", "2"),
            // A packet leaves by the interface by which it came, which the kernel would call a detour
            // (ip_forward.c), and the way to a real server is the one that was programmed.
            ("send_redirects", "0"),
            ("accept_redirects", "0"),
        ] {
            let name = format!("net/ipv4/conf/{interface}/{name}");
            ensure(&name, value, &mut changed)?;
        }
        for (name, value) in [
            // On hosts without IPv6 too: whether there are IPv6 VIPs is the cluster's business.
            ("disable_ipv6", "0"),
            // Addresses and routes are the speaker's alone: any other address would answer, and be a source.
            ("accept_ra", "0"),
            ("autoconf", "0"),
            // As `ip_forward`; it would also join the all-routers group and answer solicitations.
            ("forwarding", "0"),
        ] {
            let name = format!("net/ipv6/conf/{interface}/{name}");
            ensure(&name, value, &mut changed)?;
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
        // What is too big for the way to its node is answered, and not dropped without a word
        // (ip_vs_xmit.c).
        ("pmtu_disc", "1"),
    ] {
        // Kernels differ in what they have; what is missing has the wanted effect there or none.
        ensure(&format!("net/ipv4/vs/{name}"), value, &mut changed)?;
    }
    Ok(changed)
}

/// Whether flows of a destination that is not there are scheduled anew (the normal case).
pub(super) fn expire_nodest(on: bool) -> Result<(), Error> {
    sysctl::ensure("net/ipv4/vs/expire_nodest_conn", if on { "1" } else { "0" })?;
    Ok(())
}

/// How long IPVS keeps entries: an idle established connection keeps its node across
/// changes of the table for 15 minutes, after that it follows its hash. One that ends needs its entry for
/// its last segments only. UDP has no entries: each datagram is scheduled by itself.
/// Says whether they were otherwise.
pub(super) fn timeouts(ipvs: &mut Client) -> Result<bool, Error> {
    let wanted = Timeouts {
        tcp: Duration::from_secs(900),
        tcp_fin: Duration::from_secs(60),
        udp: Duration::from_secs(60),
    };
    let differ = ipvs.timeouts()? != wanted;
    if differ {
        ipvs.set_timeouts(wanted)?;
    }
    Ok(differ)
}
