//! Running other programs, with errors that say what was run and what it said.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::progress;

/// Builds a command from its words.
pub fn command<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// The command as a person would type it.
pub fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started, fails (with what it said), or the user interrupts.
pub fn run(command: Command) -> Result<String> {
    run_with_input(command, None)
}

/// [`run`], with `input` on the command's standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: Command, input: Option<&str>) -> Result<String> {
    let shown = show(&command);
    let output = output(command, input)?;
    if !output.status.success() {
        bail!(
            "`{shown}` failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end, whatever that is.
///
/// # Errors
/// When it cannot be started, or the user interrupts.
pub fn output(mut command: Command, input: Option<&str>) -> Result<Output> {
    command.stderr(Stdio::piped());
    output_telling(command, input)
}

/// [`output`], but what the command says on standard error is shown as it comes.
///
/// # Errors
/// As [`output`].
pub fn output_telling(mut command: Command, input: Option<&str>) -> Result<Output> {
    let shown = show(&command);
    // In a process group of its own, so that Ctrl-C reaches us first and we decide.
    let mut child = command
        .process_group(0)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{shown}`"))?;
    let group = Pid::from_raw(i32::try_from(child.id())?);
    let stdin = child.stdin.take();
    let text = input.map(str::to_owned);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        if let (Some(mut stdin), Some(text)) = (stdin, text) {
            // A program that ends before it read everything says so by its exit code.
            let _ = stdin.write_all(text.as_bytes());
        }
        let _ = sender.send(child.wait_with_output());
    });
    loop {
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok(output) => return output.with_context(|| format!("cannot wait for `{shown}`")),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if let Err(interrupt) = progress::check() {
                    let _ = killpg(group, Signal::SIGTERM);
                    return Err(interrupt);
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("lost track of `{shown}`"),
        }
    }
}

/// Runs `ip` with the words of `line`.
///
/// # Errors
/// As [`run`].
pub fn ip(line: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(line.split_whitespace());
    run(command).map(drop)
}

/// Tries `attempt` every `pause` until it gives a value, for at most `limit`.
///
/// # Errors
/// What `attempt` failed with, "interrupted", or that `what` did not happen in time.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    pause: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = std::time::Instant::now();
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        progress::check()?;
        if start.elapsed() > limit {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_was_run_and_what_it_said() {
        let error = run(command(&["sh", "-c", "echo no luck >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c"), "{text}");
        assert!(text.contains("no luck"), "{text}");
        assert!(text.contains('3'), "{text}");
    }

    #[test]
    fn input_reaches_the_command() {
        let text = run_with_input(command(&["cat"]), Some("hello")).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn waiting_ends_with_the_reason() {
        let moment = Duration::from_millis(1);
        let error = wait_for("the sun", moment, moment, || Ok(None::<()>)).unwrap_err();
        assert!(error.to_string().contains("the sun"));
    }
}
