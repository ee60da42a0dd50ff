//! Other machines that use a VIP.
//!
//! Before a VIP is announced for the first time ever, the LAN is asked who has it: by an ARP probe
//! (RFC 5227 section 2.1.1), or by the solicitation of duplicate address detection (RFC 4862
//! section 5.4.2). RFC 5227 takes seconds for that; here a new Service should be reachable at
//! once, so the wait is some tens of milliseconds, enough for a machine that is awake on the same
//! LAN. If one answers, the VIP is not announced, and it is asked again every 10 s.
//!
//! Later, who claims a VIP that this node announces is answered by announcing it anew, at most
//! once per 10 s (`DEFEND_INTERVAL`, RFC 5227 section 2.4 (c)), and is named in the status.
//! A VIP that was taken over is not probed: its last owner may still answer, and it is known
//! that it is ours.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lightship_frames::Mac;

/// `DEFEND_INTERVAL` of RFC 5227 section 1.1, and the pause before a VIP in use elsewhere is probed
/// again.
const INTERVAL: Duration = Duration::from_secs(10);

/// A foreign claim is named for so long after it was last heard: longer than a host's own refresh.
const NAMED: Duration = Duration::from_secs(120);

/// How often a probe is sent within the wait.
const PROBES: u32 = 2;

#[derive(Debug)]
struct Probing {
    until: Duration,
    /// When the next probe is due.
    next: Duration,
    /// Somebody has claimed the VIP since this round began.
    answered: bool,
}

#[derive(Clone, Copy, Debug)]
struct Foreign {
    mac: Mac,
    heard: Duration,
    defended: Option<Duration>,
}

impl Probing {
    fn round(wait: Duration, now: Duration) -> Self {
        Probing {
            until: now + wait,
            next: now,
            answered: false,
        }
    }
}

/// What is known of other machines' use of the VIPs that this node owns.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    probing: BTreeMap<IpAddr, Probing>,
    foreign: BTreeMap<IpAddr, Foreign>,
}

/// What a foreign claim asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Known already.
    Known,
    /// It is news.
    New,
    /// The VIP is to be announced anew.
    Defend,
}

impl Conflicts {
    /// Begins to probe for a VIP, for `wait`.
    pub(super) fn probe(&mut self, vip: IpAddr, wait: Duration, now: Duration) {
        self.probing.insert(vip, Probing::round(wait, now));
    }

    /// The VIP is no longer owned.
    pub(super) fn forget(&mut self, vip: IpAddr) {
        self.probing.remove(&vip);
        self.foreign.remove(&vip);
    }

    /// Whether a VIP that is not announced yet may be: nobody else was found to use it.
    pub(super) fn clear(&mut self, vip: IpAddr, now: Duration) -> bool {
        let Some(probing) = self.probing.get(&vip) else {
            return true;
        };
        if now < probing.until {
            return false;
        }
        let clear = !probing.answered;
        if clear {
            self.forget(vip);
        }
        clear
    }

    /// The VIPs for which a probe is to be sent now, those included that were in use when they were
    /// probed last and are due again.
    pub(super) fn due(&mut self, wait: Duration, now: Duration) -> Vec<IpAddr> {
        let mut due = Vec::new();
        for (vip, probing) in &mut self.probing {
            if probing.answered && now >= probing.until + INTERVAL {
                *probing = Probing::round(wait, now);
            }
            if probing.next <= now && now < probing.until {
                probing.next = now + wait / PROBES;
                due.push(*vip);
            }
        }
        due
    }

    /// A machine that is none of ours claims a VIP of this node.
    pub(super) fn heard(
        &mut self,
        vip: IpAddr,
        mac: Mac,
        announced: bool,
        now: Duration,
    ) -> Verdict {
        if let Some(probing) = self.probing.get_mut(&vip) {
            probing.answered = true;
        }
        let before = self.foreign.get(&vip).copied();
        let last = before.and_then(|foreign| foreign.defended);
        let defend = announced && last.is_none_or(|at| now >= at + INTERVAL);
        let defended = if defend { Some(now) } else { last };
        let heard = now;
        self.foreign.insert(
            vip,
            Foreign {
                mac,
                heard,
                defended,
            },
        );
        match (defend, before) {
            (true, _) => Verdict::Defend,
            (false, Some(before)) if before.mac == mac => Verdict::Known,
            (false, _) => Verdict::New,
        }
    }

    /// Who else uses a VIP.
    pub(super) fn foreign(&self, vip: IpAddr) -> Option<Mac> {
        self.foreign.get(&vip).map(|foreign| foreign.mac)
    }

    /// Drops what was heard long ago. True if that changed anything.
    pub(super) fn tidy(&mut self, now: Duration) -> bool {
        let before = self.foreign.len();
        self.foreign
            .retain(|_, foreign| now < foreign.heard + NAMED);
        self.foreign.len() != before
    }

    /// When there is something to do.
    pub(super) fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let probes = self.probing.values();
        let probes = probes.flat_map(|p| [p.next, p.until, p.until + INTERVAL]);
        let foreign = self.foreign.values().map(|foreign| foreign.heard + NAMED);
        probes.chain(foreign).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const WAIT: Duration = Duration::from_millis(40);
    const STRANGER: Mac = Mac([2, 9, 9, 9, 9, 9]);

    fn vip() -> IpAddr {
        [192, 0, 2, 200].into()
    }

    #[test]
    fn a_quiet_lan_clears_an_address_after_the_wait() {
        let mut conflicts = Conflicts::default();
        conflicts.probe(vip(), WAIT, MS);
        assert_eq!(conflicts.due(WAIT, MS), [vip()]);
        assert!(conflicts.due(WAIT, 2 * MS).is_empty());
        assert_eq!(conflicts.next_deadline(2 * MS), Some(21 * MS));
        assert_eq!(conflicts.due(WAIT, 21 * MS), [vip()]);
        assert!(!conflicts.clear(vip(), 40 * MS));
        assert!(conflicts.clear(vip(), 41 * MS));
        assert_eq!(conflicts.next_deadline(41 * MS), None);
    }

    #[test]
    fn an_address_in_use_is_asked_for_again_until_it_is_free() {
        let mut conflicts = Conflicts::default();
        conflicts.probe(vip(), WAIT, Duration::ZERO);
        conflicts.due(WAIT, Duration::ZERO);
        let verdict = conflicts.heard(vip(), STRANGER, false, 5 * MS);
        assert_eq!(verdict, Verdict::New);
        let mut now = 5 * MS;
        for _ in 0..5 {
            // It answers every probe.
            while conflicts.due(WAIT, now).is_empty() {
                assert!(!conflicts.clear(vip(), now));
                now = conflicts.next_deadline(now).unwrap();
            }
            conflicts.heard(vip(), STRANGER, false, now + MS);
            assert_eq!(conflicts.foreign(vip()), Some(STRANGER));
        }
        assert!(now >= 2 * INTERVAL);
        // It is switched off.
        let gone = now;
        while !conflicts.clear(vip(), now) {
            conflicts.due(WAIT, now);
            now = conflicts.next_deadline(now).unwrap();
        }
        assert!(now <= gone + INTERVAL + 4 * WAIT, "{:?}", now - gone);
        assert_eq!(conflicts.foreign(vip()), None);
    }

    #[test]
    fn an_announced_address_is_defended_once_per_interval() {
        let mut conflicts = Conflicts::default();
        let mut at = |ms: u64| conflicts.heard(vip(), STRANGER, true, Duration::from_millis(ms));
        assert_eq!(at(1_000), Verdict::Defend);
        assert_eq!(at(1_100), Verdict::Known);
        assert_eq!(at(10_999), Verdict::Known);
        assert_eq!(at(11_000), Verdict::Defend);
        assert!(!conflicts.tidy(Duration::from_secs(130)));
        assert!(conflicts.tidy(Duration::from_secs(131)));
        assert_eq!(conflicts.foreign(vip()), None);
    }
}
