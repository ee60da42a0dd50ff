//! Who stays in a service's destination list at weight 0, and for how long.
//!
//! A node that dies, drains or loses its endpoints gets weight 0 at once: the `mh`
//! table keeps its shape and only that node's flows are hashed anew. Removing it would
//! move 1-3 % of the other nodes' flows too, so it is removed only after it has been
//! unwanted for [`GRACE`]: by then a short absence (a reboot, a rolling update) is over.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How long an unwanted destination stays at weight 0 before it is removed.
pub const GRACE: Duration = Duration::from_secs(30);

/// The destinations that each service has or had lately.
///
/// `K` is the service's key; destinations are node addresses.
#[derive(Debug)]
pub struct Grace<K> {
    services: BTreeMap<K, BTreeMap<IpAddr, Option<Duration>>>,
    /// When the next destination is due to be removed.
    next: Option<Duration>,
}

impl<K: Ord + Clone> Default for Grace<K> {
    fn default() -> Self {
        Grace {
            services: BTreeMap::new(),
            next: None,
        }
    }
}

impl<K: Ord + Clone> Grace<K> {
    /// Counts a destination that was found in the kernel at start as wanted until now,
    /// so that a restarted
    /// speaker keeps it for a while too (up to a full grace time, where its peers may have
    /// begun to count earlier).
    pub fn adopt(&mut self, key: K, destination: IpAddr, now: Duration) {
        self.services
            .entry(key)
            .or_default()
            .entry(destination)
            .or_insert(Some(now));
    }

    /// Takes what each service wants now (address to weight) and adds, at weight 0, what
    /// it had until less than [`GRACE`] ago. Services that are not named are forgotten.
    pub fn apply(
        &mut self,
        wanted: BTreeMap<K, BTreeMap<IpAddr, u32>>,
        now: Duration,
    ) -> BTreeMap<K, BTreeMap<IpAddr, u32>> {
        self.services.retain(|key, _| wanted.contains_key(key));
        let mut result = wanted;
        for (key, list) in &mut result {
            let known = self.services.entry(key.clone()).or_default();
            for destination in list.keys() {
                known.insert(*destination, None);
            }
            known.retain(|destination, gone| {
                if list.contains_key(destination) {
                    return true;
                }
                let since = *gone.get_or_insert(now);
                now.saturating_sub(since) < GRACE
            });
            for destination in known.keys() {
                list.entry(*destination).or_insert(0);
            }
        }
        self.next = self.earliest();
        result
    }

    /// When the next destination is due to be removed.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.next
    }

    fn earliest(&self) -> Option<Duration> {
        let gone = self.services.values().flat_map(BTreeMap::values).flatten();
        gone.min().map(|since| *since + GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn want(list: &[(u8, u32)]) -> BTreeMap<&'static str, BTreeMap<IpAddr, u32>> {
        BTreeMap::from([("web", list.iter().map(|(l, w)| (ip(*l), *w)).collect())])
    }

    #[test]
    fn an_unwanted_destination_stays_at_weight_0_for_the_grace_time() {
        let mut grace = Grace::default();
        assert_eq!(
            grace.apply(want(&[(1, 1), (2, 1)]), S),
            want(&[(1, 1), (2, 1)])
        );
        assert_eq!(grace.next_deadline(), None);
        assert_eq!(grace.apply(want(&[(1, 1)]), S * 2), want(&[(1, 1), (2, 0)]));
        assert_eq!(grace.next_deadline(), Some(S * 2 + GRACE));
        let almost = S * 2 + GRACE - Duration::from_millis(1);
        assert_eq!(
            grace.apply(want(&[(1, 1)]), almost),
            want(&[(1, 1), (2, 0)])
        );
        assert_eq!(grace.apply(want(&[(1, 1)]), S * 2 + GRACE), want(&[(1, 1)]));
        assert_eq!(grace.next_deadline(), None);
    }

    #[test]
    fn a_destination_that_returns_starts_afresh() {
        let mut grace = Grace::default();
        grace.apply(want(&[(1, 1), (2, 1)]), S);
        grace.apply(want(&[(1, 1)]), S * 2);
        assert_eq!(
            grace.apply(want(&[(1, 1), (2, 1)]), S * 20),
            want(&[(1, 1), (2, 1)])
        );
        assert_eq!(
            grace.apply(want(&[(1, 1)]), S * 40),
            want(&[(1, 1), (2, 0)])
        );
    }

    #[test]
    fn an_adopted_destination_is_not_removed_at_once() {
        let mut grace = Grace::default();
        grace.adopt("web", ip(9), S);
        assert_eq!(grace.apply(want(&[(1, 1)]), S * 2), want(&[(1, 1), (9, 0)]));
        assert_eq!(grace.apply(want(&[(1, 1)]), S + GRACE), want(&[(1, 1)]));
    }

    #[test]
    fn a_service_that_is_gone_is_forgotten() {
        let mut grace = Grace::default();
        grace.apply(want(&[(1, 1)]), S);
        assert_eq!(grace.apply(BTreeMap::new(), S), BTreeMap::new());
        assert_eq!(grace.apply(want(&[(2, 1)]), S), want(&[(2, 1)]));
    }
}
