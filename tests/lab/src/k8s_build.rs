//! Kubernetes' own programs, built once from the Go module in `tests/lab/k8s`.
//!
//! The result is kept outside the checkout, in
//! `$XDG_CACHE_HOME/lightship/k8s-VERSION-HASH/`, where HASH is that of go.sum: another set of sources is
//! another folder. Each program appears there by rename, so a killed build leaves no half of one.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::deps;
use crate::progress::Progress;
use crate::sh;

/// Where each program is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kubernetes {
    /// Folder of the programs that were built here, `kube-proxy` among them.
    pub built: PathBuf,
    /// The database.
    pub etcd: PathBuf,
    /// The API server.
    pub apiserver: PathBuf,
    /// The controllers.
    pub controller_manager: PathBuf,
    /// The command line client.
    pub kubectl: PathBuf,
    /// The service proxy.
    pub proxy: PathBuf,
}

/// Name, Go package and usual build time in seconds on two cores (cold).
const PROGRAMS: [(&str, &str, u64); 5] = [
    ("etcd", "./etcd", 35),
    ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", 125),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl", 30),
    (
        "kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-apiserver",
        200,
    ),
    (
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        85,
    ),
];

/// What `KUBEBUILDER_ASSETS` folders hold by convention.
const ASSETS: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];

/// Finds or builds the programs. `sources` is the folder of the Go module.
///
/// # Errors
/// When Go is missing, or a build fails.
pub fn kubernetes(sources: &Path, progress: Progress) -> Result<Kubernetes> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let version = version(&fs::read_to_string(sources.join("go.mod"))?)?;
    let folder = cache_folder()?.join(format!(
        "k8s-{version}-{}",
        short_hash(&fs::read(sources.join("go.sum"))?)
    ));
    let given = |name: &str| {
        let file = assets.as_ref()?.join(name);
        (ASSETS.contains(&name) && file.is_file()).then_some(file)
    };
    let missing: Vec<_> = PROGRAMS
        .into_iter()
        .filter(|(name, _, _)| given(name).is_none() && !folder.join(name).is_file())
        .collect();
    if !missing.is_empty() {
        build(sources, &folder, &version, &missing, progress)?;
    }
    let place = |name: &str| given(name).unwrap_or_else(|| folder.join(name));
    Ok(Kubernetes {
        etcd: place("etcd"),
        apiserver: place("kube-apiserver"),
        controller_manager: place("kube-controller-manager"),
        kubectl: place("kubectl"),
        proxy: place("kube-proxy"),
        built: folder,
    })
}

fn build(
    sources: &Path,
    folder: &Path,
    version: &str,
    programs: &[(&str, &str, u64)],
    progress: Progress,
) -> Result<()> {
    if deps::find("go").is_none() {
        bail!(
            "Kubernetes {version} must be built once and there is no `go`: install Go 1.26 or \
             newer (https://go.dev/dl)"
        );
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(folder.join(".lock"))?;
    if lock.try_lock().is_err() {
        progress.say("another command is building Kubernetes; waiting for it");
        lock.lock()?;
    }
    let minutes = programs
        .iter()
        .map(|(_, _, usual)| usual)
        .sum::<u64>()
        .div_ceil(60);
    progress.say(&format!(
        "Building Kubernetes {version} from source, once: {} programs, about {minutes} min on two \
         cores. Kept in {}",
        programs.len(),
        folder.display()
    ));
    for (number, (name, package, usual)) in programs.iter().enumerate() {
        let target = folder.join(name);
        if target.is_file() {
            continue; // by whom we waited for
        }
        let title = format!(
            "build {} of {}: {name} (usually {usual} s)",
            number + 1,
            programs.len()
        );
        let temporary = folder.join(format!(".{name}.{}", std::process::id()));
        let outcome = progress.step(&title, || {
            sh::run(go_build(sources, package, version, &temporary))
        });
        if let Err(error) = outcome {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        fs::rename(&temporary, &target)?;
    }
    Ok(())
}

/// The command that builds one program. The stamps are needed: clients refuse a server
/// without a version, and kubectl cannot parse its own.
fn go_build(sources: &Path, package: &str, version: &str, output: &Path) -> Command {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    let stamps: String = [
        ("gitVersion", version),
        ("gitMajor", major),
        ("gitMinor", minor),
        ("gitCommit", "unknown"),
        ("gitTreeState", "clean"),
        ("buildDate", "1970-01-01T00:00:00Z"),
    ]
    .map(|(key, value)| format!(" -X k8s.io/component-base/version.{key}={value}"))
    .concat();
    let mut command = Command::new("go");
    command
        .current_dir(sources)
        .env("CGO_ENABLED", "0")
        .args(["build", "-trimpath", "-ldflags"])
        .arg(format!("-s -w{stamps}"))
        .arg("-o")
        .arg(output)
        .arg(package);
    command
}

/// The version of `k8s.io/kubernetes` in a go.mod, with its `v`.
fn version(go_mod: &str) -> Result<String> {
    go_mod
        .lines()
        .find_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let at = words.iter().position(|word| *word == "k8s.io/kubernetes")?;
            words.get(at + 1).map(|version| (*version).to_owned())
        })
        .context("go.mod names no k8s.io/kubernetes")
}

fn short_hash(text: &[u8]) -> String {
    Sha256::digest(text)[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Where what is made once is kept, outside the checkout.
///
/// # Errors
/// When neither `XDG_CACHE_HOME` nor `HOME` is set.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(base.join("lightship"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_either_form_of_require() {
        assert_eq!(
            version("require k8s.io/kubernetes v1.37.2\n").unwrap(),
            "v1.37.2"
        );
        assert_eq!(
            version("require (\n\tk8s.io/kubernetes v1.38.0 // x\n)").unwrap(),
            "v1.38.0"
        );
        version("module x").unwrap_err();
    }

    #[test]
    fn the_stamps_carry_the_version() {
        let command = go_build(Path::new("/"), "p", "v1.37.2", Path::new("/out"));
        let shown = sh::show(&command);
        assert!(shown.contains("version.gitVersion=v1.37.2"), "{shown}");
        assert!(shown.contains("version.gitMinor=37"), "{shown}");
    }
}
