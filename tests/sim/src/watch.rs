//! What is seen from outside: who answers for which VIP, outages, moves, accusations.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use lightship_election::MoveReason;
use lightship_membership::PeerState;

/// A VIP had nobody who answers.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    /// Which.
    pub vip: IpAddr,
    /// From when.
    pub from: Duration,
    /// Until when; none if it lasts.
    pub until: Option<Duration>,
}

/// A VIP had several who answer.
#[derive(Debug, Clone, Copy)]
pub struct Double {
    /// Which.
    pub vip: IpAddr,
    /// From when.
    pub from: Duration,
    /// Until when; none if it lasts.
    pub until: Option<Duration>,
}

/// A node took a VIP.
#[derive(Debug, Clone, Copy)]
pub struct Move {
    /// When.
    pub at: Duration,
    /// Which.
    pub vip: IpAddr,
    /// Who.
    pub node: usize,
    /// Why.
    pub reason: MoveReason,
}

/// A detector gave a peer's speaker up.
#[derive(Debug, Clone, Copy)]
pub struct Accusation {
    /// When.
    pub at: Duration,
    /// Whose detector.
    pub by: usize,
    /// The accused.
    pub of: usize,
    /// The verdict.
    pub to: PeerState,
    /// The accused had been running, and reachable both ways, for longer than the timeout.
    pub wrong: bool,
}

/// The record of a run.
#[derive(Debug, Default)]
pub struct Watch {
    /// Who holds each VIP: took it and did not release it.
    pub holders: BTreeMap<IpAddr, BTreeSet<usize>>,
    /// All outages in order.
    pub outages: Vec<Outage>,
    /// All times with several answers, in order.
    pub doubles: Vec<Double>,
    /// All moves in order.
    pub moves: Vec<Move>,
    /// All accusations in order.
    pub accusations: Vec<Accusation>,
    open: BTreeMap<IpAddr, usize>,
    double: BTreeMap<IpAddr, usize>,
    timeline: Option<Vec<String>>,
}

impl Watch {
    /// Notes who can serve now; `serving` tells whether a node answers.
    pub fn look<'a>(
        &mut self,
        vips: impl Iterator<Item = &'a IpAddr>,
        now: Duration,
        serving: impl Fn(usize) -> bool,
    ) {
        for vip in vips {
            let holders = self.holders.get(vip).into_iter().flatten();
            let answers = holders.filter(|node| serving(**node)).count();
            match (answers > 1, self.double.get(vip)) {
                (false, Some(at)) => {
                    self.doubles[*at].until = Some(now);
                    self.double.remove(vip);
                }
                (true, None) => {
                    self.double.insert(*vip, self.doubles.len());
                    self.doubles.push(Double {
                        vip: *vip,
                        from: now,
                        until: None,
                    });
                }
                _ => {}
            }
            match (answers > 0, self.open.get(vip)) {
                (true, Some(at)) => {
                    self.outages[*at].until = Some(now);
                    self.open.remove(vip);
                }
                (false, None) => {
                    self.open.insert(*vip, self.outages.len());
                    self.outages.push(Outage {
                        vip: *vip,
                        from: now,
                        until: None,
                    });
                }
                _ => {}
            }
        }
    }

    /// VIPs that are gone cannot be missed.
    pub fn forget(&mut self, vip: IpAddr, now: Duration) {
        if let Some(at) = self.open.remove(&vip) {
            self.outages[at].until = Some(now);
        }
    }

    /// Adds a line to the timeline, if there is one.
    pub fn say(&mut self, now: Duration, line: impl FnOnce() -> String) {
        if let Some(timeline) = &mut self.timeline {
            timeline.push(format!("{:9.3} s  {}", now.as_secs_f64(), line()));
        }
    }

    /// What happened, line by line; empty if nobody asked for it by [`Self::tell`].
    pub fn timeline(&self) -> String {
        self.timeline.as_deref().unwrap_or_default().join("\n")
    }

    /// From now on the timeline is kept. Thousands of runs of which nobody reads it do without.
    pub fn tell(&mut self) {
        self.timeline.get_or_insert_default();
    }
}
