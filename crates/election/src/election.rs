//! The election's state and inputs; [`step`] holds its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::action::Away;
use crate::claims::{ENDED, PeerClaims, Scope};
use crate::rank::rank;
use crate::{Action, Candidates, Claim, NodeName};

mod balance;
mod ends;
mod step;
#[cfg(test)]
mod tests;

/// How long a VIP may stay without owner after somebody else was chosen, before
/// the others pass that node over. Several heartbeat intervals, since the chosen
/// one may learn of the death a little later.
pub const DEFAULT_PATIENCE: Duration = Duration::from_millis(500);

/// The election as one node sees it.
#[derive(Debug, Clone)]
pub struct Election {
    me: NodeName,
    /// Nothing new is taken before this, unless all candidates were heard.
    settled_at: Duration,
    /// Nothing new is taken before this, whoever was heard.
    listen_until: Duration,
    /// We could answer for what we take.
    prepared: bool,
    patience: Duration,
    /// Within this each node that can be heard is heard.
    round: Duration,
    /// None until the first `set_vips`: resumed claims are then held whatever they are.
    vips: Option<BTreeMap<IpAddr, Candidates>>,
    /// None until the first `set_live`: we then count as live ourselves.
    live: Option<BTreeSet<NodeName>>,
    away: BTreeMap<NodeName, Away>,
    heard: BTreeSet<NodeName>,
    peers: BTreeMap<NodeName, PeerClaims>,
    leaving: bool,
    /// Since when more than half of the cluster has been in sight; None: it is not.
    majority_since: Option<Duration>,
    mine: BTreeMap<IpAddr, u64>,
    /// Resumed and not yet announced by an action.
    resumed: BTreeSet<IpAddr>,
    /// The highest claim ever heard for a VIP and who made it.
    highest: BTreeMap<IpAddr, (u64, NodeName)>,
    /// How often any of these were forgotten, as their VIPs had gone or come again. Peers may still claim them then, and
    /// what they claim has to be noted once more.
    forgotten: u64,
    /// VIPs that have gone while nodes in sight claimed them, and the highest epoch of those claims.
    ended: BTreeMap<IpAddr, u64>,
    waits: BTreeMap<IpAddr, Wait>,
    /// When our claim for a VIP may be raised again over that of an unfit node.
    raise_again: BTreeMap<IpAddr, Duration>,
    /// Who had each VIP when last anybody fit did.
    holders: BTreeMap<IpAddr, NodeName>,
    /// VIPs that a fit node stopped claiming: until when we wait for the reason.
    dropped: BTreeMap<IpAddr, Duration>,
    /// Pause between moves that even the spread out; None: no such moves.
    rebalance_pause: Option<Duration>,
    /// Nodes that get nothing by rebalancing, and what is without owner last.
    held: BTreeSet<NodeName>,
    /// When owners or live nodes last changed.
    calm_since: Duration,
    last_owners: Vec<(IpAddr, Option<NodeName>)>,
    live_changed: bool,
    /// When our next move that evens the spread is due.
    balance_at: Option<Duration>,
    /// Something changed since the last step.
    dirty: bool,
    /// When all that is known was last looked at.
    decided_at: Option<Duration>,
    /// When there is something to do even if nothing changes.
    next_wake: Option<Duration>,
}

/// A VIP without fit claimant that somebody else was chosen for.
#[derive(Debug, Clone)]
struct Wait {
    chosen: NodeName,
    until: Duration,
    passed_over: BTreeSet<NodeName>,
}

impl Election {
    /// An election that knows nothing yet. `settle`: how long it listens before it takes a VIP
    /// that it did not own before, unless it has heard all candidates earlier. Give it
    /// a little more than the failure detector's timeout.
    pub fn new(me: NodeName, settle: Duration, now: Duration) -> Self {
        Self {
            me,
            settled_at: now + settle,
            listen_until: now,
            prepared: true,
            patience: DEFAULT_PATIENCE,
            round: Duration::ZERO,
            vips: None,
            live: None,
            away: BTreeMap::new(),
            heard: BTreeSet::new(),
            peers: BTreeMap::new(),
            leaving: false,
            majority_since: Some(Duration::ZERO),
            mine: BTreeMap::new(),
            resumed: BTreeSet::new(),
            highest: BTreeMap::new(),
            forgotten: 0,
            ended: BTreeMap::new(),
            waits: BTreeMap::new(),
            raise_again: BTreeMap::new(),
            dropped: BTreeMap::new(),
            holders: BTreeMap::new(),
            rebalance_pause: None,
            held: BTreeSet::new(),
            calm_since: now,
            last_owners: Vec::new(),
            live_changed: false,
            balance_at: None,
            dirty: true,
            decided_at: None,
            next_wake: None,
        }
    }

    /// Replaces [`DEFAULT_PATIENCE`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Turns slow rebalancing on: while owners and live nodes have not changed for
    /// `pause`, one VIP moves from the node with most to the node with least, as long as
    /// that makes the spread more even. Off by default; turn it on on all nodes or on none.
    #[must_use]
    pub fn with_rebalancing(mut self, pause: Duration) -> Self {
        self.rebalance_pause = Some(pause);
        self
    }

    /// All VIPs and who may own each. Do not call it before the list is really
    /// known: what we own and is not in it is released. Call [`Self::set_live`] before it if that
    /// changed, too.
    pub fn set_vips(&mut self, vips: BTreeMap<IpAddr, Candidates>) {
        if self.vips.as_ref() != Some(&vips) {
            self.part_with(&vips);
            self.vips = Some(vips);
            self.dirty = true;
        }
    }

    /// As [`Self::set_vips`], where no others have changed than these: with who may own each, or none where it is gone.
    pub fn update_vips(&mut self, changed: impl IntoIterator<Item = (IpAddr, Option<Candidates>)>) {
        let mut vips = self.vips.take().unwrap_or_default();
        self.replace(&mut vips, changed);
        self.vips = Some(vips);
    }

    /// The nodes whose speaker can own VIPs now, this one included if it can.
    pub fn set_live(&mut self, live: BTreeSet<NodeName>) {
        if self.live.as_ref() != Some(&live) {
            self.live = Some(live);
            self.live_changed = true;
            self.dirty = true;
        }
    }

    /// Why nodes are not live, for [`crate::MoveReason`] only: a node that is neither live nor in
    /// here is taken for dead.
    pub fn set_away(&mut self, away: BTreeMap<NodeName, Away>) {
        self.away = away;
    }

    /// Whether more than half of the cluster's nodes are in sight, whatever their speakers may own.
    /// At first they are taken to be.
    pub fn set_majority(&mut self, majority: bool, now: Duration) {
        if majority != self.majority_since.is_some() {
            self.majority_since = majority.then_some(now);
            self.dirty = true;
        }
    }

    /// How long it mostly takes until each node in sight has said something. At first no time: all
    /// say something at every heartbeat.
    pub fn set_round(&mut self, round: Duration) {
        self.dirty |= self.round != round;
        self.round = round;
    }

    /// Forgets what nodes claimed that are not among `nodes`: they have left the cluster.
    pub fn set_nodes(&mut self, nodes: &BTreeSet<NodeName>) {
        let before = (self.peers.len(), self.heard.len());
        self.peers.retain(|node, _| nodes.contains(node));
        self.heard.retain(|node| nodes.contains(node));
        self.dirty |= before != (self.peers.len(), self.heard.len());
    }

    /// Nodes to which rebalancing moves nothing, since they have come and gone lately; a VIP without
    /// owner goes to one of them only if no other is preferred as much. Speakers that were all up for
    /// as long know the same; one that does not know takes its turn after the others' patience.
    pub fn set_held(&mut self, held: BTreeSet<NodeName>) {
        if self.held != held {
            self.held = held;
            self.dirty = true;
        }
    }

    /// A heartbeat of `node` arrived. Only settling looks at it.
    pub fn heard(&mut self, node: &NodeName) {
        if !self.heard.contains(node) {
            self.heard.insert(node.clone());
            self.dirty = true;
        }
    }

    /// What a datagram says of the claims of `node`, in a heartbeat that is newer than all before, or another
    /// datagram of the newest one. Call it for every heartbeat, also without any claims. Returns whether
    /// all claims of the node are known now.
    pub fn on_told(&mut self, node: &NodeName, claims: &[Claim], scope: &Scope) -> bool {
        if *node == self.me {
            return true;
        }
        let forgotten = self.forgotten;
        if let Some(table) = self.peers.get_mut(node)
            && table.says_nothing_new(scope)
        {
            // Nearly every heartbeat is such a one: its claims are those that were noted already.
            if table.note(forgotten) {
                let known: Vec<Claim> = table.iter().collect();
                self.note_epochs(node, &known);
            }
            return true;
        }
        self.note_epochs(node, claims);
        let table = self.peers.entry(node.clone()).or_default();
        self.dirty |= table.told(claims, scope);
        table.knows_all(scope)
    }

    fn note_epochs(&mut self, node: &NodeName, claims: &[Claim]) {
        for claim in claims.iter().filter(|claim| claim.epoch != ENDED) {
            self.note_epoch(claim.vip, claim.epoch, node);
        }
    }

    /// As [`Self::on_told`], one page of a node of an older release, whose datagrams have no scope.
    pub fn on_claims(&mut self, node: &NodeName, page: u16, pages: u16, claims: &[Claim]) {
        if *node == self.me {
            return;
        }
        self.note_epochs(node, claims);
        let table = self.peers.entry(node.clone()).or_default();
        self.dirty |= table.page(page, pages, claims);
    }

    /// What we owned before our restart. We go on with the same epochs at once, without settling.
    pub fn resume(&mut self, claims: &[Claim]) {
        for claim in claims {
            self.mine.insert(claim.vip, claim.epoch);
            self.resumed.insert(claim.vip);
            let me = self.me.clone();
            self.note_epoch(claim.vip, claim.epoch, &me);
        }
        self.dirty = true;
    }

    /// Takes nothing new before `until`; what we hold we keep. For a process that was stopped: what
    /// it finds in its socket then is old, and others may have taken its place. Give it
    /// the time of waking plus the failure detector's timeout. Never shortens an earlier call.
    pub fn listen_until(&mut self, until: Duration) {
        if until > self.listen_until {
            self.listen_until = until;
            self.dirty = true;
        }
    }

    /// Whether we could answer for what we took. Until then nothing new is taken; what we hold we keep. At
    /// first we could.
    pub fn set_prepared(&mut self, prepared: bool) {
        self.dirty |= self.prepared != prepared;
        self.prepared = prepared;
    }

    /// We are going away: no candidate any more, but we keep what we have until others took it.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.dirty = true;
    }

    /// After [`Self::leave`]: has everything been taken over that anybody could take over?
    pub fn handed_over(&self) -> bool {
        self.leaving
            && self
                .mine
                .keys()
                .all(|vip| self.fit_others(vip).next().is_none())
    }

    /// The nodes that claim `vip`, fit or not, alive or not.
    pub fn claimants(&self, vip: &IpAddr) -> impl Iterator<Item = &NodeName> {
        let claims = self.peers.iter();
        let peers = claims.filter(|(_, table)| table.epoch(vip).is_some());
        let mine = self.mine.contains_key(vip).then_some(&self.me);
        peers.map(|(node, _)| node).chain(mine)
    }

    /// What we claim, for our heartbeats, sorted by address.
    pub fn claims(&self) -> Vec<Claim> {
        self.mine
            .iter()
            .map(|(vip, epoch)| Claim {
                vip: *vip,
                epoch: *epoch,
            })
            .collect()
    }

    /// The epoch of our claim for `vip`, if we make one.
    pub fn claim(&self, vip: &IpAddr) -> Option<u64> {
        self.mine.get(vip).copied()
    }

    /// Who owns `vip` as we see it: the best fit claimant, else we if we still hold it.
    pub fn owner(&self, vip: &IpAddr) -> Option<(NodeName, u64)> {
        let peers = self.peers.iter().filter_map(|(node, table)| {
            let epoch = table.epoch(vip)?;
            self.fit(vip, node).then_some((epoch, node))
        });
        let mine = self.mine.get(vip).map(|epoch| (*epoch, &self.me));
        peers
            .chain(mine.filter(|_| self.fit(vip, &self.me)))
            .max_by(|a, b| stronger(vip, a, b))
            .or(mine)
            .map(|(epoch, node)| (node.clone(), epoch))
    }

    /// VIPs that no node can own now: policy allows none, or none of the allowed is live.
    pub fn unowned(&self) -> Vec<IpAddr> {
        // VIPs next to each other mostly share their candidates.
        let mut last: Option<(&Candidates, bool)> = None;
        let mut nobody = |candidates| match last {
            Some((of, nobody)) if same_nodes(of, candidates) => nobody,
            _ => {
                let fit = candidates.nodes.contains(&self.me)
                    && self.ready(&self.me)
                    && !self.avoided_of(candidates, &self.me);
                let nobody = !fit && self.others_of(candidates).next().is_none();
                last = Some((candidates, nobody));
                nobody
            }
        };
        let vips = self.vips.iter().flatten();
        vips.filter(|(_, candidates)| nobody(candidates))
            .map(|(vip, _)| *vip)
            .collect()
    }

    /// When [`Self::step`] has something to do even if no input changes. After a step at `now` that
    /// is later than `now`.
    pub fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let settle = [self.settled_at, self.listen_until]
            .into_iter()
            .filter(|at| now < *at);
        // Who must not take a VIP now lets the wait for another pass: nothing follows from it.
        let waits = self.waits.values().map(|wait| wait.until);
        waits
            .filter(|at| self.decided_at.is_none_or(|decided| decided < *at))
            .chain(self.raise_again.values().copied())
            .chain(self.dropped.values().copied().filter(|at| now < *at))
            .chain(self.raise_after().filter(|at| now < *at))
            .chain(settle)
            .chain(self.balance_at)
            .min()
    }

    /// Draws the conclusions from all inputs so far. Cheap when nothing changed.
    pub fn step(&mut self, now: Duration) -> Vec<Action> {
        if !self.dirty && self.next_wake.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.dirty = false;
        self.decided_at = Some(now);
        let actions = self.decide(now);
        self.next_wake = self.next_deadline(now);
        actions
    }

    /// Should `node` own `vip` if it has it, and may it be given it?
    fn fit(&self, vip: &IpAddr, node: &NodeName) -> bool {
        self.able(vip, node) && !self.avoided(vip, node)
    }

    /// Can `node` own `vip` now?
    fn able(&self, vip: &IpAddr, node: &NodeName) -> bool {
        self.ready(node) && self.allowed(vip, node)
    }

    /// Is `node` to be avoided for `vip`, and is there another that is not?
    fn avoided(&self, vip: &IpAddr, node: &NodeName) -> bool {
        let candidates = self.vips.as_ref().and_then(|vips| vips.get(vip));
        candidates.is_some_and(|candidates| self.avoided_of(candidates, node))
    }

    fn avoided_of(&self, candidates: &Candidates, node: &NodeName) -> bool {
        candidates.avoid.contains(node)
            && candidates
                .nodes
                .iter()
                .any(|other| !candidates.avoid.contains(other) && self.ready(other))
    }

    /// The nodes among `candidates` that are fit, by name. Looks the VIP up once and not once per node.
    fn fit_of<'a>(&'a self, candidates: &'a Candidates) -> impl Iterator<Item = &'a NodeName> {
        let nodes = candidates.nodes.iter().filter(|node| self.ready(node));
        nodes.filter(|node| !self.avoided_of(candidates, node))
    }

    /// Can `node` own VIPs now, as far as policy allows it?
    fn ready(&self, node: &NodeName) -> bool {
        self.live(node) && !(self.leaving && *node == self.me)
    }

    /// From when on our claims may be raised over those of nodes out of sight: for a while after a
    /// partition healed, they may be heard any moment, and in a large cluster only after a round.
    fn raise_after(&self) -> Option<Duration> {
        self.majority_since
            .filter(|since| *since > Duration::ZERO)
            .map(|since| since + self.patience.max(self.round))
    }

    /// Does policy allow `node` to own `vip`? Before the VIPs are known, yes.
    fn allowed(&self, vip: &IpAddr, node: &NodeName) -> bool {
        self.vips.as_ref().is_none_or(|vips| {
            vips.get(vip)
                .is_some_and(|candidates| candidates.nodes.contains(node))
        })
    }

    fn live(&self, node: &NodeName) -> bool {
        match &self.live {
            Some(live) => live.contains(node),
            None => *node == self.me,
        }
    }

    /// The other nodes that can own `vip` now.
    fn fit_others(&self, vip: &IpAddr) -> impl Iterator<Item = &NodeName> {
        let candidates = self.vips.as_ref().and_then(|vips| vips.get(vip));
        candidates
            .into_iter()
            .flat_map(|candidates| self.others_of(candidates))
    }

    /// Those of the other nodes among `candidates` that can own VIPs now.
    fn others_of<'a>(&'a self, candidates: &'a Candidates) -> impl Iterator<Item = &'a NodeName> {
        let nodes = candidates.nodes.iter();
        nodes.filter(|node| **node != self.me && self.live(node))
    }

    fn note_epoch(&mut self, vip: IpAddr, epoch: u64, node: &NodeName) {
        match self.highest.get_mut(&vip) {
            Some(highest) if highest.0 >= epoch => {}
            Some(highest) => *highest = (epoch, node.clone()),
            None => {
                self.highest.insert(vip, (epoch, node.clone()));
            }
        }
    }
}

/// Whether both are the same sets of nodes, without a look into them.
fn same_nodes(a: &Candidates, b: &Candidates) -> bool {
    Arc::ptr_eq(&a.nodes, &b.nodes) && Arc::ptr_eq(&a.avoid, &b.avoid)
}

/// Order of two claims for one VIP: epoch, then rank.
fn stronger(vip: &IpAddr, a: &(u64, &NodeName), b: &(u64, &NodeName)) -> std::cmp::Ordering {
    a.0.cmp(&b.0)
        .then_with(|| rank(vip, a.1).cmp(&rank(vip, b.1)))
}
