//! Our own programs that run in the lab, built by cargo.

use std::env;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Where each program is.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `lightship-lab-agent`.
    pub agent: PathBuf,
    /// `lightship-controller` and `lightship-speaker`; `None` in a lab without Lightship.
    pub lightship: Option<Lightship>,
}

/// The daemons.
#[derive(Clone, Debug)]
pub struct Lightship {
    /// `lightship-controller`.
    pub controller: PathBuf,
    /// `lightship-speaker`.
    pub speaker: PathBuf,
}

/// The checkout that this program was built from.
pub fn checkout() -> PathBuf {
    // tests/lab, two folders below the root.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Builds them in cargo's profile `lab`; cargo tells its progress on standard error.
///
/// # Errors
/// When they do not compile.
pub fn build(lightship: bool) -> Result<Binaries> {
    let mut packages = vec!["lightship-lab-agent"];
    if lightship {
        packages.extend(["lightship-controller", "lightship-speaker"]);
    }
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(checkout())
        .args(["build", "--quiet", "--profile", "lab"])
        .arg("--message-format=json-render-diagnostics")
        .args(packages.iter().flat_map(|name| ["-p", name]))
        .stdout(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().context("cannot run cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut programs = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let message: Value = serde_json::from_str(&line?)?;
        if let Some(path) = message["executable"].as_str() {
            programs.push(PathBuf::from(path));
        }
    }
    if !child.wait()?.success() {
        bail!("the programs for the lab do not compile");
    }
    let program = |name: &str| {
        programs
            .iter()
            .find(|path| path.file_name().is_some_and(|file| file == name))
            .cloned()
            .with_context(|| format!("cargo built no {name}"))
    };
    Ok(Binaries {
        agent: program("lightship-lab-agent")?,
        lightship: if lightship {
            Some(Lightship {
                controller: program("lightship-controller")?,
                speaker: program("lightship-speaker")?,
            })
        } else {
            None
        },
    })
}
