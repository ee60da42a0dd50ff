//! `cargo run -p lightship-sim -- run --seeds 100000`: many schedules; `run --for 8h`: as many as can be
//! done in that time; `replay SEED`: one, told; `takeover`, `loss` and `profiles`: figures.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use lightship_membership::Config;
use lightship_sim::world::Setup;
use lightship_sim::{measure, ms, schedule};

/// Simulates speakers under faults.
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
        /// For how long instead: 90s, 15m, 8h.
        #[arg(long = "for", value_parser = duration, conflicts_with = "seeds")]
        time: Option<Duration>,
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
    #[arg(long, default_value_t = default_interval())]
    interval: u64,
    /// Intervals of silence that make a speaker gone.
    #[arg(long, default_value_t = Config::default().misses)]
    misses: u32,
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

fn default_interval() -> u64 {
    Config::default().interval.as_millis() as u64
}

/// Reads a time as people write it: a number and `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => 0,
    };
    match number.parse::<u64>() {
        Ok(number) if seconds > 0 => Ok(Duration::from_secs(number * seconds)),
        _ => Err(format!("{text:?} is no time; write 90s, 15m or 8h")),
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run {
            first,
            time: Some(time),
            ..
        } => schedule::run_for(first, time).map(|done| format!("{done} schedules held")),
        Command::Run { seeds, first, .. } => {
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
        Command::Replay { seed } => match schedule::run(seed) {
            // It carries the timeline.
            Err(told) => Err(told),
            Ok(()) => {
                let timeline = schedule::tell(seed).watch.timeline();
                Ok(format!("{timeline}\nseed {seed}: all held"))
            }
        },
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
