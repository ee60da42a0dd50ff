//! Moves by hand: the annotations `lightship.dev/pin-to` and `lightship.dev/move-to` on a VirtualIP.
//!
//! A pin holds as long as it is there: whenever its node can own the VIP, it does. A move is done
//! once: as soon as any speaker has seen the VIP on the target, it counts as dealt with, and the
//! owner writes that into the status (`movedTo`), so that no later speaker does it again.
//! Speakers have no right to change annotations, so it stays until somebody removes it; another
//! value, or the same after its removal, is a new request.

use std::net::IpAddr;

use super::{Core, Placement};
use crate::world::NodeName;

impl Core {
    /// The node that somebody wants a VIP on.
    pub(super) fn wanted(&self, vip: IpAddr) -> Option<NodeName> {
        let asked = self.world.vips.get(&vip)?;
        if asked.pin_to.is_some() {
            return asked.pin_to.clone();
        }
        let target = asked.move_to.as_ref()?;
        let done = |by: Option<&NodeName>| by == Some(target);
        let dealt_with = done(self.moved_to.get(&vip)) || done(asked.moved_to.as_ref());
        (!dealt_with).then(|| target.clone())
    }

    /// Notes the moves that are done, and forgets those that nobody asks for any more.
    pub(super) fn note_moved(&mut self) {
        let asking = self.world.vips.iter();
        let asking = asking.filter_map(|(vip, asked)| Some((*vip, asked.move_to.clone()?, asked)));
        let moved = asking.filter_map(|(vip, target, asked)| {
            let before = self.moved_to.get(&vip).or(asked.moved_to.as_ref());
            let there = || self.election.owner(&vip).is_some_and(|(o, _)| o == target);
            (before == Some(&target) || there()).then_some((vip, target))
        });
        let moved = moved.collect();
        if moved != self.moved_to {
            self.moved_to = moved;
            (self.stale, self.unreported) = (true, true);
            self.wishes_changed = true;
        }
    }

    /// What became of the annotations of a VIP.
    pub(super) fn placement(&self, vip: IpAddr) -> Option<Placement> {
        let asked = self.world.vips.get(&vip)?;
        let (annotation, target) = match (&asked.pin_to, self.wanted(vip)) {
            (Some(pin), _) => ("lightship.dev/pin-to", pin.clone()),
            (None, Some(target)) => ("lightship.dev/move-to", target),
            (None, None) => return None,
        };
        if self.owned.contains_key(&vip) && target == self.setup.me {
            return Some(Placement {
                placed: true,
                reason: "AsAsked",
                message: format!("it is on {target}, as {annotation} asks"),
            });
        }
        let eligibility = &self.intent.vips.get(&vip)?.eligibility;
        let (reason, why) = if !self.world.nodes.contains_key(&target) {
            let message = "there is no such node; correct or remove the annotation".to_owned();
            ("NoSuchNode", message)
        } else if let Some(bar) = eligibility.barred.get(&target) {
            ("NodeNotEligible", bar.to_string())
        } else if eligibility
            .seats
            .get(&target)
            .is_some_and(|s| s.avoid.is_some())
        {
            let message = "the node is drained, cordoned or out of service, not on the address's network, or at a \
                           port that drops its replies";
            ("NodeAvoided", message.to_owned())
        } else {
            ("Waiting", self.why_not(&target))
        };
        Some(Placement {
            placed: false,
            reason,
            message: format!("{annotation} asks for {target}: {why}"),
        })
    }
}
