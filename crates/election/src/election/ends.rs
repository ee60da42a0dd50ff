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
        self.keep_highest(vips);
        // What was claimed before anything was known may be of any of them.
        let Some(known) = self.vips.take() else {
            return;
        };
        for vip in known.keys().filter(|vip| !vips.contains_key(vip)) {
            self.ends(vip);
        }
        for vip in vips.keys().filter(|vip| !known.contains_key(vip)) {
            self.begins(vip);
        }
        self.forget_ended();
    }

    /// Takes what has become of some VIPs, with who may own each, or none where it has gone.
    pub(super) fn replace(
        &mut self,
        vips: &mut BTreeMap<IpAddr, Candidates>,
        changed: impl IntoIterator<Item = (IpAddr, Option<Candidates>)>,
    ) {
        let mut any = false;
        for (vip, candidates) in changed {
            if vips.get(&vip) == candidates.as_ref() {
                continue;
            }
            any = true;
            match candidates {
                Some(candidates) => {
                    if vips.insert(vip, candidates).is_none() {
                        self.begins(&vip);
                    }
                }
                None => {
                    vips.remove(&vip);
                    self.ends(&vip);
                }
            }
        }
        if any {
            self.dirty = true;
            // Those of VIPs that have gone may have been heard again since.
            self.keep_highest(vips);
            self.forget_ended();
        }
    }

    fn keep_highest(&mut self, vips: &BTreeMap<IpAddr, Candidates>) {
        self.forgotten += 1;
        self.highest.retain(|vip, _| vips.contains_key(vip));
    }

    fn forget_highest(&mut self, vip: &IpAddr) {
        self.forgotten += 1;
        self.highest.remove(vip);
    }

    fn ends(&mut self, vip: &IpAddr) {
        self.forget_highest(vip);
        // Who is silent does not hear of the end. Who is in sight hears of it soon, or has just died.
        self.forget_silent(vip, u64::MAX);
        let claims = self.peers.values().filter_map(|table| table.epoch(vip));
        if let Some(highest) = claims.max() {
            self.ended.insert(*vip, highest);
        }
    }

    fn begins(&mut self, vip: &IpAddr) {
        self.forget_highest(vip);
        if let Some(highest) = self.ended.remove(vip) {
            self.forget_silent(vip, highest);
        }
    }

    /// Forgets ends that all in sight have heard of.
    fn forget_ended(&mut self) {
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
