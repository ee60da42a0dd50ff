//! Our own programs that run in the lab, built by cargo.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::sh;

/// Where each program is.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `lightship-lab-agent`.
    pub agent: PathBuf,
    /// `lightship-controller`.
    pub controller: PathBuf,
    /// `lightship-speaker`.
    pub speaker: PathBuf,
}

/// The checkout that cargo runs this program for; without cargo, the one it was built from.
pub fn checkout() -> PathBuf {
    // Target directories are copied and shared, so what was compiled in may be another checkout.
    let here = env::var_os("CARGO_MANIFEST_DIR");
    let here = here.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let root = here.ancestors().find(|f| f.join("Cargo.lock").is_file());
    root.unwrap_or(&here).to_owned()
}

/// The cargo that runs this program, if one does, else the one in `PATH`; without what the former
/// says of the package that it runs.
///
/// Build scripts watch such variables (ring's does `CARGO_PKG_NAME`). Inherited, they would differ from
/// program to program, and each time all that depends on such a crate would be compiled again.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Cargo's profile in which they are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// They compile fast and start fast.
    Lab,
    /// As users get them, for what measures them.
    Release,
}

/// Builds them; what the compiler has to say goes to standard error.
///
/// # Errors
/// When they do not compile.
pub fn build(profile: Profile) -> Result<Binaries> {
    let profile = match profile {
        Profile::Lab => "lab",
        Profile::Release => "release",
    };
    let mut command = cargo();
    command
        .current_dir(checkout())
        .args(["build", "--quiet", "--profile", profile])
        // Always all, also for a lab without Lightship: for fewer packages cargo would choose
        // fewer features of what they share, and compile that a second time.
        .args(["-p", "lightship-lab-agent"])
        .args(["-p", "lightship-controller"])
        .args(["-p", "lightship-speaker"]);
    let programs = built(command).context("the programs for the lab do not compile")?;
    let program = |name: &str| {
        let path = programs.get(name).cloned();
        path.with_context(|| format!("cargo built no {name}"))
    };
    Ok(Binaries {
        agent: program("lightship-lab-agent")?,
        controller: program("lightship-controller")?,
        speaker: program("lightship-speaker")?,
    })
}

/// Runs a command of cargo that builds, and gives the programs by the names of their targets. What the
/// compiler has to say goes to standard error.
///
/// # Errors
/// When something does not compile.
pub fn built(mut command: Command) -> Result<BTreeMap<String, PathBuf>> {
    command.arg("--message-format=json-render-diagnostics");
    let output = sh::output_telling(command, None)?;
    ensure!(output.status.success(), "cargo failed");
    let mut programs = BTreeMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: Value = serde_json::from_str(line)?;
        let name = message["target"]["name"].as_str();
        if let (Some(name), Some(path)) = (name, message["executable"].as_str()) {
            programs.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    Ok(programs)
}
