//! One peer's state machine.

use std::fmt;
use std::time::Duration;

use super::Config;

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
}

impl Peer {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            state: PeerState::Unknown,
            heard_at: now,
            speaker_silent_since: now,
            node_silent_since: now,
            answered: false,
            next_probe: None,
            dead_probes: 0,
        }
    }

    pub(super) fn silent_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.heard_at)
    }

    /// Did its kernel answer since the last heartbeat?
    pub(super) fn answered(&self) -> bool {
        self.answered
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
    }

    pub(super) fn reply(&mut self, now: Duration, on_change: OnChange<'_>) {
        self.node_silent_since = now;
        self.answered = true;
        if self.state == PeerState::Dead {
            self.change(PeerState::SpeakerLost, now, on_change);
            self.next_probe = Some(now);
        }
    }

    /// Our own process did not run for `late`. `restart`: for so long that what we
    /// have not heard says nothing at all.
    pub(super) fn excuse(&mut self, late: Duration, restart: bool, now: Duration) {
        let shift = |since: Duration| {
            if restart {
                now
            } else {
                (since + late).min(now)
            }
        };
        self.speaker_silent_since = shift(self.speaker_silent_since);
        self.node_silent_since = shift(self.node_silent_since);
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
            PeerState::Alive => self.speaker_silent_since + config.probe_after,
            PeerState::Unknown | PeerState::Suspect => self.speaker_silent_since + config.timeout(),
            PeerState::Leaving => self.speaker_silent_since + config.leave_linger,
            PeerState::SpeakerLost | PeerState::Left => self.node_silent_since + config.timeout(),
            PeerState::Dead => Duration::MAX,
        };
        change.min(self.probe_due(config))
    }

    /// The state that the peer's silence leads to now, if another than it has.
    fn overdue(&self, config: &Config, now: Duration) -> Option<PeerState> {
        let speaker = now.saturating_sub(self.speaker_silent_since);
        let node = now.saturating_sub(self.node_silent_since);
        match self.state {
            PeerState::Alive if speaker >= config.probe_after => Some(PeerState::Suspect),
            PeerState::Unknown | PeerState::Suspect if speaker >= config.timeout() => {
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
            _ => self.speaker_silent_since + config.probe_after,
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
