//! What the core counts, for people who watch it.

use std::collections::BTreeMap;

use lightship_membership::PeerState;

use super::Core;

/// Counts since the speaker's start, and how things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Heartbeats refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Other nodes by what is known of their speaker.
    pub peers: BTreeMap<&'static str, u64>,
    /// VIPs that exist.
    pub vips: u64,
    /// VIPs that this node owns.
    pub owned: u64,
    /// Those of them that it announces and answers for.
    pub announced: u64,
    /// Those of them that another machine uses too.
    pub conflicting: u64,
    /// VIPs taken, by reason (`MoveReason::as_str`).
    pub taken: BTreeMap<&'static str, u64>,
    /// VIPs released, by reason.
    pub released: BTreeMap<&'static str, u64>,
    /// What was said.
    pub said: Said,
    /// Live nodes with a director, this one included.
    pub directors: u64,
    /// Those of them whose table is the same as this node's.
    pub directors_agreeing: u64,
    /// MAC addresses that more than one live node says is its own.
    pub mac_clashes: u64,
    /// This node has a director.
    pub has_director: bool,
    /// It holds what it should.
    pub director_healthy: bool,
    /// VIPs that its kernel does not hold as wanted.
    pub director_failing: u64,
    /// The peers have been heard, or were given the time to be.
    pub settled: bool,
    /// Why this node can own nothing now.
    pub trouble: Option<String>,
}

/// Frames since the speaker's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Announcements, each form counted.
    pub announcements: u64,
    /// Probes for new VIPs.
    pub probes: u64,
    /// Answers to ARP requests.
    pub arp_answers: u64,
    /// Answers to neighbour solicitations.
    pub ndp_answers: u64,
    /// Frames that the socket refused, all of the above included.
    pub unsent: u64,
    /// Times that another machine was found to use a VIP of this node.
    pub conflicts: u64,
}

impl Core {
    /// How things stand now.
    pub fn snapshot(&self) -> Snapshot {
        let all = [
            PeerState::Unknown,
            PeerState::Alive,
            PeerState::Suspect,
            PeerState::SpeakerLost,
            PeerState::Leaving,
            PeerState::Left,
            PeerState::Dead,
        ];
        let mut peers: BTreeMap<_, u64> = all.into_iter().map(|s| (state(s), 0)).collect();
        for name in self.world.nodes.keys().filter(|n| **n != self.setup.me) {
            *peers.entry(state(self.detector.state(name))).or_default() += 1;
        }
        let announced = self.owned.values().filter(|owned| owned.announced);
        let conflicting = self.owned.keys();
        let conflicting = conflicting.filter(|vip| self.conflicts.foreign(**vip).is_some());
        let report = self.sent_report.as_deref();
        Snapshot {
            refused: self.refused().clone(),
            peers,
            vips: self.world.vips.len() as u64,
            owned: self.owned.len() as u64,
            announced: announced.count() as u64,
            conflicting: conflicting.count() as u64,
            taken: self.taken.clone(),
            released: self.released.clone(),
            said: self.tally,
            directors: report.map_or(0, |r| r.directors as u64),
            directors_agreeing: report.map_or(0, |r| r.directors_agreeing as u64),
            mac_clashes: report.map_or(0, |r| r.clashes.len() as u64),
            has_director: self.setup.direct_routing,
            director_healthy: self.director.healthy,
            director_failing: self.director.failing.len() as u64,
            settled: self.settled,
            trouble: self.trouble(),
        }
    }
}

fn state(state: PeerState) -> &'static str {
    match state {
        PeerState::Unknown => "unknown",
        PeerState::Alive => "alive",
        PeerState::Suspect => "suspect",
        PeerState::SpeakerLost => "speaker_lost",
        PeerState::Leaving => "leaving",
        PeerState::Left => "left",
        PeerState::Dead => "dead",
    }
}
