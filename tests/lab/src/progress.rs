//! One line for each step, with the seconds it took, and Ctrl-C between steps.

use std::io::{IsTerminal, Write, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Set by the first SIGINT, SIGTERM or SIGHUP once [`watch_signals`] was called.
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on those signals no longer end this process: the work in
/// hand fails at its next [`check`], and so gets to clear up behind itself.
///
/// # Errors
/// When a signal handler cannot be set.
pub fn watch_signals() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// Forgets an interrupt, so that clearing up is not itself interrupted.
pub fn forget_interrupt() {
    if let Some(flag) = INTERRUPTED.get() {
        flag.store(false, Ordering::Relaxed);
    }
}

/// # Errors
/// When the user asked this process to stop.
pub fn check() -> Result<()> {
    if INTERRUPTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::Relaxed))
    {
        bail!("interrupted");
    }
    Ok(())
}

/// Where the steps are told.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    silent: bool,
}

impl Progress {
    /// Tells each step on standard error.
    pub fn on_stderr() -> Self {
        Self { silent: false }
    }

    /// Says nothing.
    pub fn silent() -> Self {
        Self { silent: true }
    }

    /// Runs `work` as one step named `title`: a line that ends with its duration, and signs of
    /// life while it takes long.
    ///
    /// # Errors
    /// What `work` returned, or "interrupted".
    pub fn step<T>(&self, title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        check()?;
        if self.silent {
            return work();
        }
        let start = Instant::now();
        let outcome = thread::scope(|scope| {
            let (done, waiting) = mpsc::channel::<()>();
            scope.spawn(move || signs_of_life(title, start, &waiting));
            let outcome = work();
            drop(done);
            outcome
        });
        let end = if outcome.is_ok() { "" } else { "  FAILED" };
        line(title, start, &format!("{end}\n"));
        let value = outcome?;
        check()?;
        Ok(value)
    }

    /// Says one line between steps.
    pub fn say(&self, line: &str) {
        if !self.silent {
            eprintln!("{line}");
        }
    }
}

/// Writes the line of a step, over what a terminal shows of it already.
fn line(title: &str, start: Instant, end: &str) {
    // Back to the start and clear the line (ECMA-48 EL).
    let back = if stderr().is_terminal() {
        "\r\x1b[K"
    } else {
        ""
    };
    let seconds = start.elapsed().as_secs_f64();
    eprint!("{back}  {seconds:6.1} s  {title}{end}");
    let _ = stderr().flush();
}

/// Counts the seconds on a terminal, and says every half minute elsewhere that a step is
/// still at work, until the other end of `done` is dropped.
fn signs_of_life(title: &str, start: Instant, done: &mpsc::Receiver<()>) {
    let (pause, end) = if stderr().is_terminal() {
        (Duration::from_secs(1), " …")
    } else {
        (Duration::from_secs(30), " …\n")
    };
    if stderr().is_terminal() {
        line(title, start, end);
    }
    while done.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
        line(title, start, end);
    }
}
