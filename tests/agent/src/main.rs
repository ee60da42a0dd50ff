//! `lightship-lab-agent`: what runs inside a lab node, inside its pods, and on the
//! lab's client.
//!
//! One program with one subcommand for each role, so that a node needs a single file:
//!
//! | subcommand | runs as | what it does |
//! |---|---|---|
//! | `node` | first process of a node | network, Lease and status, pods, daemons, control socket |
//! | `pod` | the server in each pod | answers with its node, its name and the client it saw |
//! | `ctl` | on the lab's host | runs a command on a node through its control socket |
//! | `probe` | on the client | measures flows, requests and outages |
//! | `flood` | on the client | ARP requests for others, as a busy LAN has them |
//! | `peers` | on the client | heartbeats of many nodes that are not there |
//!
//! The contract of `node` with the lab is [`lightship_lab::agent_config`].

mod control;
mod flood;
mod init;
mod kubelet;
mod node;
mod peers;
mod pod;
mod probe;
mod sctp;
mod supervise;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "lightship-lab-agent", version, about)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Make this machine (or namespace) a node of the lab's cluster.
    Node(node::Args),
    /// Serve as a pod of the lab.
    Pod(pod::Args),
    /// Talk to a node's control socket.
    Ctl(control::client::Args),
    /// Measure a service from the client's side.
    Probe(probe::Args),
    /// Send ARP requests for addresses that nobody here has.
    Flood(flood::Args),
    /// Send the heartbeats of many nodes that are not there.
    Peers(peers::Args),
}

fn main() -> Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match Cli::parse().role {
        Role::Node(args) if init::is_first_process() => init::run(&args),
        Role::Node(args) => node::run(&args),
        Role::Pod(args) => pod::run(&args),
        Role::Ctl(args) => control::client::run(&args),
        Role::Flood(args) => flood::run(&args),
        Role::Peers(args) => peers::run(&args),
        Role::Probe(args) => probe::run(&args),
    }
}
