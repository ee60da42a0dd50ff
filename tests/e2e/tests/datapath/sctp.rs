//! SCTP through the director, from a host of the LAN whose kernel has it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::guest::Guest;
use lightship_e2e::scene::Wish;
use lightship_e2e::{director, probe, scene, vip};
use lightship_lab::{Lab, sh, workload};
use serde_json::json;

/// The number of the attempt, which is in all names: of one that failed, pods may be on their way out yet.
static ATTEMPT: AtomicU32 = AtomicU32::new(1);
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Associations spread over the nodes, in both families; pods see the client's address;
/// and those that stand stay when another node takes the address over.
pub(crate) fn spread_and_move(lab: &mut Lab) -> Result<()> {
    let nodes = lab.node_names();
    let (host, serving) = nodes.split_last().context("no node")?;
    let name = format!("sctp-{}", ATTEMPT.fetch_add(1, Ordering::Relaxed));
    // A machine and a macvlan on its own uplink do not hear each other, so the client's host
    // must have no part in what the client asks for.
    let outcome = lab
        .kubectl(&["label", "--overwrite", "node", host, &format!("{EXCLUDE}=")])
        .and_then(|_| all(lab, &name, host, serving));
    let included = lab.kubectl(&["label", "node", host, &format!("{EXCLUDE}-")]);
    let undirected = scene::delete_service(lab, &name);
    // A pod's server ends with its last connection, and it is long before SCTP gives up an association whose
    // client is gone: without grace.
    let selector = format!("app={name}");
    let now = ["--grace-period=0", "--force", "--wait=false"];
    let removed = lab.kubectl(&[&["delete", "pod", "--selector", &selector], &now[..]].concat());
    scene::cleared(outcome, [included.map(drop), undirected, removed.map(drop)])
}

fn all(lab: &Lab, name: &str, host: &str, nodes: &[String]) -> Result<()> {
    for node in nodes {
        let mut pod = workload::pod(name, &format!("{name}-{node}"), node);
        pod["spec"]["containers"][0]["ports"] = json!([
            { "name": "tcp", "containerPort": workload::POD_PORT, "protocol": "TCP" },
            { "name": "sctp", "containerPort": workload::POD_PORT, "protocol": "SCTP" },
        ]);
        lab.apply(&pod.to_string())?;
    }
    let wish = Wish {
        dual_stack: true,
        ..Wish::local(name).fresh()
    };
    let mut service = wish.object();
    service["spec"]["selector"] = json!({ "app": name });
    service["spec"]["ports"] = json!([
        { "name": "tcp", "port": workload::PORT, "targetPort": workload::POD_PORT },
        { "name": "sctp", "port": workload::PORT, "targetPort": workload::POD_PORT, "protocol": "SCTP" },
    ]);
    lab.apply(&service.to_string())?;
    let shown = lab.wait_addresses(name, Duration::from_secs(20))?;
    let guest = Guest::create(lab, host)?;
    for (address, own) in shown.iter().zip(Guest::ADDRESSES) {
        let address: IpAddr = address.parse()?;
        vip::wait(lab, address, "is ready", Duration::from_secs(30), |vip| {
            vip.ready && vip.owner.is_some() && vip.serving() == nodes.len()
        })?;
        let table = director::table(lab, &nodes[0])?;
        ensure!(
            table
                .iter()
                .any(|e| e.protocol == "SCTP" && e.address == probe::target(address)),
            "no SCTP service for {address}: {table:#?}"
        );
        let seen = spread(&guest, address, nodes.len())?;
        eprintln!("    {address}: {:?} of {}", seen.nodes, seen.requests);
        ensure!(seen.clients.keys().eq([own]), "{:?}", seen.clients);
        moved(lab, &guest, nodes, address)?;
    }
    Ok(())
}

/// New associations until all nodes answer and none fails: kube-proxy needs a moment.
fn spread(guest: &Guest, address: IpAddr, nodes: usize) -> Result<probe::Stream> {
    let target = probe::target(address).to_string();
    let words = ["stream", "--sctp", "--target", &target, "--every", "20ms"];
    let limits = ["--timeout", "900ms", "--duration", "2s"];
    let words = [&words[..], &limits].concat();
    let mut last = None;
    let served = sh::wait_for(
        &format!("all nodes serve SCTP at {address}"),
        Duration::from_secs(60),
        Duration::from_millis(200),
        || {
            let seen: probe::Stream = guest.probe(&words)?;
            let whole = seen.failures == 0 && seen.nodes.len() == nodes;
            last = Some(seen.clone());
            Ok(whole.then_some(seen))
        },
    );
    served.with_context(|| format!("last seen: {last:?}"))
}

/// 60 associations with a question every 100 ms; meanwhile another node takes the address over.
fn moved(lab: &Lab, guest: &Guest, nodes: &[String], address: IpAddr) -> Result<()> {
    let owner = vip::owner(lab, address)?;
    let to = nodes.iter().find(|node| **node != owner).context("alone")?;
    let target = probe::target(address).to_string();
    let words = ["flows", "--sctp", "--target", &target, "--count", "60"];
    let words = [&words[..], &["--duration", "5s"]].concat();
    let flows: probe::Flows = thread::scope(|scope| {
        let held = scope.spawn(|| guest.probe(&words));
        thread::sleep(Duration::from_millis(1500));
        vip::move_to(lab, address, to)?;
        vip::wait(lab, address, "has moved", Duration::from_secs(10), |vip| {
            vip.owner.as_ref() == Some(to)
        })?;
        held.join().ok().context("the probe's thread panicked")?
    })?;
    eprintln!(
        "    {address} moved: {} of {} kept",
        flows.kept, flows.flows
    );
    ensure!(
        flows.kept == flows.flows && flows.changed_node == 0,
        "associations were lost by a move from {owner} to {to}: {flows:?}"
    );
    Ok(())
}
