//! What each peer claims, put together from the datagrams of its heartbeats.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Included, Unbounded};

use crate::Claim;
use crate::digest::{digest, weight};

#[cfg(test)]
mod tests;

/// Of which of its sender's claims a datagram tells all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// Of the VIPs from this one on, of all if none,
    pub from: Option<IpAddr>,
    /// and below this one, if any, it names all that the sender claims. It may name others too.
    pub until: Option<IpAddr>,
    /// The [`digest()`] of all of the sender's claims.
    pub digest: u64,
}

impl Scope {
    fn is_all(&self) -> bool {
        self.from.is_none() && self.until.is_none()
    }

    fn has(&self, vip: &IpAddr) -> bool {
        self.from.is_none_or(|from| from <= *vip) && self.until.is_none_or(|until| *vip < until)
    }
}

/// The epoch with which a node names a VIP that it claims no more. Those of claims begin at 1.
pub const ENDED: u64 = 0;

/// The claims of one peer.
///
/// A claim counts as soon as any datagram shows it. That a claim is *gone* is harder to know, since datagrams get
/// lost and claims move between pages. Peers tell it in three ways: a VIP named as [`ENDED`], a VIP within
/// the [`Scope`] of a datagram that does not name it, and a digest that differs from that of what is known here.
///
/// Those of an older release say none of that. With one page the absence of a claim says that it is gone; with
/// several, only after it was absent from [`SWEEPS_TO_FORGET`] runs over all pages in a row. Nothing urgent waits for
/// that: who takes a VIP over raises the epoch, and that counts at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerClaims {
    /// Epoch, and the number of the sweep that last showed it.
    claims: BTreeMap<IpAddr, (u64, u64)>,
    /// The digest of these claims.
    digest: u64,
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
    /// When these claims were last noted elsewhere, as the number that [`Self::note`] was given; none since one was added.
    noted_at: Option<u64>,
}

const SWEEPS_TO_FORGET: u64 = 2;

impl PeerClaims {
    /// Takes a datagram with a scope in. True if it changed what the peer claims.
    pub(crate) fn told(&mut self, claims: &[Claim], scope: &Scope) -> bool {
        if self.says_nothing_new(scope) {
            return false;
        }
        // Runs over pages are of no use any more.
        self.pages = 0;
        let mut changed = false;
        for claim in claims {
            self.past.remove(&claim.vip);
            changed |= match claim.epoch {
                ENDED => self.remove(&claim.vip),
                epoch => self.insert(claim.vip, epoch),
            };
        }
        let gone = self.unnamed(claims, scope);
        changed |= gone
            .into_iter()
            .fold(false, |any, vip| self.remove(&vip) | any);
        self.past.retain(|vip, _| !scope.has(vip));
        if scope.is_all() || self.knows_all(scope) {
            self.past.clear();
            changed |= !std::mem::replace(&mut self.complete, true);
        }
        changed
    }

    /// Is all that the peer claims what was known of it before?
    pub(crate) fn says_nothing_new(&self, scope: &Scope) -> bool {
        self.complete && self.knows_all(scope) && self.past.is_empty()
    }

    /// Whether its claims, as they are now, have to be noted elsewhere: after each that was added, and whenever what was noted
    /// may have been forgotten, which `at` counts.
    pub(crate) fn note(&mut self, at: u64) -> bool {
        self.noted_at.replace(at) != Some(at)
    }

    /// Is what is known just what the peer claims now?
    pub(crate) fn knows_all(&self, scope: &Scope) -> bool {
        self.digest == scope.digest
    }

    /// The known claims that the peer would have named if it still made them.
    fn unnamed(&self, claims: &[Claim], scope: &Scope) -> Vec<IpAddr> {
        // A range that ends before it begins is one that the map does not take.
        if let (Some(from), Some(until)) = (scope.from, scope.until)
            && from >= until
        {
            return Vec::new();
        }
        let named: BTreeSet<IpAddr> = claims.iter().map(|claim| claim.vip).collect();
        let from = scope.from.map_or(Unbounded, Included);
        let until = scope.until.map_or(Unbounded, Excluded);
        let within = self.claims.range((from, until)).map(|(vip, _)| *vip);
        within.filter(|vip| !named.contains(vip)).collect()
    }

    fn insert(&mut self, vip: IpAddr, epoch: u64) -> bool {
        self.noted_at = None;
        let before = self.claims.insert(vip, (epoch, self.sweep));
        if let Some((before, _)) = before {
            self.digest = self.digest.wrapping_sub(weight(&vip, before));
        }
        self.digest = self.digest.wrapping_add(weight(&vip, epoch));
        before.is_none_or(|(before, _)| before != epoch)
    }

    fn remove(&mut self, vip: &IpAddr) -> bool {
        let before = self.claims.remove(vip);
        if let Some((epoch, _)) = before {
            self.digest = self.digest.wrapping_sub(weight(vip, epoch));
        }
        before.is_some()
    }

    /// Takes one page of an older release in. True if it changed what the peer claims.
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
            changed |= self.insert(claim.vip, claim.epoch);
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
        self.digest = digest(self.iter().map(|claim| (claim.vip, claim.epoch)));
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
        if let Some(epoch) = self.epoch(vip) {
            self.remove(vip);
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
