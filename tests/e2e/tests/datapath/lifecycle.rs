//! Restarts, removal, silence, and the packet that nobody wants.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::neighbours::{self, Capture};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::{director, probe, timeline, vip};
use lightship_lab::substrate::{LAB_NETNS, LAN_BRIDGE};
use lightship_lab::{How, Lab, sh};

use crate::common::Served;

const SOON: Duration = Duration::from_secs(20);
const OFTEN: Duration = Duration::from_millis(200);

fn dual(name: &str) -> Wish<'_> {
    Wish {
        dual_stack: true,
        ..Wish::local(name)
    }
}

/// A speaker that was killed and started again changes nothing that it finds.
pub(crate) fn adoption(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &dual("adoption"), |lab, vips| {
        let owner = vip::owner(lab, vips[0])?;
        // Entries that a table made anew would have forgotten.
        probe::stream_for(lab, vips[0], 10, Duration::from_secs(1), false)?;
        let before = state(lab, &owner)?;
        let known = director::connections(lab, &owner)?;
        ensure!(
            known.len() > 50,
            "the director of {owner} knows few: {known:?}"
        );
        let killed = probe::now_ns();
        lab.fail(&owner, How::KillSpeaker)?;
        let parts = ["speaker starts"];
        timeline::wait_line(lab, &owner, killed, &parts, SOON)?;
        // Its first view of the cluster, and the decisions that follow from it.
        thread::sleep(Duration::from_secs(3));
        let after = state(lab, &owner)?;
        ensure!(before == after, "changed:\n{before:#?}\n{after:#?}");
        let later = director::connections(lab, &owner)?;
        let forgotten: Vec<&String> = known.difference(&later).collect();
        ensure!(forgotten.is_empty(), "forgotten: {forgotten:?}");
        eprintln!("    {} connections known as before", known.len());
        only_the_difference(lab, &owner, &before, vips)
    })
}

/// What was changed while no speaker ran is put right by the next one, and nothing else.
fn only_the_difference(
    lab: &mut Lab,
    node: &str,
    whole: &(Vec<director::Entry>, String),
    vips: &[IpAddr],
) -> Result<()> {
    lab.fail(node, How::StopSpeaker)?;
    let mut others = lab.state().nodes.iter().filter(|n| n.spec.name != node);
    let peer = others.next_back().context("no other node")?;
    let peer = peer.spec.addresses[0].addr();
    let (v4, v6) = (vips[0], vips[1]);
    let gone = "! pidof lightship-speaker";
    sh::wait_for("the speaker has ended", SOON, OFTEN, || {
        Ok(lab.shell(node, gone).is_ok().then_some(()))
    })?;
    // Some may have aged since the first look.
    let known = director::connections(lab, node)?;
    let line = format!(
        "ipvsadm -d -t {v4}:80 -r {peer}:80; ip -6 route del local {v6} table local; \
         ip neigh del {peer} dev ls-dir; echo 0 > /proc/sys/net/ipv4/vs/sloppy_tcp"
    );
    director::run(lab, node, &["sh", "-c", &line])?;
    let broken = state(lab, node)?;
    ensure!(broken.0 != whole.0 && broken.1 != whole.1, "{broken:#?}");
    lab.heal(node)?;
    let mut last = None;
    let mended = sh::wait_for("all is as before", SOON, OFTEN, || {
        let now = state(lab, node)?;
        let file = "/proc/sys/net/ipv4/vs/sloppy_tcp";
        let setting = director::run(lab, node, &["cat", file])?;
        let same = now == *whole && setting.trim() == "1";
        last = Some((now, setting));
        Ok(same.then_some(()))
    });
    mended.with_context(|| format!("{whole:#?}\nand now\n{last:#?}"))?;
    // Those of the real server that was gone may have been forgotten with it.
    let later = director::connections(lab, node)?;
    let of_peer = |line: &&String| line.contains(&peer.to_string());
    let forgotten: Vec<&String> = known.difference(&later).filter(|l| !of_peer(l)).collect();
    ensure!(forgotten.is_empty(), "forgotten: {forgotten:?}");
    eprintln!("    what was changed meanwhile is as before");
    Ok(())
}

fn state(lab: &Lab, node: &str) -> Result<(Vec<director::Entry>, String)> {
    Ok((director::table(lab, node)?, director::network(lab, node)?))
}

/// With every speaker stopped nobody answers for a VIP, and the directors still forward.
pub(crate) fn silence(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &dual("silence"), |lab, vips| {
        for vip in vips {
            let macs = neighbours::who_answers(lab, *vip)?;
            let said = vip::find(lab, *vip)?.context("its VirtualIP is gone")?.mac;
            ensure!(
                macs == BTreeSet::from([said.clone()]),
                "{vip}: {macs:?}, not {said}"
            );
        }
        let mac = vip::find(lab, vips[0])?
            .map(|vip| vip.mac)
            .unwrap_or_default();
        for node in lab.node_names() {
            lab.fail(&node, How::StopSpeaker)?;
        }
        thread::sleep(Duration::from_secs(2));
        for vip in vips {
            let macs = neighbours::who_answers(lab, *vip)?;
            ensure!(macs.is_empty(), "somebody answers for {vip}: {macs:?}");
            neighbours::pin(*vip, &mac)?;
            let seen = probe::stream_for(lab, *vip, 10, Duration::from_secs(2), false);
            neighbours::forget(*vip)?;
            let seen = seen?;
            ensure!(seen.failures == 0, "the director stopped too: {seen:?}");
        }
        Ok(())
    })
}

/// A deleted Service's addresses vanish from every director and from the LAN.
pub(crate) fn deletion(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &dual("deletion"), |lab, vips| {
        scene::delete_service(lab, "deletion")?;
        gone(lab, vips)
    })
}

/// So do those of a Service that is no load balancer any more.
pub(crate) fn type_change(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &dual("type-change"), |lab, vips| {
        let patch = r#"{"spec":{"type":"ClusterIP","externalTrafficPolicy":null,"allocateLoadBalancerNodePorts":null}}"#;
        lab.kubectl(&["patch", "service", "type-change", "-p", patch])?;
        gone(lab, vips)?;
        let service = lab.kubectl_json(&["get", "service", "type-change"])?;
        let ingress = &service["status"]["loadBalancer"]["ingress"];
        ensure!(ingress.is_null(), "its status still has {ingress}");
        Ok(())
    })
}

fn gone(lab: &Lab, vips: &[IpAddr]) -> Result<()> {
    for vip in vips {
        director::wait_gone(lab, *vip, SOON)?;
        let macs = neighbours::who_answers(lab, *vip)?;
        ensure!(macs.is_empty(), "somebody answers for {vip}: {macs:?}");
        let object = vip::find(lab, *vip)?;
        ensure!(object.is_none(), "there is still {object:?}");
    }
    Ok(())
}

/// A packet for a VIP that comes to a node whose kube-proxy has no rule for it ends
/// there: routed back to the LAN it would go round until its TTL ends.
pub(crate) fn loop_guard(lab: &mut Lab) -> Result<()> {
    const PACKETS: usize = 10;
    Served::during(lab, &dual("loop"), |lab, vips| {
        for vip in vips {
            for node in &lab.state().nodes {
                // A port that the Service does not have, sent to the node's own MAC address as
                // a director would.
                let capture = Capture::start(
                    LAB_NETNS,
                    LAN_BRIDGE,
                    &format!("dst host {vip} and udp dst port 81"),
                )?;
                neighbours::pin(*vip, &node.spec.mac)?;
                let script =
                    format!("for i in $(seq {PACKETS}); do echo x > /dev/udp/{vip}/81; done");
                let sent = lab.client(&["bash", "-c", &script]);
                thread::sleep(Duration::from_millis(500));
                neighbours::forget(*vip)?;
                sent?;
                let frames = capture.end()?;
                ensure!(
                    frames.len() == PACKETS,
                    "{} frames on the LAN for {PACKETS} sent to {}:\n{}",
                    frames.len(),
                    node.spec.name,
                    frames.join("\n")
                );
            }
        }
        Ok(())
    })
}
