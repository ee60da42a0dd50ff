//! The director against the same IPVS service made by hand, in the same kernel.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use lightship_e2e::figures::{median, table};
use lightship_e2e::{director, vip};
use lightship_lab::Lab;
use lightship_lab::progress::Progress;
use lightship_lab::workload::{PORT, TrafficPolicy};
use serde::Deserialize;
use serde_json::json;

use super::{delete, load, probe, service, wait_served};
use crate::bench::report::Section;
use crate::bench::verdict::{self, Judged, Limit};

/// The namespace, link and address of what is made by hand. The address is in no pool.
const NETNS: &str = "byhand";
const LINK: &str = "bh-dir";
const ADDRESS: &str = "192.0.2.240";

const NAME: &str = "byhand";

/// The Service that is only announced, and what makes it so.
const ANNOUNCED: &str = "byhand-announce";
const POLICIES: [&str; 2] = ["bench-announce", "bench-direct"];

#[derive(Deserialize)]
struct Sent {
    seconds: f64,
    datagrams: f64,
}

/// Figures of one way, one run, each per second.
#[derive(Clone, Copy, Debug)]
struct Figures {
    flows: f64,
    forwarded: f64,
    offered: f64,
}

/// One run of each way.
#[derive(Clone, Copy, Debug)]
struct Run {
    director: Figures,
    by_hand: Figures,
    announce: Figures,
}

/// Whose packets count as forwarded: a file of a counter on a node, as seen from a namespace of it.
struct Counter<'a> {
    node: &'a str,
    netns: Option<&'a str>,
    link: &'a str,
    which: &'a str,
}

impl Counter<'_> {
    fn read(&self, lab: &Lab) -> Result<f64> {
        let file = format!("/sys/class/net/{}/statistics/{}", self.link, self.which);
        let inside = self.netns.map(|name| format!("ip netns exec {name} "));
        let line = format!("{}cat {file}", inside.unwrap_or_default());
        Ok(lab.shell(self.node, &line)?.trim().parse()?)
    }
}

/// The sender fills a way when it sends this many times what arrives.
const FILLED: f64 = 1.1;

/// Measures all ways in turn, so that whatever else the machine does hits them all.
pub(in crate::bench) fn measure(lab: &mut Lab, runs: usize) -> Result<Section> {
    let steps = Progress::on_stderr();
    let title = "The director against IPVS made by hand";
    steps.say(title);
    let nodes = lab.node_names();
    // Nodes share processors here: the director's own is the one that most others do not use.
    let owner = nodes.get(1).context("three nodes are needed")?.clone();
    let backends: Vec<String> = nodes.iter().filter(|n| **n != owner).cloned().collect();
    let outcome = (|| -> Result<_> {
        let vip = steps.step("Service with pods on the other nodes", || {
            let made = service(lab, NAME, TrafficPolicy::Local, &backends, &[ADDRESS])?;
            pin(lab, made.address, &owner)?;
            wait_served(lab, SocketAddr::new(made.address, PORT))?;
            Ok(made)
        })?;
        let by_hand = steps.step("the same IPVS service by hand", || {
            build(lab, &owner, vip.address)?;
            let target = SocketAddr::new(ADDRESS.parse()?, PORT);
            wait_served(lab, target)?;
            Ok(target)
        })?;
        let announced = steps.step("a Service in mode Announce", || {
            announced(lab, &backends, &owner)
        })?;
        let ours = SocketAddr::new(vip.address, PORT);
        let leaves = |netns, link| {
            let which = "tx_packets";
            let (node, netns) = (owner.as_str(), Some(netns));
            vec![Counter {
                node,
                netns,
                link,
                which,
            }]
        };
        let of_ours = leaves(director::NETNS, "ls-dir");
        let of_hand = leaves(NETNS, LINK);
        // There the node's own link has the answers, too.
        let arrives = |node| Counter {
            node,
            netns: None,
            link: "eth0",
            which: "rx_packets",
        };
        let names = backends.iter().map(String::as_str);
        let of_announced: Vec<Counter> = names.map(arrives).collect();
        let mut figures = Vec::new();
        for run in 1..=runs {
            figures.push(steps.step(&format!("run {run} of {runs}"), || {
                // Each is the first as often: what one leaves behind, the other finds.
                let (director, by_hand) = if run % 2 == 1 {
                    let director = one(lab, &of_ours, ours)?;
                    (director, one(lab, &of_hand, by_hand)?)
                } else {
                    let by_hand = one(lab, &of_hand, by_hand)?;
                    (one(lab, &of_ours, ours)?, by_hand)
                };
                let announce = one(lab, &of_announced, announced)?;
                Ok(Run {
                    director,
                    by_hand,
                    announce,
                })
            })?);
        }
        Ok(figures)
    })();
    lab.shell(
        &owner,
        &format!("ip netns delete {NETNS} 2>/dev/null; true"),
    )?;
    delete(lab, NAME)?;
    delete(lab, ANNOUNCED)?;
    let words = ["delete", "l2announcement", "--ignore-not-found"];
    lab.kubectl(&[&words[..], &POLICIES].concat())?;
    Ok(Section {
        id: "director-by-hand".to_owned(),
        title: title.to_owned(),
        command: "cargo xtask bench director".to_owned(),
        text: text(&outcome?),
    })
}

fn pin(lab: &Lab, address: IpAddr, node: &str) -> Result<()> {
    vip::annotate(lab, address, &format!("lightship.dev/pin-to={node}"))?;
    let limit = Duration::from_secs(20);
    vip::wait(lab, address, "is at the pinned node", limit, |vip| {
        vip.ready && vip.owner.as_deref() == Some(node)
    })?;
    Ok(())
}

/// A Service in mode `Announce` at a node: its kube-proxy sends to the pods on all nodes. (With the
/// policy Local only the node's own would work.)
fn announced(lab: &Lab, nodes: &[String], node: &str) -> Result<SocketAddr> {
    let selects = |operator| {
        json!([{ "matchExpressions": [
        { "key": "bench", "operator": operator, "values": ["announce"] },
    ] }])
    };
    let policy = |name, mode, operator| {
        json!({
            "apiVersion": "lightship.dev/v1beta1",
            "kind": "L2Announcement",
            "metadata": { "name": name },
            "spec": { "forwardingMode": mode, "serviceSelectors": selects(operator) },
        })
    };
    let both = [
        policy(POLICIES[0], "Announce", "In"),
        policy(POLICIES[1], "Auto", "NotIn"),
    ];
    lab.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": both }).to_string())?;
    let made = service(lab, ANNOUNCED, TrafficPolicy::Cluster, nodes, &[])?;
    lab.kubectl(&["label", "service", ANNOUNCED, "bench=announce"])?;
    let limit = Duration::from_secs(20);
    vip::wait(lab, made.address, "is Announce", limit, |vip| {
        vip.mode == "Announce"
    })?;
    pin(lab, made.address, node)?;
    let target = SocketAddr::new(made.address, PORT);
    wait_served(lab, target)?;
    Ok(target)
}

/// A namespace with a macvlan that has the address, and the director's own services under it,
/// as an administrator would make them with `ip` and `ipvsadm`.
fn build(lab: &Lab, node: &str, vip: IpAddr) -> Result<()> {
    let rules = director::run(lab, node, &["ipvsadm", "-Sn"])?;
    let ours = format!("{vip}:");
    let theirs = format!("{ADDRESS}:");
    let rules: String = rules
        .lines()
        .filter(|line| line.contains(&ours))
        .map(|line| format!("{}\n", line.replace(&ours, &theirs)))
        .collect();
    let line = format!(
        "set -e; ip netns delete {NETNS} 2>/dev/null || true; ip netns add {NETNS}; \
         ip link add {LINK} link eth0 netns {NETNS} type macvlan mode bridge; \
         in='ip netns exec {NETNS}'; $in ip link set lo up; \
         $in sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{LINK}.rp_filter=0 \
         net.ipv4.vs.sloppy_tcp=1; \
         $in ip address add {ADDRESS}/24 dev {LINK}; $in ip link set {LINK} up; \
         printf '%s' '{rules}' | $in ipvsadm -R"
    );
    lab.shell(node, &line).map(drop)
}

/// New connections to the end of their first answer, then datagrams without end.
fn one(lab: &Lab, counters: &[Counter], target: SocketAddr) -> Result<Figures> {
    let words = ["--workers", "32", "--warm-up", "1s", "--duration", "4s"];
    let flows = load(lab, target, &words)?.done_per_second();
    let packets = || -> Result<f64> { counters.iter().map(|counter| counter.read(lab)).sum() };
    let before = packets()?;
    let target = target.to_string();
    let words = ["flood", "--target", &target, "--duration", "4s"];
    let sent: Sent = probe(lab, &words)?;
    Ok(Figures {
        flows,
        forwarded: (packets()? - before) / sent.seconds,
        offered: sent.datagrams / sent.seconds,
    })
}

fn text(runs: &[Run]) -> String {
    let of_hand = |way: fn(&Run) -> &Figures, of: fn(&Figures) -> f64| {
        let ratios = runs.iter().map(|run| of(way(run)) / of(&run.by_hand));
        median(&ratios.collect::<Vec<f64>>()).unwrap_or(f64::NAN)
    };
    let director: fn(&Run) -> &Figures = |run| &run.director;
    let announce: fn(&Run) -> &Figures = |run| &run.announce;
    let filled = runs
        .iter()
        .flat_map(|run| [run.director, run.by_hand])
        .map(|figures| figures.offered / figures.forwarded)
        .fold(f64::INFINITY, f64::min);
    let least = Limit::AtLeast(0.95);
    let flows = of_hand(director, |f| f.flows);
    let datagrams = of_hand(director, |f| f.forwarded);
    let judged = [
        Judged::new("new connections, of by hand", flows, "×", least),
        Judged::new("datagrams, of by hand", datagrams, "×", least),
        Judged::new(
            "datagrams sent, of those forwarded, least of all runs",
            filled,
            "×",
            Limit::AtLeast(FILLED),
        ),
    ];
    let rows: Vec<Vec<String>> = runs
        .iter()
        .enumerate()
        .map(|(index, run)| {
            let ways = [&run.director, &run.by_hand, &run.announce];
            let cells = |of: fn(&Figures) -> f64| ways.map(|way| format!("{:.0}", of(way)));
            [
                &[(index + 1).to_string()][..],
                &cells(|f| f.flows),
                &cells(|f| f.forwarded),
                &[cells(|f| f.offered).join(" / ")],
            ]
            .concat()
        })
        .collect();
    format!(
        "In one kernel, in turn, and every other time in the other order: the director of a node, and a namespace with a macvlan and the same \
         services and destinations, made with `ip` and `ipvsadm`. The backends are the two other \
         nodes. New connections: 32 at a time, each with a question and its answer. Datagrams: \
         32 bytes, sent from 64 ports faster than the node takes them; counted is what leaves the \
         director. Beside them a Service of policy Cluster in mode `Announce` at the same node, with the same pods: \
         there all passes kube-proxy's address translation both ways, and the answers, too, leave by this node; \
         counted is what arrives at the two others. It has {:.2} times as many new connections as by hand, \
         and {:.2} times as many datagrams.\n\n{}\n{}",
        of_hand(announce, |f| f.flows),
        of_hand(announce, |f| f.forwarded),
        verdict::lines(&judged),
        table(
            &[
                "run",
                "new connections/s",
                "by hand",
                "Announce",
                "datagrams/s",
                "by hand",
                "Announce",
                "offered/s"
            ],
            &rows
        )
    )
}
