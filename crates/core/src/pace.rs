//! How many frames a second this node says on the LAN of its own accord.
//!
//! A switch floods a broadcast in hardware, but one that looks at ARP itself (inspection, snooping,
//! a routed interface in this LAN) has its CPU see each, and polices what comes; every host
//! on the LAN sees them too. Answers to questions are not counted here: who asks sets their rate.
//!
//! * First words, up to [`FRAMES`] per [`SLOT`] (3,000 a second): a VIP's first announcement after
//!   it moved, a probe for a new one, a defence. 1,000 IPv4 VIPs are two frames each and have to be
//!   out within a second of a crash, of which a quarter goes by before it is noticed, so it cannot be much less.
//! * Repeats of a burst, [`REPEATS`] of these (500 a second): they are for what was lost or policed,
//!   so they must not come as fast as what was too fast.
//! * Refreshes, one frame per [`SLOT`] (50 a second): nobody waits for them. 1,500 IPv4 VIPs on one
//!   node are refreshed each minute so, more of them more seldom.

use std::time::Duration;

/// What the budgets are counted over.
pub const SLOT: Duration = Duration::from_millis(20);

/// All frames of a slot.
pub const FRAMES: usize = 60;

/// Those of them that may be repeats.
pub const REPEATS: usize = 10;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What nobody on the LAN has heard yet.
    First,
    /// A further step of a burst.
    Repeat,
    /// What everybody should know.
    Refresh,
}

/// What is left to be said in this slot.
#[derive(Debug, Default)]
pub struct Pace {
    /// When the next slot may begin.
    ends: Duration,
    frames: usize,
    repeats: usize,
    /// When a refresh may follow.
    refresh: Duration,
    /// Something of this kind found no room in this slot.
    refused: [bool; 3],
}

impl Pace {
    /// Whether so many frames of a kind may be sent now; they are counted as sent then. After a
    /// refusal nothing of this kind is let through before the next slot, so that order is kept.
    pub fn take(&mut self, kind: Kind, frames: usize, now: Duration) -> bool {
        if now >= self.ends {
            *self = Pace {
                ends: now + SLOT,
                refresh: self.refresh,
                ..Pace::default()
            };
        }
        let room = match kind {
            Kind::First => true,
            Kind::Repeat => self.repeats + frames <= REPEATS,
            Kind::Refresh => self.refresh <= now,
        };
        if self.refused[kind as usize] || !room || self.frames + frames > FRAMES {
            self.refused[kind as usize] = true;
            return false;
        }
        self.frames += frames;
        match kind {
            Kind::First => {}
            Kind::Repeat => self.repeats += frames,
            Kind::Refresh => {
                self.refresh = now + SLOT * u32::try_from(frames).unwrap_or(u32::MAX);
            }
        }
        true
    }

    /// Not before this there is room again for something of a kind that was refused.
    pub fn opens(&self, kind: Kind) -> Duration {
        if !self.refused[kind as usize] {
            Duration::ZERO
        } else if kind == Kind::Refresh {
            self.ends.max(self.refresh)
        } else {
            self.ends
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn each_kind_has_its_rate_and_together_they_keep_the_limit() {
        let mut pace = Pace::default();
        let mut sent = [0; 3];
        for ms in 0..1_000 {
            let now = 5_000 * MS + ms * MS;
            for kind in [Kind::Refresh, Kind::Repeat] {
                while pace.take(kind, 2, now) {
                    sent[kind as usize] += 2;
                }
                assert!(pace.opens(kind) > now && pace.opens(kind) <= now + 2 * SLOT);
            }
        }
        assert_eq!(sent, [0, 500, 50]);
        let mut all = 0;
        for ms in 0..1_000 {
            let now = 10_000 * MS + ms * MS;
            for kind in [Kind::First, Kind::Repeat, Kind::Refresh] {
                while pace.take(kind, 1, now) {
                    all += 1;
                }
            }
        }
        assert_eq!(all, 3_000);
    }

    #[test]
    fn a_slot_begins_with_what_is_said_and_a_refusal_keeps_the_order() {
        let mut pace = Pace::default();
        assert_eq!(pace.opens(Kind::First), Duration::ZERO);
        assert!(pace.take(Kind::First, FRAMES - 1, 119 * MS));
        // Two frames find no room, so one that is behind them waits too.
        assert!(!pace.take(Kind::First, 2, 120 * MS));
        assert!(!pace.take(Kind::First, 1, 121 * MS));
        assert_eq!(pace.opens(Kind::First), 139 * MS);
        assert!(pace.take(Kind::First, 2, 139 * MS));
    }
}
