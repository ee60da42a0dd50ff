//! One real speaker among hundreds of nodes that are not there, and many VIPs.
//!
//! The others are Node objects, addresses on the lab's client host, and heartbeats from
//! `lightship-lab-agent peers`, signed with the cluster's key; they hold all VIPs between them.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use lightship_e2e::{crowd, vip};
use lightship_lab::progress::Progress;
use lightship_lab::{How, Lab, sh};
use serde_json::{Value, json};

use super::report::Section;
use super::verdict::{self, Judged, Limit};

/// What is measured, and for how long.
pub(super) struct Size {
    pub(super) nodes: u16,
    pub(super) vips: usize,
    pub(super) seconds: u64,
}

/// As many as are to be managed.
pub(super) const NODES: u16 = 500;
/// What `/proc` calls a kB, in units of 10⁶ bytes.
const KB: f64 = 1024.0 / 1e6;
/// A cluster of so many is an ordinary one, whose speakers have little to say to each other.
const FEW: u16 = 10;

impl Size {
    /// What a speaker may take, in percent of a core.
    fn processor(&self) -> f64 {
        if self.nodes <= FEW { 1.0 } else { 2.0 }
    }

    /// With the number of nodes behind it, if that is another one.
    fn suffixed(&self, text: &str, between: &str) -> String {
        match self.nodes {
            NODES => text.to_owned(),
            nodes => format!("{text}{between}{nodes}"),
        }
    }
}

/// What the names of those that are not there begin with.
pub(super) const PREFIX: &str = "phantom-";

/// What the speaker has used and exchanged so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) cpu_seconds: f64,
    /// The part of that in which the kernel did what the program asked for.
    pub(super) system_seconds: f64,
    /// The part of the thread that keeps the director's table, if there is one.
    pub(super) director_seconds: Option<f64>,
    datagrams: f64,
    /// In units of 10⁶ bytes.
    pub(super) resident_mb: f64,
    /// The part of that which is the program itself and its libraries.
    program_mb: f64,
}

/// Measures it, on a lab of one node with IPv6.
pub(super) fn measure(lab: &mut Lab, size: &Size) -> Result<Section> {
    let steps = Progress::on_stderr();
    let title = format!(
        "One speaker among {} nodes and {} VIPs",
        size.nodes, size.vips
    );
    steps.say(&title);
    let phantoms = size.nodes - 1;
    let share = (size.vips / usize::from(size.nodes)) as u64 + 1;
    let nodes = lab.node_names();
    let real = &nodes.into_iter().next().context("a node is needed")?;
    let alone = usage(lab, real)?;
    steps.step(&format!("{phantoms} more Nodes"), || {
        make_nodes(lab, phantoms)
    })?;
    let peers = steps.step("their heartbeats", || {
        Peers::start(lab, real, phantoms, &[])
    })?;
    steps.step(&format!("{} Services", size.vips), || {
        crowd::gather(lab, size.vips, &[80])
    })?;
    let vips: Vec<IpAddr> = vip::all(lab)?.iter().map(|vip| vip.address).collect();
    drop(peers);
    let peers = steps.step("heartbeats of their owners", || {
        let peers = Peers::start(lab, real, phantoms, &vips)?;
        wait_heard(lab, real, share)?;
        // What follows from the moves has settled by then: reports, and what clients are told again.
        std::thread::sleep(Duration::from_secs(30));
        Ok(peers)
    })?;
    let used = steps.step(&format!("{} s", size.seconds), || {
        let before = usage(lab, real)?;
        std::thread::sleep(Duration::from_secs(size.seconds));
        Ok((before, usage(lab, real)?))
    })?;
    let anew = steps.step("started anew among them", || {
        lab.fail(real, How::KillSpeaker)?;
        std::thread::sleep(Duration::from_secs(20));
        wait_heard(lab, real, share)?;
        // Reports of what it found at the start are over by then, and what they took is given back.
        std::thread::sleep(Duration::from_secs(25));
        usage(lab, real)
    })?;
    drop(peers);
    Ok(Section {
        id: size.suffixed("scale", "-"),
        title,
        command: size.suffixed("cargo xtask bench scale", " --nodes "),
        text: text(size, alone, used, anew),
    })
}

fn text(size: &Size, alone: Usage, (before, after): (Usage, Usage), anew: Usage) -> String {
    let seconds = size.seconds as f64;
    let cpu = (after.cpu_seconds - before.cpu_seconds) / seconds * 100.0;
    let packets = (after.datagrams - before.datagrams) / seconds;
    let judged = [
        Judged::new(
            "processor",
            cpu,
            "% of a core",
            Limit::AtMost(size.processor()),
        ),
        Judged::new(
            "heartbeats, both ways",
            packets,
            "packets/s",
            Limit::AtMost(2000.0),
        ),
        Judged::new(
            "memory (RSS), of one that owned them all before",
            after.resident_mb,
            "MB",
            Limit::AtMost(25.0),
        ),
        Judged::new(
            "memory (RSS), of one that starts among them",
            anew.resident_mb,
            "MB",
            Limit::AtMost(25.0),
        ),
    ];
    format!(
        "One speaker process for {seconds} s, after it had owned all VIPs and left them to others. Those are Node objects \
         and signed heartbeats from one generator. Its node is a namespace: unless this machine's own kernel has IPVS it \
         only announces, and what a director takes is in the section of its table. Right after its start, alone, the speaker's RSS \
         was {:.1} MB, {:.1} of them the program itself; at the end these are {:.1}. Of the processor's time {:.2} % of a core \
         was spent in the kernel.\n\n{}",
        alone.resident_mb,
        alone.program_mb,
        anew.program_mb,
        (after.system_seconds - before.system_seconds) / seconds * 100.0,
        verdict::lines(&judged)
    )
}

fn address(number: u16) -> String {
    // The digits of the number, read as hexadecimal: a different one for each.
    format!("2001:db8:2::1:{number}")
}

/// Node objects, and their addresses on the client host, whose kernel answers for them.
pub(super) fn make_nodes(lab: &Lab, count: u16) -> Result<()> {
    let node = |number: u16| {
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": format!("{PREFIX}{number}") },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": address(number) }],
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "Phantom", "message": "",
                }],
            },
        })
    };
    let items: Vec<Value> = (1..=count).map(node).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    // `create` and not `apply`, which would leave the status out.
    let create = lab.kubectl_command(&["create", "-f", "-"]);
    sh::run_with_input(create, Some(&list.to_string()))?;
    let add = format!(
        "for n in $(seq 1 {count}); do \
         ip address add 2001:db8:2::1:$n/128 dev eth0 nodad || exit 1; done"
    );
    sh::run(lab.client_command(&["sh", "-c", &add])).map(drop)
}

/// Removes these of them.
pub(super) fn delete_nodes(lab: &Lab, numbers: RangeInclusive<u16>) -> Result<()> {
    let names: Vec<String> = numbers.map(|number| format!("{PREFIX}{number}")).collect();
    let names = names.iter().map(String::as_str);
    let words: Vec<&str> = ["delete", "nodes"].into_iter().chain(names).collect();
    lab.kubectl(&words).map(drop)
}

/// The generator; it ends with this value.
pub(super) struct Peers(std::process::Child);

impl Peers {
    pub(super) fn start(lab: &Lab, real: &str, count: u16, vips: &[IpAddr]) -> Result<Self> {
        let secret = lab.kubectl_json(&[
            "get",
            "secret",
            "--namespace",
            "lightship-system",
            "lightship-heartbeat",
        ])?;
        let input = json!({ "key": secret["data"]["key"], "vips": vips });
        let node = lab.kubectl_json(&["get", "node", real])?;
        let addresses = node["status"]["addresses"].as_array();
        let own = addresses
            .into_iter()
            .flatten()
            .find(|address| address["type"] == "InternalIP")
            .and_then(|address| address["address"].as_str())
            .with_context(|| format!("{real} has no InternalIP"))?;
        let agent = lab.state().nodes[0].spec.agent.display().to_string();
        let mut command = lab.client_command(&[
            &agent,
            "peers",
            "--count",
            &count.to_string(),
            "--prefix",
            PREFIX,
            "--target",
            &format!("{real}={own}"),
        ]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the generator")?;
        let stdin = child.stdin.take().context("no standard input")?;
        serde_json::to_writer(stdin, &input)?;
        Ok(Self(child))
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the real node has left the VIPs to those that claim them, but for the share that it takes
/// to even the spread out.
fn wait_heard(lab: &Lab, real: &str, share: u64) -> Result<()> {
    sh::wait_for(
        &format!("{real} owns few VIPs"),
        Duration::from_secs(60),
        Duration::from_millis(500),
        || {
            let speaker = lab.kubectl_json(&["get", "speaker", real])?;
            let owned = speaker["status"]["vips"].as_u64();
            Ok(owned.is_some_and(|owned| owned <= share).then_some(()))
        },
    )
}

/// Ticks of `/proc/PID/stat` per second (`USER_HZ`, the same on all architectures that matter here).
const TICKS: f64 = 100.0;

pub(super) fn usage(lab: &Lab, node: &str) -> Result<Usage> {
    // Names are cut to 15 characters.
    let line = "for p in /proc/[0-9]*; do \
                [ \"$(cat $p/comm 2>/dev/null)\" = lightship-speak ] || continue; \
                sed 's/.*) //' $p/stat; grep -i rss $p/status; \
                for t in $p/task/*; do echo \"Thread $(cat $t/comm) $(sed 's/.*) //' $t/stat)\"; done; \
                done; grep Datagrams /proc/net/snmp6";
    parse(&lab.shell(node, line)?).context("the speaker's figures")
}

/// From the fields of `stat` after the name: the program's own, and the kernel's for it.
fn seconds(stat: &str) -> Option<(f64, f64)> {
    let fields: Vec<&str> = stat.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some((ticks(14)? / TICKS, ticks(15)? / TICKS))
}

/// From the fields of `/proc/PID/stat` after the name (proc(5): the state is the third field of all,
/// `utime` the 14th), the lines `VmRSS` and `RssFile` and those of `/proc/net/snmp6`.
fn parse(text: &str) -> Option<Usage> {
    let director = text
        .lines()
        .find_map(|line| line.strip_prefix("Thread director "));
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    let (own, system_seconds) = seconds(text.lines().next()?)?;
    Some(Usage {
        cpu_seconds: own + system_seconds,
        system_seconds,
        director_seconds: director.and_then(seconds).map(|(own, system)| own + system),
        datagrams: value("Udp6InDatagrams")? + value("Udp6OutDatagrams")?,
        resident_mb: value("VmRSS:")? * KB,
        program_mb: value("RssFile:")? * KB,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_proc() {
        let text = "S 1 2 2 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 33 1 2\n\
                    VmRSS:\t   20480 kB\nThread core S 1 2 2 0 -1 4194560 100 0 0 0 9 9 0 0\n\
                    Thread director S 1 2 2 0 -1 4194560 100 0 0 0 40 10 0 0\nRssFile:\t  10240 kB\nUdp6InDatagrams   \t30\nUdp6OutDatagrams\t12\n";
        let usage = parse(text).unwrap();
        assert_eq!((usage.cpu_seconds, usage.datagrams), (3.0, 42.0));
        assert_eq!(usage.system_seconds, 0.5);
        assert_eq!(usage.director_seconds, Some(0.5));
        let tenths = |mb: f64| (mb * 10.0).round();
        assert_eq!(
            (tenths(usage.resident_mb), tenths(usage.program_mb)),
            (210.0, 105.0)
        );
        assert!(parse("").is_none());
    }
}
