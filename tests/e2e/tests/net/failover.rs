//! What becomes of an address when its owner fails, in each of the ways that a node can.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::experiment::{self, Outcome, Plan, Traffic};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::{neighbours, probe, timeline, vip};
use lightship_lab::{How, Lab};

use crate::common::{Served, moved_from};
use crate::modes::{one_answers, only_moves_cost};

/// Longest outage that a test lets pass, in milliseconds: far above what is measured, for
/// machines that have other work.
const LIMIT: f64 = 2000.0;

/// How long the effect of a fault is watched.
const WATCH: Duration = Duration::from_secs(6);

/// Time in which all that was said about a change has been heard.
const CALM: Duration = Duration::from_secs(3);

fn disturb(lab: &mut Lab, address: IpAddr, how: How, api_stopped: bool) -> Result<Outcome> {
    let plan = Plan {
        flows: 50,
        how,
        watch: WATCH,
        api_stopped,
    };
    Ok(told(experiment::run(lab, address, plan)?, how))
}

/// Prints what a disturbance cost.
fn told(outcome: Outcome, how: How) -> Outcome {
    let ms = |ms: Option<f64>| ms.map_or("never".into(), |ms| format!("{ms:.0} ms"));
    eprintln!(
        "    {} {how:?}: takeover {}, outage {}, {} of {} failed, {} after the takeover; flows kept {} of {}",
        outcome.owner,
        ms(outcome.takeover_ms()),
        ms(outcome.outage_ms()),
        outcome.stream.failures,
        outcome.stream.requests,
        outcome.later_failures(),
        outcome.flows.kept,
        outcome.flows.opened,
    );
    outcome
}

/// The owner fails; another node serves soon, alone, and keeps the address when the first is back.
fn replaced(lab: &mut Lab, name: &str, how: How, api_stopped: bool) -> Result<()> {
    Served::during(lab, &Wish::local(name), |lab, vips| {
        let outcome = disturb(lab, vips[0], how, api_stopped)?;
        ensure!(
            outcome.takeover_ms().is_some_and(|ms| ms < LIMIT),
            "new connections failed too long: {:?}",
            outcome.stream
        );
        ensure!(outcome.later_failures() == 0, "{:?}", outcome.stream);
        lab.start_api()?;
        let new = moved_from(lab, vips[0], &outcome.owner)?;
        eprintln!("    {:?} took over: {:?}", new.owner, new.moved);
        one_answers(lab, vips[0])?;
        scene::heal_and_settle(lab, vips[0])?;
        thread::sleep(CALM);
        let after = vip::owner(lab, vips[0])?;
        ensure!(
            Some(&after) == new.owner.as_ref(),
            "it moved again, to {after}"
        );
        one_answers(lab, vips[0])
    })
}

/// The owner's kernel and processes are gone.
pub(crate) fn crash(lab: &mut Lab) -> Result<()> {
    replaced(lab, "crash", How::Crash, false)
}

/// The same while there is no API server.
pub(crate) fn crash_without_api(lab: &mut Lab) -> Result<()> {
    replaced(lab, "crash-no-api", How::Crash, true)
}

/// The owner's cable is pulled: it sees its carrier go.
pub(crate) fn unplug(lab: &mut Lab) -> Result<()> {
    replaced(lab, "unplug", How::Unplug, false)
}

/// The owner is cut off from the other nodes, not from the client. Both sides answer then;
/// when they hear of each other again, one falls silent.
pub(crate) fn partition(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("partition"), |lab, vips| {
        let outcome = disturb(lab, vips[0], How::Partition { also_api: false }, false)?;
        ensure!(
            outcome.takeover_ms().is_some_and(|ms| ms < LIMIT),
            "new connections failed too long: {:?}",
            outcome.stream
        );
        lab.heal(&outcome.owner)?;
        thread::sleep(CALM);
        scene::heal_and_settle(lab, vips[0])?;
        one_answers(lab, vips[0])
    })
}

/// The owner's speaker ends in an orderly way: it hands over first, and no new connection fails.
pub(crate) fn planned(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("planned"), |lab, vips| {
        let outcome = disturb(lab, vips[0], How::StopSpeaker, false)?;
        only_moves_cost(&outcome.stream, 1)?;
        moved_from(lab, vips[0], &outcome.owner)?;
        one_answers(lab, vips[0])
    })
}

/// The owner's speaker is killed and started again by its node.
pub(crate) fn killed(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("killed"), |lab, vips| {
        let outcome = disturb(lab, vips[0], How::KillSpeaker, false)?;
        ensure!(outcome.stream.failures == 0, "{:?}", outcome.stream);
        let owner = vip::owner(lab, vips[0])?;
        eprintln!("    {} owned it, {owner} owns it", outcome.owner);
        one_answers(lab, vips[0])
    })
}

/// Speakers that start while there is no API server go on from what they last knew: the owner answers as
/// before, and when its node dies, one of those that started takes over.
pub(crate) fn restart_without_api(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("restart-no-api"), |lab, vips| {
        let killed = probe::now_ns();
        let outcome = disturb(lab, vips[0], How::KillSpeaker, true)?;
        ensure!(outcome.stream.failures == 0, "{:?}", outcome.stream);
        let owner = &outcome.owner;
        let nodes = lab.node_names();
        let others: Vec<&String> = nodes.iter().filter(|node| *node != owner).collect();
        for node in &others {
            lab.fail(node, How::KillSpeaker)?;
        }
        for node in &nodes {
            timeline::wait_resumed(lab, node, killed, CALM)?;
        }
        // They listen for 0.35 s before they take anything over.
        thread::sleep(CALM);
        let before = neighbours::who_answers(lab, vips[0])?;
        ensure!(before.len() == 1, "{before:?} answer");

        let traffic = Traffic::start(lab, vips[0], 50)?;
        thread::sleep(Duration::from_secs(1));
        let outcome = told(traffic.disturb(lab, owner, How::Crash, WATCH)?, How::Crash);
        ensure!(
            outcome.takeover_ms().is_some_and(|ms| ms < LIMIT),
            "new connections failed too long: {:?}",
            outcome.stream
        );
        ensure!(outcome.later_failures() == 0, "{:?}", outcome.stream);
        let after = neighbours::who_answers(lab, vips[0])?;
        ensure!(after.len() == 1, "{after:?} answer");
        ensure!(after != before, "{after:?} answers, and its node is dead");
        let mut by = others;
        by.retain(|node| {
            let said = timeline::speaker(lab, node).unwrap_or_default();
            let mut said = said.iter().filter(|line| line.at_ns > outcome.at_ns);
            said.any(|line| line.text.contains("VIP taken"))
        });
        ensure!(by.len() == 1, "{by:?} say that they took it");

        lab.start_api()?;
        let new = moved_from(lab, vips[0], owner)?;
        eprintln!("    {:?} took over: {:?}", new.owner, new.moved);
        ensure!(new.owner.as_ref() == Some(by[0]), "{by:?} took it: {new:?}");
        one_answers(lab, vips[0])
    })
}

/// The owner's speaker stands still for seconds (SIGSTOP), and wakes with a world that has moved on:
/// it takes nothing and accuses nobody.
pub(crate) fn paused(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("paused"), |lab, vips| {
        let owner = vip::owner(lab, vips[0])?;
        let dir = &lab.state().node(&owner)?.spec.dir;
        let file = dir.join("speaker.pid").display().to_string();
        let signal = |name: &str| lab.shell(&owner, &format!("kill -{name} $(cat {file})"));
        signal("STOP")?;
        thread::sleep(Duration::from_secs(5));
        let new = moved_from(lab, vips[0], &owner);
        let woken = probe::now_ns();
        signal("CONT")?;
        let new = new?;
        thread::sleep(CALM);
        let said = timeline::speaker(lab, &owner)?;
        let said = said.iter().filter(|line| line.at_ns > woken);
        let wrong = |text: &str| {
            text.contains("VIP taken")
                || text.contains("to=Dead")
                || text.contains("to=SpeakerLost")
        };
        let wrong: Vec<_> = said.filter(|line| wrong(&line.text)).collect();
        ensure!(wrong.is_empty(), "{owner} woke and said {wrong:?}");
        let after = vip::owner(lab, vips[0])?;
        ensure!(Some(&after) == new.owner.as_ref(), "it moved to {after}");
        one_answers(lab, vips[0])
    })
}

/// One node no longer hears the owner, which hears it: one of them is left, and nothing moves to
/// and fro, neither then nor when the link is whole again.
pub(crate) fn one_way(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("one-way"), |lab, vips| {
        let owner = vip::owner(lab, vips[0])?;
        let mut others = lab.node_names().into_iter().filter(|node| *node != owner);
        let deaf = others.next().context("one node only")?;
        let addresses = &lab.state().node(&owner)?.spec.addresses;
        let address = addresses.first().context("a node without address")?.addr();
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        lab.shell(
            &deaf,
            &format!(
                "nft add table inet deaf && \
                 nft add chain inet deaf in '{{ type filter hook input priority -300; }}' && \
                 nft add rule inet deaf in {family} saddr {address} udp dport 7733 drop"
            ),
        )?;
        let steady = || {
            thread::sleep(CALM);
            let before = vip::owner(lab, vips[0])?;
            one_answers(lab, vips[0])?;
            thread::sleep(CALM);
            let after = vip::owner(lab, vips[0])?;
            ensure!(before == after, "it goes to and fro: {before}, {after}");
            Ok(after)
        };
        let parted = steady();
        lab.shell(&deaf, "nft delete table inet deaf")?;
        let parted = parted?;
        let whole = steady()?;
        eprintln!("    {owner} owned it, {deaf} did not hear it, {parted} owned it, then {whole}");
        ensure!(
            parted == whole,
            "it moved to {whole} when all was well again"
        );
        Ok(())
    })
}

/// The key of the heartbeats is changed in each of the ways in which that happens, and nobody takes it
/// for the death of anybody: by the documented steps, in one go, and by deleting the Secret.
pub(crate) fn rotated(lab: &mut Lab) -> Result<()> {
    /// As long as speakers take to pass from one key to another, and more.
    const PASSAGE: Duration = Duration::from_secs(14);
    const SECRET: [&str; 4] = ["secret", "lightship-heartbeat", "-n", "lightship-system"];
    Served::during(lab, &Wish::local("rotated"), |lab, vips| {
        let before = vip::find(lab, vips[0])?.context("no VirtualIP")?;
        let begin = probe::now_ns();
        let key = |lab: &Lab| -> Result<String> {
            let secret = lab.kubectl_json(&[&["get"][..], &SECRET].concat())?;
            let key = secret["data"]["key"].as_str();
            Ok(key.context("no key")?.to_owned())
        };
        let change = |lab: &Lab, data: serde_json::Value| -> Result<()> {
            let patch = serde_json::json!({ "data": data }).to_string();
            lab.kubectl(&[&["patch"][..], &SECRET, &["-p", &patch]].concat())?;
            Ok(())
        };
        let (first, second, third) = (
            key(lab)?,
            "c2Vjb25kIGtleSBvZiB0aGUgaGVhcnRiZWF0cw==",
            "dGhpcmQga2V5IG9mIHRoZSBoZWFydGJlYXRz",
        );
        for data in [
            serde_json::json!({ "previous-key": second }),
            serde_json::json!({ "key": second, "previous-key": first }),
            serde_json::json!({ "previous-key": null }),
        ] {
            change(lab, data)?;
            thread::sleep(CALM);
        }
        change(lab, serde_json::json!({ "key": third }))?;
        thread::sleep(PASSAGE);
        lab.kubectl(&[&["delete"][..], &SECRET].concat())?;
        lightship_lab::sh::wait_for(
            "the controller makes another key",
            Duration::from_secs(30),
            Duration::from_millis(500),
            || Ok(key(lab).ok().filter(|key| key != third)),
        )?;
        thread::sleep(PASSAGE);
        for node in lab.node_names() {
            let said = timeline::speaker(lab, &node)?;
            let said = said.iter().filter(|line| line.at_ns > begin);
            let wrong = |text: &str| {
                [
                    "heartbeat refused",
                    "VIP taken",
                    "to=Dead",
                    "to=SpeakerLost",
                ]
                .iter()
                .any(|part| text.contains(part))
            };
            let wrong: Vec<_> = said.filter(|line| wrong(&line.text)).collect();
            ensure!(wrong.is_empty(), "{node} said {wrong:?}");
        }
        let after = vip::find(lab, vips[0])?.context("no VirtualIP")?;
        ensure!(
            (&after.owner, &after.moved) == (&before.owner, &before.moved),
            "{before:?} became {after:?}"
        );
        one_answers(lab, vips[0])
    })
}
