//! How fast a director's table is made and changed, what it costs to keep, and what the kernel holds for it.
//!
//! One real node; the other real servers are Node objects and heartbeats, as in [`super::scale`]. Times are
//! those that the speaker itself logs for its turns, and from its log's clock.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lightship_e2e::crowd;
use lightship_e2e::timeline::{self, Line};
use lightship_lab::progress::Progress;
use lightship_lab::{How, Lab, sh};
use serde_json::{Value, json};

use super::report::Section;
use super::scale::{self, PREFIX, Peers};
use super::verdict::{self, Judged, Limit};

/// Real servers beside the real node.
const OTHERS: u16 = 100;

/// Of these so many are left in the end, as in an ordinary cluster.
const FEW: u16 = 2;

/// In which nodes that are gone have left the table: half a minute at weight 0, and a moment.
const GONE: Duration = Duration::from_secs(45);

/// The ports of each VIP.
const PORTS: [u16; 2] = [80, 443];

/// For how long the idle speaker is watched.
const IDLE: Duration = Duration::from_secs(60);

/// Changes of one endpoint.
const CHANGES: usize = 5;

const LIMIT: Duration = Duration::from_secs(300);

/// A director that has changed nothing for so long has all that is wanted.
const STILL: Duration = Duration::from_secs(5);

/// Of that time the director's thread is at work less than this share then.
const BUSY: f64 = 0.1;

/// One turn of the director, as its log has it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Turn {
    at_ns: u64,
    services: usize,
    changes: usize,
    vips: usize,
    ms: f64,
}

/// Measures it.
pub(super) fn measure(lab: &mut Lab, vips: usize) -> Result<Section> {
    let steps = Progress::on_stderr();
    let title = format!(
        "A director's table: {vips} VIPs, {} ports each, {OTHERS} nodes",
        PORTS.len()
    );
    steps.say(&title);
    let real = lab.node_names().into_iter().next();
    let real = real.context("a node is needed")?;
    steps.step(&format!("{OTHERS} more Nodes"), || {
        scale::make_nodes(lab, OTHERS)
    })?;
    let peers = Peers::start(lab, &real, OTHERS, &[])?;
    steps.step("a Service with an endpoint on each", || {
        local_service(lab)?;
        endpoints(lab, OTHERS)
    })?;
    steps.step(&format!("{vips} Services with an endpoint each"), || {
        crowd::gather(lab, vips, &PORTS)?;
        let slice = |number| {
            slice(
                &format!("crowd-{number}"),
                [endpoint(&real, OTHERS + 1)].into(),
            )
        };
        let slices: Vec<Value> = (0..vips).map(slice).collect();
        for items in slices.chunks(crowd::BATCH) {
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
            lab.apply(&list.to_string())?;
        }
        Ok(())
    })?;
    let all = (vips + 1) * PORTS.len();
    steps.step("all in the director's table", || {
        wait_turns(lab, &real, 0, |turns| whole(turns, all))
    })?;
    steps.step("nothing left to do", || wait_still(lab, &real))?;
    let mut changes = Vec::new();
    steps.step(&format!("{CHANGES} changes of one endpoint"), || {
        for number in 0..CHANGES {
            std::thread::sleep(Duration::from_secs(3));
            let count = OTHERS - 1 + (number as u16 % 2);
            let before = timeline::speaker(lab, &real)?;
            let before = before.last().map_or(0, |line| line.at_ns);
            endpoints(lab, count)?;
            let turns = wait_turns(lab, &real, before + 1, |turns| !turns.is_empty())?;
            changes.push(turns[0]);
        }
        Ok(())
    })?;
    let idle = |lab: &Lab| {
        steps.step(&format!("idle for {} s", IDLE.as_secs()), || {
            let before = scale::usage(lab, &real)?;
            std::thread::sleep(IDLE);
            Ok((before, scale::usage(lab, &real)?))
        })
    };
    let (before, after) = idle(lab)?;
    let kernel_kib = steps.step("speaker stopped, everything removed", || clean(lab, &real))?;
    let empty = steps.step("started with nothing there", || {
        let begin = timeline::speaker(lab, &real)?;
        let begin = begin.last().map_or(0, |line| line.at_ns) + 1;
        lab.heal(&real)?;
        wait_turns(lab, &real, begin, |turns| whole(turns, all))
    })?;
    drop(peers);
    let _peers = steps.step(&format!("all but {FEW} of the other nodes gone"), || {
        scale::delete_nodes(lab, FEW + 1..=OTHERS)?;
        let peers = Peers::start(lab, &real, FEW, &[])?;
        std::thread::sleep(GONE);
        wait_still(lab, &real)?;
        Ok(peers)
    })?;
    let few = idle(lab)?;
    let director =
        |usage: &scale::Usage| usage.director_seconds.context("no thread of the director");
    let share = |seconds: f64| seconds / IDLE.as_secs_f64() * 100.0;
    let cost = Cost {
        cpu: share(after.cpu_seconds - before.cpu_seconds),
        director_cpu: share(director(&after)? - director(&before)?),
        cpu_of_few: share(few.1.cpu_seconds - few.0.cpu_seconds),
        director_cpu_of_few: share(director(&few.1)? - director(&few.0)?),
        resident_mb: after.resident_mb,
        kernel_kib_per_vip: kernel_kib / (vips + 1) as f64,
    };
    Ok(Section {
        id: format!("programming-{}", lab.state().options.substrate),
        title,
        command: "cargo xtask bench programming".to_owned(),
        text: text(&empty, &changes, &cost),
    })
}

/// What the table costs while nothing happens.
struct Cost {
    /// In percent of a core, among all nodes.
    cpu: f64,
    /// The part of the thread that keeps the table.
    director_cpu: f64,
    /// The same two among [`FEW`] others.
    cpu_of_few: f64,
    director_cpu_of_few: f64,
    resident_mb: f64,
    kernel_kib_per_vip: f64,
}

fn text(empty: &[Turn], changes: &[Turn], cost: &Cost) -> String {
    let made: usize = empty.iter().map(|turn| turn.changes).sum();
    let seconds = empty.iter().map(|turn| turn.ms).sum::<f64>() / 1e3;
    let mut times: Vec<f64> = changes.iter().map(|turn| turn.ms).collect();
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
    let most = changes.iter().map(|turn| turn.changes).max().unwrap_or(0);
    let judged = [
        Judged::new("all from empty", seconds, "s", Limit::AtMost(5.0)),
        Judged::new(
            "one endpoint changed, median",
            median,
            "ms",
            Limit::AtMost(20.0),
        ),
        Judged::new(
            "netlink messages for that, at most",
            most as f64,
            "",
            Limit::AtMost(8.0),
        ),
        Judged::new(
            "idle, processor, to keep the table",
            cost.director_cpu_of_few,
            "% of a core",
            Limit::AtMost(1.0),
        ),
        Judged::new(
            "idle, processor, the whole speaker among three nodes",
            cost.cpu_of_few,
            "% of a core",
            Limit::AtMost(1.0),
        ),
        Judged::new("memory (RSS)", cost.resident_mb, "MB", Limit::AtMost(40.0)),
    ];
    format!(
        "One node's director; the other real servers are Node objects and signed heartbeats. From empty it took {made} netlink \
         messages in {} turns. Times are those of the director's turns, from what is wanted to what the \
         kernel has confirmed. On a User Mode Linux kernel system calls and page faults take several times as long as on a \
         machine's own; what the figures would be there was not measured, for want of one with IPVS. Idle is judged among three nodes: the whole speaker, and of it \
         the thread that compares the table with the kernel's each second, and settings every other. All else that \
         the speaker does then is waking for heartbeats, on this kernel {:.2} % of a core; what that is on this machine's own, without a director, \
         `cargo xtask bench scale --nodes 3` measures. Among all {OTHERS} others the two are {:.2} % and {:.2} %. \
         The kernel gave {:.0} KiB back for each VIP when all was removed.\n\n{}",
        empty.len(),
        cost.cpu_of_few - cost.director_cpu_of_few,
        cost.director_cpu,
        cost.cpu - cost.director_cpu,
        cost.kernel_kib_per_vip,
        verdict::lines(&judged)
    )
}

/// Waits until the director has had nothing to change for a while: endpoints come after their Services. A turn that
/// is not over yet is in no log, but takes its processor time.
fn wait_still(lab: &Lab, node: &str) -> Result<()> {
    let busy = || -> Result<f64> {
        let usage = scale::usage(lab, node)?;
        usage.director_seconds.context("the director's thread")
    };
    let mut before = (0, Instant::now(), 0.0);
    sh::wait_for(
        "the director has nothing to change any more",
        lab.within(LIMIT),
        Duration::from_millis(500),
        || {
            let turns = timeline::speaker(lab, node)?
                .iter()
                .filter_map(turn)
                .count();
            let spent = busy()?;
            let moved = turns != before.0 || spent - before.2 > BUSY * STILL.as_secs_f64();
            if moved {
                before = (turns, Instant::now(), spent);
            }
            Ok((!moved && before.1.elapsed() >= STILL).then_some(()))
        },
    )
}

/// Have these turns made all services, each with its real servers?
fn whole(turns: &[Turn], services: usize) -> bool {
    let made: usize = turns.iter().map(|turn| turn.changes).sum();
    turns.iter().any(|turn| turn.services >= services) && made >= services * usize::from(OTHERS)
}

/// Turns of the director that changed something, from `since_ns` on, once they are `enough`.
fn wait_turns(
    lab: &Lab,
    node: &str,
    since_ns: u64,
    enough: impl Fn(&[Turn]) -> bool,
) -> Result<Vec<Turn>> {
    sh::wait_for(
        "the director's turns in the speaker's log",
        lab.within(LIMIT),
        Duration::from_millis(200),
        || {
            let lines = timeline::speaker(lab, node)?;
            let lines = lines.iter().filter(|line| line.at_ns >= since_ns);
            let turns: Vec<Turn> = lines.filter_map(turn).collect();
            Ok(enough(&turns).then_some(turns))
        },
    )
}

fn turn(line: &Line) -> Option<Turn> {
    line.text.contains("director programmed").then_some(())?;
    let field = |name: &str| {
        let mut words = line.text.split_whitespace();
        let found = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found?.parse::<usize>().ok()
    };
    Some(Turn {
        at_ns: line.at_ns,
        services: field("services")?,
        changes: field("changes")?,
        vips: field("vips")?,
        ms: field("ms")? as f64,
    })
}

fn local_service(lab: &Lab) -> Result<()> {
    let ports = PORTS.map(|port| json!({ "name": format!("p{port}"), "port": port }));
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "local" },
        "spec": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "ipFamilies": ["IPv6"],
            "ipFamilyPolicy": "SingleStack",
            "ports": ports,
        },
    });
    lab.apply(&service.to_string()).map(drop)
}

/// Gives that Service an endpoint on each of the first `count` nodes that are not there.
fn endpoints(lab: &Lab, count: u16) -> Result<()> {
    let on = |number| endpoint(&format!("{PREFIX}{number}"), number);
    let slice = slice("local", (1..=count).map(on).collect());
    lab.apply(&slice.to_string()).map(drop)
}

fn endpoint(node: &str, number: u16) -> Value {
    json!({
        "addresses": [format!("2001:db8:2:e::{number}")],
        "nodeName": node,
        "conditions": { "ready": true, "serving": true, "terminating": false },
    })
}

/// Of a Service's endpoints, beside those that Kubernetes finds.
fn slice(service: &str, endpoints: Vec<Value>) -> Value {
    let ports = PORTS.map(|port| json!({ "name": format!("p{port}"), "port": port }));
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-by-hand"),
            "labels": {
                "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "bench",
            },
        },
        "addressType": "IPv6",
        "endpoints": endpoints,
        "ports": ports,
    })
}

/// Stops the speaker for good and removes all that it made. Says what memory came back, in KiB.
fn clean(lab: &mut Lab, node: &str) -> Result<f64> {
    let path = lab.shell(
        node,
        "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = lightship-speak ] && readlink $p/exe; done; true",
    )?;
    let program = path.trim().to_owned();
    ensure!(!program.is_empty(), "no speaker runs on {node}");
    lab.fail(node, How::StopSpeaker)?;
    sh::wait_for(
        "the speaker has ended",
        lab.within(Duration::from_secs(20)),
        Duration::from_millis(200),
        || {
            Ok(lab
                .shell(node, "! pidof lightship-speaker")
                .is_ok()
                .then_some(()))
        },
    )?;
    let free = |lab: &Lab| -> Result<f64> {
        let text = lab.shell(
            node,
            "sync; echo 3 > /proc/sys/vm/drop_caches; sleep 1; grep MemAvailable /proc/meminfo",
        )?;
        let value = text
            .split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok());
        value.context("no MemAvailable")
    };
    let before = free(lab)?;
    let cleaned = lab.exec(node, &[&program, "cleanup"])?;
    ensure!(
        cleaned.status.success(),
        "cleanup: {}",
        String::from_utf8_lossy(&cleaned.stderr)
    );
    // The namespace is taken apart behind the scenes.
    std::thread::sleep(Duration::from_secs(5));
    Ok(free(lab)? - before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_read_from_the_log() {
        let line = |text: &str| Line {
            at_ns: 7,
            text: text.to_owned(),
        };
        let text = "2026-11-23T17:00:00.1Z  INFO lightship_speaker::director::worker: director programmed \
                    services=2002 changes=204204 vips=1001 ms=3120";
        let read = turn(&line(text)).unwrap();
        assert_eq!(
            (read.services, read.changes, read.vips),
            (2002, 204_204, 1001)
        );
        assert_eq!((read.at_ns, read.ms), (7, 3120.0));
        assert_eq!(turn(&line("VIP announced")), None);
    }
}
