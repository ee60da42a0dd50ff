//! One peer's state machine.

use std::fmt;
use std::time::Duration;

use super::Config;
use crate::NodeName;

/// What is known of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerState {
    /// Listed, never heard, and not yet long enough to judge.
    Unknown,
    /// Its speaker beats.
    Alive,
    /// Its speaker is late and the node is being probed. Still counts as alive.
    Suspect,
    /// Its speaker is silent, but its kernel answers: owns nothing, serves as backend.
    SpeakerLost,
    /// Its speaker said goodbye and still beats while it hands over.
    Leaving,
    /// Its speaker said goodbye and stopped. The node's own life is told by probes.
    Left,
    /// Neither speaker nor kernel answers.
    Dead,
}

impl PeerState {
    /// May this node own VIPs?
    pub fn can_own(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }

    /// Does this node serve as a backend? Only a node known to be dead does not.
    pub fn node_alive(self) -> bool {
        self != Self::Dead
    }

    /// A stable word for metrics and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Alive => "Alive",
            Self::Suspect => "Suspect",
            Self::SpeakerLost => "SpeakerLost",
            Self::Leaving => "Leaving",
            Self::Left => "Left",
            Self::Dead => "Dead",
        }
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The pause between probes of a dead node doubles up to this many intervals: it beats
/// when it returns, and probes to an address that nobody has are broadcasts.
const DEAD_PROBE_MAX: u32 = 64;

/// Receives a change: from, to, silent for.
pub(super) type OnChange<'a> = &'a mut dyn FnMut(PeerState, PeerState, Duration);

/// How often a peer's heartbeats are expected; see [`crate::graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// At every interval.
    Each,
    /// At every interval, and the cluster relies on us to tell when it falls silent.
    Watched,
    /// At every so many-th interval.
    Distant(u32),
}

/// One peer. Two kinds of time stamps: `heard_at` is what really happened and is
/// only shown; the `silent_since` ones are what we count from, and our own lateness
/// moves them forward.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) state: PeerState,
    /// Last heartbeat, or when the peer was first listed.
    heard_at: Duration,
    /// The speaker's silence counts from here.
    speaker_silent_since: Duration,
    /// The node's silence counts from here: the later of heartbeat and probe reply.
    node_silent_since: Duration,
    /// A probe was answered since the last heartbeat.
    answered: bool,
    /// When to probe next, once probing has begun.
    next_probe: Option<Duration>,
    /// Probes since death, for the growing pause.
    dead_probes: u32,
    pub(super) pace: Pace,
    /// Stands for the peer where others say that it is late.
    pub(super) digest: u64,
    /// Others may be told that it is late: it has been heard since they last were.
    tell: bool,
    /// Others said that it is late, since it was last heard.
    alarm: Option<Alarm>,
}

/// Word of others that a peer is late.
#[derive(Debug, Clone)]
struct Alarm {
    /// Who said so first.
    by: NodeName,
    /// The speaker is gone then if it does not answer.
    gone: Duration,
    /// The same if its kernel does not answer either: sooner once a second node says so.
    dead: Duration,
    /// Its kernel answered since then. What it said before tells nothing.
    answered: bool,
}

impl Peer {
    pub(super) fn new(digest: u64, now: Duration) -> Self {
        Self {
            state: PeerState::Unknown,
            heard_at: now,
            speaker_silent_since: now,
            node_silent_since: now,
            answered: false,
            next_probe: None,
            dead_probes: 0,
            pace: Pace::Each,
            digest,
            tell: false,
            alarm: None,
        }
    }

    pub(super) fn silent_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.heard_at)
    }

    /// While it is late: has it left several probes without an answer? Each asks both the kernel and
    /// the speaker, so that this does not come of frames lost at random.
    pub(super) fn unanswered(&self, config: &Config, now: Duration) -> bool {
        let several = (config.probe_interval * 3).min(config.probing() / 2);
        let probed = config.probing().saturating_sub(several);
        !self.answered && now >= self.gone_at(config).saturating_sub(probed)
    }

    pub(super) fn beat(&mut self, leaving: bool, now: Duration, on_change: OnChange<'_>) {
        let to = if leaving {
            PeerState::Leaving
        } else {
            PeerState::Alive
        };
        self.change(to, now, on_change);
        self.heard_at = now;
        self.speaker_silent_since = now;
        self.node_silent_since = now;
        self.answered = false;
        self.next_probe = None;
        self.tell = true;
        self.alarm = None;
    }

    fn distant(&self) -> bool {
        matches!(self.pace, Pace::Distant(_))
    }

    /// Its heartbeats are expected at another pace from now on.
    pub(super) fn set_pace(&mut self, pace: Pace, config: &Config, now: Duration) {
        let sooner = match (self.pace, pace) {
            (Pace::Distant(before), Pace::Distant(now)) => now < before,
            (Pace::Distant(_), _) => true,
            _ => false,
        };
        let before = self.late_after(config);
        self.pace = pace;
        if sooner {
            self.speaker_silent_since = match self.state {
                // Its silence was as agreed until now.
                PeerState::Alive => now,
                // It is asked already, and has as long to answer as it had.
                PeerState::Suspect => {
                    self.speaker_silent_since + before.saturating_sub(self.late_after(config))
                }
                _ => self.speaker_silent_since,
            };
        }
    }

    /// `by` says that the peer is late. If its heartbeats come rarely here, see whether it answers: for
    /// as long as any late peer has, or, while its kernel is silent too, half of that once a second node says so,
    /// which random losses do not make happen. A kernel answers at once, and a speaker that it shows to be possibly alive
    /// reads its socket some thirty times a second only. True: something is due now.
    pub(super) fn alarm(&mut self, by: &NodeName, config: &Config, now: Duration) -> bool {
        let counts = matches!(self.state, PeerState::Alive | PeerState::Suspect);
        if !self.distant() || !counts || self.silent_for(now) < config.probe_after {
            return false;
        }
        match &mut self.alarm {
            None => {
                let gone = now + config.probing();
                self.alarm = Some(Alarm {
                    by: by.clone(),
                    gone,
                    dead: gone,
                    answered: false,
                });
            }
            Some(alarm) if alarm.by != *by => {
                alarm.dead = alarm.dead.min(now + config.probing() / 2);
            }
            Some(_) => return false,
        }
        true
    }

    /// Should others be told now that it is late? Once until it is heard again.
    pub(super) fn take_word(&mut self, config: &Config, now: Duration) -> bool {
        self.tell_at(config).is_some_and(|at| at <= now) && std::mem::take(&mut self.tell)
    }

    /// When others are to be told that it is late: half of the probing is over by then, so a few
    /// lost datagrams are not the reason, and the other half is left for them to see for themselves.
    fn tell_at(&self, config: &Config) -> Option<Duration> {
        let lost = matches!(
            self.state,
            PeerState::Alive | PeerState::Suspect | PeerState::SpeakerLost | PeerState::Dead
        );
        let watched = self.pace == Pace::Watched;
        (self.tell && lost && watched)
            .then(|| self.speaker_silent_since + config.probe_after + config.probing() / 2)
    }

    /// Silence after which it is probed.
    fn late_after(&self, config: &Config) -> Duration {
        match (self.pace, self.state) {
            // A peer that was never heard is asked at once.
            (Pace::Distant(every), state) if state != PeerState::Unknown => {
                config.late_after_rounds(every)
            }
            _ => config.probe_after,
        }
    }

    /// When it is to be probed.
    fn late_at(&self, config: &Config) -> Duration {
        match self.alarm {
            Some(_) => Duration::ZERO,
            None => self.speaker_silent_since + self.late_after(config),
        }
    }

    /// When its speaker is gone.
    fn gone_at(&self, config: &Config) -> Duration {
        let silent = self.speaker_silent_since + self.late_after(config) + config.probing();
        match &self.alarm {
            Some(alarm) if alarm.answered => alarm.gone.min(silent),
            Some(alarm) => alarm.dead.min(silent),
            None => silent,
        }
    }

    pub(super) fn reply(&mut self, now: Duration, on_change: OnChange<'_>) {
        self.node_silent_since = now;
        self.answered = true;
        if let Some(alarm) = &mut self.alarm {
            alarm.answered = true;
        }
        if self.state == PeerState::Dead {
            self.change(PeerState::SpeakerLost, now, on_change);
            self.next_probe = Some(now);
        }
    }

    /// Our own process did not run for `late`. `restart`: for so long that what we
    /// have not heard says nothing at all.
    pub(super) fn excuse(&mut self, late: Duration, restart: bool, config: &Config, now: Duration) {
        let shift = |since: Duration| {
            if restart {
                now
            } else {
                (since + late).min(now)
            }
        };
        self.speaker_silent_since = shift(self.speaker_silent_since);
        self.node_silent_since = shift(self.node_silent_since);
        if let Some(alarm) = &mut self.alarm {
            if restart {
                (alarm.gone, alarm.dead) = (now + config.probing(), now + config.probing());
            } else {
                alarm.gone += late;
                alarm.dead += late;
            }
        }
    }

    /// Lets time pass. True: the node is to be probed now.
    pub(super) fn tick(&mut self, config: &Config, now: Duration, on_change: OnChange<'_>) -> bool {
        while let Some(to) = self.overdue(config, now) {
            self.change(to, now, on_change);
            if to == PeerState::Dead {
                self.dead_probes = 0;
                self.next_probe = None;
            }
        }
        if now < self.probe_due(config) {
            return false;
        }
        self.next_probe = Some(now + self.probe_pause(config));
        self.dead_probes += u32::from(self.state == PeerState::Dead);
        true
    }

    /// When `tick` has something to do.
    pub(super) fn deadline(&self, config: &Config) -> Duration {
        let change = match self.state {
            PeerState::Alive => self.late_at(config),
            PeerState::Unknown | PeerState::Suspect => self.gone_at(config),
            PeerState::Leaving => self.speaker_silent_since + config.leave_linger,
            PeerState::SpeakerLost | PeerState::Left => self.node_silent_since + config.timeout(),
            PeerState::Dead => Duration::MAX,
        };
        let tell = self.tell_at(config).unwrap_or(Duration::MAX);
        change.min(self.probe_due(config)).min(tell)
    }

    /// The state that the peer's silence leads to now, if another than it has.
    fn overdue(&self, config: &Config, now: Duration) -> Option<PeerState> {
        let speaker = now.saturating_sub(self.speaker_silent_since);
        let node = now.saturating_sub(self.node_silent_since);
        match self.state {
            PeerState::Alive if now >= self.late_at(config) => Some(PeerState::Suspect),
            PeerState::Unknown | PeerState::Suspect if now >= self.gone_at(config) => {
                if self.answered && node < config.timeout() {
                    Some(PeerState::SpeakerLost)
                } else {
                    Some(PeerState::Dead)
                }
            }
            PeerState::Leaving if speaker >= config.leave_linger => Some(PeerState::Left),
            PeerState::SpeakerLost | PeerState::Left if node >= config.timeout() => {
                Some(PeerState::Dead)
            }
            _ => None,
        }
    }

    fn probe_due(&self, config: &Config) -> Duration {
        self.next_probe.unwrap_or_else(|| match self.state {
            PeerState::Dead => Duration::ZERO,
            _ => self.late_at(config),
        })
    }

    fn probe_pause(&self, config: &Config) -> Duration {
        match self.state {
            PeerState::Dead => {
                let doubled = 1u32.checked_shl(self.dead_probes).unwrap_or(DEAD_PROBE_MAX);
                config.interval * doubled.min(DEAD_PROBE_MAX)
            }
            PeerState::SpeakerLost | PeerState::Left => config.interval,
            _ => config.probe_interval,
        }
    }

    fn change(&mut self, to: PeerState, now: Duration, on_change: OnChange<'_>) {
        if self.state != to {
            let from = std::mem::replace(&mut self.state, to);
            on_change(from, to, self.silent_for(now));
        }
    }
}
