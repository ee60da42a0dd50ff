//! Controllers beside each other.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lightship_lab::sh;
use nix::sys::signal::Signal;

use crate::cluster::{Cluster, Daemon};

/// One of several controllers, killed when dropped.
pub(crate) struct Replica {
    pub(crate) name: &'static str,
    daemon: Daemon,
    log: PathBuf,
}

/// So that a test with several changes of leader does not take minutes.
pub(crate) const FAST: &[&str] = &[
    "--lease-duration=4",
    "--lease-renew-deadline=3",
    "--lease-renew-interval=1",
];

impl Replica {
    /// Starts one beside those that run.
    pub(crate) fn start(cluster: &Cluster, name: &'static str, flags: &[&str]) -> Result<Self> {
        Self::start_at(cluster, name, flags, &cluster.server())
    }

    /// The same with the API server at another URL.
    pub(crate) fn start_at(
        cluster: &Cluster,
        name: &'static str,
        flags: &[&str],
        server: &str,
    ) -> Result<Self> {
        let mut command: Command = cluster.controller_command_at(server)?;
        command.args(flags).env("LIGHTSHIP_INSTANCE", name);
        let log = cluster.folder().join(format!("controller-{name}.log"));
        // What an earlier test's replica of that name said is not this one's.
        let _ = std::fs::remove_file(&log);
        let daemon = Daemon::spawn(command, &log)?;
        Ok(Self { name, daemon, log })
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How often it has said this.
    pub(crate) fn said(&self, words: &str) -> usize {
        self.log().matches(words).count()
    }

    /// Waits until it has said this more often than `before`; returns how long that took.
    pub(crate) fn says(&self, words: &str, before: usize, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        sh::wait_for(
            &format!("controller {} says {words:?}", self.name),
            limit,
            Duration::from_millis(10),
            || Ok((self.said(words) > before).then_some(())),
        )
        .with_context(|| format!("its log:\n{}", self.log()))?;
        Ok(start.elapsed())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.daemon.signal(signal)
    }

    /// Waits until it has ended by itself, as it should.
    pub(crate) fn ended(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.daemon.0.try_wait()? {
                if !status.success() {
                    bail!("controller {} ended with {status}", self.name);
                }
                return Ok(());
            }
            if start.elapsed() > limit {
                bail!("controller {} does not end", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn runs(&mut self) -> Result<bool> {
        Ok(self.daemon.0.try_wait()?.is_none())
    }
}

/// A leader and one that stands by.
pub(crate) fn pair(cluster: &mut Cluster, flags: &[&str]) -> Result<(Replica, Replica)> {
    cluster.stop_controller()?;
    let limit = Duration::from_secs(15);
    let first = Replica::start(cluster, "first", flags)?;
    first.says(" ready ", 0, limit)?;
    let second = Replica::start(cluster, "second", flags)?;
    second.says("another replica leads", 0, limit)?;
    Ok((first, second))
}
