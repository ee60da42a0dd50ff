//! `lab down`: nothing stays, whatever state the lab was in.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use crate::deps;
use crate::net;
use crate::process;
use crate::progress::Progress;
use crate::sh;
use crate::state::{LabDir, State};
use crate::substrate;

/// Ends the lab, if there is one, and removes its folder (but for the logs, if they are to be kept).
///
/// # Errors
/// When something cannot be removed; all else is nevertheless.
pub fn down(keep_logs: bool, progress: Progress) -> Result<()> {
    deps::require_root()?;
    let dir = LabDir::from_environment();
    let nothing = !dir.root().exists() && marked(&dir).is_empty();
    if nothing && net::ours().is_empty() {
        progress.say("There is no lab.");
        return Ok(());
    }
    if let Some((_, other)) = net::other_owner(dir.root()) {
        bail!(
            "the lab that is up belongs to {other}: `LIGHTSHIP_LAB_DIR={other} cargo xtask lab down`",
            other = other.display()
        );
    }
    let lock = dir.lock()?;
    let state = State::load(&dir).unwrap_or(None);
    progress.step("processes, namespaces and files of the lab removed", || {
        clear(&dir, state.as_ref(), keep_logs)
    })?;
    if keep_logs {
        progress.say(&format!("Logs: {}", dir.logs().display()));
    }
    drop(lock);
    Ok(())
}

fn marked(dir: &LabDir) -> Vec<u32> {
    process::marked()
        .into_iter()
        .filter(|(_, lab)| lab == dir.root())
        .map(|(pid, _)| pid)
        .collect()
}

/// Removes all that a lab in `dir` made, complete or not. The caller holds its lock.
///
/// # Errors
/// When something cannot be removed; the rest has been.
pub(crate) fn clear(dir: &LabDir, state: Option<&State>, keep_logs: bool) -> Result<()> {
    // Each step is tried whatever became of those before it; the first failure is told.
    let steps = [
        end_processes(dir, state),
        clear_nodes(state),
        remove_namespaces(),
        unmount_below(dir.root()),
        remove_files(dir, keep_logs),
    ];
    if state.is_none_or(|state| state.made_netns_mount) {
        net::unmount_names();
    }
    steps.into_iter().collect()
}

/// Does `work` with every item, also after a failure; the first failure is told.
fn each<T>(items: impl IntoIterator<Item = T>, work: impl FnMut(T) -> Result<()>) -> Result<()> {
    let outcomes: Vec<Result<()>> = items.into_iter().map(work).collect();
    outcomes.into_iter().collect()
}

fn end_processes(dir: &LabDir, state: Option<&State>) -> Result<()> {
    for process in state.into_iter().flat_map(|state| state.processes.values()) {
        process.signal(Signal::SIGKILL)?;
    }
    // Children, and what a killed `lab up` had no time to write down.
    sh::wait_for(
        "all processes of the lab end",
        Duration::from_secs(15),
        Duration::from_millis(20),
        || {
            let left: Vec<u32> = marked(dir)
                .into_iter()
                .filter(|pid| process::stat(*pid).is_some_and(|stat| stat.state != 'Z'))
                .collect();
            for pid in &left {
                process::send(*pid, Signal::SIGKILL)?;
            }
            Ok(left.is_empty().then_some(()))
        },
    )
}

fn clear_nodes(state: Option<&State>) -> Result<()> {
    let Some(state) = state else {
        return Ok(());
    };
    let substrate = substrate::of(state.options.substrate);
    let nodes = state.nodes.iter();
    each(nodes, |node| substrate.clear(&node.spec))
}

fn remove_namespaces() -> Result<()> {
    each(net::ours(), |name| net::remove(&name))
}

fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    // The latest mount first, as it may lie in an earlier one.
    for point in points.rev().map(Path::new) {
        if point.starts_with(folder) {
            umount2(point, MntFlags::MNT_DETACH)
                .with_context(|| format!("cannot unmount {}", point.display()))?;
        }
    }
    Ok(())
}

fn remove_files(dir: &LabDir, keep_logs: bool) -> Result<()> {
    let entries = match fs::read_dir(dir.root()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let path = entry?.path();
        // The caller holds the lock; it goes with that.
        if path == dir.lock_file() || keep_logs && path == dir.logs() {
            continue;
        }
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
