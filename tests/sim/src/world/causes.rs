//! Whether what happens has a cause: a VIP that moves or falls silent, a node that is given up.

use std::net::IpAddr;
use std::time::Duration;

use lightship_election::{DEFAULT_PATIENCE, MoveReason};

use super::World;
use crate::watch::Move;

impl World {
    /// How long what befell a node may have consequences: until it is noticed, another one was
    /// chosen twice, and a fresh one has listened.
    fn aftermath(&self) -> Duration {
        let setup = &self.setup;
        (setup.noticed() + setup.config.interval) * 2 + setup.round() + DEFAULT_PATIENCE * 2
    }

    /// Was `of` running undisturbed, and the way between the two open, all the last `time`?
    pub(super) fn reachable_for(&self, by: usize, of: usize, time: Duration) -> bool {
        let other = &self.nodes[of];
        let ways = [self.net.open_since(of, by), self.net.open_since(by, of)];
        let since = other.steady_since.max(self.nodes[by].linked_since);
        let since = ways
            .into_iter()
            .try_fold(since, |since, way| way.map(|way| way.max(since)));
        let running = other.up && other.speaker.is_some() && !other.paused;
        let linked = self.setup.apart || other.carrier && self.nodes[by].carrier;
        running && linked && since.is_some_and(|since| since + time < self.now)
    }

    /// A speaker took a VIP, or raised its claim.
    pub(super) fn note_move(&mut self, moved: Move) {
        let name = &self.nodes[moved.node].name;
        self.watch.say(self.now, || {
            let Move {
                vip, epoch, reason, ..
            } = &moved;
            let verb = if moved.raised { "raises" } else { "takes" };
            let from = moved.from.as_deref().unwrap_or("nobody");
            format!("{name} {verb} {vip} from {from}, epoch {epoch}: {reason:?}")
        });
        let now = self.now;
        if now > Duration::ZERO && now == self.nodes[moved.node].woken_at {
            let text = format!(
                "{name} takes {} on waking, before hearing the others",
                moved.vip
            );
            self.complain(text);
        }
        if !moved.raised {
            if let Some(why) = self.without_cause(&moved) {
                self.complain(format!("moves without cause: {moved:?}: {why}"));
            }
            let planned = matches!(moved.reason, MoveReason::Rebalanced | MoveReason::Resumed);
            let before = self.watch.takes.insert((moved.vip, moved.node), now);
            // One that came within the timeout may have been about the disturbance before the last.
            let since = self.disturbed + self.setup.noticed();
            if !planned && before.is_some_and(|before| before > since) {
                self.complain(format!("moves to and fro: {moved:?}, as at {before:?}"));
            }
        }
        self.watch.moves.push(moved);
    }

    /// Why nothing explains a move.
    fn without_cause(&self, moved: &Move) -> Option<&'static str> {
        let aftermath = self.aftermath();
        let fresh = self.nodes[moved.node].steady_since + aftermath >= self.now;
        let steady = |node: usize| self.reachable_for(moved.node, node, aftermath) && !fresh;
        let policy_is_old = self.api_changed + aftermath < self.now && !self.policy_in_force();
        // Whatever the speaker takes for the reason: is there a node that has answered all the time?
        let stays = |(node, since): (usize, Duration)| {
            let other = node != moved.node && self.nodes[node].fine();
            other && since + aftermath < self.now && steady(node)
        };
        match moved.reason {
            MoveReason::OwnerDied
            | MoveReason::OwnerLeft
            | MoveReason::OwnerNotEligible
            | MoveReason::FirstOwner => (policy_is_old
                && self.watch.answering(&moved.vip).any(stays))
            .then_some("its owner was there all the time"),
            MoveReason::PolicyExcluded | MoveReason::Drained | MoveReason::Requested => {
                (policy_is_old && !fresh).then_some("nobody asked for it")
            }
            MoveReason::Rebalanced => {
                let off = self.setup.rebalance.is_none();
                off.then_some("rebalancing is off")
            }
            _ => None,
        }
    }

    /// Does the API server ask for anything but that all nodes share all VIPs?
    fn policy_in_force(&self) -> bool {
        let mut nodes = self.api.nodes.values();
        let mut vips = self.api.vips.values();
        nodes.any(|node| node.excluded || node.drained)
            || vips.any(|vip| vip.pin_to.is_some() || vip.move_to.is_some())
    }

    /// A speaker stopped to answer for a VIP by its own decision, and nobody answers now. That may
    /// be only if nobody could have taken it, or if the one that did was struck itself, took its owner for
    /// dead, or was just started and so has to look around first: a move that is planned has no moment without an owner.
    pub(super) fn gave_up(&mut self, vip: IpAddr, by: usize) {
        let long = self.aftermath();
        if self.nodes[by].steady_since + long >= self.now {
            return;
        }
        let mut moves = self.watch.moves.iter().rev();
        let last = moves.find(|moved| moved.vip == vip && moved.node != by);
        let surprised = |moved: &Move| {
            let reasons = [
                MoveReason::OwnerDied,
                MoveReason::FirstOwner,
                MoveReason::Resumed,
            ];
            // Who has it may have been struck before the one before heard of it.
            let owner = &self.nodes[moved.node];
            let since = if owner.paused {
                owner.paused_at
            } else {
                owner.steady_since
            };
            let leaves = owner
                .speaker
                .as_ref()
                .is_some_and(|s| s.leaving_since.is_some());
            let struck = !leaves && since >= moved.at && since + long > self.now;
            struck || reasons.contains(&moved.reason) && moved.at + long > self.now
        };
        if last.is_some_and(surprised) {
            return;
        }
        let ready = |node: &usize| {
            let machine = &self.nodes[*node];
            let barred = self.api.nodes.get(&machine.name).is_none_or(|n| n.excluded);
            *node != by && machine.fine() && !barred && self.reachable_for(by, *node, long)
        };
        if let Some(other) = (0..self.nodes.len()).find(ready) {
            let (by, other) = (&self.nodes[by].name, &self.nodes[other].name);
            let text = format!("{by} gives {vip} up with nobody to answer, although {other} could");
            self.complain(text);
        }
    }

    fn complain(&mut self, what: String) {
        if self.wrong.is_none() {
            self.watch.say(self.now, || format!("!!! {what}"));
            self.wrong = Some(format!("{what} (at {:?})", self.now));
        }
    }
}
