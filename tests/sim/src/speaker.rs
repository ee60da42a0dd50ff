//! One machine and the speaker process on it: the real core, and what its shell keeps.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lightship_core::cache::Saved;
use lightship_core::core::{
    Core, DirectorIntent, DirectorReport, Listen, Output, Ownership, Setup, UplinkState,
};
use lightship_core::eligibility::Policy;
use lightship_core::further::Via;
use lightship_core::world::{NodeName, World as Api};
use lightship_frames::Mac;
use lightship_membership::{Config, Heartbeat, Keys};

use crate::api;
use crate::world::Happening;

/// A running speaker process.
pub struct Speaker {
    /// The real core.
    pub core: Core,
    /// Since when it has been handing over.
    pub leaving_since: Option<Duration>,
    /// What it reported last.
    pub report: Arc<Ownership>,
    /// The addresses about which the kernel lets frames through.
    pub(crate) listen: Listen,
    /// The IPv6 addresses whose solicitations the kernel hears.
    pub(crate) groups: BTreeSet<Ipv6Addr>,
}

/// What all processes of a cluster start with.
pub(crate) struct Common<'a> {
    pub(crate) config: &'a Config,
    pub(crate) rebalance: Option<Duration>,
    pub(crate) conflict_wait: Duration,
    pub(crate) direct_routing: bool,
    pub(crate) keys: &'a Keys,
    pub(crate) api: &'a Arc<Api>,
}

/// The director in a node's kernel, which outlives the speaker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Director {
    /// What it holds.
    pub(crate) holds: Arc<DirectorIntent>,
    /// What it was last told to hold.
    pub(crate) wanted: Arc<DirectorIntent>,
    /// It cannot do what it is told.
    pub(crate) broken: bool,
    /// What it holds has been changed by somebody else.
    pub(crate) other: bool,
}

impl Director {
    /// What it says of itself.
    pub(crate) fn report(&self) -> DirectorReport {
        let weights = self.holds.virtuals.values().map(|v| &v.weights);
        // Equal for equal tables, and quick.
        let digest = weights
            .flat_map(|list| list.iter())
            .fold(1, |sum: u64, entry| {
                let address = match entry.0 {
                    IpAddr::V4(v4) => u64::from(v4.to_bits()),
                    IpAddr::V6(v6) => v6.to_bits() as u64,
                };
                sum.wrapping_mul(31)
                    .wrapping_add(address ^ u64::from(*entry.1) << 32)
            });
        DirectorReport {
            healthy: !self.broken,
            applied: self.holds.revision,
            programmed: self.holds.vips.clone(),
            digest: digest ^ u64::from(self.other),
            error: self.broken.then(|| "broken".to_owned()),
            ..DirectorReport::default()
        }
    }
}

/// One machine.
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its kernel runs.
    pub up: bool,
    /// Its speaker process, if it runs.
    pub speaker: Option<Speaker>,
    /// The process is stopped (SIGSTOP).
    pub paused: bool,
    /// Its uplink has a carrier.
    pub carrier: bool,
    /// What its wall clock shows more than the true time, in ms.
    pub clock: i64,
    /// Since when it has been running undisturbed.
    pub(crate) steady_since: Duration,
    /// Since when its uplink has been up.
    pub(crate) linked_since: Duration,
    pub(crate) paused_at: Duration,
    /// When the process last went on after it had been stopped for long.
    pub(crate) woken_at: Duration,
    pub(crate) inbox: Vec<Happening>,
    /// Heartbeats that gather in the socket, and when they are read at the latest.
    pub(crate) waiting: Vec<(usize, Rc<Heartbeat>)>,
    pub(crate) read_at: Duration,
    /// When the last news from the API server reach it.
    pub(crate) told_at: Duration,
    /// When it is planned to wake. Another time in the queue is of no effect.
    pub(crate) wake: Option<Duration>,
    /// The last start's number: what was meant for an earlier process is lost.
    pub(crate) process: u64,
    pub(crate) director: Director,
    /// The state file as it was written, with the times.
    pub(crate) saved: Vec<(Duration, Saved)>,
}

impl Node {
    pub(crate) fn new(name: NodeName) -> Self {
        Self {
            name,
            up: true,
            speaker: None,
            paused: false,
            carrier: true,
            clock: 0,
            steady_since: Duration::ZERO,
            linked_since: Duration::ZERO,
            paused_at: Duration::ZERO,
            woken_at: Duration::ZERO,
            inbox: Vec::new(),
            waiting: Vec::new(),
            read_at: Duration::ZERO,
            told_at: Duration::ZERO,
            wake: None,
            process: 0,
            director: Director::default(),
            saved: Vec::new(),
        }
    }

    /// Does it answer for what it announces?
    pub fn serving(&self) -> bool {
        self.up && self.speaker.is_some() && !self.paused && self.carrier
    }

    /// Nothing is wrong with it, so that it can own VIPs.
    pub fn fine(&self) -> bool {
        let stays = |speaker: &Speaker| speaker.leaving_since.is_none();
        self.serving() && !self.director.broken && self.speaker.as_ref().is_some_and(stays)
    }

    /// The MACs that it may announce VIPs with.
    pub fn macs(&self, node: usize) -> [Mac; 2] {
        [api::director(node), api::uplink(node)]
    }

    /// What the process that starts now finds on the disk, if it finds anything: the state as it was
    /// `age` ago.
    pub(crate) fn found(&self, age: Duration, now: Duration) -> Saved {
        let old = self.saved.iter().rev();
        let mut old = old.filter(|(at, _)| *at + age <= now);
        old.next()
            .map(|(_, saved)| saved.clone())
            .unwrap_or_default()
    }

    /// A boot id as the daemon makes it: nanoseconds since the epoch, and greater than the last one
    /// if that is known.
    fn boot_id(&self, saved: &Saved, now: Duration) -> u64 {
        // 2026, so that no jump leads to before the epoch.
        const START: u64 = 1_767_225_600_000_000_000;
        let clock = (START + now.as_nanos() as u64).saturating_add_signed(self.clock * 1_000_000);
        clock.max(saved.boot_id + 1)
    }

    /// Starts the process from what it found.
    ///
    /// # Panics
    /// If the timing makes no sense.
    pub(crate) fn start(&mut self, node: usize, with: &Common<'_>, saved: &Saved, now: Duration) {
        let boot_id = self.boot_id(saved, now);
        let setup = Setup {
            me: self.name.clone(),
            boot_id,
            interval: with.config.interval,
            misses: with.config.misses,
            shape: with.config.shape,
            uplink_mac: api::uplink(node),
            director_mac: api::director(node),
            direct_routing: with.direct_routing,
            interface: "eth0".into(),
            further: [].into(),
            policy: Policy::default(),
            rebalance: with.rebalance,
            removal_grace: lightship_core::grace::DEFAULT,
            conflict_wait: with.conflict_wait,
        };
        // It goes on with the world that it knew, until the API server answers.
        let known = !saved.world.nodes.is_empty();
        let api = if known { &saved.world } else { with.api };
        // Revisions begin anew with the process.
        let found = DirectorReport {
            healthy: true,
            applied: 0,
            ..self.director.report()
        };
        let core = Core::new(setup, with.keys.clone(), api.clone(), saved, found, now);
        let mut core = core.expect("valid timing");
        if !self.carrier {
            core.on_uplink(uplink_state(false), now);
        }
        let destinations = self.director.holds.virtuals.iter();
        let destinations = destinations.flat_map(|(key, v)| {
            let addresses = v.weights.keys();
            addresses.map(|address| (*key, *address))
        });
        core.adopt(destinations, now);
        let kept = Saved {
            world: api.clone(),
            boot_id,
            ..saved.clone()
        };
        self.saved.push((now, kept));
        self.process += 1;
        self.steady_since = now;
        self.speaker = Some(Speaker {
            core,
            leaving_since: None,
            report: Arc::default(),
            listen: Listen::default(),
            groups: BTreeSet::new(),
        });
    }

    /// Writes the state file.
    pub(crate) fn save(&mut self, now: Duration) {
        let (Some(speaker), Some((_, last))) = (&self.speaker, self.saved.last()) else {
            return;
        };
        let mut state = last.clone();
        speaker.core.save(&mut state);
        self.saved.push((now, state));
    }
}

impl Speaker {
    /// Whether it answers `question`, a client's, for `vip`.
    pub(crate) fn answers(&mut self, vip: IpAddr, question: &[u8], now: Duration) -> Option<Mac> {
        let heard = match vip {
            IpAddr::V4(_) => self.listen.vips.contains(&vip),
            IpAddr::V6(v6) => self.listen.vips.contains(&vip) && self.groups.contains(&v6),
        };
        if !heard {
            return None;
        }
        self.core.on_frame(&Via::Main, question, now);
        let outputs = self.core.outputs();
        outputs.iter().find_map(|output| match output {
            Output::Frame(_, frame) => crate::world::lan::claim(frame)
                .filter(|(address, _)| *address == vip)
                .map(|(_, mac)| mac),
            _ => None,
        })
    }
}

/// The uplink with a carrier or without.
pub(crate) fn uplink_state(carrier: bool) -> UplinkState {
    UplinkState {
        carrier,
        ..UplinkState::FINE
    }
}
