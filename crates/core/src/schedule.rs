//! When each owned VIP is announced.
//!
//! A VIP that was just taken is announced at once and again at growing intervals; after
//! that it is refreshed about every minute, because a switch forgets a MAC (300 s) long
//! before a router forgets an ARP entry (1,200 s and more), and a director whose flows all
//! go to its own node never sends with its MAC.
//!
//! Gratuitous ARP can be lost, and old Linux neighbours ignore a second change within their
//! `locktime` of 1 s: hence the steps, of which one (1.1 s) lies just past that second.
//!
//! Where many are due, [`crate::pace`] limits them and [`Urgency`] orders them: all first words
//! come before all repeats, and those before refreshes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::pace::{Kind, Pace};

#[cfg(test)]
mod tests;

/// When the announcements of a burst are sent, counted from the first one.
const BURST: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_millis(1_100),
    Duration::from_millis(2_200),
    Duration::from_millis(5_000),
];

/// The first step of a VIP that was announced before a restart.
const RESUMED: usize = 1;

/// The mean time between refreshes.
const REFRESH: Duration = Duration::from_secs(60);

/// How soon something that could not be sent is tried again.
pub const RETRY: Duration = Duration::from_millis(50);

/// How bad it is that the LAN does not know yet where a VIP is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// What is sent to where it was is lost.
    Lost,
    /// Where it was, it is still answered and forwarded.
    Moved,
    /// Nobody knows it. Who asks is answered, announced or not.
    New,
}

#[derive(Debug)]
struct Entry {
    urgency: Urgency,
    /// When the first step was sent.
    first: Duration,
    step: usize,
    due: Duration,
    /// When it is to be said once more, apart from the steps.
    again: Option<Duration>,
}

impl Entry {
    fn at_step(urgency: Urgency, step: usize, due: Duration) -> Self {
        Entry {
            urgency,
            first: due,
            step,
            due,
            again: None,
        }
    }

    /// When something of a kind is due.
    fn due(&self, kind: Kind) -> Option<Duration> {
        let step = match self.step {
            0 => Kind::First,
            step if step < BURST.len() => Kind::Repeat,
            _ => Kind::Refresh,
        };
        let regular = (step == kind).then_some(self.due);
        let again = self.again.filter(|_| kind == Kind::First);
        regular.into_iter().chain(again).min()
    }

    /// It is announced now.
    fn said(&mut self, vip: IpAddr, now: Duration) {
        self.again = None;
        if self.due > now {
            return;
        }
        if self.step == 0 {
            self.first = now;
        }
        // Steps that have passed meanwhile are not made up for.
        let mut later = BURST.iter().enumerate().skip(self.step + 1);
        let next = later.find(|(_, offset)| self.first + **offset > now);
        (self.step, self.due) = match next {
            Some((step, offset)) => (step, self.first + *offset),
            None => (BURST.len(), now + refresh_after(vip)),
        };
    }
}

const KINDS: [Kind; 3] = [Kind::First, Kind::Repeat, Kind::Refresh];

/// The announcements that are due.
#[derive(Debug, Default)]
pub struct Schedule {
    entries: BTreeMap<IpAddr, Entry>,
    /// Of each kind, when the first is due, or before: it is asked for with each heartbeat, and there may be
    /// thousands of entries.
    earliest: [Option<Duration>; 3],
}

impl Schedule {
    /// Starts (or starts again) the burst of a VIP that was just taken.
    pub fn burst(&mut self, vip: IpAddr, urgency: Urgency, now: Duration) {
        let entry = Entry::at_step(urgency, 0, now);
        note(&mut self.earliest, &entry);
        self.entries.insert(vip, entry);
    }

    /// Has a VIP that is announced already said once more at `at`; its steps go on as they were.
    pub fn once(&mut self, vip: IpAddr, at: Duration) {
        if let Some(entry) = self.entries.get_mut(&vip) {
            entry.again = Some(at);
            note(&mut self.earliest, entry);
        }
    }

    /// Enters a VIP that was owned before a restart, as if it had been announced now: clients know it
    /// most likely. Another node may have announced it meanwhile, though, and yielded without a word of
    /// it being heard here, so the later steps follow, of which some may be lost.
    pub fn resume(&mut self, vip: IpAddr, now: Duration) {
        let entry = Entry {
            first: now,
            ..Entry::at_step(Urgency::Moved, RESUMED, now + BURST[RESUMED])
        };
        note(&mut self.earliest, &entry);
        self.entries.entry(vip).or_insert(entry);
    }

    /// Stops announcing a VIP.
    pub fn stop(&mut self, vip: IpAddr) {
        self.entries.remove(&vip);
        if self.entries.is_empty() {
            self.earliest = Default::default();
        }
    }

    /// Takes the VIPs to announce now of a kind, most urgent first, as far as there is room.
    pub fn due(&mut self, kind: Kind, pace: &mut Pace, now: Duration) -> Vec<IpAddr> {
        let something = self.earliest[kind as usize].is_some_and(|at| at <= now);
        if !something || pace.opens(kind) > now {
            return Vec::new();
        }
        let entries = self.entries.iter();
        let due = entries.filter_map(|(vip, e)| {
            let due = e.due(kind).filter(|due| *due <= now)?;
            Some((e.urgency, e.step, due, *vip))
        });
        let mut due: Vec<_> = due.collect();
        if kind == Kind::Refresh {
            due.sort_by_key(|(_, _, due, vip)| (*due, *vip));
        } else {
            due.sort();
        }
        let vips = due.into_iter().map(|(_, _, _, vip)| vip);
        let vips: Vec<IpAddr> = vips
            .take_while(|vip| pace.take(kind, frames(*vip), now))
            .collect();
        for vip in &vips {
            if let Some(entry) = self.entries.get_mut(vip) {
                entry.said(*vip, now);
            }
        }
        self.earliest = Default::default();
        for entry in self.entries.values() {
            note(&mut self.earliest, entry);
        }
        vips
    }

    /// When [`Schedule::due`] has to be asked again.
    pub fn next_deadline(&self, pace: &Pace) -> Option<Duration> {
        let next = KINDS.into_iter().filter_map(|kind| {
            let due = self.earliest[kind as usize]?;
            Some(due.max(pace.opens(kind)))
        });
        next.min()
    }
}

fn note(earliest: &mut [Option<Duration>; 3], entry: &Entry) {
    for kind in KINDS {
        let earliest = &mut earliest[kind as usize];
        *earliest = earliest.iter().copied().chain(entry.due(kind)).min();
    }
}

/// How many frames announce a VIP: gratuitous ARP has two forms.
fn frames(vip: IpAddr) -> usize {
    if vip.is_ipv4() { 2 } else { 1 }
}

/// The refresh interval of one VIP: 60 s +-10 %, spread by the address so that VIPs taken
/// together drift apart.
fn refresh_after(vip: IpAddr) -> Duration {
    let last = match vip {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    let spread = u32::from(last.wrapping_mul(83)) * 12_000 / 255;
    REFRESH - Duration::from_secs(6) + Duration::from_millis(spread.into())
}
