//! Several controllers: one acts, and none of their ends leaves anything wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cluster::{Cluster, SYSTEM};
use crate::kube::{Kubectl, pool, service};
use crate::replica::{FAST, Replica, pair};

const LIMIT: Duration = Duration::from_secs(20);

/// Waits until a Service has an address; returns it and how long that took.
fn addressed(kubectl: &Kubectl, service: &str, limit: Duration) -> Result<(String, Duration)> {
    let start = Instant::now();
    loop {
        if let Some(address) = kubectl.ingress(service)?.into_iter().next() {
            return Ok((address, start.elapsed()));
        }
        if start.elapsed() > limit {
            bail!("Service {service} has no address after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every Service has one address, no two the same, and the VirtualIPs say the same.
fn consistent(kubectl: &Kubectl) -> Result<BTreeMap<String, String>> {
    let mut holders: BTreeMap<String, String> = BTreeMap::new();
    for object in kubectl.items(&["get", "services"])? {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if name == "kubernetes" {
            continue;
        }
        let ingress = &object["status"]["loadBalancer"]["ingress"];
        let Some(address) = ingress[0]["ip"].as_str() else {
            bail!("Service {name} has no address");
        };
        if let Some(other) = holders.insert(address.to_owned(), name.to_owned()) {
            bail!("{address} is assigned to {name} and to {other}");
        }
    }
    let users: BTreeMap<String, String> = kubectl
        .items(&["get", "virtualips"])?
        .iter()
        .map(|vip| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let user = text(&vip["spec"]["services"][0]["name"]);
            (text(&vip["spec"]["address"]), user)
        })
        .collect();
    ensure!(
        users == holders,
        "VirtualIPs say {users:?}, Services {holders:?}"
    );
    Ok(holders)
}

/// Waits until that is so.
pub(crate) fn settles(kubectl: &Kubectl, limit: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        match consistent(kubectl) {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > limit => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The Lease's holder, without the part that tells runs apart.
fn holder(kubectl: &Kubectl) -> Result<String> {
    let lease = kubectl.json(&["get", "lease", "lightship-controller", "-n", SYSTEM])?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let instance = holder.rsplit_once('_').map_or("", |(instance, _)| instance);
    Ok(instance.to_owned())
}

/// What all our objects and the Services were last written as.
pub(crate) fn versions(kubectl: &Kubectl) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for kind in ["services", "virtualips", "addresspools"] {
        for item in kubectl.items(&["get", kind])? {
            let meta = &item["metadata"];
            all.insert(
                format!("{kind}/{}", meta["name"]),
                meta["resourceVersion"].to_string(),
            );
        }
    }
    Ok(all)
}

/// SIGKILL, with the default times.
pub(crate) fn killed(cluster: &mut Cluster) -> Result<()> {
    let (first, second) = pair(cluster, &[])?;
    let kubectl = &cluster.kubectl;
    ensure!(holder(kubectl)? == "first");
    kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    kubectl.apply(&service("web"))?;
    kubectl.has("web", &["192.0.2.0"])?;
    ensure!(second.said("listed") == 0, "the one standing by has caches");
    drop(first);
    kubectl.apply(&service("next"))?;
    let (address, took) = addressed(kubectl, "next", Duration::from_secs(15))?;
    eprintln!(
        "    served by the other {:.1} s after SIGKILL",
        took.as_secs_f64()
    );
    ensure!(address == "192.0.2.1", "{address}");
    ensure!(holder(kubectl)? == "second");
    consistent(kubectl)?;
    Ok(())
}

/// SIGTERM gives the Lease back.
pub(crate) fn stopped(cluster: &mut Cluster) -> Result<()> {
    let (mut first, second) = pair(cluster, &[])?;
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    kubectl.apply(&service("web"))?;
    kubectl.has("web", &["192.0.2.0"])?;
    kubectl.wait("the pool counts it", |kubectl| {
        Ok(kubectl.json(&["get", "addresspool", "lan"])?["status"]["ipv4"]["assigned"] == 1)
    })?;
    let before = versions(kubectl)?;
    let start = Instant::now();
    first.signal(Signal::SIGTERM)?;
    second.says(" ready ", 0, LIMIT)?;
    let took = start.elapsed();
    eprintln!("    ready {} ms after SIGTERM", took.as_millis());
    ensure!(took < Duration::from_secs(2), "{took:?}");
    first.ended(Duration::from_secs(3))?;
    ensure!(holder(kubectl)? == "second");
    // Longer than a pool's status may wait for its pace.
    std::thread::sleep(Duration::from_millis(1500));
    let after = versions(kubectl)?;
    ensure!(
        before == after,
        "written by the hand-over: before {before:#?} after {after:#?}"
    );
    kubectl.apply(&service("next"))?;
    addressed(kubectl, "next", Duration::from_secs(2))?;
    Ok(())
}

/// SIGSTOP, a new leader that gives the addresses to others, SIGCONT.
pub(crate) fn paused(cluster: &mut Cluster) -> Result<()> {
    let (first, second) = pair(cluster, FAST)?;
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    let (mut leader, mut other) = (&first, &second);
    for round in 0..3 {
        let name = |what: &str| format!("{what}-{round}");
        for what in ["a", "b", "c"] {
            kubectl.apply(&service(&name(what)))?;
            addressed(kubectl, &name(what), LIMIT)?;
        }
        let lost = kubectl.ingress(&name("a"))?;
        let (ready, gave_up) = (other.said(" ready "), leader.said("standing by"));
        leader.signal(Signal::SIGSTOP)?;
        // All of this is in the paused one's sockets when it goes on: a Service to serve, one
        // to release, one that is another now.
        kubectl.apply(&service(&name("late")))?;
        for what in ["a", "b"] {
            kubectl.run(&["delete", "service", &name(what)])?;
        }
        kubectl.apply(&service(&name("b")))?;
        kubectl.apply(&service(&name("heir")))?;
        other.says(" ready ", ready, LIMIT)?;
        for what in ["late", "b", "heir", "c"] {
            addressed(kubectl, &name(what), LIMIT)?;
        }
        kubectl.wait("the freed address is another's", |kubectl| {
            Ok(consistent(kubectl).is_ok_and(|holders| holders.contains_key(&lost[0])))
        })?;
        kubectl.wait("the new leader is done", |kubectl| {
            let count = consistent(kubectl)?.len();
            let pool = kubectl.json(&["get", "addresspool", "lan"])?;
            Ok(pool["status"]["ipv4"]["assigned"] == count)
        })?;
        let before = versions(kubectl)?;
        leader.signal(Signal::SIGCONT)?;
        leader.says("standing by", gave_up, LIMIT)?;
        std::thread::sleep(Duration::from_millis(1500));
        let after = versions(kubectl)?;
        ensure!(
            before == after,
            "the old leader wrote: before {before:#?} after {after:#?}"
        );
        consistent(kubectl)?;
        ensure!(holder(kubectl)? == other.name);
        std::mem::swap(&mut leader, &mut other);
    }
    Ok(())
}

/// SIGKILL between any two writes, many times.
pub(crate) fn crashes(cluster: &mut Cluster) -> Result<()> {
    cluster
        .kubectl
        .apply(&pool("lan", &["192.0.2.0/25", "2001:db8::/64"]))?;
    for round in 0u64..8 {
        let items: Vec<_> = (0..15)
            .map(|n| {
                let mut object = service(&format!("s{round}-{n}"));
                if n % 3 == 0 {
                    object["spec"]["ipFamilies"] = json!(["IPv6"]);
                }
                object
            })
            .collect();
        cluster
            .kubectl
            .apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))?;
        if round > 0 {
            let selector = format!("s{}-{round}", round - 1);
            cluster
                .kubectl
                .run(&["delete", "service", &selector, "--wait=false"])?;
        }
        // The previous round's leader is somewhere in its work by now.
        std::thread::sleep(Duration::from_millis(7 * round));
        cluster.kill_controller();
        cluster.start_controller()?;
    }
    settles(&cluster.kubectl, LIMIT)
}

/// No API server for longer than a tenure: the process stays, and goes on when it is back.
pub(crate) fn outage(cluster: &mut Cluster) -> Result<()> {
    let (mut first, mut second) = pair(cluster, FAST)?;
    cluster.kubectl.apply(&pool("lan", &["192.0.2.0/28"]))?;
    cluster.kubectl.apply(&service("web"))?;
    cluster.kubectl.has("web", &["192.0.2.0"])?;
    cluster.signal_api(Signal::SIGSTOP)?;
    let gave_up = first.says("standing by", 0, LIMIT);
    std::thread::sleep(Duration::from_secs(3));
    cluster.signal_api(Signal::SIGCONT)?;
    let gave_up = gave_up?;
    eprintln!(
        "    stopped acting {:.1} s after the API server stood still",
        gave_up.as_secs_f64()
    );
    let kubectl = &cluster.kubectl;
    kubectl.apply(&service("next"))?;
    let (_, took) = addressed(kubectl, "next", LIMIT)?;
    eprintln!("    served {:.1} s after it went on", took.as_secs_f64());
    kubectl.has("web", &["192.0.2.0"])?;
    ensure!(first.runs()? && second.runs()?, "a controller has ended");
    consistent(kubectl)?;
    Ok(())
}

/// The Lease taken away by hand: the leader stops, and does not take it back.
pub(crate) fn deposed(cluster: &mut Cluster) -> Result<()> {
    let (first, second) = pair(cluster, FAST)?;
    let kubectl = &cluster.kubectl;
    let patch = r#"{"spec":{"holderIdentity":"somebody_else"}}"#;
    kubectl.run(&[
        "patch",
        "lease",
        "lightship-controller",
        "-n",
        SYSTEM,
        "--type=merge",
        "-p",
        patch,
    ])?;
    let took = first.says("standing by", 0, LIMIT)?;
    ensure!(took < Duration::from_secs(2), "{took:?}");
    // Nobody renews it, so it expires, and one of the two leads again.
    let leads = |replica: &Replica| replica.said(" ready ");
    let before = leads(&first) + leads(&second);
    let start = Instant::now();
    while leads(&first) + leads(&second) == before {
        ensure!(start.elapsed() < LIMIT, "nobody leads any more");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Deleted, it is made anew.
    kubectl.run(&["delete", "lease", "lightship-controller", "-n", SYSTEM])?;
    kubectl.wait("the Lease is there again", |kubectl| {
        Ok(holder(kubectl).is_ok_and(|holder| !holder.is_empty()))
    })?;
    let holders: BTreeSet<_> = [first.name, second.name].into();
    ensure!(holders.contains(holder(kubectl)?.as_str()));
    Ok(())
}
