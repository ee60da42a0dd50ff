//! Which of several replicas acts: a state machine over one Lease of `coordination.k8s.io`.
//!
//! The holder renews the Lease; the others take it when it has not changed for the duration that it
//! states, measured on their own clock from the moment they saw it change, so clocks need
//! not agree. Every write carries the `resourceVersion` that was seen, so of several that try,
//! one succeeds. A holder that could not renew gives up acting well before the others may
//! take over; the time counts from when the last successful renewal was sent.
//!
//! No guarantee rests on this alone: a process may be held up between looking at its clock and
//! writing. The writes themselves are fenced (see [`crate::model::Write`]); this keeps two replicas
//! from working against each other.
//!
//! Times are durations since any fixed moment, on a clock that also counts while the
//! machine sleeps.

use std::time::Duration;

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Others may take a Lease that has not changed for so long.
    pub duration: Duration,
    /// The holder writes the Lease this often.
    pub renew: Duration,
    /// The holder stops acting this long after the last renewal that succeeded was sent.
    pub deadline: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(10),
            renew: Duration::from_secs(2),
            deadline: Duration::from_secs(6),
        }
    }
}

impl Timing {
    /// Checks that the times fit each other.
    ///
    /// # Errors
    /// If not, with the flag to change.
    pub fn checked(self) -> Result<Self, String> {
        if self.renew.is_zero() {
            return Err("--lease-renew-interval must be at least 1".into());
        }
        if self.deadline <= self.renew {
            return Err("--lease-renew-deadline must be longer than --lease-renew-interval".into());
        }
        if self.duration <= self.deadline {
            return Err("--lease-duration must be longer than --lease-renew-deadline".into());
        }
        Ok(self)
    }

    /// How long one request may take: two must fit before the deadline.
    pub fn request(self) -> Duration {
        self.deadline / 2
    }
}

/// A Lease as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `spec.holderIdentity`; empty if nobody holds it.
    pub holder: String,
    /// `spec.leaseDurationSeconds`, if it is stated.
    pub duration: Option<Duration>,
    /// `spec.leaseTransitions`.
    pub transitions: i32,
}

/// A write of the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The version to change; none creates the Lease.
    pub version: Option<String>,
    /// The new holder; empty releases.
    pub holder: String,
    /// Whether this begins a tenure, so that `spec.acquireTime` changes.
    pub acquires: bool,
    /// The new `spec.leaseTransitions`.
    pub transitions: i32,
}

/// Why a write did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody else wrote the Lease.
    Conflict,
    /// Nothing is known: it may even have been written.
    Unknown,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the Lease.
    Look,
    /// Write it.
    Write(Put),
    /// Nothing before this moment, unless the watch says something.
    Wait(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Standby,
    Leader { until: Duration, renew_at: Duration },
}

/// The last known state of the Lease.
#[derive(Clone, Debug)]
struct Known {
    lease: Option<Sighting>,
    /// When it was first seen in this state.
    since: Duration,
    /// When it was last read for certain.
    confirmed: Duration,
}

/// One replica's part in the election.
#[derive(Clone, Debug)]
pub struct Elector {
    me: String,
    instance: String,
    timing: Timing,
    role: Role,
    known: Option<Known>,
    /// Whether `known` cannot be relied on, so that the next step is to look.
    doubtful: bool,
    /// Whether the Lease was never read by this process.
    new: bool,
    not_before: Duration,
    failures: u32,
}

impl Elector {
    /// The replica `instance`; `process` tells this run of it from others.
    ///
    /// A Lease that an earlier run of the same instance holds at the first look is taken at once:
    /// its Pod cannot run twice, so that run is over.
    pub fn new(instance: &str, process: &str, timing: Timing) -> Self {
        Self {
            me: format!("{instance}_{process}"),
            instance: instance.to_owned(),
            timing,
            role: Role::Standby,
            known: None,
            doubtful: true,
            new: true,
            not_before: Duration::ZERO,
            failures: 0,
        }
    }

    /// Until when this replica may act; none if it may not.
    pub fn acts_until(&self, now: Duration) -> Option<Duration> {
        match self.role {
            Role::Leader { until, .. } if now < until => Some(until),
            _ => None,
        }
    }

    /// The holder as last seen, if it is another.
    pub fn other_holder(&self) -> Option<&str> {
        let lease = self.known.as_ref()?.lease.as_ref()?;
        (!lease.holder.is_empty() && lease.holder != self.me).then_some(&lease.holder)
    }

    /// Failures since the last success, this one included: for the pause that
    /// [`Elector::failed`] wants.
    pub fn failures(&self) -> u32 {
        self.failures.saturating_add(1)
    }

    /// What to do now.
    pub fn next(&mut self, now: Duration) -> Step {
        if let Role::Leader { until, .. } = self.role
            && now >= until
        {
            self.role = Role::Standby;
            self.doubtful = true;
        }
        if now < self.not_before {
            let until = self.acts_until(now).unwrap_or(self.not_before);
            return Step::Wait(until.min(self.not_before));
        }
        let Some(known) = self.known.as_ref().filter(|_| !self.doubtful) else {
            return Step::Look;
        };
        match self.role {
            Role::Leader { until, renew_at } if now < renew_at => Step::Wait(renew_at.min(until)),
            Role::Leader { .. } => Step::Write(self.put(known.lease.as_ref(), false)),
            Role::Standby => self.stand_by(known, now),
        }
    }

    fn stand_by(&self, known: &Known, now: Duration) -> Step {
        let Some(lease) = &known.lease else {
            return Step::Write(self.put(None, true));
        };
        if lease.holder.is_empty() || lease.holder == self.me {
            return Step::Write(self.put(Some(lease), true));
        }
        let expires = known.since + lease.duration.unwrap_or(self.timing.duration);
        if now < expires {
            Step::Wait(expires)
        } else if known.confirmed < expires {
            // The watch may have broken off: nobody is deposed unread.
            Step::Look
        } else {
            Step::Write(self.put(Some(lease), true))
        }
    }

    fn put(&self, lease: Option<&Sighting>, acquires: bool) -> Put {
        let transitions = lease.map_or(0, |lease| lease.transitions);
        Put {
            version: lease.map(|lease| lease.version.clone()),
            holder: self.me.clone(),
            acquires,
            transitions: match acquires && lease.is_some() {
                true => transitions.saturating_add(1),
                false => transitions,
            },
        }
    }

    /// The Lease was read, in an attempt that began at `started`.
    pub fn looked(&mut self, lease: Option<Sighting>, started: Duration, now: Duration) {
        self.failures = 0;
        self.doubtful = false;
        let first = std::mem::take(&mut self.new);
        let mut lease = lease;
        if let Some(lease) = &mut lease {
            let predecessor = lease.holder.rsplit_once('_');
            let predecessor = predecessor.is_some_and(|(instance, _)| instance == self.instance);
            if first && predecessor {
                lease.holder.clear();
            }
        }
        if let Role::Leader { renew_at, .. } = &mut self.role {
            match &lease {
                Some(lease) if lease.holder != self.me => self.role = Role::Standby,
                _ => *renew_at = now,
            }
        }
        self.learn(lease, now);
        if let Some(known) = &mut self.known {
            known.confirmed = started;
        }
    }

    /// The watch saw the Lease, or that it is gone. It may lag behind what is known.
    pub fn noticed(&mut self, lease: Option<Sighting>, now: Duration) {
        match self.role {
            // The own renewals come back; anything else is looked into.
            Role::Leader { .. } => {
                if lease.is_none_or(|lease| lease.holder != self.me) {
                    self.doubtful = true;
                }
            }
            // The first state is to be read, so that an earlier run of this instance is known.
            Role::Standby if self.new => {}
            Role::Standby => self.learn(lease, now),
        }
    }

    fn learn(&mut self, lease: Option<Sighting>, now: Duration) {
        let version = |lease: &Option<Sighting>| lease.as_ref().map(|lease| lease.version.clone());
        match &mut self.known {
            Some(known) if version(&known.lease) == version(&lease) => {}
            known => {
                let confirmed = known.as_ref().map_or(Duration::ZERO, |k| k.confirmed);
                *known = Some(Known {
                    lease,
                    since: now,
                    confirmed,
                });
            }
        }
    }

    /// The Lease was written, in an attempt that began at `started`.
    pub fn wrote(&mut self, lease: Sighting, started: Duration, now: Duration) {
        self.failures = 0;
        self.doubtful = false;
        if lease.holder == self.me {
            self.role = Role::Leader {
                until: started + self.timing.deadline,
                renew_at: started + self.timing.renew,
            };
        }
        self.learn(Some(lease), now);
    }

    /// A request failed; the next comes after `pause`.
    pub fn failed(&mut self, refusal: Refusal, now: Duration, pause: Duration) {
        self.doubtful = true;
        // One that comes first is no trouble: the look that follows tells who it is.
        if refusal == Refusal::Unknown || self.failures > 0 {
            self.not_before = now + pause;
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// How to give a Lease back that was just read, if this replica holds it.
    pub fn release(&self, lease: &Sighting) -> Option<Put> {
        (lease.holder == self.me).then(|| Put {
            holder: String::new(),
            ..self.put(Some(lease), false)
        })
    }
}

#[cfg(test)]
mod tests;
