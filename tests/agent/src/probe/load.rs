//! `probe load` and `probe flood`: as much as the service gives.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::UdpGsoSegment;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::exchange::{Failure, ask};
use super::{Span, Target, emit};

/// Arguments of `probe load`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Address and port of the service.
    #[arg(long)]
    target: SocketAddr,
    /// So many connections at a time; each that ends is followed by a new one.
    #[arg(long, default_value_t = 32)]
    workers: usize,
    /// How long is counted.
    #[arg(long, default_value = "10s")]
    duration: Span,
    /// How long it runs before that.
    #[arg(long, default_value = "2s")]
    warm_up: Span,
    /// Bytes to download on each connection; 0: one short question.
    #[arg(long, default_value_t = 0)]
    bytes: u64,
    /// After how long without any byte a connection has failed.
    #[arg(long, default_value = "5s")]
    timeout: Span,
}

/// Arguments of `probe flood`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FloodArgs {
    /// Address and port of the service.
    #[arg(long)]
    target: SocketAddr,
    /// How long.
    #[arg(long, default_value = "5s")]
    duration: Span,
    /// Source ports in turn.
    #[arg(long, default_value_t = 64)]
    ports: usize,
    /// Bytes of each datagram.
    #[arg(long, default_value_t = 32)]
    size: usize,
    /// So many datagrams go to the kernel at once, which makes single ones of them as late as it can
    /// (`UDP_SEGMENT`, at most 64): else the sender is slower than what it is to fill.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=64))]
    burst: u16,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Counts {
    /// Connections that ended well.
    done: u64,
    /// By kind of failure.
    failures: BTreeMap<Failure, u64>,
    /// Bytes received, also on connections that have not ended.
    bytes: u64,
    /// Answers by node; downloads do not tell.
    nodes: BTreeMap<String, u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase", tag = "event")]
enum Event {
    Summary {
        seconds: f64,
        #[serde(flatten)]
        counts: Counts,
    },
    Sent {
        seconds: f64,
        datagrams: u64,
    },
}

/// Runs the load; always exit code 0: it is for the caller to judge the figures.
pub(super) async fn run(args: &Args) -> Result<ExitCode> {
    let counts = Arc::new(Mutex::new(Counts::default()));
    let mut workers = JoinSet::new();
    for _ in 0..args.workers {
        let (args, counts) = (args.clone(), Arc::clone(&counts));
        workers.spawn(async move {
            loop {
                one(&args, &counts).await;
            }
        });
    }
    tokio::time::sleep(args.warm_up.0).await;
    let begun = Instant::now();
    *counts.lock().unwrap_or_else(PoisonError::into_inner) = Counts::default();
    tokio::time::sleep(args.duration.0).await;
    let seconds = begun.elapsed().as_secs_f64();
    let counts = counts
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    emit(&Event::Summary { seconds, counts })?;
    Ok(ExitCode::SUCCESS)
}

async fn one(args: &Args, counts: &Mutex<Counts>) {
    let count = |change: &dyn Fn(&mut Counts)| {
        change(&mut counts.lock().unwrap_or_else(PoisonError::into_inner));
    };
    let outcome = if args.bytes == 0 {
        let target = Target {
            target: args.target,
            udp: false,
            sctp: false,
            from_port: None,
        };
        ask(target, args.timeout.0).await.map(|identity| {
            count(&|c| *c.nodes.entry(identity.node.clone()).or_default() += 1);
        })
    } else {
        let each = |n: u64| count(&|c| c.bytes += n);
        download(args, each).await.map_err(|e| Failure::from(&e))
    };
    match outcome {
        Ok(()) => count(&|c| c.done += 1),
        Err(failure) => {
            count(&|c| *c.failures.entry(failure).or_default() += 1);
            // A service that refuses at once is not to be flooded.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn download(args: &Args, each: impl Fn(u64)) -> io::Result<()> {
    let limit = args.timeout.0;
    let connect = tokio::time::timeout(limit, TcpStream::connect(args.target));
    let mut stream = connect.await??;
    let ask = format!(
        "GET /bytes/{} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n",
        args.bytes
    );
    stream.write_all(ask.as_bytes()).await?;
    let mut buffer = vec![0; 64 << 10];
    let mut all = 0;
    loop {
        let length = tokio::time::timeout(limit, stream.read(&mut buffer)).await?? as u64;
        if length == 0 {
            break;
        }
        all += length;
        each(length);
    }
    // The head comes on top.
    if all < args.bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Sends datagrams as fast as the client's kernel takes them, and heeds no answer.
pub(super) fn flood(args: &FloodArgs) -> Result<ExitCode> {
    let any: SocketAddr = match args.target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let sockets = (0..args.ports.max(1))
        .map(|_| {
            let socket = UdpSocket::bind(any)?;
            socket.connect(args.target)?;
            setsockopt(
                &socket,
                UdpGsoSegment,
                &i32::try_from(args.size).unwrap_or(i32::MAX),
            )?;
            Ok(socket)
        })
        .collect::<io::Result<Vec<_>>>()
        .context("cannot open sockets")?;
    let payload = vec![b'?'; args.size * usize::from(args.burst)];
    // What a UDP datagram has room for in IPv4.
    ensure!(
        payload.len() <= 65_507,
        "--size times --burst is more than 65507"
    );
    let begun = Instant::now();
    let mut bursts = 0;
    while begun.elapsed() < args.duration.0 {
        for socket in &sockets {
            // Full queues and ICMP errors of former datagrams are no failure here.
            bursts += u64::from(socket.send(&payload).is_ok());
        }
    }
    let datagrams = bursts * u64::from(args.burst);
    emit(&Event::Sent {
        seconds: begun.elapsed().as_secs_f64(),
        datagrams,
    })?;
    Ok(ExitCode::SUCCESS)
}
