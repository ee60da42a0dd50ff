//! What the controller costs. The measuring itself is part of the api tier's test program, which
//! has a control plane on loopback.

use std::env;
use std::fs;

use anyhow::{Context, Result, bail};
use lightship_lab::binaries::{self, checkout};

use super::report::{self, Section};

/// Measures and reports.
pub(super) fn run(sizes: Option<&str>, dry_run: bool) -> Result<()> {
    let path = env::temp_dir().join(format!("lightship-bench-{}.md", std::process::id()));
    let mut command = binaries::cargo();
    command
        .current_dir(checkout())
        .args([
            "test",
            "-p",
            "lightship-e2e",
            "--test",
            "api",
            "--",
            "--bench",
        ])
        .env("LIGHTSHIP_BENCH_REPORT", &path);
    if let Some(sizes) = sizes {
        command.env("LIGHTSHIP_BENCH_SIZES", sizes);
    }
    let status = command.status().context("cannot run cargo")?;
    let text = fs::read_to_string(&path);
    let _ = fs::remove_file(&path);
    // What was measured before a failure is shown above, but a part of a report is none.
    if !status.success() {
        bail!("the measurement failed");
    }
    let section = Section {
        id: "controller".to_owned(),
        title: "Many Services".to_owned(),
        command: "cargo xtask bench controller".to_owned(),
        text: text.context("the measurement left no report")?,
    };
    report::publish(&report::machine()?, &[section], dry_run)
}
