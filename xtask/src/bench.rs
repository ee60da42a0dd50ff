//! `cargo xtask bench`: what failover, moves and new Services cost, in figures.

mod controller;
mod director;
mod early;
mod failover;
mod latency;
mod moves;
mod report;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lightship_e2e::scene;
use lightship_lab::Lab;
use lightship_lab::addressing::Families;
use lightship_lab::options::{Options, SubstrateKind};
use lightship_lab::progress::{self, Progress};

use report::Section;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What is measured.
    #[arg(default_value = "all")]
    what: What,
    /// How often. Default: 10 for latency, 3 for early, 5 for the others.
    #[arg(long)]
    runs: Option<usize>,
    /// What nodes are made of. Default: what this machine's kernel can do; `latency` and
    /// `all` measure new Services on namespaces, too.
    #[arg(long)]
    substrate: Option<Substrate>,
    /// With `controller`: numbers of Services. Default: 100,1000,10000.
    #[arg(long, value_name = "N,N…")]
    services: Option<String>,
    /// Print the figures, but leave docs/performance.md as it is.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The crash of the announcing node, policy Local.
    Failover,
    /// The same with policy Cluster, until Kubernetes has noticed, too.
    Cluster,
    /// The same for a minute, with the early word of a dead node and without.
    Early,
    /// From a new Service to the first reply.
    Latency,
    /// Speakers that end, orderly or not.
    Move,
    /// Speed of the director: against IPVS by hand, and over several capped uplinks.
    Director,
    /// Many Services at once, one among many, a restart, memory; needs no nodes.
    Controller,
    /// All of it.
    All,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Substrate {
    Netns,
    Uml,
}

impl Args {
    fn wants(&self, what: What) -> bool {
        self.what == What::All || self.what == what
    }

    fn runs(&self, default: usize) -> usize {
        self.runs.unwrap_or(default).max(1)
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.wants(What::Controller) {
        controller::run(args.services.as_deref(), args.dry_run)?;
    }
    if args.what == What::Controller {
        return Ok(ExitCode::SUCCESS);
    }
    progress::watch_signals()?;
    if Lab::open().is_ok() {
        bail!("a lab is up, and others may use it: `cargo xtask lab down` ends it");
    }
    let substrate = args.substrate.map(|substrate| match substrate {
        Substrate::Netns => SubstrateKind::Netns,
        Substrate::Uml => SubstrateKind::Uml,
    });
    let options = |kind| Options::resolve(3, kind, None, Families::Dual, true);
    let main = options(substrate)?;
    on_lab(&main, args, |lab, sections| {
        if args.wants(What::Latency) {
            sections.push(latency::measure(lab, args.runs(10))?);
        }
        if args.wants(What::Move) {
            sections.push(moves::measure(lab, args.runs(5))?);
        }
        if args.wants(What::Director) {
            sections.push(director::egress(lab)?);
            sections.push(director::by_hand(lab, args.runs(5))?);
        }
        for variant in failover::VARIANTS {
            if args.wants(variant.what) {
                sections.push(failover::measure(lab, &variant, args.runs(5))?);
            }
        }
        if args.wants(What::Early) {
            sections.push(early::measure(lab, args.runs(3))?);
        }
        Ok(())
    })?;
    let netns = options(Some(SubstrateKind::Netns))?;
    if args.wants(What::Latency) && substrate.is_none() && main != netns {
        on_lab(&netns, args, |lab, sections| {
            sections.push(latency::measure(lab, args.runs(10))?);
            Ok(())
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures on a lab made for it, and reports also what was measured before a failure.
fn on_lab(
    options: &Options,
    args: &Args,
    measure: impl FnOnce(&mut Lab, &mut Vec<Section>) -> Result<()>,
) -> Result<()> {
    let steps = Progress::on_stderr();
    steps.say(&format!("Lab: {options}"));
    let mut lab = lightship_lab::up(options, steps)?;
    let mut sections = Vec::new();
    let measured = steps
        .step("pool and pods", || scene::prepare(&lab))
        .and_then(|()| measure(&mut lab, &mut sections));
    // What was measured before an interrupt is worth keeping, too.
    progress::forget_interrupt();
    let reported =
        report::place(&lab).and_then(|place| report::publish(&place, &sections, args.dry_run));
    let ended = lightship_lab::down(measured.is_err(), steps);
    measured.and(reported).and(ended)
}
