//! `cargo run -p lightship-sim -- run --seeds 100000`: many schedules; `replay SEED`: one, told;
//! `takeover` and `loss`: figures.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use lightship_membership::Config;
use lightship_sim::world::Setup;
use lightship_sim::{measure, ms, schedule};

/// Simulates membership and election under faults.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many random schedules and stops at the first that fails.
    Run {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        first: u64,
    },
    /// Crashes owners and prints how long their VIPs had nobody who answers.
    Takeover {
        /// Crashes.
        #[arg(long, default_value_t = 500)]
        seeds: u64,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Lets a healthy cluster run and prints how often a speaker was given up wrongly.
    Loss {
        /// Virtual time in minutes.
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        /// Decides all chance.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Runs one schedule and prints its timeline.
    Replay {
        /// Its number.
        seed: u64,
    },
}

#[derive(Args)]
struct Cluster {
    /// Nodes.
    #[arg(long, default_value_t = 10)]
    nodes: usize,
    /// VIPs.
    #[arg(long, default_value_t = 20)]
    vips: usize,
    /// Frames lost at random, in 1,000.
    #[arg(long, default_value_t = 0)]
    loss: u32,
    /// Heartbeat interval in ms.
    #[arg(long, default_value_t = 100)]
    interval: u64,
    /// Intervals of silence that make a speaker gone.
    #[arg(long, default_value_t = 4)]
    misses: u32,
    /// Silence after which a node is probed, in ms.
    #[arg(long)]
    probe_after: Option<u64>,
    /// Time between two probes of a late node in ms.
    #[arg(long)]
    probe_interval: Option<u64>,
    /// Probe the kernel only: the late speaker is not asked for a heartbeat.
    #[arg(long)]
    no_solicit: bool,
}

impl Cluster {
    fn setup(&self, seed: u64) -> Setup {
        let mut setup = Setup {
            seed,
            nodes: self.nodes,
            vips: self.vips,
            ..Setup::default()
        };
        setup.quality.loss = self.loss;
        setup.solicit = !self.no_solicit;
        setup.config = Config::new(ms(self.interval), self.misses);
        if let Some(after) = self.probe_after {
            setup.config.probe_after = ms(after);
        }
        if let Some(interval) = self.probe_interval {
            setup.config.probe_interval = ms(interval);
        }
        setup
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run { seeds, first } => {
            schedule::run_all(first..first + seeds).map(|()| format!("{seeds} schedules held"))
        }
        Command::Takeover { seeds, cluster } => {
            Ok(measure::takeovers(&cluster.setup(0), 0..seeds).to_string())
        }
        Command::Loss {
            minutes,
            seed,
            cluster,
        } => {
            let time = ms(minutes * 60_000);
            Ok(format!(
                "{:?}",
                measure::under_loss(&cluster.setup(seed), time)
            ))
        }
        Command::Replay { seed } => {
            let timeline = schedule::tell(seed).watch.timeline();
            println!("{timeline}");
            schedule::run(seed).map(|()| "all held".to_owned())
        }
    };
    match outcome {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
