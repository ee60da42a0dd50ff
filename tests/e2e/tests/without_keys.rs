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

use anyhow::{Result, ensure};
use lightship_e2e::timeline;
use lightship_lab::Lab;
use lightship_lab::addressing::Families;
use lightship_lab::options::{Options, SubstrateKind};

fn main() -> ExitCode {
    let options = Options::resolve(3, Some(SubstrateKind::Netns), None, Families::Dual, true);
    common::main(
        options.map(|options| options.with_speaker_flags(&["--insecure-heartbeats"])),
        "",
        &[&[
            ("without_keys_each_speaker_warns", warned),
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
