//! Other machines that use a VIP.
//!
//! Before a VIP is announced for the first time ever, the LAN is asked who has it: by an ARP probe
//! (RFC 5227 section 2.1.1), or by the solicitation of duplicate address detection (RFC 4862
//! section 5.4.2). RFC 5227 takes seconds for that; here a new Service should be reachable at
//! once, so the wait is some tens of milliseconds, enough for a machine that is awake on the same
//! LAN. If one answers, the VIP is not announced, and it is asked again every 10 s.
//!
//! Where many addresses are new at once the probes are paced ([`crate::pace`]). The wait begins with
//! the first one that was really sent, and is over when the last one was sent and had its time.
//!
//! Later, who claims a VIP that this node announces is answered by announcing it once more, at most
//! once per 10 s (`DEFEND_INTERVAL`, RFC 5227 section 2.4 (c)), and is named in the status.
//! A VIP that was taken over is not probed: its last owner may still answer, and it is known
//! that it is ours.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lightship_frames::Mac;

use crate::pace::{Kind, Pace};
use crate::schedule::RETRY;

/// `DEFEND_INTERVAL` of RFC 5227 section 1.1, and the pause before a VIP in use elsewhere is probed
/// again.
const INTERVAL: Duration = Duration::from_secs(10);

/// A foreign claim is named for so long after it was last heard: longer than a host's own refresh.
const NAMED: Duration = Duration::from_secs(120);

/// How often a probe is sent within the wait.
const PROBES: u32 = 2;

#[derive(Debug)]
struct Probing {
    /// Probes of this round that were sent.
    sent: u32,
    /// When the next probe is due, or the wait is over if all were sent.
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
    fn round(now: Duration) -> Self {
        Probing {
            sent: 0,
            next: now,
            answered: false,
        }
    }

    fn over(&self, now: Duration) -> bool {
        self.sent == PROBES && self.next <= now
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
    /// Begins to probe for a VIP.
    pub(super) fn probe(&mut self, vip: IpAddr, now: Duration) {
        self.probing.insert(vip, Probing::round(now));
    }

    /// The last probe for a VIP could not be sent: it does not count.
    pub(super) fn unsent(&mut self, vip: IpAddr, now: Duration) {
        if let Some(probing) = self.probing.get_mut(&vip) {
            probing.sent = probing.sent.saturating_sub(1);
            probing.next = now + RETRY;
        }
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
        if !probing.over(now) {
            return false;
        }
        let clear = !probing.answered;
        if clear {
            self.forget(vip);
        }
        clear
    }

    /// The VIPs for which a probe is to be sent now, those included that were in use when they were
    /// probed last and are due again. Of more than there is room for, those whose round has begun
    /// come first, then those that have waited longest.
    pub(super) fn due(&mut self, wait: Duration, pace: &mut Pace, now: Duration) -> Vec<IpAddr> {
        let mut due = Vec::new();
        for (vip, probing) in &mut self.probing {
            if probing.answered && now >= probing.next + INTERVAL {
                *probing = Probing::round(now);
            }
            if probing.sent < PROBES && probing.next <= now {
                due.push((std::cmp::Reverse(probing.sent), probing.next, *vip));
            }
        }
        due.sort();
        let due = due.into_iter().map(|(_, _, vip)| vip);
        let due: Vec<IpAddr> = due.take_while(|_| pace.take(Kind::First, 1, now)).collect();
        for vip in &due {
            if let Some(probing) = self.probing.get_mut(vip) {
                probing.sent += 1;
                probing.next = now + wait / PROBES;
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

    /// These MACs turn out to be a peer's of which no heartbeat had come yet: what was heard from them
    /// was no conflict. True if that changed anything.
    pub(super) fn ours(&mut self, macs: &[Mac]) -> bool {
        let before = self.foreign.len();
        for (vip, _) in self.foreign.iter().filter(|(_, f)| macs.contains(&f.mac)) {
            if let Some(probing) = self.probing.get_mut(vip) {
                probing.answered = false;
            }
        }
        self.foreign
            .retain(|_, foreign| !macs.contains(&foreign.mac));
        self.foreign.len() != before
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
    pub(super) fn next_deadline(&self, pace: &Pace, now: Duration) -> Option<Duration> {
        let probes = self.probing.values().map(|p| match p.sent {
            PROBES if p.answered => p.next + INTERVAL,
            PROBES => p.next,
            _ => p.next.max(pace.opens(Kind::First)),
        });
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
        let (mut conflicts, mut pace) = (Conflicts::default(), Pace::default());
        conflicts.probe(vip(), MS);
        assert_eq!(conflicts.due(WAIT, &mut pace, MS), [vip()]);
        assert!(conflicts.due(WAIT, &mut pace, 2 * MS).is_empty());
        assert_eq!(conflicts.next_deadline(&pace, 2 * MS), Some(21 * MS));
        assert_eq!(conflicts.due(WAIT, &mut pace, 21 * MS), [vip()]);
        assert_eq!(conflicts.next_deadline(&pace, 21 * MS), Some(41 * MS));
        assert!(!conflicts.clear(vip(), 40 * MS));
        assert!(conflicts.clear(vip(), 41 * MS));
        assert_eq!(conflicts.next_deadline(&pace, 41 * MS), None);
    }

    #[test]
    fn a_thousand_new_addresses_are_probed_at_the_documented_rate_each_twice_in_full() {
        let (mut conflicts, mut pace) = (Conflicts::default(), Pace::default());
        let start = 500 * MS;
        let numbers = 0..1_000u16;
        let vips = numbers.map(|n| IpAddr::from([198, 51, (n >> 8) as u8, n as u8]));
        let mut waiting: Vec<IpAddr> = vips.collect();
        for vip in &waiting {
            conflicts.probe(*vip, start);
        }
        let mut probes: BTreeMap<IpAddr, Vec<Duration>> = BTreeMap::new();
        let (mut now, mut cleared) = (start, Vec::new());
        while !waiting.is_empty() {
            for vip in conflicts.due(WAIT, &mut pace, now) {
                probes.entry(vip).or_default().push(now);
            }
            waiting.retain(|vip| {
                let clear = conflicts.clear(*vip, now);
                cleared.extend(clear.then_some((*vip, now)));
                !clear
            });
            let next = conflicts.next_deadline(&pace, now);
            assert_eq!(next.is_none(), waiting.is_empty());
            now = next.unwrap_or(now);
        }
        let all: Vec<Duration> = probes.values().flatten().copied().collect();
        assert_eq!(all.len(), 2_000);
        let soon_after = |from| move |at: &&Duration| (from..from + 20 * MS).contains(*at);
        let crowd = |from: &Duration| all.iter().filter(soon_after(*from)).count();
        assert!(all.iter().all(|at| crowd(at) <= crate::pace::FRAMES));
        for (vip, at) in &cleared {
            let [first, second] = probes[vip][..] else {
                panic!("{vip}")
            };
            assert!(second >= first + WAIT / 2 && *at >= second + WAIT / 2);
        }
        assert!(now - start <= 900 * MS, "{:?}", now - start);
        // The first ones need not wait until all have been asked for.
        assert!(cleared[0].1 - start <= 2 * WAIT);
    }

    #[test]
    fn a_probe_that_could_not_be_sent_is_no_probe() {
        let (mut conflicts, mut pace) = (Conflicts::default(), Pace::default());
        conflicts.probe(vip(), MS);
        let mut now = MS;
        for _ in 0..100 {
            assert_eq!(conflicts.due(WAIT, &mut pace, now), [vip()]);
            conflicts.unsent(vip(), now);
            assert!(!conflicts.clear(vip(), now + WAIT));
            now = conflicts.next_deadline(&pace, now).unwrap();
        }
        // From here on they are, so the wait begins here.
        let began = now;
        while !conflicts.clear(vip(), now) {
            conflicts.due(WAIT, &mut pace, now);
            now = conflicts.next_deadline(&pace, now).unwrap();
        }
        assert_eq!(now - began, WAIT);
    }

    #[test]
    fn an_address_in_use_is_asked_for_again_until_it_is_free() {
        let (mut conflicts, mut pace) = (Conflicts::default(), Pace::default());
        conflicts.probe(vip(), Duration::ZERO);
        conflicts.due(WAIT, &mut pace, Duration::ZERO);
        let verdict = conflicts.heard(vip(), STRANGER, false, 5 * MS);
        assert_eq!(verdict, Verdict::New);
        let mut now = 5 * MS;
        for _ in 0..5 {
            // It answers every probe.
            while conflicts.due(WAIT, &mut pace, now).is_empty() {
                assert!(!conflicts.clear(vip(), now));
                now = conflicts.next_deadline(&pace, now).unwrap();
            }
            conflicts.heard(vip(), STRANGER, false, now + MS);
            assert_eq!(conflicts.foreign(vip()), Some(STRANGER));
        }
        assert!(now >= 2 * INTERVAL);
        // It is switched off.
        let gone = now;
        while !conflicts.clear(vip(), now) {
            conflicts.due(WAIT, &mut pace, now);
            now = conflicts.next_deadline(&pace, now).unwrap();
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
