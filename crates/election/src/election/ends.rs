//! VIPs that go, and addresses that come again.
//!
//! An address that comes again is another VIP. What was claimed of the last one says nothing of it: not
//! the epochs, and not the claims of nodes that cannot say whether they know of its end.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Election;
use crate::{Candidates, NodeName};

impl Election {
    /// Before `vips` replace those that are known: parts with what belongs to others.
    pub(super) fn part_with(&mut self, vips: &BTreeMap<IpAddr, Candidates>) {
        let Some(known) = self.vips.take() else {
            // What was claimed before anything was known may be of any of them.
            self.highest.retain(|vip, _| vips.contains_key(vip));
            return;
        };
        let stays = |vip: &IpAddr| vips.contains_key(vip) && known.contains_key(vip);
        self.highest.retain(|vip, _| stays(vip));
        for vip in known.keys().filter(|vip| !vips.contains_key(vip)) {
            // Who is silent does not hear of the end. Who is in sight hears of it soon, or has just died.
            self.forget_silent(vip, u64::MAX);
            let claims = self.peers.values().filter_map(|table| table.epoch(vip));
            if let Some(highest) = claims.max() {
                self.ended.insert(*vip, highest);
            }
        }
        for vip in vips.keys().filter(|vip| !known.contains_key(vip)) {
            if let Some(highest) = self.ended.remove(vip) {
                self.forget_silent(vip, highest);
            }
        }
        let claimed = |vip: &IpAddr| self.peers.values().any(|t| t.epoch(vip).is_some());
        self.ended.retain(|vip, _| claimed(vip));
    }

    /// Claims of nodes out of sight for `vip`, up to this epoch, are claims for one that has gone.
    fn forget_silent(&mut self, vip: &IpAddr, highest: u64) {
        let live = self.live.as_ref();
        let silent = |node: &NodeName| !live.is_some_and(|live| live.contains(node));
        for (_, table) in self.peers.iter_mut().filter(|(node, _)| silent(node)) {
            if table.epoch(vip).is_some_and(|epoch| epoch <= highest) {
                table.make_past(vip);
            }
        }
    }
}
