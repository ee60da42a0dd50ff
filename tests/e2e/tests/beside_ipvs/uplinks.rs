//! Uplinks that are no plain interface.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::probe;
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::{metrics, object, uplink, vip};
use lightship_lab::options::UplinkKind;
use lightship_lab::{Lab, sh};

use crate::common::Served;

/// Each node says which interface it found, that it directs there, and that the path test hears the others there.
pub(crate) fn said(lab: &mut Lab) -> Result<()> {
    for node in &lab.state().nodes {
        let (name, wanted) = (&node.spec.name, lab.state().options.uplink(node.spec.index));
        let (what, limit) = ("has tested its ways", Duration::from_secs(30));
        let speaker = object::wait(lab, ("speaker", name), what, limit, |speaker| {
            let tested = object::condition(speaker, "PathsTested");
            tested.is_some_and(|c| c.is("True", "Passed"))
        })?;
        let uplink = &speaker["status"]["uplinks"][0];
        ensure!(
            uplink["interface"] == wanted.interface()
                && speaker["status"]["mode"] == "DirectRouting",
            "{name}: {speaker:#}"
        );
    }
    Ok(())
}

/// Each director serves whatever the others' uplinks are, and when the VIP moves from one kind to
/// another, no request is lost.
pub(crate) fn kinds(lab: &mut Lab) -> Result<()> {
    said(lab)?;
    let wish = Wish {
        dual_stack: true,
        ..Wish::local("uplinks").fresh()
    };
    Served::during(lab, &wish, |lab, vips| {
        let nodes = lab.node_names();
        for vip in vips {
            let mut stream = probe::Probe::stream(lab, *vip, 50, false)?;
            for node in nodes.iter().chain(nodes.first()) {
                vip::move_to(lab, *vip, node)?;
                let limit = Duration::from_secs(20);
                vip::wait(lab, *vip, "is at the wanted node", limit, |vip| {
                    vip.ready && vip.owner.as_ref() == Some(node)
                })?;
                scene::wait_served(lab, *vip, nodes.len())
                    .with_context(|| format!("with the director of {node}"))?;
                asked(lab, node, *vip)?;
            }
            let seen: probe::Stream = stream.end()?;
            ensure!(seen.failures == 0 && seen.requests > 0, "{vip}: {seen:?}");
        }
        made_anew(lab, vips[0])
    })
}

/// A client that has forgotten where a VIP is asks, and the owner answers.
fn asked(lab: &Lab, owner: &str, vip: IpAddr) -> Result<()> {
    // So that what was answered before is counted.
    thread::sleep(Duration::from_millis(1_500));
    let before = metrics::answers(lab, owner, vip)?;
    lab.client(&["ip", "neigh", "flush", "to", &vip.to_string()])?;
    probe::ask(lab, vip, false)?;
    sh::wait_for(
        &format!("{owner} answers a question for {vip}"),
        Duration::from_secs(5),
        Duration::from_millis(500),
        || Ok((metrics::answers(lab, owner, vip)? > before).then_some(())),
    )
}

/// With a bridge goes the director's interface upon it; when the bridge is there again, so is the director.
fn made_anew(lab: &mut Lab, vip: IpAddr) -> Result<()> {
    let state = lab.state();
    let mut nodes = state.nodes.iter().map(|node| &node.spec);
    let bridged = nodes.find(|node| state.options.uplink(node.index) == UplinkKind::Bridge);
    let node = bridged.context("no node with a bridge")?.name.clone();
    let limit = Duration::from_secs(20);
    let removed = uplink::remove(lab, &node)?;
    let left = vip::wait(lab, vip, "is at another node", limit, |vip| {
        vip.ready && vip.owner.as_ref().is_some_and(|owner| *owner != node)
    });
    removed.put_back(lab)?;
    left?;
    // A wish to move there that was granted before is not granted again.
    vip::annotate(lab, vip, &format!("lightship.dev/pin-to={node}"))?;
    vip::wait(lab, vip, "is at the node again", limit, |vip| {
        vip.ready && vip.owner.as_ref() == Some(&node)
    })?;
    scene::wait_served(lab, vip, lab.node_names().len())
        .with_context(|| format!("with the director of {node}, made anew"))
}
