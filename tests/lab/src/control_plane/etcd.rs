//! The cluster's database.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::net;
use crate::sh;
use crate::state::LabDir;
use crate::substrate::LAB_NETNS;

/// Name of the process and of its log.
pub const NAME: &str = "etcd";

/// Where it listens for clients, in `ls-lab` alone.
pub const URL: &str = "http://127.0.0.1:2379";

/// The command that runs it.
pub fn command(program: &Path, dir: &LabDir) -> Command {
    let mut command = net::command_in(LAB_NETNS, &[program]);
    command
        .arg("--data-dir")
        .arg(dir.etcd())
        .args(["--listen-client-urls", URL, "--advertise-client-urls", URL])
        .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
        // A lab's data need not survive the machine, and fsync is most of etcd's latency.
        .args(["--unsafe-no-fsync", "--log-level", "warn"]);
    command
}

/// Whether it serves.
///
/// # Errors
/// When it cannot be asked.
pub fn serves() -> Result<bool> {
    let url = format!("{URL}/health");
    let probe = net::command_in(LAB_NETNS, &["curl", "-fsS", "-m", "2", &url]);
    Ok(sh::output(probe, None)?.status.success())
}
