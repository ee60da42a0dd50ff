//! What befalls nodes and links.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use lightship_election::Candidates;

use super::{Happening, World};
use crate::speaker::Speaker;

/// The API's news reach the nodes within this time of each other.
const API_SKEW: Duration = Duration::from_millis(50);

/// One thing that happens to the cluster. Nodes are named by index.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The speaker starts for the first time, without state.
    StartSpeaker {
        /// Where.
        node: usize,
    },
    /// The machine stops dead.
    Crash {
        /// Which.
        node: usize,
    },
    /// The machine boots and starts its speaker, without state.
    Boot {
        /// Which.
        node: usize,
    },
    /// The speaker gets SIGKILL; the kernel goes on.
    KillSpeaker {
        /// Where.
        node: usize,
    },
    /// The speaker starts again and resumes what it had saved.
    ResumeSpeaker {
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
    /// Carrier or director breaks or is mended.
    CanOwn {
        /// Where.
        node: usize,
        /// Mended.
        can_own: bool,
    },
    /// No frame passes between these nodes and the rest.
    Partition {
        /// One side.
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
    /// The API has other VIPs or another policy.
    SetVips(BTreeMap<IpAddr, Candidates>),
}

impl World {
    /// Lets a fault happen now.
    pub fn befall(&mut self, fault: Fault) {
        self.watch.say(self.now, || match &fault {
            Fault::SetVips(vips) => format!("--- SetVips of {} VIPs", vips.len()),
            fault => format!("--- {fault:?}"),
        });
        match fault {
            Fault::StartSpeaker { node } => self.start_speaker(node, false),
            Fault::ResumeSpeaker { node } => self.start_speaker(node, true),
            Fault::Crash { node } => {
                self.nodes[node].up = false;
                self.stop_speaker(node);
                self.nodes[node].saved.clear();
            }
            Fault::Boot { node } => {
                self.nodes[node].up = true;
                self.start_speaker(node, false);
            }
            Fault::KillSpeaker { node } => {
                let saved = self.nodes[node].saved.clone();
                self.stop_speaker(node);
                self.nodes[node].saved = saved;
            }
            Fault::Terminate { node } => {
                let out = self.with(node, Speaker::terminate);
                self.carry_out(node, out);
            }
            Fault::Pause { node } => {
                let machine = &mut self.nodes[node];
                if machine.speaker.is_some() && !machine.paused {
                    machine.paused = true;
                    machine.paused_at = self.now;
                }
            }
            Fault::Continue { node } => self.continue_speaker(node),
            Fault::CanOwn { node, can_own } => {
                self.nodes[node].can_own = can_own;
                let out = self.with(node, |speaker, now| speaker.set_can_own(can_own, now));
                self.carry_out(node, out);
            }
            Fault::Partition { side } => {
                for from in 0..self.nodes.len() {
                    for to in 0..self.nodes.len() {
                        if side.contains(&from) != side.contains(&to) {
                            self.net.set_blocked(from, to, true, self.now);
                        }
                    }
                }
            }
            Fault::OneWay { from, to } => self.net.set_blocked(from, to, true, self.now),
            Fault::Heal => {
                for from in 0..self.nodes.len() {
                    for to in 0..self.nodes.len() {
                        self.net.set_blocked(from, to, false, self.now);
                    }
                }
            }
            Fault::SetVips(vips) => self.set_vips(vips),
        }
        self.look();
    }

    fn start_speaker(&mut self, node: usize, resume: bool) {
        if self.nodes[node].speaker.is_some() || !self.nodes[node].up {
            return;
        }
        self.nodes[node].boots += 1;
        let speaker = Speaker::start(self.start(node, resume), self.now);
        let machine = &mut self.nodes[node];
        machine.speaker = Some(speaker);
        machine.steady_since = self.now;
        let out = self.with(node, Speaker::on_timer);
        self.carry_out(node, out);
    }

    /// The process is gone, and with it its answers.
    pub(super) fn stop_speaker(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        machine.speaker = None;
        machine.paused = false;
        machine.inbox.clear();
        machine.wake = None;
        machine.saved.clear();
        for holders in self.watch.holders.values_mut() {
            holders.remove(&node);
        }
    }

    /// The process finds its overdue timer and its full socket in either order.
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
        let inbox = std::mem::take(&mut machine.inbox);
        if timer_first {
            let out = self.with(node, Speaker::on_timer);
            self.carry_out(node, out);
        }
        for what in inbox {
            if !matches!(what, Happening::Wake { .. }) {
                self.happen(what);
            }
        }
        let out = self.with(node, Speaker::on_timer);
        self.carry_out(node, out);
    }

    fn set_vips(&mut self, vips: BTreeMap<IpAddr, Candidates>) {
        let gone: Vec<IpAddr> = self
            .vips
            .keys()
            .filter(|vip| !vips.contains_key(vip))
            .copied()
            .collect();
        for vip in gone {
            self.watch.forget(vip, self.now);
        }
        self.vips = vips.clone();
        let vips = Rc::new(vips);
        for node in 0..self.nodes.len() {
            let at = self.now + self.rng.up_to(API_SKEW);
            let vips = vips.clone();
            self.push(at, Happening::Vips { node, vips });
        }
    }
}
