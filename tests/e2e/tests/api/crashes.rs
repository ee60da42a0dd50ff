//! A controller that dies after its first, second, third … write.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::faults::{behind_proxy, services};
use crate::kube::{Kubectl, annotated, pool, service};
use crate::leadership::settles;
use crate::proxy::{Fate, Proxy};
use crate::replica::Replica;

const LIMIT: Duration = Duration::from_secs(30);

/// In each round one Service comes, one moves to another address and one goes, and the controller
/// dies after one write more than in the round before, of which it does not hear that it was done.
/// The next one brings all of it to an end.
pub(crate) fn after_each_write(cluster: &mut Cluster) -> Result<()> {
    let (proxy, mut replica) = behind_proxy(cluster, &[])?;
    let cluster = &*cluster;
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/24"]))?;
    let mut writes = 0;
    loop {
        writes += 1;
        let name = |what: &str| format!("{what}-{writes}");
        services(kubectl, ["moves", "goes"].map(name).into_iter())?;
        settled(kubectl, 2 * writes)?;
        die_after(&proxy, writes);
        let to = format!("192.0.2.{}", 200 + writes);
        let items = [
            annotated(&name("moves"), "lightship.dev/addresses", &to),
            service(&name("comes")),
        ];
        kubectl.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))?;
        kubectl.run(&["delete", "service", &name("goes"), "--wait=false"])?;
        let died = dies(&proxy, || {
            let moved = kubectl.ingress(&name("moves"))? == [to.as_str()];
            Ok(moved && settled_now(kubectl, 2 * writes)?)
        })?;
        drop(replica);
        proxy.heal();
        let server = format!("http://127.0.0.1:{}", proxy.port);
        replica = Replica::start_at(cluster, "proxied", &[], &server)?;
        replica.says(" ready ", 0, LIMIT)?;
        settled(kubectl, 2 * writes)?;
        kubectl.has(&name("moves"), &[&to])?;
        if !died {
            break;
        }
    }
    eprintln!("    after each of {} writes", writes - 1);
    // A VirtualIP and a status for each of two, and the end of a VirtualIP for two.
    ensure!(writes > 6, "only {writes} writes");
    Ok(())
}

/// Lets so many writes happen, without an answer to the last, and none after it.
fn die_after(proxy: &Proxy, most: usize) {
    let mut writes = 0;
    proxy.forget();
    proxy.rule(move |asked| {
        if !asked.writes() {
            return Fate::Pass;
        }
        writes += 1;
        match writes.cmp(&most) {
            Ordering::Less => Fate::Pass,
            Ordering::Equal => Fate::AnswerLost,
            Ordering::Greater => Fate::Status(503),
        }
    });
}

/// Waits for the last write; false if there is none, as everything was done with fewer.
fn dies(proxy: &Proxy, done: impl Fn() -> Result<bool>) -> Result<bool> {
    let start = Instant::now();
    loop {
        if proxy
            .log()
            .iter()
            .any(|(_, fate)| *fate == Fate::AnswerLost)
        {
            // Now it would go on, if it lived.
            std::thread::sleep(Duration::from_millis(20));
            return Ok(true);
        }
        if done()? {
            return Ok(false);
        }
        ensure!(start.elapsed() < LIMIT, "neither done nor dead");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn settled(kubectl: &Kubectl, holders: usize) -> Result<()> {
    settles(kubectl, LIMIT)?;
    kubectl.wait(
        "Services, VirtualIPs and the pool's count agree",
        |kubectl| settled_now(kubectl, holders),
    )
}

fn settled_now(kubectl: &Kubectl, holders: usize) -> Result<bool> {
    let pool = kubectl.json(&["get", "addresspool", "lan"])?;
    let counted = pool["status"]["ipv4"]["assigned"] == holders;
    Ok(counted && kubectl.vips()?.len() == holders && settles(kubectl, Duration::ZERO).is_ok())
}
