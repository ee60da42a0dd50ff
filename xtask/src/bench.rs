//! `cargo xtask bench`: what failover, moves and new Services cost, in figures.

mod controller;
mod crashes;
mod director;
mod early;
mod failover;
mod latency;
mod moves;
mod programming;
mod report;
mod scale;
mod verdict;

use std::process::ExitCode;

use crate::substrate::Substrate;
use anyhow::{Result, bail};
use lightship_e2e::scene;
use lightship_lab::Lab;
use lightship_lab::addressing::Families;
use lightship_lab::options::{Options, SubstrateKind};
use lightship_lab::progress::{self, Progress};

use report::Section;

/// A new Service is measured among so many others, too.
const OTHERS: usize = 1000;

/// The fast profile of docs/failover.md.
const FAST: &[&str] = &["--heartbeat-interval", "40"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What is measured.
    #[arg(default_value = "all")]
    what: What,
    /// How often. Default: 30 for crashes, 10 for latency, 3 for early, 5 for the others.
    #[arg(long)]
    runs: Option<usize>,
    /// What nodes are made of. Default: what this machine's kernel can do; `latency`, `crashes`,
    /// `failover` and `all` measure on namespaces, too.
    #[arg(long, default_value = "auto")]
    substrate: Substrate,
    /// With `controller`: numbers of Services. Default: 100,1000,10000.
    #[arg(long, value_name = "N,N…")]
    services: Option<String>,
    /// With `scale`: nodes in all, the real one included.
    #[arg(long, default_value_t = scale::NODES, value_parser = clap::value_parser!(u16).range(2..=1000))]
    nodes: u16,
    /// With `scale` and `programming`: VIPs.
    #[arg(long, default_value_t = 1000)]
    vips: usize,
    /// With `scale`: how long it is measured, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Print the figures, but leave docs/performance.md as it is.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The crash of the announcing node, policy Local: what becomes of connections, and `crashes`.
    Failover,
    /// Many crashes of the announcing node, with the default settings and with the fast profile.
    Crashes,
    /// The same with policy Cluster, until Kubernetes has noticed, too.
    Cluster,
    /// The same for a minute, with the early word of a dead node and without.
    Early,
    /// From a new Service to the first reply.
    Latency,
    /// Speakers that end, orderly or not.
    Move,
    /// Speed of the director: over several capped uplinks, against IPVS by hand, and `programming`.
    Director,
    /// How fast a director's table is made and changed, and what it costs: 1,000 VIPs with two ports over 100 nodes.
    Programming,
    /// One real speaker among 499 nodes that are not there and 1,000 VIPs: processor, packets, memory.
    Scale,
    /// Many Services at once, one among many, a restart, memory; needs no nodes.
    Controller,
    /// All of it.
    All,
}

impl Args {
    fn wants(&self, what: What) -> bool {
        self.what == What::All || self.what == what
    }

    fn runs(&self, default: usize) -> usize {
        self.runs.unwrap_or(default).max(1)
    }

    fn wants_crashes(&self) -> bool {
        self.wants(What::Crashes) || self.what == What::Failover
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.wants(What::Controller) {
        controller::run(args.services.as_deref(), args.dry_run)?;
    }
    if args.what == What::Controller {
        return Ok(ExitCode::SUCCESS);
    }
    let size = scale::Size {
        nodes: args.nodes,
        vips: args.vips,
        seconds: args.seconds,
    };
    progress::watch_signals()?;
    if Lab::open().is_ok() {
        bail!("a lab is up, and others may use it: `cargo xtask lab down` ends it");
    }
    let substrate = args.substrate.kind();
    if args.wants(What::Scale) {
        // What the speaker does for its peers is the same on all nodes, and these are light.
        let netns = Some(SubstrateKind::Netns);
        let one = Options::resolve(1, netns, None, Families::Ipv6, true)?;
        on_lab(&one.with_released_programs(), args, |lab, sections| {
            sections.push(scale::measure(lab, &size)?);
            Ok(())
        })?;
    }
    if args.what == What::Scale {
        return Ok(ExitCode::SUCCESS);
    }
    if args.wants(What::Programming) || args.what == What::Director {
        // A kernel with IPVS, whatever this machine's has.
        let one = Options::resolve(1, substrate, None, Families::Ipv6, true)?;
        on_lab(&one.with_released_programs(), args, |lab, sections| {
            sections.push(programming::measure(lab, args.vips)?);
            Ok(())
        })?;
    }
    if args.what == What::Programming {
        return Ok(ExitCode::SUCCESS);
    }
    let options = |kind| {
        let options = Options::resolve(3, kind, None, Families::Dual, true)?;
        Ok::<_, anyhow::Error>(options.with_released_programs())
    };
    let main = options(substrate)?;
    on_lab(&main, args, |lab, sections| {
        if args.wants(What::Latency) && main.substrate == SubstrateKind::Uml {
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
        if args.wants_crashes() {
            sections.push(crashes::measure(lab, "default", args.runs(30))?);
        }
        if args.wants(What::Early) {
            sections.push(early::measure(lab, args.runs(3))?);
        }
        // Last, because the other Services stay.
        if args.wants(What::Latency) && main.substrate == SubstrateKind::Netns {
            sections.extend(latency::measure_among(lab, args.runs(10), OTHERS)?);
        }
        Ok(())
    })?;
    let netns = options(Some(SubstrateKind::Netns))?;
    let other = substrate.is_none() && main != netns;
    if other && (args.wants(What::Latency) || args.wants_crashes()) {
        on_lab(&netns, args, |lab, sections| {
            if args.wants_crashes() {
                sections.push(crashes::measure(lab, "default", args.runs(30))?);
            }
            if args.wants(What::Latency) {
                sections.extend(latency::measure_among(lab, args.runs(10), OTHERS)?);
            }
            Ok(())
        })?;
    }
    if args.wants_crashes() {
        let fast = if substrate.is_some() { main } else { netns };
        on_lab(&fast.with_speaker_flags(FAST), args, |lab, sections| {
            sections.push(crashes::measure(lab, "fast", args.runs(30))?);
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
