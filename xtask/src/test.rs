//! `cargo xtask test [--tier …]`: the tests, by what they need.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;
use lightship_lab::binaries::{self, checkout};
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

/// Arguments of `cargo test` for tests that have a lab each.
fn labs(names: &[&'static str]) -> Vec<Vec<&'static str>> {
    let run = |name: &&'static str| vec!["-p", "lightship-e2e", "--test", *name];
    names.iter().map(run).collect()
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

    /// Arguments of `cargo test`, for each of its runs.
    fn runs(self) -> Vec<Vec<&'static str>> {
        match self {
            Self::Unit => vec![
                vec!["--workspace", "--exclude", "lightship-e2e"],
                vec!["-p", "lightship-e2e", "--lib"],
            ],
            Self::Api => labs(&["api"]),
            Self::Net => labs(&["net", "without_keys", "with_flags", "on_ipv6"]),
            Self::Datapath => labs(&["datapath", "beside_ipvs", "beside_nftables", "on_vlan"]),
        }
    }

    /// Runs it.
    fn passes(self, rest: &[String]) -> Result<bool> {
        for run in self.runs() {
            let mut command = binaries::cargo();
            command.current_dir(checkout()).arg("test").args(run);
            let status = command
                .arg("--")
                .args(rest)
                .status()
                .context("cannot run cargo")?;
            if !status.success() {
                return Ok(false);
            }
        }
        Ok(true)
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
    // Nothing is said after the last tier: the test programs' own closing lines come last.
    let mut before = String::new();
    for tier in tiers {
        eprintln!("== tier {}{before}", tier.name());
        let start = Instant::now();
        if !tier.passes(&args.rest)? {
            return Ok(ExitCode::FAILURE);
        }
        let seconds = start.elapsed().as_secs();
        before = format!(" ({} passed in {seconds} s)", tier.name());
    }
    Ok(ExitCode::SUCCESS)
}
