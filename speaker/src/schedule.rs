//! When each owned VIP is announced.
//!
//! A VIP that was just taken is announced at once and again at growing intervals; after
//! that it is refreshed about every minute, because a switch forgets a MAC (300 s) long
//! before a router forgets an ARP entry (1,200 s and more), and a director whose flows all
//! go to its own node never sends with its MAC.
//!
//! Gratuitous ARP can be lost, and old Linux neighbours ignore a second change within their
//! `locktime` of 1 s: hence the steps, of which one (1.1 s) lies just past that second.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// When the announcements of a burst are sent, counted from taking the VIP.
const BURST: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_millis(1_100),
    Duration::from_millis(2_200),
    Duration::from_millis(5_000),
];

/// The mean time between refreshes.
const REFRESH: Duration = Duration::from_secs(60);

/// At most this many VIPs are announced per [`PACE`]: 1,000 VIPs go out within 0.8 s, and a
/// switch whose CPU has to see each broadcast is asked for at most 2,500 frames a second.
const BATCH: usize = 25;

/// The time between two batches.
const PACE: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Entry {
    taken: Duration,
    step: usize,
    due: Duration,
}

/// The announcements that are due.
#[derive(Debug, Default)]
pub struct Schedule {
    entries: BTreeMap<IpAddr, Entry>,
    next_batch: Duration,
}

impl Schedule {
    /// Starts (or starts again) the burst of a VIP that was just taken.
    pub fn burst(&mut self, vip: IpAddr, now: Duration) {
        self.entries.insert(
            vip,
            Entry {
                taken: now,
                step: 0,
                due: now,
            },
        );
    }

    /// Enters a VIP that was owned before a restart: clients know it, so it is only
    /// refreshed, soon.
    pub fn resume(&mut self, vip: IpAddr, now: Duration) {
        let due = now + Duration::from_secs(1);
        self.entries.entry(vip).or_insert(Entry {
            taken: now,
            step: BURST.len(),
            due,
        });
    }

    /// Stops announcing a VIP.
    pub fn stop(&mut self, vip: IpAddr) {
        self.entries.remove(&vip);
    }

    /// Takes the VIPs to announce now, youngest burst first.
    pub fn due(&mut self, now: Duration) -> Vec<IpAddr> {
        if now < self.next_batch {
            return Vec::new();
        }
        let mut due: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, e)| e.due <= now)
            .map(|(vip, e)| (e.step, e.due, *vip))
            .collect();
        if due.is_empty() {
            return Vec::new();
        }
        due.sort();
        due.truncate(BATCH);
        self.next_batch = now + PACE;
        let vips: Vec<IpAddr> = due.into_iter().map(|(_, _, vip)| vip).collect();
        for vip in &vips {
            if let Some(entry) = self.entries.get_mut(vip) {
                entry.step += 1;
                // A step that is late by more than the gap to the next one is not made up for.
                entry.due = match BURST.get(entry.step) {
                    Some(offset) => (entry.taken + *offset).max(now + PACE),
                    None => now + refresh_after(*vip),
                };
            }
        }
        vips
    }

    /// When [`Schedule::due`] has to be asked again.
    pub fn next_deadline(&self) -> Option<Duration> {
        let due = self.entries.values().map(|e| e.due).min();
        due.map(|due| due.max(self.next_batch))
    }
}

/// The refresh interval of one VIP: 60 s +-10 %, spread by the address so that VIPs taken
/// together drift apart.
fn refresh_after(vip: IpAddr) -> Duration {
    let last = match vip {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    let spread = u32::from(last.wrapping_mul(83)) * 12_000 / 255;
    REFRESH - Duration::from_secs(6) + Duration::from_millis(spread.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Runs the schedule as the shell does and returns the times at which `vip` went out.
    fn times(schedule: &mut Schedule, vip: IpAddr, until: Duration) -> Vec<Duration> {
        let mut times = Vec::new();
        while let Some(at) = schedule.next_deadline().filter(|at| *at <= until) {
            if schedule.due(at).contains(&vip) {
                times.push(at);
            }
        }
        times
    }

    #[test]
    fn a_burst_follows_the_documented_steps_then_refreshes_each_minute() {
        let mut schedule = Schedule::default();
        schedule.burst(ip(1), ms(1_000));
        let times = times(&mut schedule, ip(1), ms(200_000));
        let burst: Vec<_> = times[..6].iter().map(|t| *t - ms(1_000)).collect();
        assert_eq!(burst, BURST);
        for pair in times[5..].windows(2) {
            let gap = pair[1] - pair[0];
            assert!((ms(54_000)..=ms(66_000)).contains(&gap), "{gap:?}");
        }
        assert!(times.len() >= 8);
    }

    #[test]
    fn a_thousand_vips_are_all_announced_within_a_second() {
        let mut schedule = Schedule::default();
        let numbers = 0..1_000u16;
        let vips: Vec<_> = numbers
            .map(|n| IpAddr::from([198, 51, (n >> 8) as u8, n as u8]))
            .collect();
        for vip in &vips {
            schedule.burst(*vip, Duration::ZERO);
        }
        let mut seen = std::collections::BTreeSet::new();
        while let Some(at) = schedule.next_deadline().filter(|at| *at <= ms(1_000)) {
            let batch = schedule.due(at);
            assert!(batch.len() <= BATCH);
            seen.extend(batch);
        }
        assert_eq!(seen.len(), 1_000);
    }

    #[test]
    fn a_resumed_vip_is_not_burst_and_a_stopped_one_is_silent() {
        let mut schedule = Schedule::default();
        schedule.resume(ip(1), Duration::ZERO);
        assert_eq!(times(&mut schedule, ip(1), ms(30_000)), [ms(1_000)]);
        schedule.stop(ip(1));
        assert_eq!(schedule.next_deadline(), None);
    }
}
