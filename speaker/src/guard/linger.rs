//! Which addresses are guarded: the VIPs, and for a while those that were.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long an address stays guarded when it is no VIP any more.
///
/// Other nodes' speakers hear of a deletion at other times, clients keep the MAC address in
/// their caches, and kube-proxy takes its rules away at once. A packet that comes meanwhile
/// without a guard would be routed on, and conntrack would keep its flow as one without
/// translation for two minutes: whoever used that port again, and the address as a VIP again,
/// would get no answer.
const LINGER: Duration = Duration::from_secs(60);

/// How long a VIP has to be without endpoints before it is left to kube-proxy, which needs about a
/// second to write the rule that refuses: a packet that came earlier would be routed on.
const SETTLE: Duration = Duration::from_secs(5);

/// What was guarded and when it ceased to be a VIP.
#[derive(Debug, Default)]
pub(super) struct Linger {
    vips: BTreeSet<IpAddr>,
    gone: BTreeMap<IpAddr, Instant>,
    /// VIPs that kube-proxy refuses, and since when.
    refused: BTreeMap<IpAddr, Instant>,
}

impl Linger {
    /// Takes over what a former speaker guarded: as if it had ceased to be a VIP just now.
    pub(super) fn adopt(found: BTreeSet<IpAddr>, now: Instant) -> Self {
        let mut linger = Self {
            vips: found,
            ..Self::default()
        };
        linger.update(BTreeSet::new(), &BTreeSet::new(), now);
        linger
    }

    /// These are the VIPs from now on; others linger. Some of them have no endpoints, and kube-proxy
    /// is to refuse them.
    pub(super) fn update(
        &mut self,
        vips: BTreeSet<IpAddr>,
        refused: &BTreeSet<IpAddr>,
        now: Instant,
    ) {
        self.refused.retain(|vip, _| refused.contains(vip));
        for vip in refused {
            self.refused.entry(*vip).or_insert(now);
        }
        for vip in self.vips.difference(&vips) {
            self.gone.insert(*vip, now);
        }
        for vip in &vips {
            self.gone.remove(vip);
        }
        self.vips = vips;
    }

    /// All addresses to be guarded.
    pub(super) fn guarded(&mut self, now: Instant) -> BTreeSet<IpAddr> {
        self.gone.retain(|_, since| now < *since + LINGER);
        let refused = |vip: &&IpAddr| {
            let since = self.refused.get(*vip);
            since.is_some_and(|since| now >= *since + SETTLE)
        };
        let vips = self.vips.iter().filter(|vip| !refused(vip));
        vips.chain(self.gone.keys()).copied().collect()
    }

    /// When the next of those that are guarded at `now` ceases to be.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let gone = self.gone.values().map(|since| *since + LINGER);
        let refused = self.refused.values().map(|since| *since + SETTLE);
        gone.chain(refused).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &[u8]) -> BTreeSet<IpAddr> {
        numbers
            .iter()
            .map(|n| IpAddr::from([192, 0, 2, *n]))
            .collect()
    }

    #[test]
    fn a_vip_that_went_is_guarded_for_a_while() {
        let start = Instant::now();
        let mut linger = Linger::default();
        assert_eq!(linger.deadline(start), None);
        linger.update(set(&[1, 2]), &set(&[]), start);
        linger.update(set(&[2]), &set(&[]), start);
        assert_eq!(linger.guarded(start), set(&[1, 2]));
        assert_eq!(linger.deadline(start), Some(start + LINGER));
        assert_eq!(linger.guarded(start + LINGER), set(&[2]));
        assert_eq!(linger.deadline(start + LINGER), None);
    }

    #[test]
    fn a_vip_that_comes_back_stays() {
        let start = Instant::now();
        let mut linger = Linger::default();
        linger.update(set(&[1]), &set(&[]), start);
        linger.update(set(&[]), &set(&[]), start);
        linger.update(set(&[1]), &set(&[]), start + LINGER / 2);
        assert_eq!(linger.guarded(start + 2 * LINGER), set(&[1]));
    }

    #[test]
    fn what_was_found_stays_until_the_vips_are_known() {
        let start = Instant::now();
        let mut linger = Linger::adopt(set(&[1, 2]), start);
        assert_eq!(linger.guarded(start), set(&[1, 2]));
        linger.update(set(&[1]), &set(&[]), start + Duration::from_secs(1));
        assert_eq!(linger.guarded(start + LINGER), set(&[1]));
    }

    #[test]
    fn a_vip_without_endpoints_is_left_to_kube_proxy_until_it_has_some() {
        let start = Instant::now();
        let mut linger = Linger::default();
        linger.update(set(&[1, 2]), &set(&[1]), start);
        assert_eq!(linger.guarded(start), set(&[1, 2]), "no rule there yet");
        let settled = start + SETTLE;
        assert_eq!(linger.deadline(start), Some(settled));
        linger.update(set(&[1, 2]), &set(&[1]), start + SETTLE / 2);
        assert_eq!(linger.guarded(settled), set(&[2]), "not counted anew");
        assert_eq!(linger.deadline(settled), None);
        linger.update(set(&[1, 2]), &set(&[]), settled);
        assert_eq!(linger.guarded(settled), set(&[1, 2]), "at once");
        linger.update(set(&[2]), &set(&[]), settled);
        assert_eq!(
            linger.guarded(settled),
            set(&[1, 2]),
            "it lingers when it goes"
        );
    }
}
