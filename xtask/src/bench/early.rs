//! The crash of a node under policy Cluster, with the early word of a dead node and without.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use lightship_e2e::experiment::{self, Outcome, PACE, Plan};
use lightship_e2e::figures::table;
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::vip;
use lightship_lab::progress::Progress;
use lightship_lab::workload::TrafficPolicy;
use lightship_lab::{How, Lab};

use super::report::Section;

/// Longer than Kubernetes takes to find out by itself, and kube-proxy to follow.
const WATCH: Duration = Duration::from_secs(60);

/// Connections that stand when it happens; this is about the new ones.
const FLOWS: usize = 10;

/// The controller trusts nobody before it has seen the nodes' Leases renewed.
const TRUST: Duration = Duration::from_secs(11);

/// The parts that the time after the crash is cut into, in seconds.
const EDGES: [u32; 8] = [0, 1, 2, 3, 5, 10, 40, 60];

/// Measures both sides, each so many times.
pub(super) fn measure(lab: &mut Lab, runs: usize) -> Result<Section> {
    let steps = Progress::on_stderr();
    let mut rows = Vec::new();
    for on in [false, true] {
        let what = if on { "on" } else { "off" };
        let turned = format!("the early word of a dead node is {what}");
        steps.step(&turned, || lab.early_node_failure(on))?;
        for run in 1..=runs {
            let outcome = crash(lab, &format!("{what}, run {run} of {runs}"), steps)?;
            rows.push(row(what, run, &outcome));
        }
    }
    lab.early_node_failure(false)?;
    let mut heads = vec!["early word".to_owned(), "run".to_owned()];
    let spans = EDGES
        .windows(2)
        .map(|edge| format!("{} to {} s", edge[0], edge[1]));
    heads.extend(spans);
    heads.extend(["failed", "last failure"].map(str::to_owned));
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    Ok(Section {
        id: format!("early-{}", lab.state().options.substrate),
        title: "Early word of a dead node, externalTrafficPolicy Cluster".into(),
        command: "cargo xtask bench early".into(),
        text: format!(
            "The node that announces is killed while a new connection is opened every {PACE} ms. \
             Share of the new connections that failed, by the time after the crash: with the \
             controller's `--early-node-failure` and without it, when kube-proxy goes on \
             choosing the dead node's pods until Kubernetes has marked them. In the first \
             0.3 s nobody answers, either way.\n\n{}",
            table(&heads, &rows)
        ),
    })
}

fn crash(lab: &mut Lab, title: &str, steps: Progress) -> Result<Outcome> {
    let wish = Wish {
        policy: TrafficPolicy::Cluster,
        ..Wish::local("early").fresh()
    };
    let address = steps.step("Service served by every node", || {
        scene::service(lab, &wish)
    })?[0];
    thread::sleep(TRUST);
    let plan = Plan {
        flows: FLOWS,
        how: How::Crash,
        watch: WATCH,
        api_stopped: false,
    };
    let outcome = steps.step(title, || experiment::run(lab, address, plan))?;
    steps.step("node booted, all directors agree again", || {
        scene::heal(lab)?;
        let nodes = lab.node_names().len();
        vip::wait_settled(lab, address, nodes, Duration::from_secs(180))?;
        scene::delete_service(lab, wish.name)
    })?;
    Ok(outcome)
}

fn row(what: &str, run: usize, outcome: &Outcome) -> Vec<String> {
    let mut cells = vec![what.to_owned(), run.to_string()];
    cells.extend(EDGES.windows(2).map(|edge| {
        let from = f64::from(edge[0]) * 1000.0;
        let to = f64::from(edge[1]) * 1000.0;
        let failed = outcome.failures_between(from, to);
        let begun = (edge[1] - edge[0]) * 1000 / PACE;
        format!("{} %", failed * 100 / begun.max(1) as usize)
    }));
    let (failed, all) = (outcome.stream.failures, outcome.stream.requests);
    cells.push(format!("{failed} of {all}"));
    cells.push(format!("{:.1} s", outcome.last_failure_ms() / 1000.0));
    cells
}
