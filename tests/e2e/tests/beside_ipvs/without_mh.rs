//! A node whose kernel has IPVS but not the scheduler `mh`. Here and not beside another mode of kube-proxy,
//! because the nodes' kernels are their own for certain, and kube-proxy needs the rest of IPVS all the while.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::{object, probe, vip};
use lightship_lab::{How, Lab, binaries};
use serde_json::Value;

use crate::common::Served;

/// The folder where the node's modules are: that of the machine's own kernel, in `/lib/modules`, is another.
const MODULES: &str = "/run/lab/lib/modules/$(uname -r)";

/// The node only announces and says which module it lacks and how to load it, serves its share all the same,
/// and directs when the module can be found and the speaker started anew, which loads it.
pub(crate) fn said(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("without-mh"), |lab, vips| {
        let owner = vip::owner(lab, vips[0])?;
        let names = lab.node_names();
        let node = names.iter().find(|name| **name != owner);
        let node = node.context("one node only")?;
        lab.fail(node, How::StopSpeaker)?;
        let outcome = take_away(lab, node).and_then(|()| lacks_it(lab, node, vips[0]));
        let outcome = outcome.and_then(|()| loads_it(lab, node));
        lab.shell(node, BACK)?;
        outcome?;
        scene::heal_and_settle(lab, vips[0])
    })
}

/// Whatever was reached: the module is there, and is loaded as on the other nodes.
const BACK: &str = "umount \"$(cat /run/lab/mh)\" 2>/dev/null; rm -f /run/lab/bin/modprobe; \
    echo /run/lab/modprobe > /proc/sys/kernel/modprobe; modprobe -a -d /run/lab ip_vs ip_vs_mh";

/// The module can be found again, but by a program alone: the kernel, which would ask for it when the scheduler
/// is used, cannot. Where it looks, `modprobe` finds those of the machine's own kernel, so one that knows the
/// place comes before it in the path.
fn loads_it(lab: &mut Lab, node: &str) -> Result<()> {
    lab.shell(
        node,
        "set -e; umount \"$(cat /run/lab/mh)\"; echo /bin/false > /proc/sys/kernel/modprobe; \
         ln -s /run/lab/modprobe /run/lab/bin/modprobe; ! grep -q ^ip_vs_mh /proc/modules",
    )?;
    // The mode is chosen at the start.
    lab.fail(node, How::KillSpeaker)?;
    wait_mode(lab, node, "DirectRouting", "the kernel has IPVS")?;
    lab.shell(node, "grep -q ^ip_vs_mh /proc/modules")
        .context("it directs without the module")
        .map(drop)
}

/// Takes the module away from a node, and the director that uses it.
fn take_away(lab: &Lab, node: &str) -> Result<()> {
    let program = binaries::build(binaries::Profile::Lab)?.speaker;
    let program = program.display();
    let line = format!(
        "for i in $(seq 100); do pidof lightship-speaker > /dev/null || break; sleep 0.1; done; \
         set -e; {program} cleanup; rmmod ip_vs_mh; \
         find {MODULES}/ -name 'ip_vs_mh.ko*' > /run/lab/mh; mount --bind /dev/null \"$(cat /run/lab/mh)\"; \
         ! modprobe -d /run/lab ip_vs_mh"
    );
    lab.shell(node, &line).map(drop)
}

fn lacks_it(lab: &mut Lab, node: &str, address: std::net::IpAddr) -> Result<()> {
    lab.heal(node)?;
    let reason = wait_mode(lab, node, "Announce", "lacks the scheduler mh")?;
    eprintln!("    {reason}");
    for part in ["ip_vs_mh", "modprobe ip_vs_mh", "restart"] {
        ensure!(reason.contains(part), "{reason} does not say {part}");
    }
    // Beside the other two, which direct: it is a real server like any.
    vip::wait(
        lab,
        address,
        "is directed by two",
        Duration::from_secs(30),
        |vip| vip.mode == "DirectRouting" && vip.directors == "2/2" && vip.serving() == 3,
    )?;
    let seen = probe::stream_for(lab, address, 10, Duration::from_secs(2), false)?;
    ensure!(seen.failures == 0 && seen.nodes.len() == 3, "{seen:?}");
    Ok(())
}

/// Waits until a node's Speaker says that it is in a mode for a reason, and gives all of that.
fn wait_mode(lab: &Lab, node: &str, mode: &str, why: &str) -> Result<String> {
    let reason = |speaker: &Value| speaker["status"]["modeReason"].as_str().map(str::to_owned);
    let what = format!("is in mode {mode}, because: {why}");
    let found = object::wait(
        lab,
        ("speaker", node),
        &what,
        Duration::from_secs(30),
        |speaker| {
            speaker["status"]["mode"] == mode
                && reason(speaker).is_some_and(|text| text.contains(why))
        },
    )?;
    reason(&found).context("no reason")
}
