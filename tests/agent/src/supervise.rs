//! Keeps a daemon running, and tells the lab about it by files: see
//! [`lightship_lab::agent_config`] for which.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lightship_lab::agent_config::{AgentConfig, Daemon};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::node::write_synced;

/// Pause before the first restart: as short as a real supervisor's.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// Longest pause before a restart of a daemon that keeps ending.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A daemon that lived so long has shown that it can: the pause is the first again.
const HEALTHY: Duration = Duration::from_secs(10);

/// How often the hold file is looked for while a daemon is held back.
const HOLD_POLL: Duration = Duration::from_millis(20);

/// How long a daemon may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// One daemon's supervisor.
pub(crate) struct Supervisor {
    name: &'static str,
    daemon: Daemon,
    log: PathBuf,
    pid_file: PathBuf,
    hold_file: PathBuf,
}

impl Supervisor {
    /// For the daemon that the lab knows as `name`.
    pub(crate) fn new(name: &'static str, daemon: Daemon, config: &AgentConfig) -> Self {
        Self {
            name,
            daemon,
            log: config.log_dir.join(format!("{name}.log")),
            pid_file: config.state_dir.join(format!("{name}.pid")),
            hold_file: config.state_dir.join(format!("{name}.hold")),
        }
    }

    /// Runs the daemon again and again until `stopping` becomes true.
    pub(crate) async fn run(self, mut stopping: watch::Receiver<bool>) {
        let mut pause = FIRST_PAUSE;
        while !*stopping.borrow() {
            if self.hold_file.exists() {
                tokio::time::sleep(HOLD_POLL).await;
                continue;
            }
            let started = Instant::now();
            match self.once(&mut stopping).await {
                Ok(how) => tracing::info!("{} ended: {how}", self.name),
                Err(error) => tracing::error!("{}: {error:#}", self.name),
            }
            if started.elapsed() >= HEALTHY {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 4).min(LONGEST_PAUSE);
        }
    }

    async fn once(&self, stopping: &mut watch::Receiver<bool>) -> Result<String> {
        let mut child = self.spawn()?;
        let pid = child.id().context("the daemon has no process id")?;
        write_synced(&self.pid_file, format!("{pid}\n").as_bytes())?;
        tracing::info!("{} runs as process {pid}", self.name);
        let status = tokio::select! {
            status = child.wait() => status,
            () = told_to_stop(stopping) => {
                kill(Pid::from_raw(pid.try_into()?), Signal::SIGTERM)?;
                if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                    child.start_kill()?;
                }
                child.wait().await
            }
        };
        let _ = fs::remove_file(&self.pid_file);
        Ok(status?.to_string())
    }

    fn spawn(&self) -> Result<Child> {
        let (program, arguments) = self
            .daemon
            .argv
            .split_first()
            .context("no program is configured")?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot open {}", self.log.display()))?;
        Command::new(program)
            .args(arguments)
            .envs(&self.daemon.env)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {program}"))
    }
}

async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    // The sender is gone only when the whole agent ends: the same thing.
    let _ = stopping.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor(folder: &std::path::Path, script: &str) -> Supervisor {
        Supervisor {
            name: "speaker",
            daemon: Daemon {
                argv: ["sh", "-c", script].map(String::from).to_vec(),
                env: [("WHO".to_owned(), "lab".to_owned())].into(),
            },
            log: folder.join("speaker.log"),
            pid_file: folder.join("speaker.pid"),
            hold_file: folder.join("speaker.hold"),
        }
    }

    async fn until(what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..500 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: waited in vain");
    }

    #[tokio::test]
    async fn a_killed_daemon_comes_back_unless_it_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let subject = supervisor(folder.path(), "echo started $WHO; exec sleep 60");
        let (pid_file, hold, log) = (
            subject.pid_file.clone(),
            subject.hold_file.clone(),
            subject.log.clone(),
        );
        let (stop, stopping) = watch::channel(false);
        let running = tokio::spawn(subject.run(stopping));
        let starts = || {
            fs::read_to_string(&log)
                .unwrap_or_default()
                .matches("started lab")
                .count()
        };
        let pid = || fs::read_to_string(&pid_file).ok()?.trim().parse().ok();

        until("first start", || starts() == 1 && pid().is_some()).await;
        let first: i32 = pid().unwrap();
        kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
        until("restart", || {
            starts() == 2 && pid().is_some_and(|p| p != first)
        })
        .await;

        fs::write(&hold, "").unwrap();
        kill(Pid::from_raw(pid().unwrap()), Signal::SIGKILL).unwrap();
        until("end", || pid().is_none()).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(starts(), 2, "started although it was held");
        fs::remove_file(&hold).unwrap();
        until("start after the hold", || starts() == 3).await;

        stop.send(true).unwrap();
        running.await.unwrap();
        assert!(!pid_file.exists());
    }
}
