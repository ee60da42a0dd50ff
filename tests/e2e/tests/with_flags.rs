//! What speakers do otherwise than by default, when flags say so: all that the whole cluster has to have alike.
#![allow(
    dead_code,
    reason = "the tests' common parts are shared with net.rs, which uses more of them"
)]

mod common;
#[path = "net/modes.rs"]
mod modes;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::probe::{Probe, Stream};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::vip;
use lightship_lab::Lab;
use lightship_lab::addressing::Families;
use lightship_lab::options::{Options, SubstrateKind};
use serde_json::json;

use crate::common::{Served, moved_from};
use crate::modes::{one_answers, only_moves_cost};

/// What a move takes, with its status.
const SOON: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let options = Options::resolve(3, Some(SubstrateKind::Netns), None, Families::Dual, true);
    let flags = ["--cordon=move", "--rebalance-after=2"];
    common::main(
        options.map(|options| options.with_speaker_flags(&flags)),
        "",
        &[&[
            ("with_flags_a_cordoned_node_hands_over", cordoned),
            ("with_flags_a_preferred_node_gets_its_vips", preferred),
        ]],
    )
}

/// `--cordon=move`: who may have no new Pods answers for no VIPs either, and gets none back when that is over.
fn cordoned(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("cordoned"), |lab, vips| {
        let address = *vips.first().context("no address")?;
        let owner = vip::owner(lab, address)?;
        let mut stream = Probe::stream(lab, address, 5, false)?;
        lab.kubectl(&["cordon", &owner])?;
        let outcome = moved_from(lab, address, &owner);
        lab.kubectl(&["uncordon", &owner])?;
        let new = outcome?;
        let reason = new.moved.as_ref().map(|(.., reason)| reason.as_str());
        ensure!(reason == Some("Drained"), "another reason: {new:?}");
        one_answers(lab, address)?;
        // Rebalancing would have had its time.
        std::thread::sleep(Duration::from_secs(4));
        let seen: Stream = stream.end()?;
        only_moves_cost(&seen, 1)?;
        ensure!(vip::owner(lab, address)? != owner, "it is back at {owner}");
        Ok(())
    })
}

/// `--rebalance-after=2`: a VIP goes to a node that came to be preferred once all has been calm for two seconds.
fn preferred(lab: &mut Lab) -> Result<()> {
    const NAME: &str = "preferred";
    let outcome = Served::during(lab, &Wish::local(NAME), |lab, vips| {
        let address = *vips.first().context("no address")?;
        let owner = vip::owner(lab, address)?;
        let names = lab.node_names();
        let other = names.iter().find(|name| **name != owner);
        let other = other.context("one node only")?;
        let mut stream = Probe::stream(lab, address, 5, false)?;
        let selector = json!({ "matchLabels": { "kubernetes.io/hostname": other } });
        let spec = json!({ "preferredNodes": [{ "weight": 1, "nodeSelector": selector }] });
        scene::l2_announcement(lab, NAME, &spec)?;
        let new = vip::wait(lab, address, "goes to who is preferred", SOON, |vip| {
            vip.owner.as_ref() == Some(other)
        })?;
        let reason = new.moved.as_ref().map(|(.., reason)| reason.as_str());
        ensure!(reason == Some("Rebalanced"), "another reason: {new:?}");
        one_answers(lab, address)?;
        let seen: Stream = stream.end()?;
        only_moves_cost(&seen, 1)?;
        Ok(())
    });
    scene::cleared(outcome, [scene::delete_l2_announcement(lab, NAME)])
}
