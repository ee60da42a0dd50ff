//! Gets objects into the state they should be in: at most one request per object at a time, the
//! latest wanted state wins, failures are retried with jittered back-off, and no object waits
//! for another but for its turn at the rate that all requests share. A pause that the API server
//! asks for (`Retry-After`) is kept, and if it takes no request at all any more, all wait together
//! ([`gate`]).
//!
//! A write whose object has changed meanwhile is not repeated but dropped: what the watchers say of
//! that object leads to a new decision. Should they stay silent, [`Writer::step`] asks for one.

mod gate;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lightship_kit::pause;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::gate::Gate;
use crate::metrics;
use crate::model::{Key, Revision, Write};
use crate::throttle::{Rate, Throttle};

/// Where writes go.
pub trait Sink: Send + Sync + 'static {
    /// Brings one object into the wanted state, if it still is as it was seen; an error is
    /// worth another attempt.
    fn write(&self, write: &Write) -> impl Future<Output = Result<Outcome, Failure>> + Send;
}

/// A request that is worth another attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub reason: String,
    /// How long the API server asks to be left alone.
    pub asked: Option<Duration>,
    /// Whether the cause is the API server's state and not the object's: that passes, perhaps soon.
    pub busy: bool,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self {
            reason,
            asked: None,
            busy: false,
        }
    }
}

/// How a request ended that needs no other attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The object is as wanted; this is its revision, if it exists.
    Written(Option<Revision>),
    /// The wish is void: the object does not exist any more, or another replica leads.
    Void,
    /// The object is not as it was seen, and why.
    Conflict(String),
    /// The API server does not take it, and why; another attempt may help only once something
    /// else has changed.
    Refused(String),
}

/// What of a write concerns those who decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The object needs a new decision.
    Recheck(Key),
    /// A VirtualIP is as wanted.
    Written(Key),
    /// The API server does not take the write, and why.
    Refused(Key, String),
}

/// Requests under way at most: an API server that has much to do answers later and so is asked
/// for less.
const CONCURRENT: usize = 64;
/// A request without an answer by then is given up and tried again.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Longest pause between attempts.
const LONGEST: Duration = Duration::from_secs(30);
/// Longest pause while the API server is busy or away, unless it asks for more: soon after an outage
/// all must be as it should. The gate keeps it from being asked too often.
const LONGEST_BUSY: Duration = Duration::from_secs(3);

/// Restoring an object to the same state more often than [`FREE`] times within [`CALM`] of each
/// other means that somebody else keeps changing it. Then pauses grow: two controllers that
/// both think an object theirs must not fight at full speed.
const CALM: Duration = Duration::from_secs(60);
const FREE: u32 = 5;

/// Shortest time between two writes of one pool's status. It counts addresses, and a
/// thousand Services must not cost a thousand reports.
const POOL_PACE: Duration = Duration::from_millis(500);
/// How long a pool's status waits at least, so that an API server with little time creates the VirtualIP and
/// tells the Service of its address first.
const POOL_WAIT: Duration = Duration::from_millis(100);

/// A write that succeeded not long ago.
#[derive(Debug)]
struct Recent {
    /// What it was decided upon.
    seen: Option<Revision>,
    /// What it wanted, see [`Write::state`].
    state: u64,
    /// What it led to; none if it was a deletion.
    revision: Option<Revision>,
    at: Instant,
    /// How often it has been repeated.
    repeats: u32,
}

/// What goes on with one object.
#[derive(Debug)]
enum Slot {
    /// A request is under way; `next` is wanted after it.
    Running { write: Write, next: Option<Write> },
    /// The last attempt failed; `wake` tells this pause from an earlier one.
    Pausing {
        write: Write,
        attempt: Attempt,
        wake: u64,
        /// Whether another state has to wait as well: the API server asked for the pause.
        firm: bool,
    },
    /// The object had changed: a new decision is due, at the latest after a pause.
    Conflicted { conflicts: u32, wake: u64 },
}

/// How often it has been tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Attempt {
    /// This write, this attempt included.
    number: u32,
    /// Refusals in a row because the object had changed.
    conflicts: u32,
}

#[derive(Debug)]
enum Report {
    Done {
        write: Box<Write>,
        attempt: Attempt,
        result: Result<Outcome, Failure>,
        took: Duration,
    },
    Wake {
        key: Key,
        wake: u64,
    },
    /// A write that was left out, as a former one did the same already.
    Known {
        key: Key,
    },
    Sweep,
}

/// Writes objects; owned by the run loop, which must keep calling [`Writer::step`]. Requests
/// under way are broken off when it is dropped.
pub struct Writer<S> {
    sink: Arc<S>,
    slots: HashMap<Key, Slot>,
    permits: Arc<Semaphore>,
    /// Requests under way or waiting for their turn.
    running: usize,
    gate: Arc<Gate>,
    throttle: Throttle,
    /// What the throttle's time counts from.
    origin: Instant,
    reports: mpsc::UnboundedReceiver<Report>,
    reporter: mpsc::UnboundedSender<Report>,
    tasks: JoinSet<()>,
    wakes: u64,
    recent: HashMap<Key, Recent>,
    counts: Family<metrics::Write, Counter>,
}

impl<S: Sink> Writer<S> {
    /// A writer with nothing to do.
    pub fn new(sink: S, rate: Rate) -> Self {
        // Unbounded, but with at most one report per object under way.
        let (reporter, reports) = mpsc::unbounded_channel();
        Self {
            sink: Arc::new(sink),
            slots: HashMap::new(),
            permits: Arc::new(Semaphore::new(CONCURRENT)),
            running: 0,
            gate: Arc::default(),
            throttle: Throttle::new(rate),
            origin: Instant::now(),
            reports,
            reporter,
            tasks: JoinSet::new(),
            wakes: 0,
            recent: HashMap::new(),
            counts: Family::default(),
        }
    }

    /// Counts the answers to its writes there.
    pub fn counting(mut self, counts: Family<metrics::Write, Counter>) -> Self {
        self.counts = counts;
        self
    }

    /// Objects with a write under way or waiting.
    pub fn pending(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Whether nothing is left to be written.
    pub fn idle(&self) -> bool {
        let mut slots = self.slots.values();
        slots.all(|slot| matches!(slot, Slot::Conflicted { .. }))
    }

    /// Whether anything is being written, what waits for another attempt aside.
    pub fn busy(&self) -> bool {
        self.running > 0
    }

    /// Wants an object in this state from now on.
    pub fn submit(&mut self, write: Write) {
        let key = write.key();
        match self.slots.get_mut(&key) {
            Some(Slot::Running {
                write: running,
                next,
            }) => *next = (*running != write).then_some(write),
            // What waits for its pace, or as asked, is replaced and goes on waiting.
            Some(Slot::Pausing {
                write: paused,
                attempt,
                firm,
                ..
            }) if *firm || attempt.number == 0 && matches!(key, Key::Pool(_)) => *paused = write,
            // The same again is no reason to end the pause.
            Some(Slot::Pausing { write: paused, .. }) if *paused == write => {}
            // The same state upon a newer revision neither: the failure was another one.
            Some(Slot::Pausing { write: paused, .. }) if paused.same_state(&write) => {
                *paused = write;
            }
            Some(Slot::Conflicted { conflicts, .. }) => {
                let conflicts = *conflicts;
                self.begin(key, write, conflicts);
            }
            // A new state deserves a new attempt at once; the pause ends unnoticed.
            Some(Slot::Pausing { .. }) | None => self.begin(key, write, 0),
        }
    }

    /// Starts a first attempt, after a pause if the object has been restored too often.
    fn begin(&mut self, key: Key, mut write: Write, conflicts: u32) {
        let mut repeats = 0;
        if let Some(recent) = self.recent.get(&key) {
            let same = recent.state == write.state();
            if same && recent.seen.is_some() && recent.seen.as_ref() == write.seen() {
                // Decided upon what was there before that write, of which nothing was heard yet.
                if matches!(write, Write::Vip { .. }) {
                    let _ = self.reporter.send(Report::Known { key });
                }
                return;
            }
            if same && recent.at.elapsed() < CALM {
                repeats = recent.repeats;
            }
        }
        self.rebase(&key, &mut write);
        let excess = repeats.max(conflicts).saturating_sub(FREE);
        let attempt = Attempt {
            number: 0,
            conflicts,
        };
        if excess > 0 {
            tracing::warn!(%key, repeats, conflicts, "somebody else keeps changing this object; writing it more slowly");
            self.pause(key, write, attempt, excess);
        } else if let Some(early) = self.early(&key) {
            self.hold(key, write, attempt, early, false);
        } else {
            self.start(key, write, attempt);
        }
    }

    /// Bases a write on what our own last write led to, if it was decided upon what that replaced.
    fn rebase(&self, key: &Key, write: &mut Write) {
        // What was created may be gone by now, so a creation stays one.
        let creation = matches!(write, Write::Vip { seen: None, .. });
        if let Some(recent) = self.recent.get(key)
            && !creation
            && recent.seen.as_ref() == write.seen()
        {
            write.rebase(recent.revision.clone());
        }
    }

    /// How long a write is to wait for the pace of its kind.
    fn early(&self, key: &Key) -> Option<Duration> {
        if !matches!(key, Key::Pool(_)) {
            return None;
        }
        let recent = self.recent.get(key);
        let left = recent.map(|recent| POOL_PACE.saturating_sub(recent.at.elapsed()));
        Some(left.unwrap_or_default().max(POOL_WAIT))
    }

    /// Remembers a success.
    fn remember(&mut self, key: Key, write: &Write, revision: Option<Revision>) {
        let now = Instant::now();
        let state = write.state();
        let known = self.recent.get(&key);
        let repeats = known
            .filter(|recent| recent.state == state && now - recent.at < CALM)
            .map_or(0, |recent| recent.repeats + 1);
        let recent = Recent {
            seen: write.seen().cloned(),
            state,
            revision,
            at: now,
            repeats,
        };
        if self.recent.is_empty() {
            self.sweep_later();
        }
        self.recent.insert(key, recent);
    }

    fn sweep_later(&mut self) {
        let reporter = self.reporter.clone();
        self.spawn(async move {
            sleep(CALM).await;
            let _ = reporter.send(Report::Sweep);
        });
    }

    /// Forgets what is too old to matter.
    fn sweep(&mut self) {
        self.recent.retain(|_, recent| recent.at.elapsed() < CALM);
        self.recent.shrink_to_fit();
        self.slots.shrink_to_fit();
        if !self.recent.is_empty() {
            self.sweep_later();
        }
    }

    fn start(&mut self, key: Key, write: Write, attempt: Attempt) {
        let attempt = Attempt {
            number: attempt.number.saturating_add(1),
            ..attempt
        };
        let slot = Slot::Running {
            write: write.clone(),
            next: None,
        };
        self.slots.insert(key, slot);
        self.running += 1;
        let sink = self.sink.clone();
        let permits = self.permits.clone();
        let (gate, reporter) = (self.gate.clone(), self.reporter.clone());
        let turn = self.origin + self.throttle.take(self.origin.elapsed());
        self.spawn(async move {
            if turn > Instant::now() {
                sleep_until(turn).await;
            }
            let _permit = permits.acquire().await;
            gate.open().await;
            let started = Instant::now();
            // Of the thousands that may wait for their turn, none has to hold the room that a request
            // under way takes.
            let request = Box::pin(sink.write(&write));
            let result = match timeout(ATTEMPT, request).await {
                Ok(result) => result,
                Err(_) => Err(format!("no answer within {} s", ATTEMPT.as_secs()).into()),
            };
            let took = started.elapsed();
            let _ = reporter.send(Report::Done {
                write: Box::new(write),
                attempt,
                result,
                took,
            });
        });
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(task);
    }

    /// Waits for the next thing to happen to a write, and deals with it. Cancelling is safe.
    pub async fn step(&mut self) -> Option<News> {
        // There is always a sender: `self.reporter`.
        match self.reports.recv().await? {
            Report::Done {
                write,
                attempt,
                result,
                took,
            } => self.done(*write, attempt, result, took),
            Report::Wake { key, wake } => self.woken(key, wake),
            Report::Known { key } => Some(News::Written(key)),
            Report::Sweep => {
                self.sweep();
                None
            }
        }
    }

    fn done(
        &mut self,
        write: Write,
        attempt: Attempt,
        result: Result<Outcome, Failure>,
        took: Duration,
    ) -> Option<News> {
        self.running = self.running.saturating_sub(1);
        let key = write.key();
        let next = match self.slots.remove(&key) {
            Some(Slot::Running { next, .. }) => next,
            _ => None,
        };
        let outcome = match &result {
            Ok(Outcome::Written(_)) => "written",
            Ok(Outcome::Void) => "void",
            Ok(Outcome::Conflict(_)) => "conflict",
            Ok(Outcome::Refused(_)) => "refused",
            Err(_) => "failed",
        };
        let kind = key.kind();
        self.counts
            .get_or_create(&metrics::Write { kind, outcome })
            .inc();
        let millis = took.as_millis();
        let mut conflicts = 0;
        self.gate
            .heard(matches!(&result, Err(failure) if failure.busy));
        match result {
            Ok(Outcome::Written(revision)) => {
                tracing::debug!(%key, millis, attempt = attempt.number, "written");
                let next = next.map(|mut next| {
                    if next.seen() == write.seen() {
                        next.rebase(revision.clone());
                    }
                    next
                });
                self.remember(key.clone(), &write, revision);
                if let Some(next) = next {
                    self.begin(key, next, 0);
                    return None;
                }
                return matches!(write, Write::Vip { .. }).then_some(News::Written(key));
            }
            Ok(Outcome::Void) => {
                tracing::debug!(%key, millis, "write is void");
                self.recent.remove(&key);
            }
            Ok(Outcome::Conflict(reason)) => {
                tracing::debug!(%key, millis, reason, "the object has changed, its write is dropped");
                self.recent.remove(&key);
                conflicts = attempt.conflicts.saturating_add(1);
                if next.is_none() {
                    let wake = self.wake(&key, pause(conflicts, LONGEST));
                    self.slots.insert(key, Slot::Conflicted { conflicts, wake });
                    return None;
                }
            }
            Ok(Outcome::Refused(reason)) => {
                let number = attempt.number;
                tracing::warn!(%key, millis, attempt = number, reason, "write refused, will be tried again");
                if next.is_none() {
                    self.pause(key.clone(), write, attempt, number);
                    return Some(News::Refused(key, reason));
                }
            }
            Err(Failure {
                reason: error,
                asked,
                busy,
            }) => {
                let number = attempt.number;
                let longest = if busy { LONGEST_BUSY } else { LONGEST };
                tracing::warn!(%key, millis, attempt = number, error, ?asked, "write failed, will be tried again");
                if let Some(asked) = asked {
                    // Whatever is wanted by now waits: the API server has too much to do. A little
                    // longer by chance, so that what failed together does not come back together.
                    let asked = asked.min(LONGEST).mul_f64(rand::random_range(1.0..1.5));
                    let delay = asked.max(pause(number, longest));
                    self.hold(key, next.unwrap_or(write), attempt, delay, true);
                    return None;
                }
                if next.is_none() {
                    self.hold(key, write, attempt, pause(number, longest), false);
                    return None;
                }
            }
        }
        if let Some(next) = next {
            self.begin(key, next, conflicts);
        }
        None
    }

    /// Waits before the next attempt, as long as befits `failures` failures.
    fn pause(&mut self, key: Key, write: Write, attempt: Attempt, failures: u32) {
        self.hold(key, write, attempt, pause(failures, LONGEST), false);
    }

    /// Waits before the next attempt; if `firm`, whatever state is wanted until then.
    fn hold(&mut self, key: Key, write: Write, attempt: Attempt, delay: Duration, firm: bool) {
        let wake = self.wake(&key, delay);
        let slot = Slot::Pausing {
            write,
            attempt,
            wake,
            firm,
        };
        self.slots.insert(key, slot);
    }

    /// Sets an alarm and returns its number.
    fn wake(&mut self, key: &Key, delay: Duration) -> u64 {
        self.wakes += 1;
        let wake = self.wakes;
        let reporter = self.reporter.clone();
        let key = key.clone();
        self.spawn(async move {
            sleep(delay).await;
            let _ = reporter.send(Report::Wake { key, wake });
        });
        wake
    }

    fn woken(&mut self, key: Key, woken: u64) -> Option<News> {
        match self.slots.remove(&key) {
            Some(Slot::Pausing {
                mut write,
                attempt,
                wake,
                ..
            }) if wake == woken => {
                self.rebase(&key, &mut write);
                self.start(key, write, attempt);
            }
            Some(Slot::Conflicted { wake, .. }) if wake == woken => {
                return Some(News::Recheck(key));
            }
            Some(slot) => {
                self.slots.insert(key, slot);
            }
            None => {}
        }
        None
    }
}

#[cfg(test)]
mod tests;
