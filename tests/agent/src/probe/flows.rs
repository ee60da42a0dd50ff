//! `probe flows`: many connections at once, each asking at an interval, and what became of them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::exchange::{Failure, Line};
use super::stats::{milliseconds, tally};
use super::{Span, Target, emit, interrupted, realtime_ns};

/// Arguments of `probe flows`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Address and port of the service.
    #[arg(long)]
    target: std::net::SocketAddr,
    /// SCTP associations instead of TCP connections.
    #[arg(long)]
    sctp: bool,
    /// How many connections.
    #[arg(long, default_value_t = 200)]
    count: usize,
    /// How long they are kept after all of them are open.
    #[arg(long, default_value = "20s")]
    duration: Span,
    /// Time between two questions on a connection.
    #[arg(long, default_value = "100ms")]
    interval: Span,
    /// After how long without an answer a connection counts as dead.
    #[arg(long, default_value = "8s")]
    timeout: Span,
    /// Print each flow as a JSON line, too.
    #[arg(long)]
    records: bool,
    /// Print the summary for people.
    #[arg(long)]
    text: bool,
}

/// What became of one connection.
#[derive(Clone, Debug, Serialize)]
struct Flow {
    /// The node that answered first; `None` when it never opened.
    node: Option<String>,
    /// Whether a later answer came from another node than the first: must never be.
    changed_node: bool,
    /// Answers received.
    answers: u64,
    /// Longest time between two answers, ns.
    longest_gap_ns: u64,
    /// When the last answer before the longest gap came (CLOCK_REALTIME, ns).
    longest_gap_from_ns: u64,
    /// Why it ended early; `None`: it was kept until the end.
    error: Option<Failure>,
    /// When it ended early (CLOCK_REALTIME, ns).
    ended_ns: Option<u64>,
    /// How long before that its last answer had come, ns.
    silent_ns: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Summary {
    flows: usize,
    opened: usize,
    /// Opened flows that lived to the end.
    kept: usize,
    /// Opened flows by node.
    nodes: std::collections::BTreeMap<String, usize>,
    /// Kept flows by node.
    kept_nodes: std::collections::BTreeMap<String, usize>,
    /// Flows that ended early, by `node: error`.
    lost: std::collections::BTreeMap<String, usize>,
    /// Flows whose answers came from more than one node.
    changed_node: usize,
    /// Longest time between two answers on any kept flow, ms.
    longest_gap_ms: f64,
    /// How long the flows that ended early had been silent: longest, ms.
    longest_silence_before_end_ms: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
enum Event<'a> {
    /// All flows that can be are open: now is the time to break something.
    AllOpen {
        at_ns: u64,
        opened: usize,
        nodes: std::collections::BTreeMap<String, usize>,
    },
    /// A flow ended early.
    Lost {
        at_ns: u64,
        node: &'a str,
        error: Failure,
    },
    Flow(&'a Flow),
    Summary(&'a Summary),
}

/// A flow's word to the collector while it runs.
enum News {
    Opened(Option<String>),
    Lost(String, Failure),
}

/// Runs the flows; always exit code 0: it is for the caller to judge the figures.
pub(super) async fn run(args: &Args) -> Result<ExitCode> {
    let (stop, stopped) = watch::channel(false);
    let (news, mut inbox) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for _ in 0..args.count {
        tasks.spawn(flow(args.clone(), news.clone(), stopped.clone()));
    }
    drop(news);

    let mut nodes = Vec::new();
    let mut waiting = args.count;
    let mut end = None;
    let interrupt = interrupted();
    tokio::pin!(interrupt);
    loop {
        if waiting == 0 && end.is_none() {
            end = Some(tokio::time::Instant::now() + args.duration.0);
            if !args.text {
                emit(&Event::AllOpen {
                    at_ns: realtime_ns(),
                    opened: nodes.len(),
                    nodes: tally(nodes.iter()),
                })?;
            }
        }
        let deadline =
            end.unwrap_or_else(|| tokio::time::Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            () = &mut interrupt => break,
            () = tokio::time::sleep_until(deadline) => break,
            word = inbox.recv() => match word {
                Some(News::Opened(node)) => {
                    waiting -= 1;
                    nodes.extend(node);
                }
                Some(News::Lost(node, error)) => if !args.text {
                    emit(&Event::Lost { at_ns: realtime_ns(), node: &node, error })?;
                },
                None => break,
            }
        }
    }
    let _ = stop.send(true);
    let flows = tasks.join_all().await;
    if args.records {
        for flow in &flows {
            emit(&Event::Flow(flow))?;
        }
    }
    let summary = summarize(&flows);
    if args.text {
        print_text(&summary);
    } else {
        emit(&Event::Summary(&summary))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One connection's life.
async fn flow(
    args: Args,
    news: mpsc::UnboundedSender<News>,
    mut stopped: watch::Receiver<bool>,
) -> Flow {
    let mut flow = Flow {
        node: None,
        changed_node: false,
        answers: 0,
        longest_gap_ns: 0,
        longest_gap_from_ns: 0,
        error: None,
        ended_ns: None,
        silent_ns: None,
    };
    let opened = tokio::time::timeout(args.timeout.0, async {
        let target = Target {
            target: args.target,
            udp: false,
            sctp: args.sctp,
            from_port: None,
        };
        let mut line = Line::open(target).await?;
        let identity = line.ask().await?;
        std::io::Result::Ok((line, identity))
    });
    let mut line = match opened.await {
        Ok(Ok((line, identity))) => {
            flow.node = Some(identity.node.clone());
            flow.answers = 1;
            let _ = news.send(News::Opened(Some(identity.node)));
            line
        }
        failed => {
            flow.error = Some(match failed {
                Ok(Err(error)) => Failure::from(&error),
                _ => Failure::Timeout,
            });
            flow.ended_ns = Some(realtime_ns());
            let _ = news.send(News::Opened(None));
            return flow;
        }
    };
    let mut last = (Instant::now(), realtime_ns());
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return flow,
            () = tokio::time::sleep(args.interval.0) => {}
        }
        // Not cut short by the end: a flow that is silent at the end is judged by its time-out.
        let failure = match tokio::time::timeout(args.timeout.0, line.ask()).await {
            Ok(Ok(identity)) => {
                flow.answers += 1;
                flow.changed_node |= flow.node.as_ref() != Some(&identity.node);
                let gap = nanoseconds(last.0.elapsed());
                if gap > flow.longest_gap_ns {
                    flow.longest_gap_ns = gap;
                    flow.longest_gap_from_ns = last.1;
                }
                last = (Instant::now(), realtime_ns());
                continue;
            }
            Ok(Err(error)) => Failure::from(&error),
            Err(_) => Failure::Timeout,
        };
        flow.error = Some(failure);
        flow.ended_ns = Some(realtime_ns());
        flow.silent_ns = Some(nanoseconds(last.0.elapsed()));
        let node = flow.node.clone().unwrap_or_default();
        let _ = news.send(News::Lost(node, failure));
        return flow;
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn summarize(flows: &[Flow]) -> Summary {
    let opened = || flows.iter().filter(|flow| flow.node.is_some());
    let kept = || opened().filter(|flow| flow.error.is_none());
    let name = |flow: &Flow| flow.node.clone().unwrap_or_else(|| "none".into());
    Summary {
        flows: flows.len(),
        opened: opened().count(),
        kept: kept().count(),
        nodes: tally(opened().map(name)),
        kept_nodes: tally(kept().map(name)),
        lost: tally(flows.iter().filter_map(|flow| {
            let error = flow.error?;
            Some(format!("{}: {error}", name(flow)))
        })),
        changed_node: flows.iter().filter(|flow| flow.changed_node).count(),
        longest_gap_ms: kept()
            .map(|flow| milliseconds(flow.longest_gap_ns))
            .fold(0.0, f64::max),
        longest_silence_before_end_ms: flows
            .iter()
            .filter_map(|flow| flow.silent_ns.map(milliseconds))
            .fold(0.0, f64::max),
    }
}

fn print_text(summary: &Summary) {
    println!(
        "{} flows, {} opened {:?}, {} kept {:?}",
        summary.flows, summary.opened, summary.nodes, summary.kept, summary.kept_nodes
    );
    println!("lost: {:?}", summary.lost);
    println!(
        "longest gap on a kept flow: {:.0} ms",
        summary.longest_gap_ms
    );
}

#[cfg(test)]
mod tests;
