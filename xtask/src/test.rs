//! `cargo xtask test [--tier …]`: the tests, by what they need.

use std::env;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;
use lightship_lab::binaries::checkout;
use lightship_lab::deps;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this tier; may be repeated. Default: all, the cheap ones first.
    #[arg(long)]
    tier: Vec<Tier>,
    /// Passed on to the test programs, for instance a test's name.
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tier {
    /// Pure code, properties and simulation; needs nothing.
    Unit,
    /// Controller and CRDs against a real API server; needs root.
    Api,
    /// Announcing, membership and failover on namespaces; needs root.
    Net,
    /// The director, on nodes with kernels that have IPVS; needs root.
    Datapath,
}

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Api => "api",
            Self::Net => "net",
            Self::Datapath => "datapath",
        }
    }

    /// Arguments of `cargo test`.
    fn cargo(self) -> Vec<&'static str> {
        match self {
            // xtask itself is running; its tests would replace it.
            Self::Unit => vec![
                "test",
                "--workspace",
                "--exclude",
                "lightship-e2e",
                "--exclude",
                "xtask",
            ],
            Self::Api | Self::Net | Self::Datapath => {
                vec!["test", "-p", "lightship-e2e", "--test", self.name()]
            }
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let tiers = if args.tier.is_empty() {
        vec![Tier::Unit, Tier::Api, Tier::Net, Tier::Datapath]
    } else {
        args.tier.clone()
    };
    if tiers.iter().any(|tier| *tier != Tier::Unit) {
        deps::require_root()?;
    }
    let mut outcomes = Vec::new();
    for tier in tiers {
        eprintln!("== tier {}", tier.name());
        let start = Instant::now();
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(checkout()).args(tier.cargo()).arg("--");
        if tier != Tier::Unit {
            // There is one lab on a machine, and the tests of a tier share it.
            command.args(["--test-threads=1", "--nocapture"]);
        }
        let passed = command
            .args(&args.rest)
            .status()
            .context("cannot run cargo")?
            .success();
        outcomes.push((tier, passed, start.elapsed().as_secs()));
        if !passed {
            break;
        }
    }
    eprintln!();
    for (tier, passed, seconds) in &outcomes {
        let outcome = if *passed { "passed" } else { "FAILED" };
        eprintln!("tier {:<9} {outcome} in {seconds} s", tier.name());
    }
    Ok(if outcomes.iter().all(|(_, passed, _)| *passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
