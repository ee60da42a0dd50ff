//! Who stays in a service's destination list at weight 0, and for how long.
//!
//! A node that dies, drains or loses its endpoints gets weight 0 at once: the `mh`
//! table keeps its shape and only that node's flows are hashed anew. Removing it would
//! move 1-3 % of the other nodes' flows too, so it is removed only after it has been
//! unwanted for a while ([`DEFAULT`]): by then a short absence (a reboot, a rolling update) is over.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::intent::Weights;

/// How long an unwanted destination stays at weight 0 before it is removed, unless
/// `--removal-grace` says otherwise.
pub const DEFAULT: Duration = Duration::from_secs(30);

/// The destinations that each service has or had lately.
///
/// `K` is the service's key; destinations are node addresses. In a large cluster most services
/// want the same of the same nodes, so what is alike is worked out and kept once.
#[derive(Debug)]
pub struct Grace<K> {
    /// How long an unwanted destination stays.
    time: Duration,
    services: BTreeMap<K, Arc<Kept>>,
    /// When the next destination is due to be removed.
    next: Option<Duration>,
}

/// What is remembered of a service.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kept {
    /// What it wanted last.
    wanted: Weights,
    /// What it wanted before, and since when it does not.
    gone: BTreeMap<IpAddr, Duration>,
    /// Both together.
    list: Weights,
}

impl Kept {
    /// What comes of it when `wanted` is wanted at `now`.
    fn next(&self, wanted: &Weights, time: Duration, now: Duration) -> Kept {
        let mut gone = self.gone.clone();
        for destination in self.wanted.keys() {
            gone.entry(*destination).or_insert(now);
        }
        gone.retain(|destination, since| {
            !wanted.contains_key(destination) && now.saturating_sub(*since) < time
        });
        let mut list = wanted.clone();
        if !gone.is_empty() {
            let zeros = gone.keys().map(|destination| (*destination, 0));
            Arc::make_mut(&mut list).extend(zeros);
        }
        // An equal list is the same list, so that who compares it later has no work.
        if list == self.list {
            list = self.list.clone();
        }
        Kept {
            wanted: wanted.clone(),
            gone,
            list,
        }
    }
}

impl<K: Ord + Clone> Grace<K> {
    /// Removes what has been unwanted for `time`.
    pub fn new(time: Duration) -> Self {
        Grace {
            time,
            services: BTreeMap::new(),
            next: None,
        }
    }

    /// Counts a destination that was found in the kernel at start as wanted until now,
    /// so that a restarted
    /// speaker keeps it for a while too (up to a full grace time, where its peers may have
    /// begun to count earlier).
    pub fn adopt(&mut self, key: K, destination: IpAddr, now: Duration) {
        let service = self.services.entry(key).or_default();
        if let Some(service) = Arc::get_mut(service) {
            service.gone.entry(destination).or_insert(now);
        }
    }

    /// Takes what each service wants now (address to weight) and adds, at weight 0, what
    /// it had until less than the grace time ago. Services that are not named are forgotten.
    pub fn apply(&mut self, wanted: BTreeMap<K, Weights>, now: Duration) -> BTreeMap<K, Weights> {
        let before = std::mem::take(&mut self.services);
        let none = Arc::new(Kept::default());
        // By the addresses of what was and of what is wanted: both live as long as this does.
        let mut made: BTreeMap<(usize, usize), Arc<Kept>> = BTreeMap::new();
        let mut result = BTreeMap::new();
        for (key, list) in &wanted {
            let was = before.get(key).unwrap_or(&none);
            let at = (Arc::as_ptr(was) as usize, Arc::as_ptr(list) as usize);
            let kept = made.entry(at).or_insert_with(|| {
                let same = Arc::ptr_eq(&was.wanted, list) && was.gone.is_empty();
                if same {
                    was.clone()
                } else {
                    Arc::new(was.next(list, self.time, now))
                }
            });
            result.insert(key.clone(), kept.list.clone());
            self.services.insert(key.clone(), kept.clone());
        }
        let gone = made.values().flat_map(|kept| kept.gone.values());
        self.next = gone.min().map(|since| *since + self.time);
        result
    }

    /// When the next destination is due to be removed.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const GRACE: Duration = Duration::from_secs(10);

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn list(list: &[(u8, u32)]) -> Weights {
        Arc::new(list.iter().map(|(l, w)| (ip(*l), *w)).collect())
    }

    fn want(of_web: &[(u8, u32)]) -> BTreeMap<&'static str, Weights> {
        BTreeMap::from([("web", list(of_web))])
    }

    #[test]
    fn an_unwanted_destination_stays_at_weight_0_for_the_grace_time() {
        let mut grace = Grace::new(GRACE);
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
        let mut grace = Grace::new(GRACE);
        grace.apply(want(&[(1, 1), (2, 1)]), S);
        grace.apply(want(&[(1, 1)]), S * 2);
        assert_eq!(
            grace.apply(want(&[(1, 1), (2, 1)]), S * 8),
            want(&[(1, 1), (2, 1)])
        );
        assert_eq!(
            grace.apply(want(&[(1, 1)]), S * 16),
            want(&[(1, 1), (2, 0)])
        );
    }

    #[test]
    fn an_adopted_destination_is_not_removed_at_once() {
        let mut grace = Grace::new(GRACE);
        grace.adopt("web", ip(9), S);
        assert_eq!(grace.apply(want(&[(1, 1)]), S * 2), want(&[(1, 1), (9, 0)]));
        assert_eq!(grace.apply(want(&[(1, 1)]), S + GRACE), want(&[(1, 1)]));
    }

    #[test]
    fn a_service_that_is_gone_is_forgotten() {
        let mut grace = Grace::new(GRACE);
        grace.apply(want(&[(1, 1)]), S);
        assert_eq!(grace.apply(BTreeMap::new(), S), BTreeMap::new());
        assert_eq!(grace.apply(want(&[(2, 1)]), S), want(&[(2, 1)]));
    }

    /// However many services want the same, there is one list of it, before and after a death.
    #[test]
    fn services_that_want_the_same_share_their_list() {
        let mut grace = Grace::new(GRACE);
        let want = |of_all: &Weights| (0..9).map(|n| (n, of_all.clone())).collect();
        let shared = |got: &BTreeMap<u8, Weights>| got.values().all(|l| Arc::ptr_eq(l, &got[&0]));
        let both = list(&[(1, 1), (2, 1)]);
        let got = grace.apply(want(&both), S);
        assert!(Arc::ptr_eq(&got[&8], &both));
        let one = list(&[(1, 1)]);
        let got = grace.apply(want(&one), S * 2);
        assert_eq!(got[&0], list(&[(1, 1), (2, 0)]));
        assert!(shared(&got));
        // Nothing has changed, so it is the same list as before.
        let again = grace.apply(want(&one), S * 3);
        assert!(shared(&again) && Arc::ptr_eq(&again[&0], &got[&0]));
    }
}
