//! What each peer claims, put together from the pages of its heartbeats.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::Claim;

/// The claims of one peer.
///
/// A claim counts as soon as any page shows it. That a claim is *gone* is
/// harder to know, since pages get lost and claims move between pages: with one
/// page its absence says so; with several, only after it was absent from
/// [`SWEEPS_TO_FORGET`] runs over all pages in a row. Nothing urgent waits for that: who takes a
/// VIP over raises the epoch, and that counts at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerClaims {
    /// Epoch, and the number of the sweep that last showed it.
    claims: BTreeMap<IpAddr, (u64, u64)>,
    /// Number of the current run over the pages.
    sweep: u64,
    /// The pages that the run has seen, and of how many. They may come in any order; one
    /// that comes again begins the next run.
    seen: BTreeSet<u16>,
    pages: u16,
    /// All claims were seen at least once.
    complete: bool,
    /// Claims for VIPs that have gone since, made by a node that cannot say whether it knows of that.
    past: BTreeMap<IpAddr, u64>,
}

const SWEEPS_TO_FORGET: u64 = 2;

impl PeerClaims {
    /// Takes one page in. True if it changed what the peer claims.
    pub(crate) fn page(&mut self, page: u16, pages: u16, claims: &[Claim]) -> bool {
        if self.says_the_same(pages, claims) {
            return false;
        }
        if self.pages != pages || self.seen.contains(&page) || self.sweep == 0 {
            self.sweep += 1;
            self.pages = pages;
            self.seen.clear();
        }
        self.seen.insert(page);
        let mut changed = false;
        for claim in claims {
            self.past.remove(&claim.vip);
            let before = self.claims.insert(claim.vip, (claim.epoch, self.sweep));
            changed |= before.is_none_or(|(epoch, _)| epoch != claim.epoch);
        }
        if self.seen.len() >= usize::from(pages) {
            changed |= self.finish_sweep(pages);
        }
        changed
    }

    /// Is this all that the peer claims, and the same as before? So it is with nearly every heartbeat.
    fn says_the_same(&self, pages: u16, claims: &[Claim]) -> bool {
        let known = self.claims.iter().map(|(vip, (epoch, _))| (*vip, *epoch));
        let told = claims.iter().map(|claim| (claim.vip, claim.epoch));
        let between_sweeps = self.complete && self.pages == 0;
        between_sweeps && pages == 1 && known.eq(told)
    }

    fn finish_sweep(&mut self, pages: u16) -> bool {
        let patience = if pages <= 1 { 1 } else { SWEEPS_TO_FORGET };
        let oldest = (self.sweep + 1).saturating_sub(patience);
        let before = self.claims.len();
        self.claims.retain(|_, (_, seen)| *seen >= oldest);
        self.past.clear();
        // The next page, whichever it is, belongs to the next run.
        self.pages = 0;
        let first = !std::mem::replace(&mut self.complete, true);
        first || self.claims.len() != before
    }

    /// Were all its claims seen at least once?
    pub(crate) fn complete(&self) -> bool {
        self.complete
    }

    /// The VIP has gone while the peer is out of sight: its claim says nothing of a later VIP with the same
    /// address, until it makes it anew.
    pub(crate) fn make_past(&mut self, vip: &IpAddr) {
        if let Some((epoch, _)) = self.claims.remove(vip) {
            self.past.insert(*vip, epoch);
        }
    }

    /// Its claim for a VIP of this address that has gone. It may still come with it when it is back.
    pub(crate) fn past(&self, vip: &IpAddr) -> Option<u64> {
        self.past.get(vip).copied()
    }

    /// Its claim for `vip`.
    pub(crate) fn epoch(&self, vip: &IpAddr) -> Option<u64> {
        self.claims.get(vip).map(|(epoch, _)| *epoch)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Claim> {
        self.claims.iter().map(|(vip, (epoch, _))| Claim {
            vip: *vip,
            epoch: *epoch,
        })
    }
}
