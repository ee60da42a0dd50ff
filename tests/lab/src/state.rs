//! What the lab remembers between commands, and where.
//!
//! All of it is in one folder, `/var/lib/lightship-lab` or what
//! `LIGHTSHIP_LAB_DIR` names; `lab down` removes that folder.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::k8s_build::Kubernetes;
use crate::options::Options;
use crate::process::Process;
use crate::substrate::NodeSpec;

/// The folder of one lab.
#[derive(Clone, Debug)]
pub struct LabDir {
    root: PathBuf,
}

impl LabDir {
    /// The folder that `LIGHTSHIP_LAB_DIR` names, else `/var/lib/lightship-lab`.
    pub fn from_environment() -> Self {
        let root = env::var_os("LIGHTSHIP_LAB_DIR")
            .map_or_else(|| PathBuf::from("/var/lib/lightship-lab"), PathBuf::from);
        Self { root }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Output of every process.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The log of one process.
    pub fn log(&self, process: &str) -> PathBuf {
        self.logs().join(format!("{process}.log"))
    }

    /// etcd's data.
    pub fn etcd(&self) -> PathBuf {
        self.root.join("etcd")
    }

    /// What nodes share, and their folders.
    pub fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }

    /// One node's own folder.
    pub fn node(&self, node: &str) -> PathBuf {
        self.nodes().join(node)
    }

    /// A client configuration for the API server.
    pub fn kubeconfig(&self, who: &str) -> PathBuf {
        self.root.join("kube").join(format!("{who}.kubeconfig"))
    }

    /// What commands that change the lab lock.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Makes the folder and those inside it, readable by root alone (keys and tokens),
    /// without the logs of an earlier lab.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn create(&self) -> Result<()> {
        if self.logs().exists() {
            fs::remove_dir_all(self.logs())
                .with_context(|| format!("cannot remove {}", self.logs().display()))?;
        }
        for folder in [self.pki(), self.logs(), self.root.join("kube")] {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        use std::os::unix::fs::PermissionsExt;
        for folder in [self.pki(), self.root.join("kube")] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    /// Takes the right to change this lab, held until the value is dropped.
    ///
    /// # Errors
    /// When another command holds it, or the folder cannot be written.
    pub fn lock(&self) -> Result<Lock> {
        fs::create_dir_all(&self.root)
            .with_context(|| format!("cannot make {}", self.root.display()))?;
        let path = self.lock_file();
        let file =
            File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock {
                dir: self.clone(),
                _file: file,
            }),
            Err(TryLockError::WouldBlock) => bail!(
                "another command is changing the lab in {} right now; wait for it to end",
                self.root.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }
}

/// The right to change a lab, while it lives.
#[derive(Debug)]
pub struct Lock {
    dir: LabDir,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Where there is no lab, nothing stays of having asked: neither the file nor, if
        // nothing else is in it, the folder.
        if !file(&self.dir).exists() {
            let _ = fs::remove_file(self.dir.lock_file());
            let _ = fs::remove_dir(&self.dir.root);
        }
    }
}

/// How far the lab has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// `lab up` is at work, or ended without having cleared up.
    Starting,
    /// All was ready once.
    Up,
}

/// A fault that `lab fail` caused and `lab heal` undoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fault {
    /// The node's processes (and kernel) were killed.
    Crash,
    /// Its uplink is down.
    Unplug,
    /// Its processors stand still.
    Pause,
    /// No frame passes between it and the other nodes.
    Partition,
    /// Nor between it and the control plane.
    PartitionFromApi,
    /// Its speaker was told to stop and is not started again.
    StopSpeaker,
    /// Its port filters.
    Filter(PortFilter),
}

/// What a virtual switch lets pass at a node's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PortFilter {
    /// Only frames from the uplink's own MAC (no forged transmits).
    OwnMacSends,
    /// Only frames to the uplink's own MAC, and group frames (no MAC learning).
    OwnMacReceives,
    /// Only packets from the node's own addresses (anti-spoofing).
    OwnAddressSends,
    /// From other nodes only packets that have a node's address as their source (source guard on what is
    /// delivered).
    NodeAddressReceives,
}

/// One node, running or not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// What it is.
    pub spec: NodeSpec,
    /// What is wrong with it on purpose.
    pub faults: BTreeSet<Fault>,
}

/// Everything about a lab that a later command must know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// This machine's boot: after another boot nothing of the lab runs.
    pub boot: String,
    /// How far it has come.
    pub phase: Phase,
    /// What the user asked for.
    pub options: Options,
    /// Where Kubernetes' programs are.
    pub kubernetes: Kubernetes,
    /// `/run/netns` was no mount before this lab.
    pub made_netns_mount: bool,
    /// How many times longer than usual things may take on these nodes.
    #[serde(default = "usual_pace")]
    pub pace: u32,
    /// What runs, by name: `etcd`, `kube-apiserver`, …, `node1`, ….
    pub processes: BTreeMap<String, Process>,
    /// The nodes, in order.
    pub nodes: Vec<Node>,
}

fn usual_pace() -> u32 {
    1
}

impl State {
    /// Reads the state; `None` when there is no lab.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn load(dir: &LabDir) -> Result<Option<Self>> {
        let path = file(dir);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        serde_json::from_slice(&text)
            .map(Some)
            .with_context(|| format!("{} was not written by this version", path.display()))
    }

    /// Writes the state, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, dir: &LabDir) -> Result<()> {
        let path = file(dir);
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The node of that name.
    ///
    /// # Errors
    /// When there is none; the message names those that are.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.spec.name == name)
            .with_context(|| {
                let names: Vec<_> = self.nodes.iter().map(|node| &*node.spec.name).collect();
                format!("no node {name:?}; there are {}", names.join(", "))
            })
    }

    /// The node of that name, to change it.
    ///
    /// # Errors
    /// As [`State::node`].
    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        self.node(name)?;
        self.nodes
            .iter_mut()
            .find(|node| node.spec.name == name)
            .context("no such node")
    }
}

fn file(dir: &LabDir) -> PathBuf {
    dir.root().join("lab.json")
}

/// The id of this machine's present boot.
///
/// # Errors
/// When the kernel does not tell.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_command_changes_a_lab() {
        let folder = tempfile::tempdir().unwrap();
        let dir = LabDir {
            root: folder.path().to_owned(),
        };
        let first = dir.lock().unwrap();
        let refused = dir.lock().unwrap_err().to_string();
        assert!(refused.contains("another command"), "{refused}");
        fs::write(folder.path().join("lab.json"), "").unwrap();
        drop(first);
        // A program that another test starts just now holds all open files until it is executed.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while dir.lock().is_err() {
            assert!(std::time::Instant::now() < deadline, "never unlocked");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(folder.path().join("lock").exists());
    }
}
