//! `probe`: measures a service from the client's side.
//!
//! All times are CLOCK_REALTIME in nanoseconds since 1970, so that a test can set
//! them beside the moment at which it broke something; on one machine (and its
//! User Mode Linux guests) that is one clock. Results are JSON, one object per line: events
//! while it runs, and last a `summary`. `--text` prints the summary for people instead.

mod exchange;
mod flows;
mod load;
mod stats;
mod stream;
mod wait;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

/// Arguments of `probe`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Hold many connections open and see which of them live on.
    Flows(flows::Args),
    /// Open connections one after another, many at a time, and count what comes.
    Load(load::Args),
    /// Send datagrams as fast as it goes.
    Flood(load::FloodArgs),
    /// Open a new connection at a steady pace and see which of them fail.
    Stream(stream::Args),
    /// Ask once and print who answered; exit code 1 when nobody did.
    Once(wait::Args),
    /// Ask until the first answer and print its time.
    Wait(wait::Args),
}

/// What every probe needs to know.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Target {
    /// Address and port of the service: 192.0.2.200:80 or [2001:db8:2::200]:80.
    #[arg(long)]
    target: SocketAddr,
    /// Send datagrams instead of opening connections.
    #[arg(long, conflicts_with = "sctp")]
    udp: bool,
    /// Open SCTP associations instead of TCP connections.
    #[arg(long)]
    sctp: bool,
    /// The client's port, of TCP and UDP; without it the kernel chooses one.
    #[arg(skip)]
    from_port: Option<u16>,
}

/// A span of time on the command line: `20ms`, `15s`, `2m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .ok_or("a unit is missing: ms, s or m")?;
        let number: u64 = text[..digits].parse().map_err(|_| "not a number")?;
        match &text[digits..] {
            "ms" => Ok(Self(Duration::from_millis(number))),
            "s" => Ok(Self(Duration::from_secs(number))),
            "m" => Ok(Self(Duration::from_secs(60 * number))),
            unit => Err(format!("unknown unit {unit}: ms, s or m")),
        }
    }
}

/// Now, in nanoseconds since 1970.
fn realtime_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}

/// Prints one line of JSON.
fn emit(event: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(event)?);
    Ok(())
}

/// Ends on SIGINT or SIGTERM: a probe then sums up what it has so far.
async fn interrupted() {
    let (Ok(mut int), Ok(mut term)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}

/// Runs the probe.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(async {
        match &args.what {
            What::Flows(args) => flows::run(args).await,
            What::Load(args) => load::run(args).await,
            What::Flood(args) => load::flood(args),
            What::Stream(args) => stream::run(args).await,
            What::Once(args) => wait::once(args).await,
            What::Wait(args) => wait::first(args).await,
        }
    });
    // Exchanges that are still on their way are of no interest any more.
    runtime.shutdown_background();
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_need_a_unit() {
        assert_eq!("20ms".parse(), Ok(Span(Duration::from_millis(20))));
        assert_eq!("15s".parse(), Ok(Span(Duration::from_secs(15))));
        assert_eq!("2m".parse(), Ok(Span(Duration::from_secs(120))));
        assert!("20".parse::<Span>().is_err());
        assert!("ms".parse::<Span>().is_err());
        assert!("5h".parse::<Span>().is_err());
    }
}
