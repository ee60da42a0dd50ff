//! The crash of the node that announces: its kernel is killed.

use std::time::Duration;

use anyhow::Result;
use lightship_e2e::experiment::{self, Outcome, Plan};
use lightship_e2e::figures::{median_ms, table};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::vip;
use lightship_lab::progress::Progress;
use lightship_lab::workload::TrafficPolicy;
use lightship_lab::{How, Lab};

use super::What;
use super::report::Section;

/// Connections that stand when it happens.
const FLOWS: usize = 200;

/// A way to measure it.
pub(super) struct Variant {
    /// The word on the command line.
    pub(super) what: What,
    id: &'static str,
    title: &'static str,
    text: &'static str,
    policy: TrafficPolicy,
    api_stopped: bool,
    /// Under Cluster longer than the 50 s that Kubernetes takes to see that the node is gone, and
    /// kube-proxy to follow.
    watch: Duration,
}

/// All of them.
pub(super) const VARIANTS: [Variant; 3] = [
    Variant {
        what: What::Failover,
        id: "crash-local",
        title: "Crash of the announcing node, externalTrafficPolicy Local",
        text: "Every connection whose node lives must go on; those of the dead node must end by a \
               reset soon; no new connection may fail after the takeover.",
        policy: TrafficPolicy::Local,
        api_stopped: false,
        watch: Duration::from_secs(10),
    },
    Variant {
        what: What::Failover,
        id: "crash-without-api",
        title: "The same while the API server is stopped",
        text: "The nodes settle it among themselves, so it must take as long as with it.",
        policy: TrafficPolicy::Local,
        api_stopped: true,
        watch: Duration::from_secs(10),
    },
    Variant {
        what: What::Cluster,
        id: "crash-cluster",
        title: "The same with externalTrafficPolicy Cluster",
        text: "Here kube-proxy on the nodes that live goes on choosing pods of the dead node until \
               Kubernetes has marked it, after 50 s and more: a third of the new connections fails \
               until that moment, whoever announces. After it only those fail that use the port of \
               one that failed less than two minutes before: the nodes' connection tracking still \
               sends those to the dead pod (in a capture of one run, all 58 failures after the \
               65th second). A connection is also lost if it came in by the \
               dead node, whichever node its pod is on. Policy Local has neither.",
        policy: TrafficPolicy::Cluster,
        api_stopped: false,
        watch: Duration::from_secs(90),
    },
];

/// Measures one variant.
pub(super) fn measure(lab: &mut Lab, variant: &Variant, runs: usize) -> Result<Section> {
    let steps = Progress::on_stderr();
    let wish = Wish {
        policy: variant.policy,
        ..Wish::local(variant.id).fresh()
    };
    steps.say(variant.title);
    let mut outcomes = Vec::new();
    for run in 1..=runs {
        let address = steps.step("Service served by every node", || {
            scene::service(lab, &wish)
        })?[0];
        let plan = Plan {
            flows: FLOWS,
            how: How::Crash,
            watch: variant.watch,
            api_stopped: variant.api_stopped,
        };
        let outcome = steps.step(&format!("run {run} of {runs}"), || {
            experiment::run(lab, address, plan)
        })?;
        steps.say(&format!(
            "           takeover {} ms, kept {}/{}",
            ms(outcome.takeover_ms()),
            outcome.kept_elsewhere(),
            outcome.elsewhere()
        ));
        lab.start_api()?;
        let old = &outcome.owner;
        let limit = Duration::from_secs(20);
        let new = vip::wait(lab, address, "has a new owner", limit, |vip| {
            vip.owner.as_ref().is_some_and(|owner| owner != old)
        })?;
        outcomes.push((outcome, new.owner.unwrap_or_default()));
        steps.step("node booted, all directors agree again", || {
            scene::heal(lab)?;
            let nodes = lab.node_names().len();
            let limit = Duration::from_secs(180);
            vip::wait_settled(lab, address, nodes, limit)?;
            scene::delete_service(lab, variant.id)
        })?;
    }
    Ok(section(variant, &outcomes))
}

fn ms(value: Option<f64>) -> String {
    value.map_or("never".into(), |value| format!("{value:.0}"))
}

fn section(variant: &Variant, outcomes: &[(Outcome, String)]) -> Section {
    let rows: Vec<Vec<String>> = outcomes
        .iter()
        .enumerate()
        .map(|(index, (outcome, new))| {
            let later = outcome.stream.requests - outcome.stream.failures;
            let failed = outcome.later_failures();
            vec![
                (index + 1).to_string(),
                format!("{} → {new}", outcome.owner),
                ms(outcome.takeover_ms()),
                ms(outcome.outage_ms()),
                format!("{}/{}", outcome.kept_elsewhere(), outcome.elsewhere()),
                outcome.on_owner().to_string(),
                lost(outcome),
                format!("{:.0}", outcome.last_lost_ms()),
                format!("{failed} (of {})", later + failed),
                if failed == 0 {
                    "-".into()
                } else {
                    format!("{:.1} s", outcome.last_failure_ms() / 1000.0)
                },
            ]
        })
        .collect();
    let takeovers: Vec<f64> = outcomes
        .iter()
        .filter_map(|(o, _)| o.takeover_ms())
        .collect();
    let outages: Vec<f64> = outcomes.iter().filter_map(|(o, _)| o.outage_ms()).collect();
    let sum = |count: fn(&Outcome) -> usize| outcomes.iter().map(|(o, _)| count(o)).sum::<usize>();
    let text = format!(
        "{FLOWS} connections stand over three nodes, and a new one is opened every {} ms, until {} s \
         after the crash. {}\n\n\
         **Median takeover {} ms** (from the kill to the first new connection that succeeds), \
         outage {} ms; kept {} of {} connections whose node lives.\n\n{}",
        experiment::PACE,
        variant.watch.as_secs(),
        variant.text,
        median_ms(&takeovers),
        median_ms(&outages),
        sum(Outcome::kept_elsewhere),
        sum(Outcome::elsewhere),
        table(
            &[
                "run",
                "owner",
                "takeover ms",
                "outage ms",
                "kept, node lives",
                "on dead node",
                "lost",
                "last ended after ms",
                "new failed after takeover",
                "last such"
            ],
            &rows
        )
    );
    Section {
        id: variant.id.to_owned(),
        title: variant.title.to_owned(),
        command: match variant.what {
            What::Cluster => "cargo xtask bench cluster".to_owned(),
            _ => "cargo xtask bench failover".to_owned(),
        },
        text,
    }
}

fn lost(outcome: &Outcome) -> String {
    let lost = outcome.flows.lost.iter();
    let parts: Vec<String> = lost.map(|(how, count)| format!("{count} {how}")).collect();
    parts.join(", ")
}
