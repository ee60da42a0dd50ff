//! Speakers with `--insecure-heartbeats`, for clusters whose operator does without the key's Secret.
#![allow(
    dead_code,
    reason = "the tests are shared with net.rs, which runs more of them"
)]

mod common;
#[path = "net/failover.rs"]
mod failover;
#[path = "net/modes.rs"]
mod modes;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::scene::Wish;
use lightship_e2e::{metrics, probe, timeline};
use lightship_lab::addressing::Families;
use lightship_lab::options::{Options, SubstrateKind};
use lightship_lab::{How, Lab};

use crate::common::Served;

/// Time in which a speaker that started has been heard by all.
const CALM: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let options = Options::resolve(3, Some(SubstrateKind::Netns), None, Families::Dual, true);
    common::main(
        options.map(|options| options.with_speaker_flags(&["--insecure-heartbeats"])),
        "",
        &[&[
            ("without_keys_each_speaker_warns", warned),
            ("without_keys_the_secret_is_not_used", unused),
            (
                "without_keys_a_stopped_speaker_hands_over",
                failover::planned,
            ),
            ("without_keys_a_crashed_owner_is_replaced", failover::crash),
        ]],
    )
}

/// What the flag gives up is said where an operator looks, with the port that is open for it.
fn warned(lab: &mut Lab) -> Result<()> {
    for node in lab.node_names() {
        let log = timeline::speaker(lab, &node)?;
        let warned = log.iter().any(|line| {
            line.text.contains("--insecure-heartbeats") && line.text.contains("UDP port 7733")
        });
        ensure!(warned, "{node} does not warn");
    }
    Ok(())
}

/// A key that no speaker would take: those that use the Secret say so of it, and one that starts has none.
const SHORT: &str = "c2hvcnQ=";

/// The Secret is there, and whatever becomes of it, speakers that start hear those that were there, and are
/// heard.
fn unused(lab: &mut Lab) -> Result<()> {
    const SECRET: [&str; 4] = ["secret", "lightship-heartbeat", "-n", "lightship-system"];
    let put = |lab: &Lab, key: &str| -> Result<()> {
        let patch = serde_json::json!({ "data": { "key": key } }).to_string();
        lab.kubectl(&[&["patch"][..], &SECRET, &["-p", &patch]].concat())?;
        Ok(())
    };
    let secret = lab.kubectl_json(&[&["get"][..], &SECRET].concat())?;
    let key = secret["data"]["key"].as_str().context("no key")?.to_owned();
    put(lab, SHORT)?;
    let outcome = Served::during(lab, &Wish::local("unused"), |lab, vips| {
        let nodes = lab.node_names();
        let begin = probe::now_ns();
        let (first, rest) = nodes.split_first().context("no nodes")?;
        lab.fail(first, How::KillSpeaker)?;
        timeline::wait_line(lab, first, begin, &["speaker starts"], CALM)?;
        thread::sleep(CALM);
        let others = rest.len() as f64;
        for node in &nodes {
            let alive = metrics::alive(lab, node)?;
            ensure!(alive == others, "{node} hears {alive} speakers");
            let refused = metrics::counted(lab, node, "heartbeats_refused_total")?;
            ensure!(refused == 0.0, "{node} refused {refused} heartbeats");
            let said = timeline::speaker(lab, node)?;
            let mut said = said.iter().map(|line| &line.text);
            let of_it = said.find(|text| text.contains("lightship-heartbeat"));
            ensure!(of_it.is_none(), "{node} says {of_it:?}");
        }
        modes::one_answers(lab, vips[0])
    });
    put(lab, &key)?;
    outcome
}
