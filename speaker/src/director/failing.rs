//! VIPs that the kernel refuses to hold as wanted, and when to try them again. Pure.
//!
//! A refusal concerns the VIP it was said of and no other. The VIP is left as it is in
//! the kernel while it waits, ever longer from one refusal to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long the first wait is, and the longest.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

#[derive(Clone, Debug)]
struct Failure {
    reason: String,
    wait: Duration,
    until: Instant,
}

/// The VIPs that fail.
#[derive(Debug, Default)]
pub(super) struct Failing(BTreeMap<IpAddr, Failure>);

impl Failing {
    /// Those that wait at `now` and are to be left alone.
    pub(super) fn waiting(&self, now: Instant) -> BTreeSet<IpAddr> {
        let waiting = self.0.iter().filter(|(_, f)| f.until > now);
        waiting.map(|(vip, _)| *vip).collect()
    }

    /// Takes the outcome of a try of all VIPs in `wanted` but those that waited: what failed
    /// and why. Returns those that fail for the first time in a row, and those that do no more.
    pub(super) fn tried(
        &mut self,
        wanted: &BTreeSet<IpAddr>,
        failed: BTreeMap<IpAddr, String>,
        now: Instant,
    ) -> (Vec<(IpAddr, String)>, Vec<IpAddr>) {
        let waiting = self.waiting(now);
        let over = |vip: &IpAddr| !failed.contains_key(vip) && !waiting.contains(vip);
        let mended: Vec<IpAddr> = self.0.keys().copied().filter(over).collect();
        for vip in &mended {
            self.0.remove(vip);
        }
        // Of what is not wanted any more only a removal can have failed.
        let known = |vip: &IpAddr| wanted.contains(vip) || failed.contains_key(vip);
        self.0.retain(|vip, _| known(vip));
        let mut new = Vec::new();
        for (vip, reason) in failed {
            let wait = match self.0.get(&vip) {
                Some(before) => (before.wait * 2).min(WAIT.1),
                None => {
                    new.push((vip, reason.clone()));
                    WAIT.0
                }
            };
            let until = now + wait;
            self.0.insert(
                vip,
                Failure {
                    reason,
                    wait,
                    until,
                },
            );
        }
        (new, mended)
    }

    /// The kernel's reason for each.
    pub(super) fn reasons(&self) -> BTreeMap<IpAddr, String> {
        let all = self.0.iter();
        all.map(|(vip, f)| (*vip, f.reason.clone())).collect()
    }

    /// When the next one is to be tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|f| f.until).min()
    }
}

#[cfg(test)]
mod tests;
