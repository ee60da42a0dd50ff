//! Slow rebalancing: one VIP at a time moves from the node with most to the node with least.
//!
//! Stickiness leaves a node that returned, or joined, without work. Moving a VIP costs no
//! connection where directors forward alike, so the spread is evened out, but only in quiet
//! times: a move is made when neither owners nor live nodes have changed for the
//! whole pause. Each move is such a change, so moves are at least a pause apart in the whole
//! cluster, and a node that flaps gets nothing as long as it flaps.
//!
//! All speakers find the same best move; the receiver makes it by a higher claim, so the old owner
//! answers until the new one does.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Duration;

use super::Election;
use super::step::Standing;
use crate::plan::Load;
use crate::rank::rank;
use crate::{Action, MoveReason, NodeName};

/// A move that makes the spread more even.
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
        if self.leaving || !standings.iter().all(|standing| standing.winner.is_some()) {
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
        let from = Some(best.from);
        self.take(best.vip, best.above, from, MoveReason::Rebalanced, actions);
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
            let has = share(load.of(owner), candidates.weight(owner));
            for node in &candidates.nodes {
                let would = share(load.of(node) + 1, candidates.weight(node));
                if would >= has || node == owner || !self.fit(&standing.vip, node) {
                    continue;
                }
                let gain = (has, Reverse(would), rank(&standing.vip, node));
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

/// Load for the weight, in millionths. A node of weight 0 has too much with its first VIP.
fn share(load: u64, weight: u32) -> u64 {
    match weight {
        0 if load > 0 => u64::MAX,
        0 => 0,
        weight => load.saturating_mul(1_000_000) / u64::from(weight),
    }
}
