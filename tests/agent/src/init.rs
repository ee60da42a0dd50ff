//! Process 1 of a node: starts the agent proper as its child and reaps orphans.
//!
//! Apart from the agent, because a runtime that waits for its own children and a
//! loop that waits for anybody's would take each other's exit codes.

use std::process::{Command, ExitCode};
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, getpid};

use crate::node;

/// Whether this process has an init's duties.
pub(crate) fn is_first_process() -> bool {
    getpid().as_raw() == 1
}

/// Runs the node's agent and reaps whatever ends until the agent has ended.
/// SIGTERM and SIGINT are passed on to it.
pub(crate) fn run(args: &node::Args) -> Result<ExitCode> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let child = Command::new(program)
        .arg("node")
        .arg("--config")
        .arg(&args.config)
        .spawn()
        .context("cannot start the node's agent")?;
    let agent = Pid::from_raw(child.id().try_into()?);

    // Blocked only after the spawn: a child inherits the mask.
    signals.thread_block()?;
    thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            let _ = kill(agent, signal);
        }
    });
    loop {
        match wait().context("no child left to wait for")? {
            WaitStatus::Exited(pid, code) if pid == agent => {
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
            WaitStatus::Signaled(pid, signal, _) if pid == agent => {
                return Ok(ExitCode::from(128u8.wrapping_add(signal as u8)));
            }
            _ => {}
        }
    }
}
