//! What a machine has now, to compare it with what it has after `lab down`.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Result;
use lightship_lab::state::LabDir;
use lightship_lab::{process, sh};

/// Namespaces, links and mounts of this machine, and the lab's processes and folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// As it is now.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn take() -> Result<Self> {
        let mut found = BTreeSet::new();
        let namespaces = sh::run(sh::command(&["ip", "netns", "list"]))?;
        let names = namespaces.lines().filter_map(|l| l.split(' ').next());
        found.extend(names.map(|name| format!("namespace {name}")));
        let links = sh::run(sh::command(&["ip", "-o", "link", "show"]))?;
        let names = links.lines().filter_map(|l| l.split(": ").nth(1));
        found.extend(names.map(|name| format!("link {name}")));
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let points = mounts.lines().filter_map(|l| l.split(' ').nth(1));
        found.extend(points.map(|point| format!("mount {point}")));
        let folder = LabDir::from_environment();
        let processes = process::marked().into_iter();
        let own = processes.filter(|(_, lab)| lab == folder.root());
        found.extend(own.map(|(pid, _)| format!("process {pid}")));
        if folder.root().exists() {
            found.insert(format!("folder {}", folder.root().display()));
        }
        Ok(Self(found))
    }

    /// What is there now and was not when `self` was taken.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn added_since(&self) -> Result<Vec<String>> {
        let now = Self::take()?;
        Ok(now.0.difference(&self.0).cloned().collect())
    }
}
