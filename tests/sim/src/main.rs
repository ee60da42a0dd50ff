//! `cargo run -p lightship-sim -- run --seeds 100000`: many schedules; `replay SEED`: one, told;
//! `takeover`, `loss` and `profiles`: figures.

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
    /// Measures paces of heartbeats: time of a takeover, wrong accusations under loss, frames.
    Profiles {
        /// Paces, in the form INTERVALxMISSES with the interval in ms.
        #[arg(default_value = "70x4", value_parser = pace)]
        paces: Vec<Config>,
        /// Hours of loss, each of another seed.
        #[arg(long, default_value_t = 3)]
        hours: u64,
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
    #[arg(long, default_value_t = 70)]
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

fn pace(text: &str) -> Result<Config, String> {
    let parts = text.split_once('x');
    let parts = parts.and_then(|(i, m)| Some((i.parse().ok()?, m.parse().ok()?)));
    let (interval, misses) = parts.ok_or("a pace such as 70x4 is needed")?;
    let config = Config::new(ms(interval), misses);
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
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
        Command::Profiles { paces, hours } => {
            let measured = paces.into_iter().map(|pace| measure::profile(pace, hours));
            measured.for_each(|profile| println!("{profile}"));
            Ok(String::new())
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
