//! What the loss or move of the announcing node costs.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use lightship_e2e::experiment::{self, Outcome, PACE, Plan, Traffic};
use lightship_e2e::probe::{self, Flows, Probe, Stream, ms_between};
use lightship_e2e::scene::{self, APP, Wish};
use lightship_e2e::{director, neighbours, timeline, vip};
use lightship_lab::{How, Lab};

use crate::common::{Served, moved_from};

/// Connections that stand when it happens.
const FLOWS: usize = 200;

/// How long it is watched after a crash.
const WATCH: Duration = Duration::from_secs(8);

/// In which a killed speaker is back, and in which a status follows.
const BACK: Duration = Duration::from_secs(20);

/// Longest outage that a test lets pass, in milliseconds: far above what is measured
/// (`docs/performance.md`), for machines that have other work.
const LIMIT: f64 = 2000.0;

/// The owner's kernel is killed.
pub(crate) fn crash(lab: &mut Lab) -> Result<()> {
    crash_and_return(lab, &Wish::local("crash").fresh())
}

/// The same over IPv6: solicitations and advertisements instead of ARP, and the director's other half.
pub(crate) fn crash_v6(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        ipv6_only: true,
        ..Wish::local("crash-v6").fresh()
    };
    crash_and_return(lab, &wish)
}

fn crash_and_return(lab: &mut Lab, wish: &Wish) -> Result<()> {
    Served::during(lab, wish, |lab, vips| {
        let owner = vip::owner(lab, vips[0])?;
        let mac = director::mac(lab, &owner)?;
        let outcome = crash_owner(lab, vips[0])?;
        let vip = moved_from(lab, vips[0], &outcome.owner)?;
        eprintln!("    {:?} took over {}: {:?}", vip.owner, vips[0], vip.moved);
        let reason = vip.moved.as_ref().map(|(.., reason)| reason.as_str());
        ensure!(reason == Some("OwnerDied"), "another reason: {vip:?}");
        // The node boots, and gets no share before its kube-proxy has rules.
        let mut stream = Probe::stream(lab, vips[0], PACE, false)?;
        scene::heal_and_settle(lab, vips[0])?;
        let seen: Stream = stream.end()?;
        ensure!(
            seen.failures == 0,
            "new connections failed while {} came back: {seen:?}",
            outcome.owner
        );
        let back = vip::owner(lab, vips[0])?;
        ensure!(
            Some(&back) == vip.owner.as_ref(),
            "it moved again, to {back}"
        );
        // Clients may have it in their caches.
        let after = director::mac(lab, &owner)?;
        ensure!(after == mac, "{owner} had {mac} and has {after}");
        Ok(())
    })
}

/// The same while there is no API server, and all speakers were killed and are back since: they and their directors
/// go on with what they knew, and the nodes settle the crash among themselves.
pub(crate) fn crash_without_api(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("crash-no-api").fresh(), |lab, vips| {
        let owner = vip::owner(lab, vips[0])?;
        let nodes = lab.node_names();
        let tables = |lab: &Lab| -> Result<Vec<Vec<director::Entry>>> {
            nodes
                .iter()
                .map(|node| director::table(lab, node))
                .collect()
        };
        let before = tables(lab)?;
        lab.stop_api()?;
        let killed = probe::now_ns();
        for node in &nodes {
            lab.fail(node, How::KillSpeaker)?;
        }
        for node in &nodes {
            timeline::wait_resumed(lab, node, killed, BACK)?;
        }
        // They listen for 0.35 s before they take anything over, and look at their tables every second.
        std::thread::sleep(Duration::from_secs(3));
        let after = tables(lab)?;
        ensure!(before == after, "changed:\n{before:#?}\n{after:#?}");
        let answers = neighbours::who_answers(lab, vips[0])?;
        let own = director::mac(lab, &owner)?;
        ensure!(
            answers.iter().eq([&own]),
            "{answers:?} answer, not {owner}: {own}"
        );
        let traffic = Traffic::start(lab, vips[0], FLOWS)?;
        std::thread::sleep(Duration::from_secs(1));
        let outcome = traffic.disturb(lab, &owner, How::Crash, WATCH)?;
        only_its_own(lab, &outcome)?;
        lab.start_api()?;
        moved_from(lab, vips[0], &outcome.owner)?;
        scene::heal_and_settle(lab, vips[0])
    })
}

/// Another node loses its endpoint at the moment of the crash: what the third one serves goes on. The heir's table
/// differs from the dead owner's in two nodes then.
pub(crate) fn crash_with_change(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("crash-change").fresh(), |lab, vips| {
        let owner = vip::owner(lab, vips[0])?;
        let mut others = lab.node_names();
        others.retain(|node| *node != owner);
        let [changed, third] = &others[..] else {
            anyhow::bail!("three nodes are needed, not {others:?} and {owner}");
        };
        let traffic = Traffic::start(lab, vips[0], FLOWS)?;
        std::thread::sleep(Duration::from_secs(1));
        let pod = format!("{APP}-{changed}");
        scene::set_ready(lab, &pod, false)?;
        let outcome = traffic.disturb(lab, &owner, How::Crash, WATCH);
        let alone = outcome.and_then(|outcome| {
            // Its status tells that all followed.
            vip::wait(lab, vips[0], "is served by one node", BACK, |vip| {
                vip.serving() == 1
            })?;
            Ok((
                outcome,
                probe::stream_for(lab, vips[0], PACE, Duration::from_secs(2), false)?,
            ))
        });
        scene::set_ready(lab, &pod, true)?;
        let (outcome, seen) = alone?;
        tell(&outcome);
        let flows = &outcome.flows;
        let opened = flows.nodes.get(third).copied().unwrap_or_default();
        let kept = flows.kept_nodes.get(third).copied().unwrap_or_default();
        eprintln!("    {changed} lost its endpoint meanwhile; {third} kept {kept} of {opened}");
        ensure!(
            opened > 0 && kept == opened && flows.changed_node == 0,
            "connections were lost though their node lives and serves: {flows:?}"
        );
        let limit = LIMIT * f64::from(lab.state().pace);
        ensure!(
            outcome.takeover_ms().is_some_and(|ms| ms < limit),
            "new connections failed too long: {:?}",
            outcome.stream
        );
        ensure!(
            seen.failures == 0 && seen.nodes.keys().eq([third]),
            "not {third} alone serves: {seen:?}"
        );
        scene::heal_and_settle(lab, vips[0])
    })
}

/// The kernel of a node is killed that serves but does not own: the director has entries for its
/// connections and must not let them hang until the node leaves the table after half a minute.
pub(crate) fn backend_crash(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("backend-crash").fresh(), |lab, vips| {
        let owner = vip::owner(lab, vips[0])?;
        let names = lab.node_names();
        let Some(backend) = names.iter().find(|name| **name != owner) else {
            anyhow::bail!("one node only");
        };
        let traffic = Traffic::start(lab, vips[0], FLOWS)?;
        // Scheduled packet by packet: nothing pins a client to the dead node.
        let mut datagrams = Probe::stream(lab, vips[0], PACE, true)?;
        std::thread::sleep(Duration::from_secs(1));
        let outcome = traffic.disturb(lab, backend, How::Crash, WATCH)?;
        tell(&outcome);
        let datagrams: Stream = datagrams.end()?;
        let silent = experiment::takeover_ms(&datagrams, outcome.at_ns);
        eprintln!(
            "    UDP: {} of {} without an answer, {silent:?} ms",
            datagrams.failures, datagrams.requests
        );
        ensure!(
            silent.is_some_and(|ms| ms < LIMIT) && datagrams.outages.len() < 20,
            "datagrams went to a dead node too long: {datagrams:?}"
        );
        let last = datagrams.outages.last();
        ensure!(
            last.is_none_or(|o| ms_between(outcome.at_ns, o.first_failure_ns) < LIMIT),
            "datagrams went to a dead node too long: {datagrams:?}"
        );
        ensure!(outcome.flows.opened == FLOWS, "{:?}", outcome.flows);
        ensure!(
            outcome.on_owner() > 0,
            "nothing on {backend}: {:?}",
            outcome.flows
        );
        ensure!(
            outcome.kept_elsewhere() == outcome.elsewhere(),
            "connections were lost though their node lives: {:?}",
            outcome.flows
        );
        let reset = outcome.flows.lost.get(&format!("{backend}: reset"));
        ensure!(
            reset == Some(&outcome.on_owner()),
            "not all of {} connections were reset: {:?}",
            outcome.on_owner(),
            outcome.flows
        );
        ensure!(
            outcome.last_lost_ms() < 7_500.0,
            "the last one hung for {:.0} ms",
            outcome.last_lost_ms()
        );
        leaves_and_returns(lab, vips[0], backend, outcome.at_ns)
    })
}

/// A node that died stays in the tables at weight 0 until its grace is over, leaves all of them, and when it is
/// back all nodes hold the same again: their hashes depend on it. Neither costs the other nodes' connections anything.
fn leaves_and_returns(lab: &mut Lab, address: IpAddr, node: &str, died_ns: u64) -> Result<()> {
    let own = lab.state().node(node)?.spec.addresses[0].addr();
    let own = format!("{own}:");
    let mut rest = lab.node_names();
    let all = rest.clone();
    rest.retain(|name| name != node);
    // The weights of the node in the services of this address.
    let weights = |table: &[director::Entry]| -> Vec<u32> {
        let of_vip = table.iter().filter(|e| e.address.ip() == address);
        let destinations = of_vip.flat_map(|e| &e.destinations);
        let of_node = destinations.filter(|d| d.address.starts_with(&own));
        of_node.map(|d| d.weight).collect()
    };
    let soon = Duration::from_secs(5);
    director::wait_alike(lab, &rest, "keep it at weight 0", soon, |table| {
        weights(table) == [0, 0]
    })?;
    let mut flows = Probe::flows(lab, address, FLOWS)?;
    let mut stream = Probe::stream(lab, address, PACE, false)?;
    // Half a minute, from its death eight seconds ago.
    let grace = Duration::from_secs(40);
    director::wait_alike(lab, &rest, "forget it", grace, |table| {
        weights(table).is_empty()
    })?;
    let after = ms_between(died_ns, probe::now_ns());
    ensure!(after > 29_000.0, "forgotten {after:.0} ms after its death");
    let limit = Duration::from_secs(10);
    vip::wait(
        lab,
        address,
        "is directed by the rest alike",
        limit,
        |vip| vip.directors == "2/2",
    )?;
    scene::heal_and_settle(lab, address)?;
    let table = director::wait_alike(lab, &all, "have it again", limit, |table| {
        weights(table) == [1, 1]
    })?;
    let (flows, seen): (Flows, Stream) = (flows.end()?, stream.end()?);
    ensure!(
        flows.kept == FLOWS && flows.changed_node == 0,
        "connections of others were lost: {flows:?}"
    );
    ensure!(seen.failures == 0, "new connections failed: {seen:?}");
    ensure!(seen.nodes.contains_key(node), "{node} got none: {seen:?}");
    eprintln!(
        "    {node} left all tables {after:.0} ms after its death and is back, {FLOWS} connections of others kept; {} services alike on {} nodes",
        table.len(),
        all.len()
    );
    Ok(())
}

fn crash_owner(lab: &mut Lab, address: IpAddr) -> Result<Outcome> {
    let plan = Plan {
        flows: FLOWS,
        how: How::Crash,
        watch: WATCH,
        api_stopped: false,
    };
    let outcome = experiment::run(lab, address, plan)?;
    only_its_own(lab, &outcome)?;
    Ok(outcome)
}

/// The crash cost the connections of that node alone, and new ones failed until the takeover and not after it.
fn only_its_own(lab: &Lab, outcome: &Outcome) -> Result<()> {
    tell(outcome);
    let limit = LIMIT * f64::from(lab.state().pace);
    let takeover = outcome.takeover_ms();
    ensure!(
        takeover.is_some_and(|ms| ms < limit),
        "new connections failed too long: {:?}",
        outcome.stream
    );
    ensure!(
        outcome.later_failures() == 0,
        "new connections failed after the takeover: {:?}",
        outcome.stream
    );
    ensure!(outcome.flows.opened == FLOWS, "{:?}", outcome.flows);
    ensure!(
        outcome.kept_elsewhere() == outcome.elsewhere(),
        "connections were lost though their node lives: {:?}",
        outcome.flows
    );
    ensure!(outcome.flows.changed_node == 0, "{:?}", outcome.flows);
    let reset = format!("{}: reset", outcome.owner);
    let expected = outcome.on_owner();
    ensure!(
        outcome.flows.lost.get(&reset) == Some(&expected),
        "not all {expected} connections of the dead node ended by a reset: {:?}",
        outcome.flows
    );
    ensure!(
        outcome.last_lost_ms() < 2.0 * limit,
        "the dead node's connections hung for {:.0} ms",
        outcome.last_lost_ms()
    );
    Ok(())
}

/// The owner's speaker is told to end: it hands over first.
pub(crate) fn planned(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        dual_stack: true,
        ..Wish::local("planned").fresh()
    };
    Served::during(lab, &wish, |lab, vips| {
        for address in vips {
            let outcome = lose_nothing(lab, *address, How::StopSpeaker)?;
            let vip = moved_from(lab, *address, &outcome.owner)?;
            eprintln!("    {:?} took over: {:?}", vip.owner, vip.moved);
            lab.heal(&outcome.owner)?;
        }
        Ok(())
    })
}

/// The owner's speaker is killed and started again.
pub(crate) fn killed(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("killed").fresh(), |lab, vips| {
        let outcome = lose_nothing(lab, vips[0], How::KillSpeaker)?;
        let now = vip::owner(lab, vips[0])?;
        if now == outcome.owner {
            eprintln!("    back in time: {now} owns it as before");
        } else {
            let vip = moved_from(lab, vips[0], &outcome.owner)?;
            eprintln!("    not back in time: {:?}", vip.moved);
        }
        Ok(())
    })
}

fn lose_nothing(lab: &mut Lab, address: IpAddr, how: How) -> Result<Outcome> {
    let plan = Plan {
        flows: FLOWS,
        how,
        watch: Duration::from_secs(11),
        api_stopped: false,
    };
    let outcome = experiment::run(lab, address, plan)?;
    tell(&outcome);
    ensure!(outcome.stream.requests >= 500, "{:?}", outcome.stream);
    ensure!(outcome.stream.failures == 0, "{:?}", outcome.stream);
    ensure!(outcome.flows.opened == FLOWS, "{:?}", outcome.flows);
    ensure!(outcome.flows.kept == FLOWS, "{:?}", outcome.flows);
    ensure!(outcome.flows.changed_node == 0, "{:?}", outcome.flows);
    Ok(outcome)
}

fn tell(outcome: &Outcome) {
    let ms = |ms: Option<f64>| ms.map_or("never".into(), |ms| format!("{ms:.0} ms"));
    eprintln!(
        "    {}: takeover {}, outage {}; new connections: {} failed of {}, {} after the takeover",
        outcome.owner,
        ms(outcome.takeover_ms()),
        ms(outcome.outage_ms()),
        outcome.stream.failures,
        outcome.stream.requests,
        outcome.later_failures(),
    );
    eprintln!(
        "    kept {} of {} on other nodes; {} on that node, lost {:?}, the last after {:.0} ms; \
         longest gap {:.0} ms",
        outcome.kept_elsewhere(),
        outcome.elsewhere(),
        outcome.on_owner(),
        outcome.flows.lost,
        outcome.last_lost_ms(),
        outcome.flows.longest_gap_ms,
    );
}
