//! Slow rebalancing: one VIP at a time moves to a node that is preferred over its owner, or from the
//! node with most to the node with least of those that are preferred alike.
//!
//! Stickiness leaves a node that returned, or joined, without work. Moving a VIP costs no
//! connection where directors forward alike, so the spread is evened out, but only in quiet
//! times: a move is made when neither owners nor live nodes have changed for the
//! whole pause. Each move is such a change, so moves are at least a pause apart in the whole
//! cluster, and a node that flaps gets nothing as long as it flaps.
//!
//! All speakers find the same best move; the receiver makes it by a higher claim, so the old owner
//! answers until the new one does.

use std::cmp::{Ordering, Reverse};
use std::net::IpAddr;
use std::time::Duration;

use super::Election;
use super::step::Standing;
use crate::plan::Load;
use crate::rank::rank;
use crate::{Action, MoveReason, NodeName};

/// The move that helps most.
struct Best {
    vip: IpAddr,
    above: u64,
    from: NodeName,
    to: NodeName,
}

impl Election {
    /// Makes the best move if it is ours and the time has come.
    pub(super) fn rebalance(
        &mut self,
        standings: &[Standing],
        load: &Load,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        self.balance_at = None;
        let Some(pause) = self.rebalance_pause else {
            return;
        };
        let owners = standings.iter().map(|standing| {
            (
                standing.vip,
                standing.winner.as_ref().map(|(_, owner)| owner),
            )
        });
        let before = self.last_owners.iter();
        let before = before.map(|(vip, owner)| (*vip, owner.as_ref()));
        if self.live_changed || !owners.clone().eq(before) {
            self.last_owners = owners.map(|(vip, owner)| (vip, owner.cloned())).collect();
            self.live_changed = false;
            self.calm_since = now;
        }
        // In a minority most owners are out of sight, and what looks uneven may not be. A VIP that is
        // about to be dealt out will change the spread; one that nobody can own holds up nothing.
        let owed = |standing: &Standing| standing.winner.is_none() && self.claimable(&standing.vip);
        let waits = self.leaving || !self.prepared || self.majority_since.is_none();
        if waits || standings.iter().any(owed) {
            return;
        }
        let Some(best) = self
            .best_move(standings, load)
            .filter(|best| best.to == self.me)
        else {
            return;
        };
        let at = (self.calm_since + pause).max(self.listen_until);
        if now < at {
            self.balance_at = Some(at);
            return;
        }
        let (from, epoch) = (Some(best.from), self.over(best.above));
        self.take(best.vip, epoch, from, MoveReason::Rebalanced, actions);
        // Another one may follow: let the next step look again.
        self.dirty = true;
    }

    /// Is there a node that can own `vip` now?
    fn claimable(&self, vip: &IpAddr) -> bool {
        let candidates = self.vips.as_ref().and_then(|vips| vips.get(vip));
        candidates.is_some_and(|candidates| self.fit_of(candidates).next().is_some())
    }

    fn best_move(&self, standings: &[Standing], load: &Load) -> Option<Best> {
        let vips = self.vips.as_ref()?;
        let mut best = None;
        // Nobody has less than this, so most VIPs need no closer look.
        let live = self.live.iter().flatten();
        let least = live.map(|node| load.of(node)).min().unwrap_or(0);
        for standing in standings {
            let (Some((epoch, owner)), Some(candidates)) =
                (&standing.winner, vips.get(&standing.vip))
            else {
                continue;
            };
            let (liked, has) = (candidates.preference(owner), load.of(owner));
            if candidates.preference.is_empty() && has <= least + 1 {
                continue;
            }
            if let Some(wanted) = &candidates.wanted
                && (wanted == owner || self.fit(&standing.vip, wanted))
            {
                continue;
            }
            for node in candidates.nodes.iter() {
                let (likes, would) = (candidates.preference(node), load.of(node) + 1);
                // First what is preferred, then what is even.
                let gain = match likes.cmp(&liked) {
                    Ordering::Greater => (true, u64::from(likes - liked)),
                    Ordering::Equal if would < has => (false, has),
                    _ => continue,
                };
                // Cheap questions first: most nodes help less than the best so far.
                let most = best.as_ref().map(|((gain, would, _), _)| (*gain, *would));
                if most.is_some_and(|most| (gain, Reverse(would)) < most)
                    || node == owner
                    || self.held.contains(node)
                    || !self.ready(node)
                    || self.avoided_of(candidates, node)
                {
                    continue;
                }
                let gain = (gain, Reverse(would), rank(&standing.vip, node));
                if best.as_ref().is_none_or(|(most, _)| gain > *most) {
                    best = Some((gain, (standing, epoch, owner, node)));
                }
            }
        }
        best.map(|(_, (standing, epoch, owner, node))| Best {
            vip: standing.vip,
            above: standing.top.as_ref().map_or(*epoch, |(top, _)| *top),
            from: owner.clone(),
            to: node.clone(),
        })
    }
}
