//! Which of the own claims changed lately, so that every node is told of them whatever page it gets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lightship_membership::rota::REPEATS;

/// The VIPs whose claim was made, raised or ended lately.
#[derive(Debug, Default)]
pub(super) struct News(BTreeMap<IpAddr, Item>);

#[derive(Debug)]
struct Item {
    /// Heartbeats that are still to bring it.
    beats: u32,
    /// And all until then: several changes in a row have heartbeats follow each other so quickly that what loses
    /// one of them loses all.
    until: Duration,
}

impl News {
    /// The claim for `vip` changed; heartbeats go out every `interval` at least.
    pub(super) fn note(&mut self, vip: IpAddr, interval: Duration, now: Duration) {
        let item = Item {
            beats: REPEATS,
            until: now + interval * REPEATS,
        };
        self.0.insert(vip, item);
    }

    /// Forgets what has been told often enough.
    pub(super) fn tidy(&mut self, now: Duration) {
        self.0.retain(|_, item| item.beats > 0 || now < item.until);
    }

    /// A heartbeat went to all whom it concerns.
    pub(super) fn sent(&mut self) {
        for item in self.0.values_mut() {
            item.beats = item.beats.saturating_sub(1);
        }
    }

    /// Whether the claim for `vip` changed lately.
    pub(super) fn has(&self, vip: &IpAddr) -> bool {
        self.0.contains_key(vip)
    }

    /// The VIPs.
    pub(super) fn vips(&self) -> impl Iterator<Item = IpAddr> {
        self.0.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_told_three_times_and_for_three_intervals() {
        let vip = IpAddr::from([192, 0, 2, 200]);
        let interval = Duration::from_millis(70);
        let told = |pace: Duration| {
            let mut news = News::default();
            news.note(vip, interval, Duration::ZERO);
            let mut now = Duration::ZERO;
            (0..100).find(|_| {
                news.tidy(now);
                let over = !news.has(&vip);
                news.sent();
                now += pace;
                over
            })
        };
        assert_eq!(told(interval), Some(3));
        assert_eq!(told(interval / 7), Some(21));
        assert_eq!(told(interval * 5), Some(3));
    }
}
