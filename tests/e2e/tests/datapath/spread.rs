//! Who gets what: tables, shares, families, protocols, policies.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use lightship_e2e::scene::Wish;
use lightship_e2e::{director, probe};
use lightship_lab::workload::TrafficPolicy;
use lightship_lab::{Lab, addressing};

use crate::common::Served;

/// Connections of one measurement: one every 5 ms for this long.
const SPAN: Duration = Duration::from_secs(4);

/// All directors hold the same services with the same destinations in the same order: the
/// scheduler's table depends on all of that.
pub(crate) fn same_table(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        dual_stack: true,
        ..Wish::local("same-table")
    };
    Served::during(lab, &wish, |lab, vips| {
        let nodes = lab.node_names();
        let first = director::table(lab, &nodes[0])?;
        for node in &nodes[1..] {
            let table = director::table(lab, node)?;
            ensure!(
                table == first,
                "{} and {node} differ:\n{first:#?}\n{table:#?}",
                nodes[0]
            );
        }
        for vip in vips {
            for protocol in ["TCP", "UDP"] {
                let found = first
                    .iter()
                    .find(|e| e.address == probe::target(*vip) && e.protocol == protocol);
                let Some(entry) = found else {
                    anyhow::bail!("no {protocol} service for {vip}: {first:#?}");
                };
                ensure!(entry.scheduling.starts_with("mh "), "{entry:?}");
                ensure!(entry.scheduling.contains("mh-fallback"), "{entry:?}");
                ensure!(entry.scheduling.contains("mh-port"), "{entry:?}");
                // One-packet scheduling, where an entry would pin a client to a node that dies.
                let each = entry.scheduling.ends_with(" ops");
                ensure!(each == (protocol == "UDP"), "{entry:?}");
                ensure!(entry.destinations.len() == nodes.len(), "{entry:?}");
                let alike = |d: &director::Destination| d.forward == "Route" && d.weight == 1;
                ensure!(entry.destinations.iter().all(alike), "{entry:?}");
            }
            for node in &nodes {
                let local = director::addresses(lab, node)?;
                ensure!(
                    local.contains(vip),
                    "{vip} is no local route on {node}: {local:?}"
                );
            }
        }
        eprintln!(
            "    {} services alike on {} nodes",
            first.len(),
            nodes.len()
        );
        Ok(())
    })
}

/// Under policy Local each node serves its share, and pods see the client's own address.
pub(crate) fn spread(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        dual_stack: true,
        ..Wish::local("spread").fresh()
    };
    Served::during(lab, &wish, |lab, vips| {
        ensure!(vips.len() == 2, "not an address of each family: {vips:?}");
        for vip in vips {
            for udp in [false, true] {
                let seen = probe::stream_for(lab, *vip, 5, SPAN, udp)?;
                let what = format!("{vip} {}", if udp { "UDP" } else { "TCP" });
                eprintln!("    {what}: {:?} of {}", seen.nodes, seen.requests);
                ensure!(seen.failures == 0, "{what}: {seen:?}");
                check_shares(lab, &seen)?;
                let client = client_address(lab, *vip);
                ensure!(
                    seen.clients.keys().eq([&client]),
                    "{what}: pods did not see {client} alone: {:?}",
                    seen.clients
                );
            }
        }
        Ok(())
    })
}

/// Under policy Cluster all nodes serve too; kube-proxy hides the client's address there.
pub(crate) fn cluster(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        policy: TrafficPolicy::Cluster,
        dual_stack: true,
        ..Wish::local("cluster").fresh()
    };
    Served::during(lab, &wish, |lab, vips| {
        for vip in vips {
            let seen = probe::stream_for(lab, *vip, 5, SPAN, false)?;
            eprintln!("    {vip}: {:?} of {}", seen.nodes, seen.requests);
            ensure!(seen.failures == 0, "{vip}: {seen:?}");
            check_shares(lab, &seen)?;
        }
        Ok(())
    })
}

/// With `sessionAffinity: ClientIP` one client stays on one node.
pub(crate) fn affinity(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        affinity: true,
        dual_stack: true,
        ..Wish::local("affinity").fresh()
    };
    Served::during(lab, &wish, |lab, vips| {
        for vip in vips {
            let seen = probe::stream_for(lab, *vip, 10, Duration::from_secs(2), false)?;
            eprintln!("    {vip}: {:?} of {}", seen.nodes, seen.requests);
            ensure!(seen.failures == 0, "{vip}: {seen:?}");
            ensure!(seen.nodes.len() == 1, "more than one node: {seen:?}");
        }
        Ok(())
    })
}

/// Every node has at least half of an even share: `mh` spreads evenly, chance does the rest.
fn check_shares(lab: &Lab, seen: &probe::Stream) -> Result<()> {
    let nodes = lab.node_names();
    let least = seen.requests / nodes.len() / 2;
    for node in &nodes {
        let share = seen.nodes.get(node).copied().unwrap_or(0);
        ensure!(
            share >= least,
            "{node} served {share}, not {least}: {seen:?}"
        );
    }
    Ok(())
}

/// The client's address of a VIP's family.
fn client_address(lab: &Lab, vip: IpAddr) -> String {
    addressing::client(lab.state().options.families)
        .iter()
        .map(ipnet::IpNet::addr)
        .find(|address| address.is_ipv4() == vip.is_ipv4())
        .map(|address| address.to_string())
        .unwrap_or_default()
}
