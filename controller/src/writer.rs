//! Gets objects into the state they should be in: at most one request per object at a time, the
//! latest wanted state wins, failures are retried with jittered back-off, and no object waits
//! for another.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::pause;
use crate::model::{Key, Write};

/// Where writes go.
pub trait Sink: Send + Sync + 'static {
    /// What may go wrong.
    type Error: Display + Send;

    /// Brings one object into the wanted state; doing it twice is harmless.
    fn write(&self, write: &Write) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Requests under way at most; bounds connections, not throughput.
const CONCURRENT: usize = 64;
/// A request without an answer by then is given up and tried again.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Longest pause between attempts.
const LONGEST: Duration = Duration::from_secs(30);

/// Restoring an object to the same state more often than [`FREE`] times within [`CALM`] of each
/// other means that somebody else keeps changing it. Then pauses grow: two controllers that
/// both think an object theirs must not fight at full speed.
const CALM: Duration = Duration::from_secs(60);
const FREE: u32 = 5;
/// Completed writes between two looks for [`Recent`] entries that are too old to matter.
const SWEEP: u32 = 1024;

/// A write that succeeded not long ago.
#[derive(Debug)]
struct Recent {
    write: Write,
    at: Instant,
    /// How often it has been repeated.
    repeats: u32,
}

/// What goes on with one object.
#[derive(Debug)]
enum Slot {
    /// A request is under way; `next` is wanted after it.
    Running { next: Option<Write> },
    /// The last attempt failed; `wake` tells this pause from an earlier one.
    Pausing {
        write: Write,
        attempt: u32,
        wake: u64,
    },
}

#[derive(Debug)]
enum Report {
    Done {
        write: Write,
        attempt: u32,
        failure: Option<String>,
        took: Duration,
    },
    Wake {
        key: Key,
        wake: u64,
    },
}

/// Writes objects; owned by the run loop, which must keep calling [`Writer::step`].
pub struct Writer<S> {
    sink: Arc<S>,
    slots: HashMap<Key, Slot>,
    permits: Arc<Semaphore>,
    reports: mpsc::UnboundedReceiver<Report>,
    reporter: mpsc::UnboundedSender<Report>,
    wakes: u64,
    recent: HashMap<Key, Recent>,
    since_sweep: u32,
}

impl<S: Sink> Writer<S> {
    /// A writer with nothing to do.
    pub fn new(sink: S) -> Self {
        // Unbounded, but with at most one report per object under way.
        let (reporter, reports) = mpsc::unbounded_channel();
        Self {
            sink: Arc::new(sink),
            slots: HashMap::new(),
            permits: Arc::new(Semaphore::new(CONCURRENT)),
            reports,
            reporter,
            wakes: 0,
            recent: HashMap::new(),
            since_sweep: 0,
        }
    }

    /// Whether every object is as wanted.
    pub fn idle(&self) -> bool {
        self.slots.is_empty()
    }

    /// Wants an object in this state from now on.
    pub fn submit(&mut self, write: Write) {
        let key = write.key();
        match self.slots.get_mut(&key) {
            Some(Slot::Running { next }) => *next = Some(write),
            // The same state again is no reason to end the pause.
            Some(Slot::Pausing { write: paused, .. }) if *paused == write => {}
            // A new state deserves a new attempt at once; the pause ends unnoticed.
            Some(Slot::Pausing { .. }) | None => self.begin(key, write),
        }
    }

    /// Starts a first attempt, after a pause if the object has been restored too often.
    fn begin(&mut self, key: Key, write: Write) {
        let repeats = self
            .recent
            .get(&key)
            .filter(|recent| recent.write == write && recent.at.elapsed() < CALM)
            .map_or(0, |recent| recent.repeats);
        match repeats.checked_sub(FREE) {
            None | Some(0) => self.start(key, write, 1),
            Some(excess) => {
                tracing::warn!(%key, repeats, "somebody else keeps changing this object; restoring it more slowly");
                self.pause(key, write, 0, excess);
            }
        }
    }

    /// Remembers a success.
    fn remember(&mut self, key: Key, write: Write) {
        let now = Instant::now();
        let known = self.recent.get(&key);
        let repeats = known
            .filter(|recent| recent.write == write && now - recent.at < CALM)
            .map_or(0, |recent| recent.repeats + 1);
        let recent = Recent {
            write,
            at: now,
            repeats,
        };
        self.recent.insert(key, recent);
        self.since_sweep += 1;
        if self.since_sweep >= SWEEP {
            self.since_sweep = 0;
            self.recent.retain(|_, recent| now - recent.at < CALM);
        }
    }

    fn start(&mut self, key: Key, write: Write, attempt: u32) {
        self.slots.insert(key, Slot::Running { next: None });
        let sink = self.sink.clone();
        let permits = self.permits.clone();
        let reporter = self.reporter.clone();
        tokio::spawn(async move {
            let _permit = permits.acquire().await;
            let started = Instant::now();
            let failure = match timeout(ATTEMPT, sink.write(&write)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {} s", ATTEMPT.as_secs())),
            };
            let took = started.elapsed();
            let _ = reporter.send(Report::Done {
                write,
                attempt,
                failure,
                took,
            });
        });
    }

    /// Waits for the next thing to happen to a write, and deals with it. Cancelling is safe.
    pub async fn step(&mut self) {
        match self.reports.recv().await {
            Some(Report::Done {
                write,
                attempt,
                failure,
                took,
            }) => self.done(write, attempt, failure, took),
            Some(Report::Wake { key, wake }) => self.woken(key, wake),
            // Not while `self.reporter` lives.
            None => {}
        }
    }

    fn done(&mut self, write: Write, attempt: u32, failure: Option<String>, took: Duration) {
        let key = write.key();
        let next = match self.slots.remove(&key) {
            Some(Slot::Running { next }) => next,
            _ => None,
        };
        let millis = took.as_millis();
        match failure {
            None => {
                tracing::debug!(%key, millis, attempt, "written");
                self.remember(key.clone(), write);
            }
            Some(error) => {
                tracing::warn!(
                    ?key,
                    millis,
                    attempt,
                    error,
                    "write failed, will be tried again"
                );
                if next.is_none() {
                    self.pause(key, write, attempt, attempt);
                    return;
                }
            }
        }
        if let Some(next) = next {
            self.begin(key, next);
        }
    }

    /// Waits before attempt number `attempt + 1`, as long as befits `failures` failures.
    fn pause(&mut self, key: Key, write: Write, attempt: u32, failures: u32) {
        self.wakes += 1;
        let wake = self.wakes;
        let reporter = self.reporter.clone();
        let delay = pause(failures, LONGEST);
        let slot = Slot::Pausing {
            write,
            attempt,
            wake,
        };
        self.slots.insert(key.clone(), slot);
        tokio::spawn(async move {
            sleep(delay).await;
            let _ = reporter.send(Report::Wake { key, wake });
        });
    }

    fn woken(&mut self, key: Key, woken: u64) {
        match self.slots.remove(&key) {
            Some(Slot::Pausing {
                write,
                attempt,
                wake,
            }) if wake == woken => self.start(key, write, attempt.saturating_add(1)),
            Some(slot) => {
                self.slots.insert(key, slot);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
