//! One crash of the announcing node after another on one lab, for percentiles.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use lightship_e2e::experiment;
use lightship_e2e::figures::{percentile, table};
use lightship_e2e::probe::{Probe, now_ns};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::vip;
use lightship_lab::progress::Progress;
use lightship_lab::{How, Lab};

use super::report::Section;

/// A new connection is opened so often, in milliseconds.
const PACE: u32 = 10;

/// New connections run before the crash, and after it: longer than any takeover should take, by far.
const BEFORE: Duration = Duration::from_millis(700);
const AFTER: Duration = Duration::from_secs(3);

/// A crashed node is there again within this time, with its kube-proxy and its pod.
const RECOVERY: Duration = Duration::from_secs(180);

/// What one crash cost.
struct Crash {
    owner: String,
    new: String,
    /// From the crash to the begin of the first new connection that was answered.
    answered_ms: f64,
}

/// Measures `runs` crashes; `profile` names the settings.
pub(super) fn measure(lab: &mut Lab, profile: &str, runs: usize) -> Result<Section> {
    let steps = Progress::on_stderr();
    let wish = Wish::local("crashes").fresh();
    let address = steps.step("Service served by every node", || {
        scene::service(lab, &wish)
    })?[0];
    let nodes = lab.node_names().len();
    let mut crashes = Vec::new();
    for run in 1..=runs {
        // In any phase of the heartbeats.
        thread::sleep(Duration::from_millis(run as u64 * 37 % 100));
        let owner = vip::owner(lab, address)?;
        let mut probe = Probe::stream(lab, address, PACE, false)?;
        thread::sleep(BEFORE);
        let at_ns = now_ns();
        lab.fail(&owner, How::Crash)
            .with_context(|| format!("cannot crash {owner}"))?;
        thread::sleep(AFTER);
        let stream = probe.end()?;
        let answered_ms = experiment::takeover_ms(&stream, at_ns)
            .with_context(|| format!("run {run}: nobody answered {AFTER:?} after the crash"))?;
        let limit = Duration::from_secs(20);
        let new = vip::wait(lab, address, "has a new owner", limit, |vip| {
            vip.owner.as_ref().is_some_and(|new| *new != owner)
        })?;
        steps.say(&format!(
            "           run {run} of {runs}: {owner}, {answered_ms:.0} ms"
        ));
        crashes.push(Crash {
            owner,
            new: new.owner.unwrap_or_default(),
            answered_ms,
        });
        scene::heal(lab)?;
        vip::wait_settled(lab, address, nodes, RECOVERY)?;
        scene::wait_proxies(lab, wish.name)?;
    }
    scene::delete_service(lab, wish.name)?;
    let kind = lab.state().options.substrate;
    let flags = lab.state().options.speaker_flags.join(" ");
    Ok(section(
        format!("crashes-{kind}-{profile}"),
        &kind.to_string(),
        &flags,
        &crashes,
    ))
}

fn section(id: String, kind: &str, flags: &str, crashes: &[Crash]) -> Section {
    let times: Vec<f64> = crashes.iter().map(|crash| crash.answered_ms).collect();
    let of = |percent| percentile(&times, percent).map_or("-".into(), |ms| format!("{ms:.0}"));
    let rows: Vec<Vec<String>> = crashes
        .chunks(6)
        .enumerate()
        .map(|(row, chunk)| {
            let mut cells = vec![format!("{} to {}", row * 6 + 1, row * 6 + chunk.len())];
            cells.extend(chunk.iter().map(|crash| {
                format!("{:.0} ({} → {})", crash.answered_ms, crash.owner, crash.new)
            }));
            cells.resize(7, String::new());
            cells
        })
        .collect();
    let settings = if flags.is_empty() {
        "default settings".to_owned()
    } else {
        format!("`{flags}`")
    };
    Section {
        id,
        title: format!("Crash of the announcing node, nodes of kind {kind}, {settings}"),
        command: "cargo xtask bench failover".to_owned(),
        text: format!(
            "One crash after another (kernel and processes killed, or the port down and all processes \
             killed at once) while a new connection is opened every {PACE} ms: milliseconds from the crash to \
             the begin of the first new connection that is answered, which is up to {PACE} ms after the \
             moment in which it could be. Percentiles of all runs by nearest rank.\n\n\
             **{} crashes: p50 {} ms, p95 {} ms, p99 {} ms**; least {}, most {}.\n\n{}",
            times.len(),
            of(50),
            of(95),
            of(99),
            of(0),
            of(100),
            table(&["runs", "1st", "2nd", "3rd", "4th", "5th", "6th"], &rows)
        ),
    }
}
