//! The rules: from what is known to what is to be done.

use std::net::IpAddr;
use std::time::Duration;

use super::{Election, Wait, stronger};
use crate::plan::{Load, choose};
use crate::{Action, Away, Candidates, MoveReason, NodeName, epoch};

/// How one VIP stands before we decide.
pub(super) struct Standing {
    pub(super) vip: IpAddr,
    /// The best claim of a node that can own it now.
    pub(super) winner: Option<(u64, NodeName)>,
    /// The highest claim ever heard, of whomever.
    pub(super) top: Option<(u64, NodeName)>,
    /// The best claim of a node that lives and should not own it.
    rival: Option<(u64, NodeName)>,
}

impl Election {
    pub(super) fn decide(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        self.raise_again.retain(|_, at| *at > now);

        self.release_removed(&mut actions);
        let mut ownerless: Vec<&Standing> = Vec::new();
        let mut load = Load::default();
        let standings = self.standings();
        for standing in &standings {
            if self.mine.contains_key(&standing.vip) {
                self.review_own(standing, now, &mut actions);
            }
            match &standing.winner {
                Some((_, node)) => {
                    load.add(node);
                    self.waits.remove(&standing.vip);
                    self.dropped.remove(&standing.vip);
                    if self.holders.get(&standing.vip) != Some(node) {
                        self.holders.insert(standing.vip, node.clone());
                    }
                    self.note_tie(standing);
                }
                None => ownerless.push(standing),
            }
        }
        self.announce_resumed(&mut actions);
        self.take_wanted(&standings, now, &mut actions);
        self.rebalance(&standings, &load, now, &mut actions);
        self.deal_out(ownerless, load, now, &mut actions);
        // What was decided just now may leave something to even out, and nobody else may tell us.
        self.dirty |= self.rebalance_pause.is_some() && !actions.is_empty();
        actions
    }

    /// Of equal claims only one holds, and whoever follows it has to know whose that was: what is announced
    /// when, and what is said of the move, depends on what became of that node.
    fn note_tie(&mut self, standing: &Standing) {
        if let (Some((epoch, winner)), Some((top, other))) = (&standing.winner, &standing.top)
            && epoch == top
            && winner != other
        {
            self.highest.insert(standing.vip, (*epoch, winner.clone()));
        }
    }

    /// VIPs that are gone are nobody's.
    fn release_removed(&mut self, actions: &mut Vec<Action>) {
        let Some(vips) = &self.vips else {
            return;
        };
        let gone: Vec<IpAddr> = self
            .mine
            .keys()
            .filter(|vip| !vips.contains_key(vip))
            .copied()
            .collect();
        self.waits.retain(|vip, _| vips.contains_key(vip));
        self.dropped.retain(|vip, _| vips.contains_key(vip));
        self.holders.retain(|vip, _| vips.contains_key(vip));
        for vip in gone {
            self.release(vip, None, MoveReason::VipRemoved, actions);
        }
    }

    fn standings(&self) -> Vec<Standing> {
        // Each node's claims are sorted already, so sorting them all is mostly merging.
        let mut claims: Vec<(IpAddr, u64, &NodeName)> = Vec::new();
        for (node, table) in &self.peers {
            claims.extend(table.iter().map(|claim| (claim.vip, claim.epoch, node)));
        }
        let mine = self.mine.iter();
        claims.extend(mine.map(|(vip, epoch)| (*vip, *epoch, &self.me)));
        claims.sort_by_key(|claim| claim.0);
        let mut rest = claims.as_slice();
        let mut standing = |vip: &IpAddr, candidates: Option<&Candidates>| {
            let skipped = rest.iter().take_while(|claim| claim.0 < *vip).count();
            rest = rest.get(skipped..).unwrap_or_default();
            let here = rest.iter().take_while(|claim| claim.0 == *vip).count();
            let (claims, later) = rest.split_at(here);
            rest = later;
            self.standing(vip, candidates, claims)
        };
        match &self.vips {
            Some(vips) => {
                let vips = vips.iter();
                vips.map(|(vip, candidates)| standing(vip, Some(candidates)))
                    .collect()
            }
            None => self.mine.keys().map(|vip| standing(vip, None)).collect(),
        }
    }

    /// How `vip` stands, on which there are these claims.
    fn standing(
        &self,
        vip: &IpAddr,
        candidates: Option<&Candidates>,
        claims: &[(IpAddr, u64, &NodeName)],
    ) -> Standing {
        let fit = |node: &NodeName| match candidates {
            Some(candidates) => {
                self.ready(node)
                    && candidates.nodes.contains(node)
                    && !self.avoided_of(candidates, node)
            }
            None => self.ready(node),
        };
        let claims = claims.iter().map(|(_, epoch, node)| (*epoch, *node));
        let highest = self.highest.get(vip).map(|(epoch, node)| (*epoch, node));
        let owned = |(epoch, node): (u64, &NodeName)| (epoch, node.clone());
        let (mut winner, mut rival) = (None, None);
        for claim in claims.clone() {
            let best = match claim.1 {
                node if fit(node) => &mut winner,
                node if self.live(node) => &mut rival,
                _ => continue,
            };
            if best.is_none_or(|best| stronger(vip, &best, &claim).is_lt()) {
                *best = Some(claim);
            }
        }
        Standing {
            vip: *vip,
            winner: winner.map(owned),
            rival: rival.map(owned),
            top: claims
                .chain(highest)
                .max_by_key(|(epoch, _)| *epoch)
                .map(owned),
        }
    }

    /// A VIP that we hold: keep it, raise our claim, or give it up?
    fn review_own(&mut self, standing: &Standing, now: Duration, actions: &mut Vec<Action>) {
        let vip = standing.vip;
        let Some(epoch) = self.mine.get(&vip).copied() else {
            return;
        };
        match &standing.winner {
            Some((_, node)) if *node == self.me => {
                self.raise_if_topped(standing, epoch, now, actions)
            }
            Some((theirs, node)) => {
                // A fit loser is beaten and goes. An unfit one waits until its successor's claim tops its own
                // for everybody else too: of two equal ones the weaker node would yield to this one meanwhile.
                let fit = self.fit(&vip, &self.me);
                if fit || stronger(&vip, &(*theirs, node), &(epoch, &self.me)).is_gt() {
                    let reason = if fit {
                        MoveReason::HigherEpoch
                    } else {
                        self.own_defect(&vip)
                    };
                    self.release(vip, Some(node.clone()), reason, actions);
                }
            }
            // We are not fit. Answering on while nobody else can is better than silence,
            // unless policy says that we must not.
            None => {
                let nobody = self.fit_others(&vip).next().is_none();
                if nobody && !self.leaving && !self.allowed(&vip, &self.me) {
                    self.release(vip, None, MoveReason::PolicyExcluded, actions);
                }
            }
        }
    }

    /// We are the owner, but a node that is not fit has made a higher claim, or an equal one that ranks before ours: it,
    /// and everybody who still believes it, must hear a higher one from us. If each of two nodes takes
    /// the other for unfit this could go on for ever, so it is paced.
    fn raise_if_topped(
        &mut self,
        standing: &Standing,
        epoch: u64,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let top = standing.top.iter().filter(|(top, _)| *top > epoch);
        let rival = standing.rival.iter().filter(|(theirs, node)| {
            stronger(&standing.vip, &(*theirs, node), &(epoch, &self.me)).is_gt()
        });
        let Some((above, node)) = top.chain(rival).next() else {
            return;
        };
        // In a minority our claim is below theirs on purpose, and for a while after that too.
        let shy = self.majority_since.is_none() || self.raise_after().is_some_and(|at| now < at);
        let paced = self.raise_again.contains_key(&standing.vip) || self.listens(now) || shy;
        if !paced {
            self.raise_again.insert(standing.vip, now + self.patience);
            let reason = self.defect_of(&standing.vip, node);
            let epoch = self.over(*above);
            self.take(standing.vip, epoch, Some(node.clone()), reason, actions);
        }
    }

    fn announce_resumed(&mut self, actions: &mut Vec<Action>) {
        for vip in std::mem::take(&mut self.resumed) {
            if let Some(epoch) = self.mine.get(&vip).copied() {
                let (from, reason) = (Some(self.me.clone()), MoveReason::Resumed);
                actions.push(Action::Take {
                    vip,
                    epoch,
                    from,
                    reason,
                });
            }
        }
    }

    /// Deals VIPs without owner out over the fit nodes and takes our own share.
    fn deal_out(
        &mut self,
        ownerless: Vec<&Standing>,
        mut load: Load,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        // At a start hundreds of nodes are heard, one after the other, before anything may be taken.
        let settled = ownerless.iter().any(|s| self.settled(&s.vip, now));
        for standing in ownerless {
            let vip = standing.vip;
            let dropped = self.just_dropped(standing, now);
            if !settled {
                continue;
            }
            let Some(chosen) = self.choose(&vip, &load, now) else {
                self.waits.remove(&vip);
                continue;
            };
            load.add(&chosen);
            if chosen != self.me || !self.settled(&vip, now) || dropped {
                continue;
            }
            self.waits.remove(&vip);
            self.dropped.remove(&vip);
            let top = standing.top.clone().filter(|(_, node)| *node != self.me);
            let past = self.peers.values().filter_map(|table| table.past(&vip));
            let highest = self.highest.get(&vip).map(|(epoch, _)| *epoch);
            let highest = past.chain(highest).max().unwrap_or(0);
            let (above, from, reason) = match top {
                Some((epoch, node)) => {
                    let reason = self.defect_of(&vip, &node);
                    (epoch.max(highest), Some(node), reason)
                }
                None => (highest, None, MoveReason::FirstOwner),
            };
            let out_of_sight = from.as_ref().is_none_or(|node| self.out_of_sight(node));
            let epoch = if self.majority_since.is_none() && out_of_sight {
                epoch::in_place_of(above)
            } else {
                self.over(above)
            };
            self.take(vip, epoch, from, reason, actions);
        }
    }

    /// Did a node that can own the VIP stop claiming it only just now? Then it probably knows
    /// something that we are about to hear: that the VIP is gone, or that another one, whom we have
    /// not heard again yet, has a higher claim. In a large cluster that one may be heard as late as after a round.
    fn just_dropped(&mut self, standing: &Standing, now: Duration) -> bool {
        let vip = standing.vip;
        let fit = |node: &NodeName| *node != self.me && self.fit(&vip, node);
        if !self.holders.get(&vip).is_some_and(fit) {
            self.dropped.remove(&vip);
            return false;
        }
        let until = *self
            .dropped
            .entry(vip)
            .or_insert(now + (self.patience / 2).max(self.round));
        now < until
    }

    /// Is `node` silent, so that it may be cut off from us and go on to own VIPs?
    fn out_of_sight(&self, node: &NodeName) -> bool {
        *node != self.me && !self.live(node) && !self.away.contains_key(node)
    }

    /// Takes the VIPs that somebody wants on this node.
    fn take_wanted(&mut self, standings: &[Standing], now: Duration, actions: &mut Vec<Action>) {
        for standing in standings {
            let vip = standing.vip;
            let Some((_, owner)) = standing.winner.as_ref().filter(|(_, o)| *o != self.me) else {
                continue;
            };
            let candidates = self.vips.as_ref().and_then(|vips| vips.get(&vip));
            let wanted = candidates.is_some_and(|c| c.wanted.as_ref() == Some(&self.me));
            if wanted && self.fit(&vip, &self.me) && self.settled(&vip, now) {
                let top = standing.top.as_ref().map_or(0, |(top, _)| *top);
                let epoch = self.over(top);
                let from = Some(owner.clone());
                self.take(vip, epoch, from, MoveReason::Requested, actions);
            }
        }
    }

    /// The node that is to take `vip`. Passes over those that were chosen and did not.
    fn choose(&mut self, vip: &IpAddr, load: &Load, now: Duration) -> Option<NodeName> {
        let waiting = self.fit(vip, &self.me) && self.settled(vip, now);
        if waiting
            && let Some(wait) = self.waits.get_mut(vip)
            && now >= wait.until
        {
            wait.passed_over.insert(wait.chosen.clone());
        }
        let candidates = self.vips.as_ref()?.get(vip)?;
        let fit = || self.fit_of(candidates);
        let mut passed_over = self
            .waits
            .get(vip)
            .map(|wait| wait.passed_over.clone())
            .unwrap_or_default();
        let chosen = choose(
            vip,
            candidates,
            fit().filter(|node| !passed_over.contains(*node)),
            load,
            &self.held,
        );
        let chosen = match chosen {
            Some(chosen) => chosen.clone(),
            None => {
                passed_over.clear();
                choose(vip, candidates, fit(), load, &self.held)?.clone()
            }
        };
        if waiting && chosen != self.me {
            let until = match self.waits.get(vip) {
                Some(wait) if wait.chosen == chosen && now < wait.until => wait.until,
                _ => now + self.patience,
            };
            let wait = Wait {
                chosen: chosen.clone(),
                until,
                passed_over,
            };
            self.waits.insert(*vip, wait);
        }
        Some(chosen)
    }

    /// May we take `vip` anew, or could it have an owner whom we have not heard yet?
    fn settled(&self, vip: &IpAddr, now: Duration) -> bool {
        let heard = |node: &NodeName| match self.peers.get(node) {
            Some(table) => table.complete(),
            None => self.heard.contains(node),
        };
        let heard_all = || {
            let candidates = self.vips.as_ref().and_then(|vips| vips.get(vip));
            candidates.is_some_and(|c| c.nodes.iter().all(|node| *node == self.me || heard(node)))
        };
        !self.listens(now) && (now >= self.settled_at || heard_all())
    }

    /// Do we only listen for now, whoever was heard?
    fn listens(&self, now: Duration) -> bool {
        !self.prepared || now < self.listen_until
    }

    /// Why `node` cannot go on owning `vip`.
    fn defect_of(&self, vip: &IpAddr, node: &NodeName) -> MoveReason {
        if *node == self.me {
            return self.own_defect(vip);
        }
        match self.away.get(node) {
            Some(Away::Left) => MoveReason::OwnerLeft,
            Some(Away::NotEligible) => MoveReason::OwnerNotEligible,
            None if !self.live(node) => MoveReason::OwnerDied,
            None if !self.allowed(vip, node) => MoveReason::PolicyExcluded,
            None if self.avoided(vip, node) => MoveReason::Drained,
            // Fit, and yet it stopped claiming: its speaker started anew without its state.
            None => MoveReason::OwnerLeft,
        }
    }

    fn own_defect(&self, vip: &IpAddr) -> MoveReason {
        if self.leaving {
            MoveReason::OwnerLeft
        } else if !self.allowed(vip, &self.me) {
            MoveReason::PolicyExcluded
        } else if self.avoided(vip, &self.me) {
            MoveReason::Drained
        } else {
            MoveReason::OwnerNotEligible
        }
    }

    /// The epoch of a claim that beats `above`.
    pub(super) fn over(&self, above: u64) -> u64 {
        epoch::over(above, self.majority_since.is_some())
    }

    /// Claims `vip` with `epoch`.
    pub(super) fn take(
        &mut self,
        vip: IpAddr,
        epoch: u64,
        from: Option<NodeName>,
        reason: MoveReason,
        actions: &mut Vec<Action>,
    ) {
        self.mine.insert(vip, epoch);
        let me = self.me.clone();
        self.note_epoch(vip, epoch, &me);
        actions.push(Action::Take {
            vip,
            epoch,
            from,
            reason,
        });
    }

    fn release(
        &mut self,
        vip: IpAddr,
        to: Option<NodeName>,
        reason: MoveReason,
        actions: &mut Vec<Action>,
    ) {
        self.mine.remove(&vip);
        self.resumed.remove(&vip);
        actions.push(Action::Release { vip, to, reason });
    }
}
