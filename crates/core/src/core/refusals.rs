//! Heartbeats that were refused: counted by reason, and told once per sender and minute.
//!
//! A wrong key on one node, or a stranger, sends many a second. The first of each kind is worth a
//! line in the log, and then one a minute. Senders are remembered up to a number, since a stranger
//! can put any address into a datagram; who is beyond shares a line with the others like it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::world::NodeName;

/// So long nothing more is said of a sender for the same reason.
const QUIET: Duration = Duration::from_secs(60);

/// Of so many senders and reasons it is known when they were last told.
const REMEMBERED: usize = 256;

/// Who sent a datagram.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sender {
    /// A node of ours: its datagram was authentic.
    Node(NodeName),
    /// All that is known of it is where it says that it comes from.
    Address(IpAddr),
    /// One of more than can be remembered.
    Other,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
            Self::Other => f.write_str("many addresses"),
        }
    }
}

/// What was refused since the start.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counts: BTreeMap<&'static str, u64>,
    /// When each was last told, and how many have come since.
    told: BTreeMap<(Sender, &'static str), (Duration, u64)>,
}

impl Refusals {
    /// Counts a refusal. If it is to be told: of whom, and how many of them came since the last word.
    pub(super) fn note(
        &mut self,
        sender: Sender,
        reason: &'static str,
        now: Duration,
    ) -> Option<(Sender, u64)> {
        *self.counts.entry(reason).or_default() += 1;
        let mut key = (sender, reason);
        if !self.told.contains_key(&key) && self.told.len() >= REMEMBERED {
            self.told.retain(|_, (at, _)| now < *at + QUIET);
            if self.told.len() >= REMEMBERED {
                key.0 = Sender::Other;
            }
        }
        match self.told.get_mut(&key) {
            Some((at, more)) if now < *at + QUIET => {
                *more += 1;
                None
            }
            before => {
                let count = before.map_or(1, |(_, more)| *more + 1);
                self.told.insert(key.clone(), (now, 0));
                Some((key.0, count))
            }
        }
    }

    /// How many, by reason.
    pub(super) fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn from(n: u32) -> Sender {
        Sender::Address(IpAddr::from(std::net::Ipv4Addr::from_bits(0xc000_0200 | n)))
    }

    #[test]
    fn each_sender_and_reason_is_told_once_a_minute_with_the_number() {
        let mut refusals = Refusals::default();
        let node = Sender::Node("node2".into());
        let mut told = Vec::new();
        for tenth in 0..1_210u32 {
            let now = S / 10 * tenth;
            told.extend(refusals.note(from(1), "bad_mac", now));
            told.extend(refusals.note(node.clone(), "old_boot", now));
            told.extend(refusals.note(node.clone(), "stale", now));
        }
        let per_sender = |sender: &Sender| -> Vec<u64> {
            let of = told.iter().filter(|(who, _)| who == sender);
            of.map(|(_, count)| *count).collect()
        };
        assert_eq!(per_sender(&from(1)), [1, 600, 600]);
        assert_eq!(per_sender(&node), [1, 1, 600, 600, 600, 600]);
        let counts = [("bad_mac", 1_210), ("old_boot", 1_210), ("stale", 1_210)];
        assert_eq!(*refusals.counts(), counts.into());
    }

    #[test]
    fn a_flood_from_invented_addresses_is_counted_and_takes_no_memory() {
        let mut refusals = Refusals::default();
        let flood = |refusals: &mut Refusals, now: Duration| {
            let told = (0..10_000).filter_map(|n| refusals.note(from(n), "bad_mac", now));
            told.map(|(sender, _)| sender).collect::<Vec<_>>()
        };
        let told = flood(&mut refusals, S);
        assert_eq!(told.len(), REMEMBERED + 1);
        assert_eq!(told.last(), Some(&Sender::Other));
        assert_eq!(refusals.counts()["bad_mac"], 10_000);
        assert!(flood(&mut refusals, 2 * S).is_empty());
        assert!(refusals.told.len() <= REMEMBERED + 1);
        // A minute later there is room again for who is new.
        let late = refusals.note(from(20_000), "bad_mac", 70 * S);
        assert_eq!(late, Some((from(20_000), 1)));
    }
}
