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
        let owners: Vec<(IpAddr, Option<NodeName>)> = standings
            .iter()
            .map(|standing| (standing.vip, standing.winner.as_ref().map(|w| w.1.clone())))
            .collect();
        if owners != self.last_owners || self.live_changed {
            self.last_owners = owners;
            self.live_changed = false;
            self.calm_since = now;
        }
        // In a minority most owners are out of sight, and what looks uneven may not be.
        if self.leaving
            || self.majority_since.is_none()
            || !standings.iter().all(|standing| standing.winner.is_some())
        {
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

    fn best_move(&self, standings: &[Standing], load: &Load) -> Option<Best> {
        let vips = self.vips.as_ref()?;
        let mut best = None;
        for standing in standings {
            let (Some((epoch, owner)), Some(candidates)) =
                (&standing.winner, vips.get(&standing.vip))
            else {
                continue;
            };
            if let Some(wanted) = &candidates.wanted
                && (wanted == owner || self.fit(&standing.vip, wanted))
            {
                continue;
            }
            let (liked, has) = (candidates.preference(owner), load.of(owner));
            for node in &candidates.nodes {
                let held = self.held.contains(node);
                if node == owner || held || !self.fit(&standing.vip, node) {
                    continue;
                }
                let (likes, would) = (candidates.preference(node), load.of(node) + 1);
                // First what is preferred, then what is even.
                let gain = match likes.cmp(&liked) {
                    Ordering::Greater => (true, u64::from(likes - liked)),
                    Ordering::Equal if would < has => (false, has),
                    _ => continue,
                };
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
