//! Speakers that end: told to (an upgrade, a drain), or killed.

use std::time::Duration;

use anyhow::Result;
use lightship_e2e::experiment::{self, Outcome, Plan};
use lightship_e2e::figures::{median_ms, table};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::vip;
use lightship_lab::progress::Progress;
use lightship_lab::{How, Lab};

use super::report::Section;

const FLOWS: usize = 200;

/// 600 new connections and more.
const WATCH: Duration = Duration::from_secs(12);

/// Measures both ways.
pub(super) fn measure(lab: &mut Lab, runs: usize) -> Result<Section> {
    let steps = Progress::on_stderr();
    let title = "End of the announcing node's speaker";
    steps.say(title);
    let address = steps.step("Service served by every node", || {
        scene::service(lab, &Wish::local("move"))
    })?[0];
    let mut text = format!(
        "{FLOWS} connections stand, and a new one is opened every {} ms. SIGTERM: the speaker \
         hands its addresses over first. SIGKILL: its node starts it again; what it left in the kernel \
         serves meanwhile.\n",
        experiment::PACE
    );
    for (name, how) in [("SIGTERM", How::StopSpeaker), ("SIGKILL", How::KillSpeaker)] {
        let mut outcomes = Vec::new();
        for run in 1..=runs {
            let plan = Plan {
                flows: FLOWS,
                how,
                watch: WATCH,
                api_stopped: false,
            };
            let outcome = steps.step(&format!("{name}, run {run} of {runs}"), || {
                experiment::run(lab, address, plan)
            })?;
            let owner = vip::owner(lab, address)?;
            outcomes.push((outcome, owner));
            steps.step("all nodes serve again", || {
                scene::heal_and_settle(lab, address)
            })?;
        }
        text += &summary(name, &outcomes);
    }
    scene::delete_service(lab, "move")?;
    Ok(Section {
        id: "move".to_owned(),
        title: title.to_owned(),
        command: "cargo xtask bench move".to_owned(),
        text,
    })
}

fn summary(name: &str, outcomes: &[(Outcome, String)]) -> String {
    let rows: Vec<Vec<String>> = outcomes
        .iter()
        .enumerate()
        .map(|(index, (outcome, owner))| {
            let moved = if *owner == outcome.owner {
                format!("{owner} stays")
            } else {
                format!("{} → {owner}", outcome.owner)
            };
            vec![
                (index + 1).to_string(),
                moved,
                format!("{}/{}", outcome.flows.kept, outcome.flows.opened),
                format!("{} of {}", outcome.stream.failures, outcome.stream.requests),
                format!("{:.0}", outcome.flows.longest_gap_ms),
                outcome
                    .stream
                    .latency_ms
                    .map_or("-".into(), |[median, _, worst]| {
                        format!("{median:.1} / {worst:.0}")
                    }),
            ]
        })
        .collect();
    let kept: usize = outcomes.iter().map(|(o, _)| o.flows.kept).sum();
    let opened: usize = outcomes.iter().map(|(o, _)| o.flows.opened).sum();
    let failed: usize = outcomes.iter().map(|(o, _)| o.stream.failures).sum();
    let begun: usize = outcomes.iter().map(|(o, _)| o.stream.requests).sum();
    let gaps: Vec<f64> = outcomes
        .iter()
        .map(|(o, _)| o.flows.longest_gap_ms)
        .collect();
    format!(
        "\n**{name}: kept {kept} of {opened} connections, {failed} of {begun} new ones failed**; \
         longest time between two answers on a connection, which asks every 100 ms: median {} ms.\n\n{}",
        median_ms(&gaps),
        table(
            &[
                "run",
                "owner",
                "kept",
                "new failed",
                "longest gap ms",
                "latency of new: median / worst ms"
            ],
            &rows
        )
    )
}
