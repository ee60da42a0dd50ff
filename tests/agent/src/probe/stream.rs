//! `probe stream`: a new connection at a steady pace, not waiting for the ones before it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use super::exchange::ask;
use super::stats::{Record, Summary, summarize};
use super::{Span, Target, emit, interrupted, realtime_ns};

/// Arguments of `probe stream`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Time between two requests.
    #[arg(long, default_value = "20ms")]
    every: Span,
    /// How long requests are begun.
    #[arg(long, default_value = "15s")]
    duration: Span,
    /// After how long a request has failed.
    #[arg(long, default_value = "1s")]
    timeout: Span,
    /// The client's port of the first request; each next one is made from the port after it.
    #[arg(long, conflicts_with = "sctp")]
    from_port: Option<u16>,
    /// Print each request as a JSON line, too.
    #[arg(long)]
    records: bool,
    /// Print the summary for people.
    #[arg(long)]
    text: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase", tag = "event")]
enum Event<'a> {
    /// The first request is about to be begun.
    Started {
        at_ns: u64,
    },
    Request(&'a Record),
    Summary(&'a Summary),
}

/// Runs the stream; always exit code 0: it is for the caller to judge the figures.
pub(super) async fn run(args: &Args) -> Result<ExitCode> {
    if !args.text {
        emit(&Event::Started {
            at_ns: realtime_ns(),
        })?;
    }
    let records = collect(args).await;
    if args.records {
        for record in &records {
            emit(&Event::Request(record))?;
        }
    }
    let summary = summarize(records);
    if args.text {
        print_text(&summary);
    } else {
        emit(&Event::Summary(&summary))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn collect(args: &Args) -> Vec<Record> {
    let mut requests = Vec::new();
    let mut pace = tokio::time::interval(args.every.0);
    // A late tick is made up for: the number of requests stays what was asked.
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = tokio::time::sleep(args.duration.0);
    tokio::pin!(end);
    let stop = interrupted();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut end => break,
            () = &mut stop => break,
            _ = pace.tick() => {
                let mut target = args.target;
                // One after another: a port that is used again belongs to a connection that is remembered.
                let number = u16::try_from(requests.len()).unwrap_or(u16::MAX);
                target.from_port = args.from_port.map(|first| first.saturating_add(number));
                requests.push(tokio::spawn(request(target, args.timeout.0)));
            }
        }
    }
    let mut records = Vec::with_capacity(requests.len());
    for request in requests {
        records.extend(request.await.ok());
    }
    records
}

async fn request(target: Target, timeout: Duration) -> Record {
    let start_ns = realtime_ns();
    let begun = Instant::now();
    let answer = ask(target, timeout).await;
    let took_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let (identity, error) = match answer {
        Ok(identity) => (Some(identity), None),
        Err(failure) => (None, Some(failure)),
    };
    let client = identity.as_ref().map(|i| i.client.ip().to_string());
    let (node, pod) = identity.map(|i| (i.node, i.pod)).unzip();
    Record {
        start_ns,
        took_ns,
        node,
        pod,
        client,
        error,
    }
}

fn print_text(summary: &Summary) {
    println!(
        "{} requests, {} failed {:?}",
        summary.requests, summary.failures, summary.errors
    );
    println!("answered by {:?}", summary.nodes);
    println!("pods saw as client {:?}", summary.clients);
    if let Some([median, p99, worst]) = summary.latency_ms {
        println!("latency: median {median:.1} ms, 99 % {p99:.1} ms, worst {worst:.1} ms");
    }
    match summary.outage_ms {
        None => println!("an outage did not end"),
        Some(_) if summary.outages.is_empty() => {
            println!("no outage; longest gap {:.0} ms", summary.longest_gap_ms);
        }
        Some(longest) => println!(
            "{} outage(s), longest {longest:.0} ms",
            summary.outages.len()
        ),
    }
}
