//! An API server that refuses, fails, dawdles and drops connections.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::kube::{Kubectl, pool, service};
use crate::leadership::{settles, versions};
use crate::proxy::{Fate, Proxy};
use crate::replica::Replica;

/// For what takes a controller several attempts, with pauses of seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// A controller that reaches the API server through a proxy.
pub(crate) fn behind_proxy(cluster: &mut Cluster, flags: &[&str]) -> Result<(Proxy, Replica)> {
    cluster.stop_controller()?;
    let proxy = Proxy::start(&cluster.server())?;
    let replica = Replica::start_at(
        cluster,
        "proxied",
        flags,
        &format!("http://127.0.0.1:{}", proxy.port),
    )?;
    replica.says(" ready ", 0, LIMIT)?;
    Ok((proxy, replica))
}

pub(crate) fn services(kubectl: &Kubectl, names: impl Iterator<Item = String>) -> Result<()> {
    let items: Vec<_> = names.map(|name| service(&name)).collect();
    kubectl.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))
}

/// Half of all writes end in a 409, a 429, a 500, a 503 or without an answer.
pub(crate) fn refusals(cluster: &mut Cluster) -> Result<()> {
    let (proxy, _replica) = behind_proxy(cluster, &[])?;
    let kubectl = &cluster.kubectl;
    let faults = [
        Fate::Status(409),
        Fate::Status(429),
        Fate::Status(500),
        Fate::Status(503),
        Fate::AnswerLost,
    ];
    let mut writes = 0;
    proxy.rule(move |asked| {
        if !asked.writes() {
            return Fate::Pass;
        }
        writes += 1;
        match writes % 10 {
            fault @ 0..5 => faults[fault],
            _ => Fate::Pass,
        }
    });
    kubectl.apply(&pool("lan", &["192.0.2.0/26"]))?;
    services(kubectl, (0..30).map(|n| format!("s{n}")))?;
    settles(kubectl, LIMIT)?;
    for n in 0..10 {
        kubectl.run(&["delete", "service", &format!("s{n}"), "--wait=false"])?;
    }
    services(kubectl, (30..40).map(|n| format!("s{n}")))?;
    settles(kubectl, LIMIT)?;
    kubectl.wait("the pool counts thirty", |kubectl| {
        Ok(kubectl.json(&["get", "addresspool", "lan"])?["status"]["ipv4"]["assigned"] == 30)
    })?;
    let seen: BTreeSet<_> = proxy.log().into_iter().map(|(_, fate)| fate).collect();
    for fault in faults {
        ensure!(seen.contains(&fault), "no request ended in {fault:?}");
    }
    Ok(())
}

/// Writes for one Service dawdle, those for another always fail.
pub(crate) fn slow(cluster: &mut Cluster) -> Result<()> {
    let (proxy, _replica) = behind_proxy(cluster, &[])?;
    let kubectl = &cluster.kubectl;
    proxy.rule(|asked| {
        if !asked.writes() {
            Fate::Pass
        } else if asked.path.contains("/services/a-slow/") {
            Fate::Late(Duration::from_secs(6))
        } else if asked.path.contains("/services/b-failing/") {
            Fate::Status(500)
        } else {
            Fate::Pass
        }
    });
    kubectl.apply(&pool("lan", &["192.0.2.0/26"]))?;
    services(
        kubectl,
        ["a-slow", "b-failing"].map(str::to_owned).into_iter(),
    )?;
    kubectl.has_vips(&["192.0.2.0", "192.0.2.1"])?;
    let names: Vec<_> = (0..20).map(|n| format!("s{n}")).collect();
    services(kubectl, names.iter().cloned())?;
    for name in &names {
        kubectl.wait("the others are addressed", |kubectl| {
            Ok(!kubectl.ingress(name)?.is_empty())
        })?;
    }
    ensure!(
        kubectl.ingress("a-slow")?.is_empty() && kubectl.ingress("b-failing")?.is_empty(),
        "the slow one was not slower than the others"
    );
    kubectl.has("a-slow", &["192.0.2.0"])?;
    proxy.heal();
    settles(kubectl, LIMIT)?;
    kubectl.has("b-failing", &["192.0.2.1"])?;
    // Pauses between attempts grow; the failing one may not have been asked for all the time.
    let attempts = proxy.log().into_iter().filter(|(asked, fate)| {
        asked.path.contains("/services/b-failing/") && *fate == Fate::Status(500)
    });
    let attempts = attempts.count();
    ensure!((2..20).contains(&attempts), "{attempts} attempts");
    Ok(())
}

/// Connections break, and for a while no watch or list comes about; then the resource versions
/// are too old, and everything is listed anew.
pub(crate) fn broken_watches(cluster: &mut Cluster) -> Result<()> {
    let (proxy, _replica) = behind_proxy(cluster, &[])?;
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/26"]))?;
    services(kubectl, (0..10).map(|n| format!("s{n}")))?;
    settles(kubectl, LIMIT)?;
    // Only the Lease goes on.
    proxy.rule(|asked| match asked.leases() {
        true => Fate::Pass,
        false => Fate::Status(503),
    });
    proxy.cut();
    services(kubectl, (10..20).map(|n| format!("s{n}")))?;
    for n in 0..5 {
        kubectl.run(&["delete", "service", &format!("s{n}"), "--wait=false"])?;
    }
    std::thread::sleep(Duration::from_secs(2));
    ensure!(
        kubectl.ingress("s10")?.is_empty(),
        "the proxy was gone round"
    );
    proxy.heal();
    settles(kubectl, LIMIT)?;
    for round in 0..5 {
        services(kubectl, std::iter::once(format!("late{round}")))?;
        proxy.cut();
    }
    settles(kubectl, LIMIT)?;

    // Too old: each watch is told so once, which leads to a list.
    let before = quiet(kubectl)?;
    proxy.forget();
    let mut refused = BTreeSet::new();
    proxy.rule(move |asked| match asked.watch && !asked.leases() {
        true if refused.insert(asked.path.clone()) => Fate::Expired,
        _ => Fate::Pass,
    });
    proxy.cut();
    let listed = |path: &str| {
        let log = proxy.log();
        let mut lists = log.iter().filter(|(asked, fate)| {
            asked.path == path && asked.method == "GET" && !asked.watch && *fate == Fate::Pass
        });
        lists.next().is_some()
    };
    kubectl.wait("Services and VirtualIPs are listed anew", |_| {
        Ok(listed("/api/v1/services") && listed("/apis/lightship.dev/v1beta1/virtualips"))
    })?;
    kubectl.run(&["label", "service", "s10", "round=1"])?;
    services(kubectl, std::iter::once("last".to_owned()))?;
    settles(kubectl, LIMIT)?;
    let mut after = quiet(kubectl)?;
    after.retain(|name, _| before.contains_key(name));
    let changed: Vec<_> = before
        .iter()
        .filter(|(name, version)| after.get(*name) != Some(version))
        .map(|(name, _)| name.as_str())
        .collect();
    ensure!(
        changed == ["addresspools/\"lan\"", "services/\"s10\""],
        "written beside the pool's count and the label: {changed:?}"
    );
    Ok(())
}

/// Nothing but the Lease comes about for half a minute: pauses grow, and are short all the same
/// when it is over. Watches, writes and events are asked for again, but none of them all the time.
pub(crate) fn outage(cluster: &mut Cluster) -> Result<()> {
    const OUTAGE: Duration = Duration::from_secs(30);
    let (proxy, _replica) = behind_proxy(cluster, &[])?;
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/26"]))?;
    services(kubectl, (0..5).map(|n| format!("s{n}")))?;
    settles(kubectl, LIMIT)?;
    proxy.forget();
    // Writes are answered as by an API server with too much to do, which asks for a second.
    proxy.rule(|asked| match (asked.leases(), asked.method.as_str()) {
        (true, _) => Fate::Pass,
        (_, "GET") => Fate::Status(503),
        _ => Fate::Status(429),
    });
    // These are seen, but cannot be written.
    services(kubectl, (5..10).map(|n| format!("s{n}")))?;
    kubectl.wait("writes are refused", |_| {
        let log = proxy.log();
        Ok(log
            .iter()
            .any(|(asked, fate)| asked.writes() && *fate == Fate::Status(429)))
    })?;
    // These are not even seen.
    proxy.cut();
    services(kubectl, (10..15).map(|n| format!("s{n}")))?;
    std::thread::sleep(OUTAGE);
    ensure!(
        kubectl.ingress("s5")?.is_empty() && kubectl.ingress("s10")?.is_empty(),
        "the proxy was gone round"
    );
    let log = proxy.log();
    let mut asked: BTreeMap<(String, String, bool), usize> = BTreeMap::new();
    for (request, _) in log.iter().filter(|(request, _)| !request.leases()) {
        let key = (request.method.clone(), request.path.clone(), request.watch);
        *asked.entry(key).or_default() += 1;
    }
    let services =
        |(method, path, _): &(String, String, bool)| method == "GET" && path == "/api/v1/services";
    let tries: usize = asked
        .iter()
        .filter(|(key, _)| services(key))
        .map(|(_, n)| n)
        .sum();
    ensure!(tries >= 8, "Services were asked for only {tries} times");
    // For each of the five VirtualIPs that are created by one path, and a few at the beginning.
    let most = asked.iter().filter(|(key, _)| !key.1.ends_with("/events"));
    let most = most.max_by_key(|(_, count)| **count);
    ensure!(most.is_some_and(|(_, count)| *count < 150), "{most:?}");

    proxy.heal();
    let start = Instant::now();
    kubectl.wait("all are served", |kubectl| {
        let items = kubectl.items(&["get", "services"])?;
        let served = items
            .iter()
            .filter(|item| item["status"]["loadBalancer"]["ingress"][0]["ip"].is_string());
        Ok(served.count() == 15)
    })?;
    eprintln!(
        "    all served {} ms after the outage",
        start.elapsed().as_millis()
    );
    settles(kubectl, LIMIT)?;
    kubectl.told("s10", &["IPAllocated"])
}

/// The versions of all objects, once they do not change any more.
fn quiet(kubectl: &Kubectl) -> Result<BTreeMap<String, String>> {
    let mut last = versions(kubectl)?;
    let start = Instant::now();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = versions(kubectl)?;
        if now == last {
            return Ok(now);
        }
        ensure!(start.elapsed() < LIMIT, "the objects keep changing");
        last = now;
    }
}

/// Fifty Services at once, and no more writes than allowed.
pub(crate) fn rate(cluster: &mut Cluster) -> Result<()> {
    const QPS: usize = 20;
    const BURST: usize = 10;
    let flags = [format!("--api-qps={QPS}"), format!("--api-burst={BURST}")];
    let flags = flags.each_ref().map(String::as_str);
    let (proxy, _replica) = behind_proxy(cluster, &flags)?;
    let kubectl = &cluster.kubectl;
    kubectl.apply(&pool("lan", &["192.0.2.0/26"]))?;
    services(kubectl, (0..50).map(|n| format!("s{n}")))?;
    settles(kubectl, LIMIT)?;
    let log = proxy.log();
    let moments: Vec<_> = log
        .iter()
        .filter(|(asked, _)| asked.writes())
        .map(|(asked, _)| asked.at)
        .collect();
    ensure!(moments.len() >= 100, "{} writes", moments.len());
    // In any two seconds; what is sent in time may arrive a little late.
    let most = QPS * 2 + BURST + QPS / 4;
    for (first, start) in moments.iter().enumerate() {
        let within = moments[first..]
            .iter()
            .take_while(|at| at.duration_since(*start) < Duration::from_secs(2));
        let within = within.count();
        ensure!(within <= most, "{within} writes within 2 s");
    }
    Ok(())
}
