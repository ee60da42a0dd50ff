//! The measurements at one number of Services.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lightship_lab::progress::Progress;
use lightship_lab::sh;
use serde_json::Value;

use super::load::{self, Request};
use super::watch::{Onlooker, Seen, Watch};
use crate::cluster::Cluster;
use crate::kube::pool;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(600);
/// Services that are created one by one.
const SINGLES: usize = 20;

/// Times in seconds, unless another unit is named.
pub(super) struct Figures {
    pub(super) services: usize,
    /// N creations while the controller is off.
    pub(super) created_alone: f64,
    /// N status writes while the controller is off.
    pub(super) status_writes: f64,
    /// N creations of VirtualIPs while the controller is off.
    pub(super) vip_writes: f64,
    /// N of both at the same time, while as many watch as with the controller.
    pub(super) both_writes: f64,
    /// Seconds of processor time for that: the API server with its etcd.
    pub(super) both_processor: f64,
    /// Seconds of processor time until N Services that waited have addresses: the API server with
    /// its etcd, and the controller.
    pub(super) waiting_processor: [f64; 2],
    /// From the controller's start until N Services that waited have addresses.
    pub(super) waiting: f64,
    /// N creations while the controller runs.
    pub(super) created: f64,
    /// From the first of them until all have addresses.
    pub(super) addressed: f64,
    /// From creation to address: median, 99th percentile, worst (ms).
    pub(super) latency: [f64; 3],
    /// The same of one more Service: median, worst (ms).
    pub(super) single: [f64; 2],
    /// Objects written that are of none of these.
    pub(super) touched: usize,
    /// From SIGKILL until the next controller is ready.
    pub(super) restart: f64,
    /// Objects written for it, the pool included.
    pub(super) restart_writes: usize,
    /// Resident memory after the burst, after the restart, and at most (MiB).
    pub(super) memory: [f64; 3],
}

/// Measures at this number.
pub(super) fn at(cluster: &mut Cluster, services: usize) -> Result<Figures> {
    let steps = Progress::on_stderr();
    steps.say(&format!("{services} Services"));
    let names: Vec<String> = (0..services).map(|n| format!("many-{n}")).collect();
    let all = |request: fn(&str) -> Request| -> Vec<Request> {
        names.iter().map(|name| request(name)).collect()
    };
    cluster.stop_controller()?;
    cluster.kubectl.apply(&pool("lan", &["2001:db8:1::/64"]))?;

    let start = Instant::now();
    steps.step("created without controller", || {
        load::send(cluster, &all(load::create))
    })?;
    let created_alone = start.elapsed().as_secs_f64();
    let start = Instant::now();
    steps.step("statuses written", || {
        load::send(cluster, &all(load::write_status))
    })?;
    let status_writes = start.elapsed().as_secs_f64();
    let vips: Vec<Request> = names.iter().enumerate().map(load::create_vip).collect();
    let start = Instant::now();
    steps.step("VirtualIPs created", || load::send(cluster, &vips))?;
    let vip_writes = start.elapsed().as_secs_f64();
    let forget = || {
        steps.step("VirtualIPs deleted", || {
            load::send(cluster, &[load::delete_vips()])
        })
    };
    forget()?;

    let watch = Watch::start(cluster)?;
    // In the controller's stead.
    let paths = ["/api/v1/services", "/apis/lightship.dev/v1beta1/virtualips"];
    let onlookers = paths.map(|path| Onlooker::start(cluster, path));
    let again = names
        .iter()
        .map(|name| load::write_status_as(name, "Again"));
    let both: Vec<Request> = vips
        .into_iter()
        .zip(again)
        .flat_map(|(a, b)| [a, b])
        .collect();
    let before = cluster.processor_time()?;
    let start = Instant::now();
    steps.step("both written at the same time", || {
        load::send(cluster, &both)
    })?;
    let both_writes = start.elapsed().as_secs_f64();
    let both_processor = cluster.processor_time()?[0] - before[0];
    for onlooker in onlookers {
        drop(onlooker?);
    }
    forget()?;

    let before = cluster.processor_time()?[0];
    let start = Instant::now();
    steps.step("all that waited addressed", || {
        cluster.start_controller()?;
        watch.wait(services, LIMIT)
    })?;
    let waiting = span(start, &watch.seen("many-"))?;
    let used = cluster.processor_time()?;
    let waiting_processor = [used[0] - before, used[1]];
    watch.check()?;
    steps.step("deleted", || {
        settle(cluster)?;
        load::send(cluster, &all(load::delete))?;
        settle(cluster)
    })?;

    // A fresh process, so that its memory is of these Services alone.
    cluster.stop_controller()?;
    cluster.start_controller()?;
    let start = Instant::now();
    let created = steps.step("created with controller, all addressed", || {
        load::send(cluster, &all(load::create))?;
        let created = start.elapsed().as_secs_f64();
        watch.wait(services, LIMIT)?;
        Ok(created)
    })?;
    let seen = watch.seen("many-");
    let addressed = span(start, &seen)?;
    let latency = latencies(&seen)?;
    watch.check()?;
    steps.step("settled", || settle(cluster))?;
    let after_burst = memory(cluster, "VmRSS")?;

    let before = versions(cluster)?;
    steps.step("one by one", || {
        for n in 0..SINGLES {
            load::send(cluster, &[load::create(&format!("one-{n}"))])?;
            watch.wait(services + n + 1, LIMIT)?;
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    })?;
    let single = latencies(&watch.seen("one-"))?;
    settle(cluster)?;
    // The pool counts them.
    let after = versions(cluster)?;
    let touched = written(&before, &after).filter(|name| !name.contains("addresspools"));
    let touched = touched.count();
    let highest = memory(cluster, "VmHWM")?;

    let before = versions(cluster)?;
    let start = Instant::now();
    steps.step("killed and started again", || {
        cluster.kill_controller();
        cluster.start_controller()
    })?;
    let restart = start.elapsed().as_secs_f64();
    settle(cluster)?;
    let after = versions(cluster)?;
    ensure!(before.len() == after.len(), "objects came or went");
    let restart_writes = written(&before, &after).count();
    let after_restart = memory(cluster, "VmRSS")?;
    let highest = highest.max(memory(cluster, "VmHWM")?);

    steps.step("deleted", || {
        load::send(cluster, &all(load::delete))?;
        let ones: Vec<Request> = (0..SINGLES)
            .map(|n| load::delete(&format!("one-{n}")))
            .collect();
        load::send(cluster, &ones)?;
        settle(cluster)
    })?;
    Ok(Figures {
        services,
        created_alone,
        status_writes,
        vip_writes,
        both_writes,
        both_processor,
        waiting_processor,
        waiting,
        created,
        addressed,
        latency,
        single: [single[0], single[2]],
        touched,
        restart,
        restart_writes,
        memory: [after_burst, after_restart, highest],
    })
}

/// Seconds until the last one had its address.
fn span(start: Instant, seen: &[Seen]) -> Result<f64> {
    let last = seen.iter().filter_map(|seen| seen.addressed).max();
    let last = last.context("no Service has an address")?;
    Ok(last.duration_since(start).as_secs_f64())
}

/// Median, 99th percentile and worst, in milliseconds.
fn latencies(seen: &[Seen]) -> Result<[f64; 3]> {
    let mut all: Vec<f64> = seen
        .iter()
        .filter_map(|seen| Some(seen.addressed?.duration_since(seen.created)))
        .map(|latency| latency.as_secs_f64() * 1000.0)
        .collect();
    all.sort_by(f64::total_cmp);
    ensure!(!all.is_empty(), "no Service has an address");
    let at = |share: usize| all[(all.len() - 1) * share / 100];
    Ok([at(50), at(99), at(100)])
}

/// Waits until nothing is written any more: no VirtualIP, no pool changes for 3 s.
fn settle(cluster: &Cluster) -> Result<()> {
    let mut last = (String::new(), Instant::now());
    sh::wait_for("quiet", LIMIT, Duration::from_millis(300), || {
        // A list's own version is that of the newest write of all.
        let path = "/apis/lightship.dev/v1beta1/virtualips?limit=1";
        let vips = cluster.get(path)?["metadata"]["remainingItemCount"].to_string();
        let pools = cluster.get("/apis/lightship.dev/v1beta1/addresspools")?;
        let now = format!("{vips} {}", pools["items"]);
        if now != last.0 {
            last = (now, Instant::now());
        }
        Ok((last.1.elapsed() > Duration::from_secs(3)).then_some(()))
    })
}

/// Every Service, VirtualIP and pool with its version.
fn versions(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for path in [
        "/api/v1/namespaces/default/services",
        "/apis/lightship.dev/v1beta1/virtualips",
        "/apis/lightship.dev/v1beta1/addresspools",
    ] {
        let list = cluster.get(path)?;
        for item in list["items"].as_array().into_iter().flatten() {
            let meta = &item["metadata"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            all.insert(
                format!("{path}/{}", text(&meta["name"])),
                text(&meta["resourceVersion"]),
            );
        }
    }
    Ok(all)
}

/// Which of the first are others now.
fn written<'a>(
    before: &'a BTreeMap<String, String>,
    after: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = &'a str> {
    let changed = before
        .iter()
        .filter(|(name, version)| after.get(*name) != Some(version));
    changed.map(|(name, _)| name.as_str())
}

/// A line of the controller's memory in /proc/PID/status, in MiB.
fn memory(cluster: &Cluster, line: &str) -> Result<f64> {
    let pid = cluster.controller_pid().context("no controller runs")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status.lines().find_map(|text| text.strip_prefix(line));
    let kibibytes =
        value.and_then(|value| value.trim_matches([':', ' ', '\t', 'k', 'B']).parse().ok());
    let kibibytes: f64 = kibibytes.with_context(|| format!("no {line} in {status}"))?;
    Ok(kibibytes / 1024.0)
}
