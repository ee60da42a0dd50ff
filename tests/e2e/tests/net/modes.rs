//! Which mode a node chooses, that it says so, and that its addresses are served.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::scene::Wish;
use lightship_e2e::{neighbours, probe, timeline, vip};
use lightship_lab::Lab;
use lightship_lab::workload::TrafficPolicy;

use crate::common::Served;

/// Whether the kernel of this machine has IPVS, as it shows once the speakers run.
pub(crate) fn kernel_directs() -> bool {
    Path::new("/proc/net/ip_vs").exists()
}

/// The mode stands in the VirtualIP's status and in every speaker's log.
pub(crate) fn chosen_and_said(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("mode"), |lab, vips| {
        let vip = vip::find(lab, vips[0])?.context("no VirtualIP")?;
        let expected = if kernel_directs() {
            "DirectRouting"
        } else {
            "Announce"
        };
        eprintln!("    mode {}", vip.mode);
        ensure!(vip.mode == expected, "{vip:?}, expected {expected}");
        for node in lab.node_names() {
            let lines = timeline::speaker(lab, &node)?;
            let said = |text: &str| lines.iter().any(|line| line.text.contains(text));
            let mode = format!("mode={expected}");
            ensure!(said(&mode), "the speaker of {node} does not log {mode}");
            let why = "no director on this node";
            ensure!(
                kernel_directs() || said(why),
                "the speaker of {node} does not log why it has no director"
            );
        }
        Ok(())
    })
}

/// An IPv4 and an IPv6 address, each answered for by its owner alone.
pub(crate) fn both_families(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        dual_stack: true,
        ..Wish::local("both")
    };
    Served::during(lab, &wish, |lab, vips| {
        ensure!(vips.len() == 2, "not an address of each family: {vips:?}");
        for address in vips {
            one_answers(lab, *address)?;
            for udp in [false, true] {
                let seen = probe::stream_for(lab, *address, 5, Duration::from_secs(2), udp)?;
                eprintln!(
                    "    {address}: {} of {} answered by {:?} to {:?}",
                    seen.requests - seen.failures,
                    seen.requests,
                    seen.nodes,
                    seen.clients
                );
                ensure!(seen.failures == 0, "{address}: {seen:?}");
                ensure!(
                    seen.clients.len() == 1,
                    "policy Local hid the client: {seen:?}"
                );
            }
        }
        Ok(())
    })
}

/// Under policy Cluster the pods of all nodes answer.
pub(crate) fn cluster(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        policy: TrafficPolicy::Cluster,
        dual_stack: true,
        ..Wish::local("cluster").fresh()
    };
    Served::during(lab, &wish, |lab, vips| {
        for address in vips {
            let seen = probe::stream_for(lab, *address, 5, Duration::from_secs(2), false)?;
            ensure!(seen.failures == 0, "{address}: {seen:?}");
            ensure!(
                seen.nodes.len() == lab.node_names().len(),
                "{address}: {seen:?}"
            );
        }
        Ok(())
    })
}

/// Loses nothing over so many moves; in mode `Announce` nothing but the one connection that may be open at each.
pub(crate) fn only_moves_cost(seen: &probe::Stream, moves: usize) -> Result<()> {
    seen.lost_by_moves_alone(if kernel_directs() { 0 } else { moves })
}

/// Exactly one node answers for an address, and it is the one that the VirtualIP names.
pub(crate) fn one_answers(lab: &Lab, address: std::net::IpAddr) -> Result<()> {
    let vip = vip::find(lab, address)?.context("no VirtualIP")?;
    let macs = neighbours::who_answers(lab, address)?;
    ensure!(
        macs == BTreeSet::from([vip.mac.clone()]),
        "{macs:?} answer for {address}, and it should be {vip:?}"
    );
    Ok(())
}
