//! `cargo run -p lightship-sim -- run --seeds 100000`: many schedules; `replay SEED`: one, told.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lightship_sim::schedule;

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
    /// Runs one schedule and prints its timeline.
    Replay {
        /// Its number.
        seed: u64,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run { seeds, first } => (first..first + seeds)
            .try_for_each(|seed| schedule::run(seed).map(|_| ()))
            .map(|()| format!("{seeds} schedules held")),
        Command::Replay { seed } => schedule::run(seed).map(|world| world.watch.timeline()),
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
