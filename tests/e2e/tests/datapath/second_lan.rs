//! VIPs of a second LAN: their traffic comes in by a further uplink of the owner, and goes on to the
//! nodes by the LAN that they share.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::guest::Guest;
use lightship_e2e::probe::{self, Flows, Stream};
use lightship_e2e::second_lan::{self, ADDRESSES, CLIENT, POOL, SecondLan};
use lightship_e2e::{director, metrics, object, scene, vip};
use lightship_lab::{How, Lab, sh};

const NAME: &str = "second-lan";
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const FLOWS: &str = "60";

/// Connections spread over the nodes, pods see the client's address, the director answers a ping; those
/// that stand stay when another node takes the address over, by a move and by a crash.
pub(crate) fn served(lab: &mut Lab) -> Result<()> {
    let second = SecondLan::create(lab)?;
    let nodes = lab.node_names();
    let (host, serving) = nodes.split_last().context("no node")?;
    // A machine and a macvlan on its own uplink do not hear each other, so the client's host
    // must have no part in what the client asks for.
    let outcome = lab
        .kubectl(&["label", "--overwrite", "node", host, &format!("{EXCLUDE}=")])
        .and_then(|_| all(lab, &second, host, serving));
    let included = lab.kubectl(&["label", "node", host, &format!("{EXCLUDE}-")]);
    let healed = scene::heal(lab);
    drop(second);
    // No further uplink, no link on it.
    let gone = outcome.and_then(|()| leftovers(lab));
    let deleted = scene::delete_service(lab, NAME);
    let closed = lab.kubectl(&["delete", "addresspool", POOL]);
    let steps = [included.map(drop), healed, deleted, closed.map(drop)];
    scene::cleared(gone, steps)
}

fn all(lab: &mut Lab, second: &SecondLan, host: &str, nodes: &[String]) -> Result<()> {
    second_lan::service(lab, NAME)?;
    let [v4, v6] = CLIENT;
    let link = second.interface();
    let addresses = [&*format!("{v4}/26"), &*format!("{v6}/64")];
    for (address, own) in ADDRESSES.into_iter().zip(CLIENT) {
        let address: IpAddr = address.parse()?;
        let limit = Duration::from_secs(30);
        vip::wait(lab, address, "is ready on the second LAN", limit, |vip| {
            vip.ready && vip.interface == link && vip.serving() == nodes.len()
        })?;
        let owner = vip::owner(lab, address)?;
        let answered = metrics::answers(lab, &owner, address)?;
        let guest = Guest::on(lab, host, link, addresses)?;
        let seen = spread(&guest, address, nodes.len())?;
        // It was announced before this client was there, and would be again in a while.
        let answered = metrics::answers(lab, &owner, address)? - answered;
        ensure!(answered > 0.0, "{owner} answered no question for {address}");
        eprintln!("    {address}: {:?} of {}", seen.nodes, seen.requests);
        ensure!(seen.clients.keys().eq([own]), "{:?}", seen.clients);
        let text = address.to_string();
        let output = guest.exec(&["ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", &text])?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(said.contains("3 received"), "{said}");
        for node in nodes {
            links(lab, node, 1)?;
        }
        let before = vip::owner(lab, address)?;
        let to = nodes.iter().find(|node| **node != before);
        let to = to.context("alone")?;
        let flows = disturbed(&guest, address, || vip::move_to(lab, address, to))?;
        vip::wait(lab, address, "has moved", limit, |vip| {
            vip.owner.as_ref() == Some(to)
        })?;
        eprintln!("    moved: {} of {} kept", flows.kept, flows.flows);
        ensure!(
            flows.kept == flows.flows && flows.changed_node == 0,
            "connections were lost by a move from {before} to {to}: {flows:?}"
        );
    }
    strict(lab, &nodes[0], link)?;
    adopted(lab, &nodes[0])?;
    crash(lab, host, link, addresses)
}

/// New connections until all nodes answer and none fails: kube-proxy needs a moment.
fn spread(guest: &Guest, address: IpAddr, nodes: usize) -> Result<Stream> {
    let target = probe::target(address).to_string();
    let words = ["stream", "--target", &target, "--every", "20ms"];
    let limits = ["--timeout", "900ms", "--duration", "2s"];
    let words = [&words[..], &limits].concat();
    let mut last = None;
    let served = sh::wait_for(
        &format!("all nodes serve {address}"),
        Duration::from_secs(90),
        Duration::from_millis(200),
        || {
            let seen: Stream = guest.probe(&words)?;
            let whole = seen.failures == 0 && seen.nodes.len() == nodes;
            last = Some(seen.clone());
            Ok(whole.then_some(seen))
        },
    );
    served.with_context(|| format!("last seen: {last:?}"))
}

/// Holds connections with a question every 100 ms; meanwhile something happens.
fn disturbed(
    guest: &Guest,
    address: IpAddr,
    happens: impl FnOnce() -> Result<()>,
) -> Result<Flows> {
    let target = probe::target(address).to_string();
    let words = ["flows", "--target", &target, "--count", FLOWS];
    let words = [&words[..], &["--duration", "8s"]].concat();
    thread::scope(|scope| {
        let held = scope.spawn(|| guest.probe(&words));
        thread::sleep(Duration::from_millis(2500));
        let happened = happens();
        let flows = held.join().ok().context("the probe's thread panicked")?;
        happened.and(flows)
    })
}

/// The director has so many links on further uplinks.
fn links(lab: &Lab, node: &str, wanted: usize) -> Result<()> {
    let what = format!("{node} has {wanted} links on further uplinks");
    let mut last = String::new();
    let found = sh::wait_for(
        &what,
        Duration::from_secs(10),
        Duration::from_millis(200),
        || {
            last = director::run(lab, node, &["ip", "-br", "link"])?;
            let found = last.lines().filter(|line| line.starts_with("ls-dir-"));
            Ok((found.count() == wanted).then_some(()))
        },
    );
    found.with_context(|| last.clone())
}

fn leftovers(lab: &Lab) -> Result<()> {
    for node in lab.node_names() {
        links(lab, &node, 0)?;
    }
    let address: IpAddr = ADDRESSES[0].parse()?;
    let limit = Duration::from_secs(10);
    vip::wait(lab, address, "is on eth0 again", limit, |vip| {
        vip.ready && vip.interface == "eth0"
    })
    .map(drop)
}

/// A node with strict reverse path filtering says that it drops what comes from the other LAN.
fn strict(lab: &Lab, node: &str, link: &str) -> Result<()> {
    let file = "/proc/sys/net/ipv4/conf/eth0/rp_filter";
    let was = lab.shell(node, &format!("cat {file}; echo 1 > {file}"))?;
    let what = "says that rp_filter is strict";
    let said = object::wait(
        lab,
        ("speaker", node),
        what,
        Duration::from_secs(30),
        |speaker| {
            object::condition(speaker, "ReturnPaths").is_some_and(|c| c.message.contains(link))
        },
    );
    lab.shell(node, &format!("echo {} > {file}", was.trim()))?;
    said.map(drop)
}

/// A speaker that is killed and back leaves the director's links as they are.
fn adopted(lab: &mut Lab, node: &str) -> Result<()> {
    let links = |lab: &Lab| -> Result<Vec<String>> {
        let text = director::run(lab, node, &["ip", "-o", "link"])?;
        let ours = text.lines().filter(|line| line.contains(": ls-dir"));
        Ok(ours.map(str::to_owned).collect())
    };
    let before = links(lab)?;
    ensure!(before.len() == 2, "{before:#?}");
    lab.fail(node, How::KillSpeaker)?;
    thread::sleep(Duration::from_secs(4));
    let after = links(lab)?;
    ensure!(after == before, "{before:#?} became {after:#?}");
    // One that is taken away by hand is made again, with the same MAC.
    let further = |lines: &[String]| -> Option<(String, String)> {
        let line = lines.iter().find(|line| line.contains(": ls-dir-"))?;
        let mac = line.split("link/ether ").nth(1)?.split(' ').next()?;
        let name = line.split([':', '@']).nth(1)?.trim();
        Some((name.to_owned(), mac.to_owned()))
    };
    let (name, mac) = further(&after).with_context(|| format!("none of them: {after:#?}"))?;
    director::run(lab, node, &["ip", "link", "del", &name])?;
    let (soon, often) = (Duration::from_secs(10), Duration::from_millis(200));
    sh::wait_for("the deleted link is made again", soon, often, || {
        let now = links(lab)?;
        let another = now.len() == before.len() && now != before;
        Ok((another && further(&now).is_some_and(|(_, now)| now == mac)).then_some(()))
    })
}

/// The owner's kernel is killed: connections to other nodes stay.
fn crash(lab: &mut Lab, host: &str, link: &str, addresses: [&str; 2]) -> Result<()> {
    let address: IpAddr = ADDRESSES[0].parse()?;
    let owner = vip::owner(lab, address)?;
    // The client's host has a view of the lab of its own, since the fault changes the lab.
    let view = Lab::open()?;
    let guest = Guest::on(&view, host, link, addresses)?;
    // It has another MAC address than the one before, which the nodes have to learn.
    spread(&guest, address, 2)?;
    let flows = disturbed(&guest, address, || lab.fail(&owner, How::Crash))?;
    let own = flows.nodes.get(&owner).copied().unwrap_or_default();
    eprintln!(
        "    crash of {owner}: {} of {} kept, {own} were on it",
        flows.kept, flows.flows
    );
    let lost: BTreeSet<&str> = flows
        .lost
        .keys()
        .filter_map(|k| k.split(':').next())
        .collect();
    ensure!(own > 0, "nothing on {owner}: {flows:?}");
    ensure!(
        flows.kept == flows.opened - own && lost == BTreeSet::from([&*owner]),
        "connections were lost though their node lives: {flows:?}"
    );
    vip::wait(
        lab,
        address,
        "was taken over",
        Duration::from_secs(20),
        |vip| vip.ready && vip.interface == link && vip.owner.as_ref() != Some(&owner),
    )?;
    let target = probe::target(address).to_string();
    let words = ["stream", "--target", &target, "--every", "20ms"];
    let limits = ["--timeout", "900ms", "--duration", "1s"];
    let seen: Stream = guest.probe(&[&words[..], &limits].concat())?;
    ensure!(seen.failures == 0, "{seen:?}");
    Ok(())
}
