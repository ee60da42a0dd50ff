//! The project's front door: `cargo xtask demo | lab | test | fuzz | bench | gen`.
//!
//! It depends on little, so that it compiles quickly on a clean machine.

mod bench;
mod demo;
mod fuzz;
mod r#gen;
mod lab;
mod substrate;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Lightship's development commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// See it work: an address, three nodes, a crash, and what the client notices.
    Demo(demo::Args),
    /// A real Kubernetes cluster on this machine.
    #[command(subcommand)]
    Lab(lab::Command),
    /// Run the tests, by tier.
    Test(test::Args),
    /// Give a decoder hostile input for as long as one likes (the tests do it for seconds).
    Fuzz(fuzz::Args),
    /// Measure failover, latency and moves, and write docs/performance.md.
    Bench(bench::Args),
    /// Write the files that are generated from code, or check that they are up to date.
    Gen(r#gen::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Lab(command) => lab::run(command),
        Command::Test(args) => test::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Gen(args) => r#gen::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
