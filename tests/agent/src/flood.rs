//! `flood`: ARP requests as a busy LAN has them, for addresses that nobody here has.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lightship_frames::{Mac, arp, ndp};
use lightship_netio::{Filter, PacketSocket};
use nix::net::if_::if_nametoindex;

use crate::probe::Span;

/// How often a part of them is sent.
const STEP: Duration = Duration::from_micros(500);

/// Arguments of `flood`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The interface.
    #[arg(long, default_value = "eth0")]
    link: String,
    /// Requests per second.
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// For how long.
    #[arg(long, default_value = "5s")]
    duration: Span,
    /// Who asks; 0.0.0.0 makes them probes (RFC 5227 section 2.1.1).
    #[arg(long, default_value = "198.51.100.1")]
    asker: Ipv4Addr,
    /// The address that is asked for. Default: 250 that nobody here has, in turn.
    #[arg(long)]
    target: Option<Ipv4Addr>,
    /// Instead of requests, announcements of this address, as of a machine that takes it for its own.
    #[arg(long)]
    claim: Option<IpAddr>,
}

impl Args {
    /// The frame that is sent as the one of this number.
    fn frame(&self, number: u64) -> Vec<u8> {
        let mac = Mac([2, 0, 0, 0, 0xf1, 0x0d]);
        match self.claim {
            Some(IpAddr::V4(address)) => arp::gratuitous_reply(mac, address),
            Some(IpAddr::V6(address)) => ndp::unsolicited_na(mac, address, address),
            None => {
                let nobody = Ipv4Addr::new(198, 51, 100, (number % 250) as u8 + 2);
                let target = self.target.unwrap_or(nobody);
                arp::probe_request(mac, self.asker, target, None)
            }
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let sent = runtime.block_on(send(args))?;
    println!("{sent}");
    Ok(ExitCode::SUCCESS)
}

async fn send(args: &Args) -> Result<u64> {
    let index = if_nametoindex(args.link.as_str())
        .with_context(|| format!("no interface {}", args.link))?;
    let socket = PacketSocket::open(index, Filter::Arp)?;
    let start = Instant::now();
    let mut sent = 0;
    loop {
        let passed = start.elapsed();
        if passed >= args.duration.0 {
            return Ok(sent);
        }
        let due = (passed.as_secs_f64() * f64::from(args.rate)) as u64;
        while sent < due {
            // A full queue is a frame less, which the count then shows.
            if socket.try_send(&args.frame(sent)).is_err() {
                break;
            }
            sent += 1;
        }
        std::thread::sleep(STEP);
    }
}
