//! `cargo xtask gen [--check]`: files that are generated from code.

use std::process::ExitCode;

use anyhow::{Context, Result};
use lightship_lab::binaries::{self, checkout};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail when a file is not what the code would generate.
    #[arg(long)]
    check: bool,
}

/// The CRDs' YAML comes from the Rust types in `crds/`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut command = binaries::cargo();
    command.current_dir(checkout()).args([
        "run",
        "--quiet",
        "-p",
        "lightship-crds",
        "--bin",
        "crdgen",
        "--",
    ]);
    if args.check {
        command.arg("--check");
    }
    let status = command.status().context("cannot run cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
