//! Ports that drop what a director sends or gets: seen, named, and got round.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lightship_e2e::object::{self, Condition};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::{probe, timeline, vip};
use lightship_lab::state::PortFilter;
use lightship_lab::substrate::LAB_NETNS;
use lightship_lab::{How, Lab, sh};
use serde_json::Value;

use crate::common::{Served, moved_from};

/// How long a verdict may take: a restarted speaker, eight questions, and the word of the others.
const SOON: Duration = Duration::from_secs(60);

/// Each kind of filter at one node's port.
pub(crate) fn filters(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("paths"), |lab, vips| {
        let vip = vips[0];
        for node in lab.node_names() {
            speaker(lab, &node, "DirectRouting", "Passed")?;
        }
        for (filter, reason, settings) in [
            (
                PortFilter::OwnMacSends,
                "FramesFromDirectorDropped",
                &["frames from a second MAC", "VMware: forged transmits"][..],
            ),
            (
                PortFilter::OwnMacReceives,
                "FramesToDirectorDropped",
                &["frames to a second MAC", "VMware: MAC learning"],
            ),
            // Replies have a VIP as their source: such a node serves nobody, in neither mode.
            (
                PortFilter::OwnAddressSends,
                "ForeignSourceDropped",
                &[
                    "packets whose source is not this node's own address",
                    "OpenStack: port security off",
                    "switch: IP source guard off",
                    "replies to clients",
                ],
            ),
        ] {
            let node = vip::owner(lab, vip)?;
            lab.fail(&node, How::Filter(filter))?;
            // It would ask within ten minutes.
            lab.fail(&node, How::KillSpeaker)?;
            let said = speaker(lab, &node, "Announce", reason)?;
            names(&said, settings)?;
            for other in lab.node_names().iter().filter(|other| **other != node) {
                speaker(lab, other, "DirectRouting", "")?;
            }
            eprintln!("    {node}: {reason}");
            // Served by that node's own kube-proxy now, or by another node's director.
            if filter == PortFilter::OwnAddressSends {
                moved_from(lab, vip, &node)?;
            }
            served(lab, vip)?;
            remembered(lab, &node, reason)?;
            served(lab, vip)?;
            lab.heal(&node)?;
            lab.fail(&node, How::KillSpeaker)?;
            speaker(lab, &node, "DirectRouting", "Passed")?;
        }
        scene::wait_served(lab, vip, 3)?;
        // Nothing that others forward reaches this one; its own director works.
        let owner = vip::owner(lab, vip)?;
        let mut others = lab.node_names().into_iter().filter(|node| *node != owner);
        let node = others.next().context("one node only")?;
        lab.fail(&node, How::Filter(PortFilter::NodeAddressReceives))?;
        lab.fail(&node, How::KillSpeaker)?;
        let reason = "ForwardedFramesDropped";
        let said = speaker(lab, &node, "DirectRouting", reason)?;
        eprintln!("    {node}: {reason}");
        let message = tested(&said).context("no condition PathsTested")?.message;
        ensure!(
            message.contains("new connections go to other nodes"),
            "{message}"
        );
        served(lab, vip)?;
        ensure!(vip::owner(lab, vip)? == owner, "the VIP moved from {owner}");
        lab.heal(&node)?;
        lab.fail(&node, How::KillSpeaker)?;
        speaker(lab, &node, "DirectRouting", "Passed")?;
        between_two(lab)?;
        scene::wait_served(lab, vip, 3)
    })
}

/// Between two nodes alone: neither is to blame, so that both go on and name each other.
fn between_two(lab: &mut Lab) -> Result<()> {
    let [first, second, _] = &lab.state().nodes[..] else {
        bail!("three nodes are needed");
    };
    let rule = format!(
        "table bridge lightship_pair {{ chain forward {{ type filter hook forward priority 0; \
         iifname {} oifname {} ether saddr != {} drop; }}; }}",
        first.spec.port(),
        second.spec.port(),
        first.spec.mac
    );
    let names = [first.spec.name.clone(), second.spec.name.clone()];
    let nft = |line: &str| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", LAB_NETNS, "nft", line]);
        sh::run(command).map(drop)
    };
    nft(&rule)?;
    let said = lab.fail(&names[0], How::KillSpeaker).and_then(|()| {
        for (node, other) in [(&names[0], &names[1]), (&names[1], &names[0])] {
            let said = speaker(lab, node, "DirectRouting", "SomePathsFail")?;
            let message = tested(&said).context("no condition PathsTested")?.message;
            ensure!(message.contains(&**other), "{node}: {message}");
            eprintln!("    {node}: SomePathsFail, {other}");
        }
        Ok(())
    });
    nft("delete table bridge lightship_pair")?;
    said?;
    lab.fail(&names[0], How::KillSpeaker)?;
    for node in &names {
        speaker(lab, node, "DirectRouting", "Passed")?;
    }
    Ok(())
}

/// A speaker that starts again says at once what it had found: the test takes four seconds.
fn remembered(lab: &mut Lab, node: &str, reason: &str) -> Result<()> {
    let before = timeline::speaker(lab, node)?;
    let since = before.last().map_or(0, |line| line.at_ns) + 1;
    lab.fail(node, How::KillSpeaker)?;
    let start = timeline::wait_line(lab, node, since, &["speaker starts"], SOON)?;
    let said = timeline::wait_line(lab, node, start, &["path test", reason], SOON)?;
    let took = Duration::from_nanos(said - start);
    ensure!(
        took < Duration::from_secs(1),
        "{node}: {reason} only {took:?} after its start"
    );
    Ok(())
}

/// Waits until new connections succeed, whichever nodes serve them.
fn served(lab: &Lab, vip: IpAddr) -> Result<()> {
    sh::wait_for(
        "all new connections succeed",
        Duration::from_secs(30),
        Duration::from_millis(100),
        || {
            let seen = probe::stream_for(lab, vip, 10, Duration::from_secs(2), false)?;
            Ok((seen.failures == 0).then_some(()))
        },
    )
}

/// Both the reason of the mode and the condition name what is dropped and the setting to change.
fn names(speaker: &Value, parts: &[&str]) -> Result<()> {
    let tested = tested(speaker).context("no condition PathsTested")?;
    let mode = speaker["status"]["modeReason"].as_str();
    for message in [mode.unwrap_or_default(), tested.message] {
        for part in parts {
            ensure!(message.contains(part), "{message:?} does not say {part:?}");
        }
    }
    Ok(())
}

/// The condition that tells what came of the test.
fn tested(speaker: &Value) -> Option<Condition<'_>> {
    object::condition(speaker, "PathsTested")
}

/// Waits until a node's object says this mode and, unless empty, this verdict.
fn speaker(lab: &Lab, node: &str, mode: &str, reason: &str) -> Result<Value> {
    let what = format!("says {mode} {reason}");
    object::wait(lab, ("speaker", node), &what, SOON, |speaker| {
        let tested = tested(speaker);
        let tested = tested.is_some_and(|c| reason.is_empty() || c.reason == reason);
        tested && speaker["status"]["mode"] == mode
    })
}
