//! What is seen from outside: who answers for which VIP, outages, moves, accusations.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lightship_election::MoveReason;
use lightship_frames::Mac;
use lightship_membership::{NodeName, PeerState};

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

/// A node took a VIP, or raised its claim for it.
#[derive(Debug, Clone)]
pub struct Move {
    /// When.
    pub at: Duration,
    /// Which.
    pub vip: IpAddr,
    /// Who.
    pub node: usize,
    /// The epoch of its claim.
    pub epoch: u64,
    /// From whom, as far as it knows.
    pub from: Option<NodeName>,
    /// Why.
    pub reason: MoveReason,
    /// It had it already.
    pub raised: bool,
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

/// The reason that stands for a word of a report.
pub(crate) fn reason_of(word: &str) -> MoveReason {
    let all = [
        MoveReason::FirstOwner,
        MoveReason::OwnerDied,
        MoveReason::OwnerLeft,
        MoveReason::OwnerNotEligible,
        MoveReason::HigherEpoch,
        MoveReason::PolicyExcluded,
        MoveReason::VipRemoved,
        MoveReason::Rebalanced,
        MoveReason::Requested,
        MoveReason::Drained,
    ];
    let known = all.into_iter().find(|reason| reason.as_str() == word);
    known.unwrap_or(MoveReason::Resumed)
}

/// The record of a run.
#[derive(Debug, Default)]
pub struct Watch {
    /// Who answers a client that asks for each VIP, if nothing is wrong with the node: since when, and
    /// with which MAC.
    answers: BTreeMap<IpAddr, BTreeMap<usize, (Duration, Mac)>>,
    /// What the clients beside each node were last told of where each VIP is.
    pub caches: Vec<BTreeMap<IpAddr, Mac>>,
    /// All outages in order.
    pub outages: Vec<Outage>,
    /// All times with several answers, in order.
    pub doubles: Vec<Double>,
    /// All moves in order.
    pub moves: Vec<Move>,
    /// When each node last took each VIP.
    pub(crate) takes: BTreeMap<(IpAddr, usize), Duration>,
    /// All accusations in order.
    pub accusations: Vec<Accusation>,
    open: BTreeMap<IpAddr, usize>,
    double: BTreeMap<IpAddr, usize>,
    timeline: Option<Vec<String>>,
}

impl Watch {
    /// The record of a cluster of so many nodes.
    pub fn new(nodes: usize) -> Self {
        Self {
            caches: vec![BTreeMap::new(); nodes],
            ..Self::default()
        }
    }

    /// A node was asked for a VIP, and answered with this MAC or not at all.
    pub fn answers(&mut self, vip: IpAddr, node: usize, answer: Option<Mac>, now: Duration) {
        let all = self.answers.entry(vip).or_default();
        if all.get(&node).map(|(_, mac)| *mac) == answer {
            return;
        }
        match answer {
            None => drop(all.remove(&node)),
            Some(mac) => {
                let since = all.get(&node).map_or(now, |(since, _)| *since);
                all.insert(node, (since, mac));
            }
        }
        self.say(now, || match answer {
            None => format!("node{} does not answer for {vip} any more", node + 1),
            Some(mac) => format!("node{} answers for {vip}: it is at {mac}", node + 1),
        });
    }

    /// The nodes that answer for a VIP, and since when.
    pub fn answering(&self, vip: &IpAddr) -> impl Iterator<Item = (usize, Duration)> {
        let all = self.answers.get(vip).into_iter().flatten();
        all.map(|(node, (since, _))| (*node, *since))
    }

    /// The MAC with which a node answers for a VIP.
    pub fn mac(&self, vip: &IpAddr, node: usize) -> Option<Mac> {
        self.answers.get(vip)?.get(&node).map(|(_, mac)| *mac)
    }

    /// A node answers for nothing any more.
    pub(crate) fn silence(&mut self, node: usize) {
        for all in self.answers.values_mut() {
            all.remove(&node);
        }
    }

    /// Notes who can serve now; `serving` tells whether a node's answers get out. Returns the VIPs
    /// that have nobody since now.
    pub fn look<'a>(
        &mut self,
        vips: impl Iterator<Item = &'a IpAddr>,
        now: Duration,
        serving: impl Fn(usize) -> bool,
    ) -> Vec<IpAddr> {
        let mut lost = Vec::new();
        for vip in vips {
            let all = self.answers.get(vip).into_iter().flatten();
            let answers = all.filter(|(node, _)| serving(**node)).count();
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
                    lost.push(*vip);
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
        lost
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
