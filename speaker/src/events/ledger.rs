//! What was told of each VIP, and what may be told now: an event costs the API server a write, and who
//! provokes them may be hostile.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use lightship_frames::Mac;

/// Of one VIP there is one event in so long a time.
const PAUSE: Duration = Duration::from_secs(60);

/// Of all VIPs together so many at once, and then one in so long a time.
const BURST: u32 = 20;
const REFILL: Duration = Duration::from_secs(5);

/// Another machine uses a VIP of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// That machine.
    pub(super) mac: Mac,
    /// The VIP is announced, else it stays silent for that reason.
    pub(super) announced: bool,
}

#[derive(Debug)]
struct Told {
    conflict: Option<Conflict>,
    at: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    told: BTreeMap<IpAddr, Told>,
    tokens: u32,
    refilled: Duration,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger {
            told: BTreeMap::new(),
            tokens: BURST,
            refilled: Duration::ZERO,
        }
    }
}

impl Ledger {
    /// What is to be told now, and when to ask again if nothing changes. `owned`: the VIPs of this
    /// node, each with its conflict if it has one.
    pub(super) fn due(
        &mut self,
        owned: &BTreeMap<IpAddr, Option<Conflict>>,
        now: Duration,
    ) -> (Vec<(IpAddr, Option<Conflict>)>, Option<Duration>) {
        self.refill(now);
        // What became of a VIP that moved away is for its new owner to tell.
        for (vip, told) in &mut self.told {
            if !owned.contains_key(vip) {
                told.conflict = None;
            }
        }
        self.told
            .retain(|_, told| told.conflict.is_some() || now < told.at + PAUSE);
        let in_conflict = owned.iter().filter(|(_, conflict)| conflict.is_some());
        let vips: BTreeSet<IpAddr> = in_conflict
            .map(|(vip, _)| *vip)
            .chain(self.told.keys().copied())
            .collect();
        let mut due = Vec::new();
        let mut next: Option<Duration> = None;
        for vip in vips {
            let conflict = owned.get(&vip).copied().flatten();
            let told = self.told.get(&vip);
            if told.and_then(|told| told.conflict) == conflict {
                continue;
            }
            let calm = told.map_or(now, |told| told.at + PAUSE);
            let at = if self.tokens == 0 {
                calm.max(self.refilled + REFILL)
            } else {
                calm
            };
            if at > now {
                next = Some(next.map_or(at, |next| next.min(at)));
                continue;
            }
            self.tokens -= 1;
            self.told.insert(vip, Told { conflict, at: now });
            due.push((vip, conflict));
        }
        (due, next)
    }

    fn refill(&mut self, now: Duration) {
        while self.tokens < BURST && self.refilled + REFILL <= now {
            self.tokens += 1;
            self.refilled += REFILL;
        }
        if self.tokens == BURST {
            self.refilled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn vip(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    fn conflict(n: u8) -> Option<Conflict> {
        Some(Conflict {
            mac: Mac([2, 0, 0, 0, 0, n]),
            announced: true,
        })
    }

    #[test]
    fn each_change_is_told_once() {
        let mut ledger = Ledger::default();
        let quiet = BTreeMap::from([(vip(1), None), (vip(2), None)]);
        assert_eq!(ledger.due(&quiet, S), (vec![], None));
        let mut owned = quiet.clone();
        owned.insert(vip(1), conflict(9));
        assert_eq!(ledger.due(&owned, 2 * S).0, [(vip(1), conflict(9))]);
        assert_eq!(ledger.due(&owned, 3 * S), (vec![], None));
        assert_eq!(ledger.due(&owned, 300 * S), (vec![], None));
        assert_eq!(ledger.due(&quiet, 301 * S).0, [(vip(1), None)]);
        assert_eq!(ledger.due(&quiet, 400 * S), (vec![], None));
        assert!(ledger.told.is_empty());
    }

    #[test]
    fn a_vip_whose_claimants_take_turns_is_told_once_a_minute() {
        let mut ledger = Ledger::default();
        let mut told = 0;
        for second in 0..600u32 {
            let owned = BTreeMap::from([(vip(1), conflict((second % 2) as u8))]);
            let (due, next) = ledger.due(&owned, second * S);
            told += due.len();
            assert!(next.is_none_or(|at| at > second * S));
        }
        assert!((9..=11).contains(&told), "{told}");
    }

    #[test]
    fn who_claims_a_whole_pool_makes_few_events_and_all_are_told_at_last() {
        let mut ledger = Ledger::default();
        let owned: BTreeMap<_, _> = (0..100).map(|n| (vip(n), conflict(9))).collect();
        let (first, mut next) = ledger.due(&owned, S);
        assert_eq!(first.len(), BURST as usize);
        let mut told = first.len();
        while let Some(now) = next {
            let (due, later) = ledger.due(&owned, now);
            assert_eq!(due.len(), 1);
            told += 1;
            next = later;
            assert!(now <= S + REFILL * 80, "{now:?}");
        }
        assert_eq!(told, 100);
    }

    #[test]
    fn a_vip_that_moved_away_is_not_told_to_be_free() {
        let mut ledger = Ledger::default();
        let owned = BTreeMap::from([(vip(1), conflict(9))]);
        assert_eq!(ledger.due(&owned, S).0.len(), 1);
        assert_eq!(ledger.due(&BTreeMap::new(), 100 * S), (vec![], None));
        // Back again, within the minute and after it.
        assert_eq!(ledger.due(&owned, 101 * S).0.len(), 1);
        ledger.due(&BTreeMap::new(), 102 * S);
        assert_eq!(ledger.due(&owned, 103 * S), (vec![], Some(161 * S)));
    }
}
