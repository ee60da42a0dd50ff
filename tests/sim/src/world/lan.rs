//! The LAN as machines that are none of ours see it: kernels that answer for their own addresses,
//! and clients that ask for VIPs and heed announcements.

use std::net::IpAddr;
use std::rc::Rc;

use lightship_frames::Mac;
use lightship_frames::arp::{self, ArpOp};
use lightship_frames::ndp::{self, Ndp};

use super::{Happening, World};
use crate::api;

/// The MAC and addresses of the clients.
const CLIENT: Mac = Mac([2, 0xc, 0, 0, 0, 1]);
const CLIENT_V4: [u8; 4] = [192, 0, 2, 254];
const CLIENT_V6: [u16; 8] = [0x2001, 0xdb8, 1, 0, 0, 0, 0xc, 1];

/// Frames that a node sent at one time, with what each is about, read once for all who get them.
pub(crate) type Frames = Rc<Vec<Frame>>;

/// One of them.
#[derive(Clone)]
pub(crate) struct Frame {
    /// The address that is asked for or claimed.
    about: IpAddr,
    /// The MAC it is claimed for; none in a question.
    claimed: Option<Mac>,
    bytes: Rc<[u8]>,
}

/// What a client sends to find a VIP.
pub(crate) fn question(vip: IpAddr) -> Vec<u8> {
    match vip {
        IpAddr::V4(vip) => arp::probe_request(CLIENT, CLIENT_V4.into(), vip, None),
        IpAddr::V6(vip) => ndp::neighbor_solicitation(CLIENT, CLIENT_V6.into(), vip, None),
    }
}

/// The address that a frame claims, and the MAC it claims it for.
pub(crate) fn claim(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    let read = read(frame)?;
    read.claimed.map(|mac| (read.about, mac))
}

fn read(frame: &[u8]) -> Option<Frame> {
    let (about, claimed) = match arp::parse(frame) {
        Ok(arp) if arp.op == ArpOp::Request && !arp.is_gratuitous() => (arp.target_ip.into(), None),
        Ok(arp) => (arp.sender_ip.into(), Some(arp.sender_mac)),
        Err(_) => match ndp::parse(frame).ok()? {
            Ndp::Solicitation { target, .. } => (target.into(), None),
            Ndp::Advertisement {
                target,
                target_ll,
                eth_src,
                ..
            } => (target.into(), Some(target_ll.unwrap_or(eth_src))),
        },
    };
    let bytes = Rc::from(frame);
    Some(Frame {
        about,
        claimed,
        bytes,
    })
}

impl World {
    /// A node's frames go to all that they can reach, each with its own luck.
    pub(super) fn send_frames(&mut self, from: usize, frames: &[Vec<u8>]) {
        if frames.is_empty() || !self.nodes[from].carrier {
            return;
        }
        let mut common = Vec::new();
        for frame in frames.iter().filter_map(|bytes| read(bytes)) {
            // A question for a node's own address is that node's kernel's, whatever its speaker does.
            match (api::node_at(frame.about), frame.claimed) {
                (Some(of), None) => self.probe(from, of, frame.about),
                _ => common.push(frame),
            }
        }
        if common.is_empty() {
            return;
        }
        self.heed(from, &common);
        let common = Rc::new(common);
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            let frames = if self.net.quality.loss == 0 {
                common.clone()
            } else {
                let loss = self.net.quality.loss;
                let rng = &mut self.rng;
                let kept = common.iter().filter(|_| !rng.chance(loss));
                Rc::new(kept.cloned().collect())
            };
            if let Some(delay) = self.net.carry_whole(from, to, &mut self.rng) {
                self.push(self.now + delay, Happening::Frames { to, frames });
            }
        }
    }

    /// The target's kernel answers at once, whatever its processes do.
    fn probe(&mut self, from: usize, of: usize, address: IpAddr) {
        if of >= self.nodes.len() {
            return;
        }
        for there in self.net.carry(from, of, &mut self.rng) {
            if !self.nodes[of].up || !self.nodes[of].carrier {
                continue;
            }
            let bytes = match address {
                IpAddr::V4(v4) => {
                    arp::reply(api::uplink(of), v4, api::uplink(from), CLIENT_V4.into())
                }
                IpAddr::V6(v6) => {
                    ndp::solicited_na(api::uplink(of), v6, v6, api::uplink(from), CLIENT_V6.into())
                }
            };
            for back in self.net.carry(of, from, &mut self.rng) {
                let frames = Rc::new(read(&bytes).into_iter().collect());
                let at = self.now + there + back;
                self.push(at, Happening::Frames { to: from, frames });
            }
        }
    }

    /// The clients beside a node heed what is announced.
    pub(super) fn heed(&mut self, beside: usize, frames: &[Frame]) {
        for frame in frames {
            if let Some(mac) = frame.claimed {
                self.watch.caches[beside].insert(frame.about, mac);
            }
        }
    }

    /// The frames that a node's kernel lets through to the speaker.
    pub(super) fn wanted(&self, node: usize, frames: &Frames) -> Vec<Rc<[u8]>> {
        let Some(speaker) = &self.nodes[node].speaker else {
            return Vec::new();
        };
        let heard = |frame: &&Frame| {
            let listen = &speaker.listen;
            let vip = listen.vips.contains(&frame.about);
            match (frame.about, frame.claimed) {
                (_, Some(_)) => vip || listen.nodes.contains(&frame.about),
                (IpAddr::V4(_), None) => vip,
                (IpAddr::V6(v6), None) => vip && speaker.groups.contains(&v6),
            }
        };
        let all = frames.iter().filter(heard);
        all.map(|frame| frame.bytes.clone()).collect()
    }

    /// Asks every node for every VIP.
    pub fn ask_all(&mut self) {
        let vips = self.vips();
        for node in 0..self.nodes.len() {
            self.ask(node, &vips);
        }
        self.look(None);
    }

    /// Asks a node as a client would: for these VIPs.
    pub(super) fn ask(&mut self, node: usize, vips: &[IpAddr]) {
        let now = self.now;
        for vip in vips {
            let question = self.questions.entry(*vip);
            let question = question.or_insert_with(|| question_of(vip)).clone();
            let Some(speaker) = &mut self.nodes[node].speaker else {
                return;
            };
            let answer = speaker.answers(*vip, &question, now);
            self.watch.answers(*vip, node, answer, now);
        }
    }
}

fn question_of(vip: &IpAddr) -> Rc<[u8]> {
    question(*vip).into()
}
