//! Processes that outlive the command that started them.
//!
//! A process is known by its id **and** its start time (`/proc/PID/stat` field
//! 22), so that an id which the kernel gave to somebody else meanwhile is never
//! signalled. As a second net, every process of the lab carries [`MARKER`] in
//! its environment.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::sh;

/// Environment variable that every process of a lab carries; its value is the
/// lab's state folder.
pub const MARKER: &str = "LIGHTSHIP_LAB_PROCESS_OF";

/// A process that the lab started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its start, in clock ticks since this machine's boot.
    pub start_ticks: u64,
    /// Its start, in seconds of Unix time.
    pub since: u64,
}

impl Process {
    /// Starts a command in a session of its own, with its output appended to `log`,
    /// marked as belonging to the lab in `lab_dir`.
    ///
    /// # Errors
    /// When the log cannot be opened or the command not be started.
    pub fn spawn(command: &Command, log: &Path, lab_dir: &Path) -> Result<Self> {
        let shown = sh::show(command);
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let mut detached = Command::new("setsid");
        detached
            .arg(command.get_program())
            .args(command.get_args())
            .env(MARKER, lab_dir)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => detached.env(key, value),
                None => detached.env_remove(key),
            };
        }
        let mut child = detached
            .spawn()
            .with_context(|| format!("cannot start `{shown}`"))?;
        let pid = child.id();
        let start_ticks = stat(pid)
            .with_context(|| format!("`{shown}` ended at once, see {}", log.display()))?
            .start_ticks;
        // Should it end while we live, it must not stay behind as a zombie.
        thread::spawn(move || child.wait());
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        Ok(Self {
            pid,
            start_ticks,
            since,
        })
    }

    /// Whether it still runs (a stopped process does, a zombie does not).
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| {
            stat.start_ticks == self.start_ticks && !matches!(stat.state, 'Z' | 'X')
        })
    }

    /// Sends a signal; no error when the process has ended.
    ///
    /// # Errors
    /// When this user may not.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.is_alive() {
            send(self.pid, signal)?;
        }
        Ok(())
    }

    /// Sends SIGTERM, after `grace` SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When it survives even that.
    pub fn stop(&self, grace: Duration) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        if self.wait_gone(grace) {
            return Ok(());
        }
        self.signal(Signal::SIGKILL)?;
        if self.wait_gone(Duration::from_secs(10)) {
            return Ok(());
        }
        bail!("process {} does not end", self.pid)
    }

    /// Waits for its end; false when it still runs after `limit`.
    pub fn wait_gone(&self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.is_alive() {
            if start.elapsed() > limit {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

/// Sends a signal to a process; no error when there is none.
///
/// # Errors
/// When this user may not.
pub fn send(pid: u32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(i32::try_from(pid)?), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot send {signal} to {pid}")),
    }
}

/// What `/proc/PID/stat` says about a process.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// `R`, `S`, `T` (stopped), `Z` (zombie), …
    pub state: char,
    /// Its parent's id.
    pub parent: u32,
    /// Its start, in clock ticks since boot.
    pub start_ticks: u64,
}

/// Reads `/proc/PID/stat`; `None` when there is no such process.
pub fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // Field 2 is the program's name in brackets and may itself hold blanks and brackets.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// The ids of all processes.
pub fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// All processes that carry [`MARKER`], with the state folder of their lab.
pub fn marked() -> Vec<(u32, PathBuf)> {
    let prefix = format!("{MARKER}=").into_bytes();
    all()
        .into_iter()
        .filter_map(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let value = environment
                .split(|byte| *byte == 0)
                .find_map(|variable| variable.strip_prefix(prefix.as_slice()))?;
            Some((pid, PathBuf::from(OsString::from_vec(value.to_vec()))))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_brackets_does_not_confuse() {
        let stat = parse_stat("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0").unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_ticks), ('S', 1, 4711));
    }

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::spawn(
            &sh::command(&["sleep", "60"]),
            &folder.path().join("log"),
            folder.path(),
        )
        .unwrap();
        let somebody_else = Process {
            start_ticks: process.start_ticks + 1,
            ..process.clone()
        };
        assert!(process.is_alive());
        assert!(!somebody_else.is_alive());
        somebody_else.stop(Duration::from_millis(1)).unwrap();
        assert!(process.is_alive());
        sh::wait_for(
            "the marker",
            Duration::from_secs(5),
            Duration::from_millis(5),
            || {
                let found = marked().contains(&(process.pid, folder.path().to_owned()));
                Ok(found.then_some(()))
            },
        )
        .unwrap();
        process.stop(Duration::from_secs(5)).unwrap();
        assert!(!process.is_alive());
    }
}
