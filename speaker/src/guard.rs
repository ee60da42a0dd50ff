//! The loop guard: what this host must never do with a VIP's packet.
//!
//! A director hands a packet for a VIP to this node, and kube-proxy turns its destination
//! into a Pod before the routing decision. If kube-proxy has no rule for it (not yet, or
//! no longer), the host would route the packet to the VIP, that is back to a director, and
//! round it goes until its TTL ends. Worse, once such a packet has been routed, conntrack keeps
//! its flow as one that is not translated, and each later packet from that port renews it: a
//! client that was a moment too early would wait for two minutes although all is in order.
//! So packets that come in by an uplink or from the own director and are still for a VIP when
//! they are routed meet a blackhole. Conntrack forgets what was dropped there, and the client's
//! next try is a new flow. For this the guard must be there before the first packet is: it
//! follows a new VIP at once, and stays for a while when a VIP goes ([`linger`]).
//!
//! One exception: where no Service of a VIP has an endpoint, kube-proxy has rules that refuse its
//! packets (ICMP port unreachable). They stand behind the routing decision, so a VIP that was
//! without endpoints for a while is not guarded, unless its clients should get no answer
//! (`withoutEndpoints: Drop`).
//!
//! It is done with a routing table of our own and one rule per interface and family:
//! no firewall rule that kube-proxy or a CNI could mind, and nothing that packets of
//! local processes or Pods ever see.

mod linger;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use lightship_netio::{Family, Monitor, Notice, PROTOCOL, Result, Route, Rtnl, Rule};
use tokio::sync::watch;

use crate::director::VETH_HOST;
use crate::drift::Drift;
use crate::uplink::Current;
use lightship_core::further::Own;
use lightship_core::world::World;
use linger::Linger;

/// The number of the routing table, and the preference of the rules: after the local table
/// (0), before the main one (32766).
const TABLE: u32 = 7733;

/// How soon after a change of the host's routes or rules the guard is read again: others may
/// change them all the time.
const PACE: Duration = Duration::from_secs(1);

/// How often it is read again without any notice, and after a failure.
const CHECK: Duration = Duration::from_secs(10);

/// Keeps the guard until the world's sender is gone. It stays when the speaker stops: a
/// speaker that is away protects nobody from a loop.
///
/// # Errors
/// When the kernel gives no notices of changes.
pub async fn run(
    mut uplink: watch::Receiver<Current>,
    mut used: watch::Receiver<Arc<[Own]>>,
    director: bool,
    mut world: watch::Receiver<Option<Arc<World>>>,
    drift: Drift,
) -> Result<()> {
    let mut monitor = Monitor::open()?;
    let mut failing = false;
    let mut last: Option<(Vec<String>, BTreeSet<IpAddr>)> = None;
    let mut linger = Linger::adopt(found().await.unwrap_or_default(), Instant::now());
    // The world that it follows; most changes are about few of many VIPs.
    let mut followed: Arc<World> = Arc::default();
    // When all of it is read again.
    let mut again = Instant::now();
    loop {
        let looked = Instant::now();
        let name = uplink.borrow_and_update().link.name.clone();
        let mut interfaces = vec![name.clone()];
        let further = used.borrow_and_update().clone();
        interfaces.extend(further.iter().map(|own| own.told.interface.to_string()));
        if director {
            interfaces.push(VETH_HOST.to_owned());
        }
        if let Some(world) = &*world.borrow_and_update() {
            follow(&mut linger, &followed, world, looked);
            followed = world.clone();
        }
        let guarded = linger.guarded(looked);
        // A new VIP is waited for: what there is already is not read for it.
        let known = last
            .as_ref()
            .filter(|(on, _)| looked < again && *on == interfaces);
        let result = match known {
            Some((_, before)) => change(before, &guarded).await,
            None => {
                again = looked + CHECK;
                apply(&interfaces, &guarded).await
            }
        };
        match result {
            Ok(changes) => {
                failing = false;
                // A rule goes with `ls-host`, which is mended elsewhere.
                let now = (interfaces, guarded);
                let same = last.as_ref() == Some(&now);
                last = Some(now);
                if changes > 0 && same {
                    drift.guard(&format!("the loop guard ({changes} routes and rules)"));
                    tracing::warn!(
                        changes,
                        "the loop guard was changed by somebody else; put back"
                    );
                }
            }
            Err(error) => {
                last = None;
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the loop guard is not complete; trying on");
                }
            }
        }
        let deadline = linger.deadline(looked);
        loop {
            let until = deadline.map_or(again, |deadline| deadline.min(again));
            tokio::select! {
                changed = world.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return Ok(()),
                },
                Ok(_) = uplink.wait_for(|now| now.link.name != name) => break,
                Ok(()) = used.changed() => break,
                notice = monitor.next() => {
                    if matches!(notice?, Notice::Route { .. } | Notice::Rule { .. } | Notice::Lost) {
                        while monitor.next().now_or_never().is_some() {}
                        // Most likely it was what has just been done here, which does not have to be read
                        // while others wait for the processor.
                        again = again.min(looked + PACE);
                    }
                }
                () = tokio::time::sleep_until(until.into()) => break,
            }
        }
    }
}

/// Takes what is another matter in the world `now` than it was before.
fn follow(linger: &mut Linger, before: &World, now: &World, at: Instant) {
    let touched = now.touched(before).unwrap_or_else(|| {
        let all = before.vips.keys().chain(now.vips.keys());
        all.copied().collect()
    });
    for vip in touched {
        match now.vips.get(&vip) {
            Some(of) => linger.is(vip, now.refuses(vip, of), at),
            None => linger.is_none(vip, at),
        }
    }
}

/// What a speaker before this one guarded.
async fn found() -> Result<BTreeSet<IpAddr>> {
    let rtnl = Rtnl::open()?;
    let mut all = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        let routes = match rtnl.list_routes(TABLE, family).await {
            Err(error) if family == Family::V6 && error.is_not_supported() => continue,
            routes => routes?,
        };
        let ours = routes
            .iter()
            .filter(|route| **route == Route::blackhole(route.dst, TABLE));
        all.extend(ours.map(|route| route.dst));
    }
    Ok(all)
}

/// Removes the guard from this node, and tells what that was.
///
/// # Errors
/// The kernel refuses.
pub async fn remove(rtnl: &Rtnl) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for family in [Family::V4, Family::V6] {
        let rules = match rtnl.rules(family).await {
            Err(error) if family == Family::V6 && error.is_not_supported() => continue,
            rules => rules?,
        };
        let ours = rules
            .iter()
            .filter(|r| r.table == TABLE && r.protocol == PROTOCOL);
        for rule in ours {
            if rtnl.delete_rule(rule).await? {
                removed.push(format!("{family:?} rule of preference {TABLE}"));
            }
        }
        for route in rtnl.list_routes(TABLE, family).await? {
            if route.protocol == PROTOCOL && rtnl.delete_route(&route).await? {
                removed.push(format!("route {route}"));
            }
        }
    }
    Ok(removed)
}

/// Guards what is to be guarded now and was not before, and the other way round. Returns how many routes it
/// made or removed.
async fn change(before: &BTreeSet<IpAddr>, now: &BTreeSet<IpAddr>) -> Result<usize> {
    let mut changes = 0;
    if before == now {
        return Ok(changes);
    }
    let rtnl = Rtnl::open()?;
    let counted = |vip: &IpAddr, done: Result<bool>| match done {
        // A kernel without IPv6 has no IPv6 loops.
        Err(error) if vip.is_ipv6() && error.is_not_supported() => Ok(0),
        done => done.map(usize::from),
    };
    for vip in now.difference(before) {
        let added = rtnl.add_route(&Route::blackhole(*vip, TABLE)).await;
        changes += counted(vip, added)?;
    }
    for vip in before.difference(now) {
        let removed = rtnl.delete_route(&Route::blackhole(*vip, TABLE)).await;
        changes += counted(vip, removed)?;
    }
    Ok(changes)
}

async fn apply(interfaces: &[String], vips: &BTreeSet<IpAddr>) -> Result<usize> {
    let rtnl = Rtnl::open()?;
    let mut changes = 0;
    for family in [Family::V4, Family::V6] {
        match apply_family(&rtnl, family, interfaces, vips).await {
            // A kernel without IPv6 has no IPv6 loops.
            Err(error) if family == Family::V6 && error.is_not_supported() => {}
            result => changes += result?,
        }
    }
    Ok(changes)
}

/// Returns how many routes and rules it made or removed.
async fn apply_family(
    rtnl: &Rtnl,
    family: Family,
    interfaces: &[String],
    vips: &BTreeSet<IpAddr>,
) -> Result<usize> {
    let mut changes = 0;
    let wanted: BTreeSet<Route> = vips
        .iter()
        .filter(|vip| Family::of(**vip) == family)
        .map(|vip| Route::blackhole(*vip, TABLE))
        .collect();
    let present: BTreeSet<Route> = rtnl.list_routes(TABLE, family).await?.into_iter().collect();
    for route in wanted.difference(&present) {
        changes += usize::from(rtnl.add_route(route).await?);
    }
    for route in present
        .difference(&wanted)
        .filter(|r| r.protocol == PROTOCOL)
    {
        changes += usize::from(rtnl.delete_route(route).await?);
    }
    let rules = rtnl.rules(family).await?;
    let ours: Vec<Rule> = interfaces
        .iter()
        .map(|i| Rule::for_iif(family, i, TABLE, TABLE))
        .collect();
    for rule in ours.iter().filter(|rule| !rules.contains(rule)) {
        changes += usize::from(rtnl.add_rule(rule).await?);
    }
    let stale = rules
        .iter()
        .filter(|r| r.table == TABLE && r.protocol == PROTOCOL);
    for rule in stale.filter(|rule| !ours.contains(rule)) {
        changes += usize::from(rtnl.delete_rule(rule).await?);
    }
    Ok(changes)
}
