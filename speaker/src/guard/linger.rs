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
    /// The VIPs, and since when kube-proxy refuses those that it does.
    vips: BTreeMap<IpAddr, Option<Instant>>,
    gone: BTreeMap<IpAddr, Instant>,
}

impl Linger {
    /// Takes over what a former speaker guarded: as if it had ceased to be a VIP just now.
    pub(super) fn adopt(found: BTreeSet<IpAddr>, now: Instant) -> Self {
        Self {
            gone: found.into_iter().map(|vip| (vip, now)).collect(),
            ..Self::default()
        }
    }

    /// This is a VIP. If it is `refused`, it has no endpoints and kube-proxy is to say so.
    pub(super) fn is(&mut self, vip: IpAddr, refused: bool, now: Instant) {
        self.gone.remove(&vip);
        let since = self.vips.entry(vip).or_default();
        *since = refused.then(|| since.unwrap_or(now));
    }

    /// This is no VIP, or not any more.
    pub(super) fn is_none(&mut self, vip: IpAddr, now: Instant) {
        if self.vips.remove(&vip).is_some() {
            self.gone.insert(vip, now);
        }
    }

    /// All addresses to be guarded.
    pub(super) fn guarded(&mut self, now: Instant) -> BTreeSet<IpAddr> {
        self.gone.retain(|_, since| now < *since + LINGER);
        let vips = self.vips.iter();
        let vips = vips.filter(|(_, refused)| refused.is_none_or(|since| now < since + SETTLE));
        let vips = vips.map(|(vip, _)| *vip);
        vips.chain(self.gone.keys().copied()).collect()
    }

    /// When the next of those that are guarded at `now` ceases to be.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let gone = self.gone.values().map(|since| *since + LINGER);
        let refused = self.vips.values().flatten().map(|since| *since + SETTLE);
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

    impl Linger {
        /// These are the VIPs from now on, some of them refused.
        fn update(&mut self, vips: BTreeSet<IpAddr>, refused: &BTreeSet<IpAddr>, now: Instant) {
            for n in 0..=9 {
                let vip = IpAddr::from([192, 0, 2, n]);
                if vips.contains(&vip) {
                    self.is(vip, refused.contains(&vip), now);
                } else {
                    self.is_none(vip, now);
                }
            }
        }
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
