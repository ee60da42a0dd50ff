//! What this node tells about VIPs, for their status: those it owns, and (from one speaker of all)
//! those that nobody can own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lightship_crds::{MAX_LOST_PEERS, SPARE_WITNESSES, WITNESSES, witnesses};
use lightship_frames::Mac;
use lightship_membership::PeerState;

use super::{Core, Output};
use crate::further::Via;
use crate::world::{NodeName, ServiceRef};

/// A VIP must have been without any possible owner for so long before that is reported: while
/// speakers start or news spread it is normal.
const UNOWNED_PATIENCE: Duration = Duration::from_secs(1);

/// At most so many nodes are named per reason.
const NAMED: usize = 5;

/// A move of a VIP to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The epoch it began.
    pub epoch: u64,
    /// The owner before, if there was one.
    pub from: Option<NodeName>,
    /// Why, in one word (`MoveReason::as_str`).
    pub reason: String,
    /// When, since the speaker's start.
    pub at: Duration,
}

/// What this node reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// The VIPs it owns.
    pub vips: BTreeMap<IpAddr, VipReport>,
    /// The VIPs that nobody can own, if it is this node's turn to report them.
    pub unowned: BTreeMap<IpAddr, Unowned>,
    /// Live nodes with a director whose table is the same as this node's.
    pub directors_agreeing: usize,
    /// Live nodes with a director.
    pub directors: usize,
    /// The dead nodes of which this node is a witness.
    pub lost: BTreeSet<NodeName>,
    /// MAC addresses that more than one live node says is its own, with those nodes.
    pub clashes: BTreeMap<Mac, BTreeSet<NodeName>>,
}

/// What this node reports about a VIP that it owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipReport {
    /// The number of this ownership.
    pub epoch: u64,
    /// It is said on the LAN.
    pub announced: bool,
    /// The further uplink that it is announced on, with the MAC; none on the main one.
    pub further: Option<(Arc<str>, Mac)>,
    /// By the director, or by this node's kube-proxy alone.
    pub direct_routing: bool,
    /// The nodes that serve it, with their weights; 0 for those that should and are gone.
    pub backends: Arc<BTreeMap<NodeName, u32>>,
    /// The move by which this node got it, if that happened since the speaker's start.
    pub moved: Option<Move>,
    /// Why this node should not own it, and does only because nobody else can.
    pub trouble: Option<String>,
    /// The kernel's words where it does not hold the VIP's part of the director as wanted.
    pub refused: Option<String>,
    /// Another machine that uses it.
    pub conflict: Option<Mac>,
    /// What became of the annotations that ask for a node.
    pub placement: Option<Placement>,
    /// The target of `lightship.dev/move-to` that has been dealt with.
    pub moved_to: Option<NodeName>,
    /// What is to be said if it is on no network of this node's uplink.
    pub off_link: Option<OffLink>,
    /// Services under policy `Local` whose endpoints no director reaches, with the endpoints' nodes.
    pub stranded: BTreeMap<ServiceRef, BTreeSet<NodeName>>,
}

/// How a VIP is announced on a LAN that it is not an address of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffLink {
    /// None of the nodes that may own it has it on-link: a router has to lead it to this LAN.
    Everywhere,
    /// Others have it on-link and cannot own it now.
    Here,
}

/// Whether a VIP is where an annotation asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// It is.
    pub placed: bool,
    /// One word.
    pub reason: &'static str,
    /// A sentence with the fix.
    pub message: String,
}

/// A VIP that nobody can own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unowned {
    /// Each node with the reason why not.
    pub message: String,
    /// The nodes that would serve it.
    pub backends: Arc<BTreeMap<NodeName, u32>>,
}

impl Core {
    pub(super) fn report(&mut self, now: Duration) {
        if !std::mem::take(&mut self.unreported) {
            return;
        }
        self.note_unowned(now);
        let live = self.peers.iter().filter(|(name, peer)| {
            let directs = peer.told.as_ref().is_some_and(|t| t.direct_routing);
            self.detector.state(name).can_own() && directs
        });
        let digests: Vec<u64> = live.map(|(_, peer)| peer.digest).collect();
        let own = usize::from(self.directs());
        let agreeing = digests
            .iter()
            .filter(|d| **d == self.director.digest)
            .count();
        let trouble = self.trouble();
        let vips = self.owned.iter().filter_map(|(vip, owned)| {
            let intent = self.intent.vips.get(vip)?;
            let report = VipReport {
                epoch: owned.epoch,
                announced: owned.announced,
                further: match self.via(*vip) {
                    Via::Main => None,
                    Via::Further(name) => Some((name, self.announced_mac(*vip))),
                },
                direct_routing: self.directed(*vip),
                backends: intent.backends.clone(),
                moved: self.moves.get(vip).cloned(),
                trouble: trouble.clone(),
                refused: self.refused_because(*vip),
                conflict: self.conflicts.foreign(*vip),
                placement: self.placement(*vip),
                moved_to: self.moved_to.get(vip).cloned(),
                off_link: self.off_link(*vip),
                stranded: intent.stranded.clone(),
            };
            Some((*vip, report))
        });
        let vips = vips.collect();
        let report = Ownership {
            vips,
            unowned: self.unowned_reports(now),
            directors_agreeing: agreeing + own,
            directors: digests.len() + own,
            lost: self.lost(now),
            clashes: self.clashes(),
        };
        if self.sent_report.as_deref() != Some(&report) {
            let report = Arc::new(report);
            self.sent_report = Some(report.clone());
            self.out.push(Output::Report(report));
        }
    }

    /// The kernel's words where the director does not hold a VIP as wanted.
    fn refused_because(&self, vip: IpAddr) -> Option<String> {
        let refused = self.director.failing.get(&vip);
        refused.or_else(|| self.uplink_refused(vip)).cloned()
    }

    /// The MAC addresses, of uplinks and directors, that two live nodes have: machines that were copied,
    /// or a derived address that is not as unique as it should be. Frames for one reach the other.
    fn clashes(&self) -> BTreeMap<Mac, BTreeSet<NodeName>> {
        let mut users: BTreeMap<Mac, BTreeSet<NodeName>> = BTreeMap::new();
        let setup = &self.setup;
        let own = [setup.uplink_mac, setup.director_mac].into_iter();
        let further = self.further.iter();
        let further = further.flat_map(|own| [own.mac(), own.director_mac()]);
        let own = own.chain(further).enumerate();
        // Every second one is a director's.
        let own = own.filter(|(at, _)| setup.direct_routing || at % 2 == 0);
        let peers = self.peers.iter().filter_map(|(name, peer)| {
            let alive = !peer.buried && self.detector.state(name).node_alive();
            Some((name, peer.told.as_ref().filter(|_| alive)?))
        });
        let peers = peers.flat_map(|(name, told)| told.macs().map(move |mac| (name, Mac(mac))));
        for (name, mac) in own.map(|(_, mac)| (&setup.me, mac)).chain(peers) {
            users.entry(mac).or_default().insert(name.clone());
        }
        // Who has no director says so by zeros.
        users.retain(|mac, nodes| nodes.len() > 1 && mac.0 != [0; 6]);
        users
    }

    /// The nodes that this node is to report as dead. Who sees less than half of the nodes
    /// rather doubts itself, and who stops has nothing more to say.
    fn lost(&self, now: Duration) -> BTreeSet<NodeName> {
        if self.leaving || !self.majority(now) {
            return BTreeSet::new();
        }
        let me: &str = &self.setup.me;
        let heard = self.peers.iter().filter(|(_, peer)| peer.told.is_some());
        let heard: Vec<&NodeName> = heard.map(|(name, _)| name).collect();
        let is_witness = |node: &NodeName| {
            let all = heard.iter().map(|name| &***name).chain([me]);
            witnesses(node, all, WITNESSES + SPARE_WITNESSES).contains(&me)
        };
        let dead = heard.iter().copied();
        let dead = dead.filter(|name| self.detector.state(name) == PeerState::Dead);
        let lost = dead.filter(|name| is_witness(name));
        lost.take(MAX_LOST_PEERS).cloned().collect()
    }

    fn off_link(&self, vip: IpAddr) -> Option<OffLink> {
        let eligibility = &self.intent.vips.get(&vip)?.eligibility;
        let seat = eligibility.seats.get(&self.setup.me)?;
        (seat.on_link == Some(false)).then(|| {
            if eligibility.somewhere_on_link() {
                OffLink::Here
            } else {
                OffLink::Everywhere
            }
        })
    }

    /// Keeps account of since when each VIP has had nobody.
    fn note_unowned(&mut self, now: Duration) {
        let beats = |name: &NodeName| {
            let state = self.detector.state(name);
            *name == self.setup.me || state.can_own() || state == PeerState::Leaving
        };
        let all = self.election.unowned();
        let claimed = |vip: &IpAddr| self.election.claimants(vip).any(beats);
        let found = all.iter().copied().filter(|vip| !claimed(vip));
        let found: Vec<IpAddr> = found.filter(|_| self.settled).collect();
        self.look_again = found.len() < all.len();
        let since = |vip| self.unowned.get(&vip).copied().unwrap_or(now);
        self.unowned = found.into_iter().map(|vip| (vip, since(vip))).collect();
    }

    /// When the next VIP has been unowned for long enough to say so.
    pub(super) fn unowned_due(&self) -> Option<Duration> {
        let sent = self.sent_report.as_ref();
        let unsaid = self
            .unowned
            .iter()
            .filter(|(vip, _)| sent.is_none_or(|sent| !sent.unowned.contains_key(vip)));
        let due = unsaid.map(|(_, since)| *since + UNOWNED_PATIENCE).min();
        due.filter(|_| self.reports_unowned())
    }

    /// Of all speakers that are heard, the one on the node with the lowest name reports.
    fn reports_unowned(&self) -> bool {
        let mut before = self.peers.keys().filter(|name| **name < self.setup.me);
        !self.leaving && !before.any(|name| self.detector.state(name).can_own())
    }

    fn unowned_reports(&self, now: Duration) -> BTreeMap<IpAddr, Unowned> {
        if !self.reports_unowned() {
            return BTreeMap::new();
        }
        let ripe = self
            .unowned
            .iter()
            .filter(|(_, since)| **since + UNOWNED_PATIENCE <= now);
        let reports = ripe.filter_map(|(vip, _)| {
            let report = Unowned {
                message: self.why_unowned(*vip),
                backends: self.intent.vips.get(vip)?.backends.clone(),
            };
            Some((*vip, report))
        });
        reports.collect()
    }

    /// The reasons why no node can own a VIP, each with the nodes it holds for.
    fn why_unowned(&self, vip: IpAddr) -> String {
        let mut reasons: BTreeMap<String, Vec<&NodeName>> = BTreeMap::new();
        let Some(intent) = self.intent.vips.get(&vip) else {
            return String::new();
        };
        for (name, bar) in &intent.eligibility.barred {
            reasons.entry(bar.to_string()).or_default().push(name);
        }
        for name in intent.eligibility.seats.keys() {
            reasons.entry(self.why_not(name)).or_default().push(name);
        }
        let mut text = String::from("no node can answer for it");
        for (index, (reason, nodes)) in reasons.iter().enumerate() {
            let separator = if index == 0 { ": " } else { "; " };
            let named: Vec<&str> = nodes.iter().take(NAMED).map(|n| &***n).collect();
            let more = nodes.len().saturating_sub(NAMED);
            let _ = write!(text, "{separator}{reason} ({}", named.join(", "));
            if more > 0 {
                let _ = write!(text, " and {more} more");
            }
            text.push(')');
        }
        if reasons.is_empty() {
            text.push_str(": the cluster has no nodes");
        }
        text
    }

    /// Why a node that may own VIPs cannot do so now.
    pub(super) fn why_not(&self, name: &NodeName) -> String {
        if *name == self.setup.me {
            return self.trouble().unwrap_or_else(|| "it stops".into());
        }
        let state = self.detector.state(name);
        match state {
            PeerState::Unknown => "no speaker was heard yet".into(),
            PeerState::Dead => "neither speaker nor kernel answers".into(),
            PeerState::SpeakerLost => "its speaker is silent".into(),
            PeerState::Leaving | PeerState::Left => "its speaker was stopped".into(),
            PeerState::Alive | PeerState::Suspect => {
                let can_own = self.peers.get(name).is_some_and(|peer| peer.can_own);
                let text = if can_own {
                    "it is about to take it"
                } else {
                    "its uplink or director fails (see its speaker's log)"
                };
                text.into()
            }
        }
    }
}
