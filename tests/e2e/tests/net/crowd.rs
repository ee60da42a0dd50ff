//! What a crash says on the LAN when the node had a thousand VIPs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lightship_e2e::neighbours::Capture;
use lightship_e2e::{crowd, metrics, probe, scene};
use lightship_lab::substrate::CLIENT_NETNS;
use lightship_lab::{How, Lab, sh};

use crate::common::figure;

/// So many VIPs.
const COUNT: usize = 1000;

/// Seconds within which all are announced, from the crash on.
const WITHIN: f64 = 1.0;

const LIMIT: Duration = Duration::from_secs(60);

/// One node takes all VIPs of one that crashed, and the client hears of each within a second.
pub(crate) fn announced(lab: &mut Lab) -> Result<()> {
    let start = Instant::now();
    let gathered = crowd::gather(lab, COUNT, &[80]);
    figure("Services made in", start.elapsed());
    let outcome = gathered.and_then(|()| crash(lab));
    let healed = scene::heal(lab);
    let dispersed = crowd::disperse(lab);
    figure("took with heal and removal", start.elapsed());
    outcome.and(healed).and(dispersed)
}

fn crash(lab: &mut Lab) -> Result<()> {
    let nodes = lab.node_names();
    let [owner, heir, other] = &nodes[..] else {
        anyhow::bail!("{} nodes, and not three", nodes.len());
    };
    for node in [heir, other] {
        lab.fail(node, How::StopSpeaker)?;
    }
    let often = Duration::from_millis(300);
    let what = format!("all {COUNT} to be at {owner}");
    sh::wait_for(&what, LIMIT, often, || {
        let mut all = crowd::all(lab)?.into_iter();
        let here = all.all(|vip| vip.owner.as_ref() == Some(owner));
        Ok(here.then_some(()))
    })?;
    lab.heal(heir)?;
    sh::wait_for(&format!("{heir}'s speaker"), LIMIT, often, || {
        // The other end of the link: its own port may not be there yet.
        let heard = metrics::alive(lab, owner)?;
        Ok((heard == 1.0).then_some(()))
    })?;
    // It listens for 0.35 s before it takes anything over.
    thread::sleep(Duration::from_secs(2));
    // 136: neighbour advertisements.
    let capture = Capture::timed(CLIENT_NETNS, "eth0", "icmp6 and ip6[40] = 136")?;
    let crashed = probe::now_ns() as f64 / 1e9;
    lab.fail(owner, How::Crash)?;
    thread::sleep(Duration::from_secs(4));
    let frames = capture.end()?;
    let mut first: BTreeMap<IpAddr, f64> = BTreeMap::new();
    for frame in &frames {
        let (at, address) = read(frame).with_context(|| frame.clone())?;
        if at > crashed && crowd::is_of_it(address) {
            first.entry(address).or_insert(at);
        }
    }
    ensure!(first.len() == COUNT, "{} of {COUNT} announced", first.len());
    let from = first.values().copied().fold(f64::INFINITY, f64::min);
    let to = first.values().copied().fold(0.0, f64::max);
    eprintln!(
        "    {COUNT} VIPs announced from {:.3} to {:.3} s after the crash, within {:.3} s",
        from - crashed,
        to - crashed,
        to - from
    );
    let mut times: Vec<f64> = first.values().map(|at| at - from).collect();
    times.sort_by(f64::total_cmp);
    let tenths: Vec<String> = (1..10)
        .map(|tenth| format!("{:.3}", times[tenth * COUNT / 10]))
        .collect();
    eprintln!("    a tenth of them after {} s", tenths.join(", "));
    let last = to - crashed;
    ensure!(last <= WITHIN, "the last only {last:.3} s after the crash");
    Ok(())
}

/// When a frame was seen, and the address that it tells of.
fn read(frame: &str) -> Option<(f64, IpAddr)> {
    let at = frame.split_whitespace().next()?.parse().ok()?;
    let (_, rest) = frame.split_once("tgt is ")?;
    Some((at, rest.split(',').next()?.trim().parse().ok()?))
}
