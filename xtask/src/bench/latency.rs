//! From a new Service to the first reply through its address, step by step.

mod api;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use lightship_e2e::figures::{self, median_ms, table};
use lightship_e2e::probe::{Probe, ms_between};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::{crowd, director, timeline, vip};
use lightship_lab::Lab;
use lightship_lab::options::SubstrateKind;
use lightship_lab::progress::Progress;
use serde_json::json;

use super::report::Section;
use super::verdict::{self, Judged, Limit};

const LIMIT: Duration = Duration::from_secs(90);

/// Milliseconds after the Service was sent.
struct Run {
    address: f64,
    /// On the last of the nodes; none in mode Announce.
    directors: Option<f64>,
    announced: f64,
    first_reply: f64,
    /// The last of the nodes' first replies; none in mode Announce.
    all_reply: Option<f64>,
}

impl Run {
    /// Created to announced and programmed everywhere: what Lightship itself takes.
    fn own(&self) -> f64 {
        self.announced.max(self.directors.unwrap_or(0.0))
    }
}

/// Measures it, and again among so many Services that are there already.
pub(super) fn measure_among(lab: &mut Lab, runs: usize, others: usize) -> Result<[Section; 2]> {
    let alone = measure(lab, runs)?;
    let steps = Progress::on_stderr();
    steps.step(&format!("{others} other Services announced"), || {
        crowd::gather(lab, others, &[80])
    })?;
    let mut among = measure(lab, runs)?;
    among.text = format!(
        "The first reply of the first run waits until kube-proxy has written the rules of all {others}.\n\n{}",
        among.text
    );
    among.id += &format!("-{others}");
    among.title = format!(
        "A new Service among {others}, nodes of kind {}",
        lab.substrate().name()
    );
    Ok([alone, among])
}

/// Measures it.
pub(super) fn measure(lab: &mut Lab, runs: usize) -> Result<Section> {
    let steps = Progress::on_stderr();
    let substrate = lab.substrate().name();
    let title = format!("A new Service, nodes of kind {substrate}");
    steps.say(&title);
    let mut measured = Vec::new();
    for run in 1..=runs {
        let outcome = steps.step(&format!("run {run} of {runs}"), || once(lab, run))?;
        steps.say(&format!(
            "           address {:.0} ms, own part {:.0} ms, first reply {:.0} ms",
            outcome.address,
            outcome.own(),
            outcome.first_reply
        ));
        measured.push(outcome);
    }
    Ok(Section {
        id: format!("latency-{substrate}"),
        title,
        command: "cargo xtask bench latency".to_owned(),
        text: text(&measured, lab.state().options.substrate),
    })
}

fn once(lab: &Lab, run: usize) -> Result<Run> {
    // An address that the client has never asked for.
    let address: IpAddr = format!("192.0.2.{}", scene::fresh_number()).parse()?;
    let name = format!("latency-{run}");
    let mut object = Wish::local(&name).object();
    object["metadata"]["annotations"] = json!({ "lightship.dev/addresses": address });

    let watch = api::Watch::start(lab, &name)?;
    let first = Probe::wait(lab, address)?;
    let mut stream = Probe::stream(lab, address, 20, false)?;
    let created = api::create(lab, &object)?;
    let assigned = watch.address()?;
    let answer = first.first_answer(LIMIT)?;
    let nodes = lab.node_names();
    let vip = vip::wait_settled(lab, address, nodes.len(), LIMIT)?;
    let directs = vip.mode == "DirectRouting";
    if directs {
        scene::wait_served(lab, address, nodes.len())?;
    }
    stream.end::<lightship_e2e::probe::Stream>()?;
    let text = address.to_string();
    let owner = vip.owner.context("the address has no owner")?;
    let words = ["VIP announced", text.as_str()];
    let announced = timeline::wait_line(lab, &owner, created, &words, LIMIT)?;
    let directors = directs
        .then(|| programmed(lab, &nodes, created))
        .transpose()?;
    let all_reply = directs.then(|| last_first_reply(&mut stream)).flatten();
    scene::delete_service(lab, &name)?;
    if directs {
        director::wait_gone(lab, address, LIMIT)?;
    }
    let since = |moment| ms_between(created, moment);
    Ok(Run {
        address: since(assigned),
        directors: directors.map(since),
        announced: since(announced),
        first_reply: since(answer.at_ns),
        all_reply: all_reply.map(since),
    })
}

/// When the last node's director held the address.
fn programmed(lab: &Lab, nodes: &[String], since: u64) -> Result<u64> {
    let words = ["director programmed"];
    let moments = nodes
        .iter()
        .map(|node| timeline::wait_line(lab, node, since, &words, LIMIT))
        .collect::<Result<Vec<u64>>>()?;
    Ok(moments.into_iter().max().unwrap_or(0))
}

/// When the last of the nodes answered for the first time: kube-proxy had its rules everywhere.
fn last_first_reply(stream: &mut Probe) -> Option<u64> {
    let mut first = std::collections::BTreeMap::new();
    for record in stream.events("request") {
        let Some(node) = record["node"].as_str() else {
            continue;
        };
        let at = record["start_ns"].as_u64()? + record["took_ns"].as_u64()?;
        let entry = first.entry(node.to_owned()).or_insert(at);
        *entry = at.min(*entry);
    }
    first.into_values().max()
}

fn text(runs: &[Run], substrate: SubstrateKind) -> String {
    let optional = |value: Option<f64>| value.map_or("-".into(), |ms| format!("{ms:.0}"));
    let mut rows: Vec<Vec<String>> = runs
        .iter()
        .enumerate()
        .map(|(index, run)| {
            vec![
                (index + 1).to_string(),
                format!("{:.0}", run.address),
                optional(run.directors),
                format!("{:.0}", run.announced),
                format!("{:.0}", run.own()),
                format!("{:.0}", run.first_reply),
                optional(run.all_reply),
            ]
        })
        .collect();
    let median = |value: fn(&Run) -> Option<f64>| {
        median_ms(&runs.iter().filter_map(value).collect::<Vec<f64>>())
    };
    let own = median(|run| Some(run.own()));
    let first = median(|run| Some(run.first_reply));
    rows.push(vec![
        "median".into(),
        median(|run| Some(run.address)),
        median(|run| run.directors),
        median(|run| Some(run.announced)),
        own.clone(),
        first.clone(),
        median(|run| run.all_reply),
    ]);
    // On nodes with kernels of their own, those kernels' share of one machine counts, too.
    let announced: Vec<f64> = runs.iter().map(|run| run.announced).collect();
    let what = "created to announced, median";
    let judged = figures::median(&announced)
        .filter(|_| substrate == SubstrateKind::Netns)
        .map(|ms| verdict::lines(&[Judged::new(what, ms, "ms", Limit::AtMost(60.0))]) + "\n")
        .unwrap_or_default();
    format!(
        "Milliseconds after the Service was sent to the API server, for one with a ready pod on \
         every node. **Lightship's own part (announced, and every director programmed): median \
         {own} ms; first reply: median {first} ms.** The rest is kube-proxy, which writes its rules \
         once a second at most; `all nodes reply` is when the last node's kube-proxy had them.\n\n{judged}{}",
        table(
            &[
                "run",
                "address in status",
                "all directors programmed",
                "announced",
                "own part",
                "first reply",
                "all nodes reply"
            ],
            &rows
        )
    )
}
