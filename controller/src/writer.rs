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
            // A new state deserves a new attempt at once; the pause ends unnoticed.
            Some(Slot::Pausing { .. }) | None => self.start(key, write, 1),
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
            None => tracing::debug!(%key, millis, attempt, "written"),
            Some(error) => {
                tracing::warn!(
                    ?key,
                    millis,
                    attempt,
                    error,
                    "write failed, will be tried again"
                );
                if next.is_none() {
                    self.pause(key, write, attempt);
                    return;
                }
            }
        }
        if let Some(next) = next {
            self.start(key, next, 1);
        }
    }

    fn pause(&mut self, key: Key, write: Write, attempt: u32) {
        self.wakes += 1;
        let wake = self.wakes;
        let reporter = self.reporter.clone();
        let delay = pause(attempt, LONGEST);
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
