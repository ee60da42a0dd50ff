//! What befalls nodes and links.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lightship_core::world::World as Api;

use super::{Happening, LARGE, World};
use crate::speaker::{Director, uplink_state};

/// One thing that happens to the cluster. Nodes are named by index.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The speaker starts, with the state that it finds.
    StartSpeaker {
        /// Where.
        node: usize,
    },
    /// The speaker starts with its state as it was some time ago, because nothing newer was written.
    StartOld {
        /// Where.
        node: usize,
        /// How long ago.
        age: Duration,
    },
    /// The machine stops dead. Its state file is lost, because it is on a tmpfs.
    Crash {
        /// Which.
        node: usize,
    },
    /// The machine boots, if it is down, and starts its speaker, if it does not run.
    Boot {
        /// Which.
        node: usize,
    },
    /// The wall clock is set forward, or back. It matters when a speaker starts.
    ClockJump {
        /// Where.
        node: usize,
        /// By so many ms.
        by: i64,
    },
    /// The speaker gets SIGKILL; the kernel goes on.
    KillSpeaker {
        /// Where.
        node: usize,
    },
    /// The speaker gets SIGTERM.
    Terminate {
        /// Where.
        node: usize,
    },
    /// The speaker gets SIGSTOP.
    Pause {
        /// Where.
        node: usize,
    },
    /// The speaker gets SIGCONT.
    Continue {
        /// Where.
        node: usize,
    },
    /// The uplink's carrier goes or comes.
    Carrier {
        /// Where.
        node: usize,
        /// It is there.
        carrier: bool,
    },
    /// The director breaks or is mended.
    Director {
        /// Where.
        node: usize,
        /// It breaks.
        broken: bool,
    },
    /// Somebody else changes the director's table, or puts it right, and the director says what it holds.
    Table {
        /// Where.
        node: usize,
        /// It is another one than is wanted.
        other: bool,
    },
    /// No frame passes between these nodes and the rest.
    Partition {
        /// One side.
        side: Vec<usize>,
    },
    /// Nothing that these nodes send reaches the rest; the other direction stays.
    Mute {
        /// The side that is not heard.
        side: Vec<usize>,
    },
    /// No frame passes from one node to another; the other direction stays.
    OneWay {
        /// Sender.
        from: usize,
        /// Receiver.
        to: usize,
    },
    /// All links are free again.
    Heal,
    /// The API server says this now.
    Api(Arc<Api>),
}

impl World {
    /// Lets a fault happen now.
    pub fn befall(&mut self, fault: Fault) {
        self.watch.say(self.now, || match &fault {
            Fault::Api(api) => told(api),
            fault => format!("--- {fault:?}"),
        });
        self.disturbed = self.disturbed.max(self.now);
        match fault {
            Fault::StartSpeaker { node } => self.start_speaker(node, Duration::ZERO),
            Fault::StartOld { node, age } => self.start_speaker(node, age),
            Fault::Crash { node } => {
                self.stop_speaker(node);
                let machine = &mut self.nodes[node];
                machine.up = false;
                machine.saved.clear();
                machine.director = Director::default();
            }
            Fault::Boot { node } => {
                self.nodes[node].up = true;
                self.start_speaker(node, Duration::ZERO);
            }
            Fault::ClockJump { node, by } => self.nodes[node].clock += by,
            Fault::KillSpeaker { node } => self.stop_speaker(node),
            Fault::Terminate { node } => self.terminate(node),
            Fault::Pause { node } => {
                let machine = &mut self.nodes[node];
                if machine.speaker.is_some() && !machine.paused {
                    machine.paused = true;
                    machine.paused_at = self.now;
                }
            }
            Fault::Continue { node } => self.continue_speaker(node),
            Fault::Carrier { node, carrier } => self.set_carrier(node, carrier),
            Fault::Director { node, broken } => {
                if self.nodes[node].director.broken != broken {
                    self.nodes[node].director.broken = broken;
                    self.nodes[node].steady_since = self.now;
                    let process = self.nodes[node].process;
                    self.push(self.now, Happening::Directed { node, process });
                }
            }
            Fault::Table { node, other } => {
                self.nodes[node].director.other = other;
                let process = self.nodes[node].process;
                self.push(self.now, Happening::Directed { node, process });
            }
            Fault::Partition { side } => {
                self.block(|from, to| side.contains(&from) != side.contains(&to));
            }
            Fault::Mute { side } => {
                self.block(|from, to| side.contains(&from) && !side.contains(&to))
            }
            Fault::OneWay { from, to } => self.net.set_blocked(from, to, true, self.now),
            Fault::Heal => {
                for from in 0..self.nodes.len() {
                    for to in 0..self.nodes.len() {
                        self.net.set_blocked(from, to, false, self.now);
                    }
                }
            }
            Fault::Api(api) => self.set_api(api),
        }
        self.look(None);
    }

    fn block(&mut self, which: impl Fn(usize, usize) -> bool) {
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                if which(from, to) {
                    self.net.set_blocked(from, to, true, self.now);
                }
            }
        }
    }

    fn start_speaker(&mut self, node: usize, age: Duration) {
        if self.nodes[node].speaker.is_none() && self.nodes[node].up {
            self.start(node, age);
        }
    }

    /// The process is gone, and with it its answers.
    pub(super) fn stop_speaker(&mut self, node: usize) {
        if self.nodes.len() >= LARGE {
            self.nodes[node].save(self.now);
        }
        let machine = &mut self.nodes[node];
        machine.speaker = None;
        machine.paused = false;
        machine.inbox.clear();
        machine.waiting.clear();
        machine.wake = None;
        machine.steady_since = self.now;
        self.watch.silence(node);
    }

    fn terminate(&mut self, node: usize) {
        let now = self.now;
        // A stopped process does not hear of it, and this one stays unheard.
        if self.nodes[node].paused {
            return;
        }
        if let Some(speaker) = &mut self.nodes[node].speaker
            && speaker.leaving_since.is_none()
        {
            speaker.leaving_since = Some(now);
            speaker.core.leave(now);
            self.nodes[node].steady_since = now;
            self.tick(node);
        }
    }

    fn set_carrier(&mut self, node: usize, carrier: bool) {
        if std::mem::replace(&mut self.nodes[node].carrier, carrier) == carrier {
            return;
        }
        let now = self.now;
        let machine = &mut self.nodes[node];
        (machine.steady_since, machine.linked_since) = (now, now);
        if machine.paused {
            return;
        }
        if let Some(speaker) = &mut self.nodes[node].speaker {
            speaker.core.on_uplink(uplink_state(carrier), now);
            self.tick(node);
        }
    }

    /// The process finds its overdue timer and its full sockets in either order.
    fn continue_speaker(&mut self, node: usize) {
        let timer_first = self.rng.chance(500);
        let now = self.now;
        let machine = &mut self.nodes[node];
        if !std::mem::take(&mut machine.paused) {
            return;
        }
        machine.steady_since = now;
        // A timer that came meanwhile is in the inbox, and is not planned any more.
        machine.wake = None;
        // Shorter than that, and what it knows is as fresh as anybody's.
        if now - machine.paused_at >= self.setup.config.interval * 2 {
            machine.woken_at = now;
        }
        let carrier = machine.carrier;
        let inbox = std::mem::take(&mut machine.inbox);
        if timer_first {
            self.tick(node);
        }
        for what in inbox {
            if !matches!(what, Happening::Wake { .. }) {
                self.take_in(what);
            }
        }
        if let Some(speaker) = &mut self.nodes[node].speaker {
            speaker.core.on_uplink(uplink_state(carrier), now);
        }
        self.tick(node);
    }

    fn set_api(&mut self, api: Arc<Api>) {
        let vips = self.api.vips.keys();
        let gone: Vec<IpAddr> = vips
            .filter(|vip| !api.vips.contains_key(*vip))
            .copied()
            .collect();
        for vip in gone {
            self.watch.forget(vip, self.now);
        }
        self.api = api;
        self.api_changed = self.now + self.setup.api_skew;
        self.disturbed = self.api_changed;
        for node in 0..self.nodes.len() {
            self.tell_api(node);
        }
    }

    /// A node hears what the API server says now.
    pub(super) fn tell_api(&mut self, node: usize) {
        let at = self.now + self.rng.up_to(self.setup.api_skew);
        // News from it may be late, but come in their order.
        let at = at.max(self.nodes[node].told_at);
        self.nodes[node].told_at = at;
        let api = self.api.clone();
        self.push(at, Happening::Api { node, api });
    }
}

/// What the API server says, as far as it is not the usual.
fn told(api: &Api) -> String {
    let nodes = api.nodes.iter();
    let nodes = nodes.filter_map(|(name, node)| match (node.excluded, node.drained) {
        (true, _) => Some(format!("{name} excluded")),
        (_, true) => Some(format!("{name} drained")),
        _ => None,
    });
    let vips = api.vips.iter().filter_map(|(vip, asked)| {
        let pin = asked
            .pin_to
            .as_ref()
            .map(|to| format!("{vip} pinned to {to}"));
        pin.or_else(|| {
            asked
                .move_to
                .as_ref()
                .map(|to| format!("{vip} to move to {to}"))
        })
    });
    let said: Vec<String> = nodes.chain(vips).collect();
    format!("--- API: {} VIPs; {}", api.vips.len(), said.join(", "))
}
