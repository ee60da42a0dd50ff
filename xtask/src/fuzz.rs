//! `cargo xtask fuzz TARGET`: hostile input for one decoder.

use std::process::ExitCode;

use anyhow::{Context, Result};
use lightship_lab::binaries::{self, checkout};

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// A target, `--for 10m`, `--seed N`, `--input FILE`; `--help` says all.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// It is a program of its own, because the decoders are not this one's dependencies.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let status = binaries::cargo()
        .args(["run", "--quiet", "--profile", "lab", "--manifest-path"])
        .arg(checkout().join("Cargo.toml"))
        .args(["-p", "lightship-fuzz", "--"])
        .args(&args.rest)
        .status()
        .context("cannot run cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
