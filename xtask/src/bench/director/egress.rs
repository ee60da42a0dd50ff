//! One address's downloads over one, two and three nodes with slow uplinks.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use lightship_e2e::figures::table;
use lightship_e2e::vip;
use lightship_lab::Lab;
use lightship_lab::progress::Progress;
use lightship_lab::workload::{PORT, TrafficPolicy};
use serde_json::json;

use super::{delete, load, service, wait_served};
use crate::bench::report::Section;
use crate::bench::verdict::{self, Judged, Limit};

/// What each node may send, Mbit/s: far below what this machine can do for all of them.
const CAP: u32 = 20;

/// Enough at a time that no node runs out of work by chance.
const WORKERS: &str = "96";
const BYTES: &str = "200000";

/// Measures direct routing over 1, 2, … nodes, then the same with `Announce`.
pub(in crate::bench) fn measure(lab: &mut Lab) -> Result<Section> {
    let steps = Progress::on_stderr();
    let title = "Downloads from one address, each node's uplink capped";
    steps.say(title);
    let nodes = lab.node_names();
    for node in &nodes {
        cap(lab, node)?;
    }
    let outcome = rows(lab, &nodes);
    for node in &nodes {
        lab.shell(node, "tc qdisc del dev eth0 root")?;
    }
    let rows = outcome?;
    let first = rows.first().map_or(1.0, |(_, megabits)| *megabits);
    let judged: Vec<Judged> = rows
        .iter()
        .zip(1..=nodes.len())
        .map(|((what, megabits), count)| {
            let limit = Limit::AtLeast(0.95 * count as f64);
            Judged::new(what, megabits / first, "×", limit)
        })
        .collect();
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|(what, megabits)| {
            vec![
                what.clone(),
                format!("{megabits:.1}"),
                format!("{:.2} ×", megabits / first),
            ]
        })
        .collect();
    let text = format!(
        "A client downloads from one Service as fast as it comes, {WORKERS} connections at a time. \
         Each node may send {CAP} Mbit/s (`tc … tbf`). With the director every node answers the client \
         by its own uplink; with `forwardingMode: Announce` (and the policy Cluster, so that all \
         pods work) everything leaves by the announcing node.\n\n{}\n{}",
        table(&["", "Mbit/s", "of one node"], &lines),
        verdict::lines(&judged)
    );
    Ok(Section {
        id: "director-egress".to_owned(),
        title: title.to_owned(),
        command: "cargo xtask bench director".to_owned(),
        text,
    })
}

fn cap(lab: &Lab, node: &str) -> Result<()> {
    let line = format!(
        "modprobe sch_tbf 2>/dev/null; \
         tc qdisc replace dev eth0 root tbf rate {CAP}mbit burst 64kb latency 100ms"
    );
    lab.shell(node, &line).map(drop)
}

fn rows(lab: &Lab, nodes: &[String]) -> Result<Vec<(String, f64)>> {
    let steps = Progress::on_stderr();
    let mut rows = Vec::new();
    for count in 1..=nodes.len() {
        let what = format!("director, {count} of {} nodes have pods", nodes.len());
        let name = format!("egress-{count}");
        let found = steps.step(&what, || {
            // The announcing node is among them only by chance, as in a cluster.
            let vip = service(lab, &name, TrafficPolicy::Local, &nodes[..count], &[])?;
            download(lab, SocketAddr::new(vip.address, PORT))
        });
        delete(lab, &name)?;
        rows.push((what, found?));
    }
    let announcement = json!({
        "apiVersion": "lightship.dev/v1beta1",
        "kind": "L2Announcement",
        "metadata": { "name": "bench-announce" },
        "spec": { "forwardingMode": "Announce" },
    });
    lab.apply(&announcement.to_string())?;
    let what = format!("Announce, {0} of {0} nodes have pods", nodes.len());
    let found = steps.step(&what, || {
        let made = service(lab, "egress-announce", TrafficPolicy::Cluster, nodes, &[])?;
        let limit = Duration::from_secs(20);
        vip::wait(lab, made.address, "is Announce", limit, |vip| {
            vip.mode == "Announce"
        })
        .context("the announcement has no effect")?;
        download(lab, SocketAddr::new(made.address, PORT))
    });
    delete(lab, "egress-announce")?;
    lab.kubectl(&["delete", "l2announcement", "bench-announce"])?;
    rows.push((what, found?));
    Ok(rows)
}

fn download(lab: &Lab, target: SocketAddr) -> Result<f64> {
    wait_served(lab, target)?;
    let words = [
        "--workers",
        WORKERS,
        "--bytes",
        BYTES,
        "--warm-up",
        "4s",
        "--duration",
        "12s",
    ];
    Ok(load(lab, target, &words)?.megabits_per_second())
}
