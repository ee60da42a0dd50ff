//! What is asked when, what was answered, and what follows. Pure: no socket, no clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use lightship_frames::{Mac, udp};
use lightship_membership::graph::digest;
use lightship_membership::path::{Probe, Question, Set};

use super::kept::{self, Kept, Way};
use super::verdict::{Verdict, Vote};
use crate::world::{Node, NodeName};

/// How often a question is asked before it counts as lost, and how long an answer may take.
const TRIES: u32 = 8;
const GAP: Duration = Duration::from_millis(500);
/// Between two batches of at most five frames: at most 25 frames a second.
const SLOT: Duration = Duration::from_millis(200);
/// When a way that was fine is asked for again: somebody may change a switch.
const REPEAT: Duration = Duration::from_secs(600);
/// The same of one on which frames are lost, or on which not even the plain one came back.
const AFTER_LOSS: Duration = Duration::from_secs(30);
/// A way on which frames were lost is fine again after so many good rounds in a row.
const GOOD: u32 = 3;
/// Between those, and before the other node is told of a loss.
const SOON: Duration = Duration::from_secs(2);
/// Who is asked asks back, at the earliest so long after its own last round.
const ASK_BACK: Duration = Duration::from_secs(5);
/// What a peer said of its way to here counts for so long: two of its rounds and a bit.
const FRESH: Duration = Duration::from_secs(1_500);
/// A node that was known before the restart and has not been heard so long after it is gone.
const REMEMBERED: Duration = Duration::from_secs(10);
/// What one had said before the restart counts for so long after it: who is asked asks back within seconds.
const REMEMBERED_WORD: Duration = Duration::from_secs(60);
/// So long after a node was asked a loss on either end of the way is known: it asks back after [`SOON`], [`TRIES`] times,
/// and tells with its next questions, [`SOON`] after that; and some turns of others.
const JUDGED: Duration = Duration::from_secs(11);
/// What so many ways say is enough of a verdict: hundreds take minutes.
const ENOUGH: usize = 16;

/// Sources that are neither node's, of two ranges each: addresses that nobody has, and some that no
/// filter of odd sources should know. Nobody answers to them: the datagram meets an open port.
/// RFC 7600 section 4.8 (192.0.0.8), RFC 7535 (192.31.196.0/24, 2001:4:112::/48), RFC 6666 (100::/64).
const FOREIGN_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 8), Ipv4Addr::new(192, 31, 196, 8)];
const FOREIGN_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 8),
    Ipv6Addr::new(0x2001, 4, 0x112, 0, 0, 0, 0, 8),
];

/// A node, as far as the test is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its InternalIPs.
    pub v4: Option<Ipv4Addr>,
    /// See `v4`.
    pub v6: Option<Ipv6Addr>,
    /// The MAC of its uplink.
    pub uplink: Mac,
    /// The MAC of its director, if it has one.
    pub director: Option<Mac>,
}

impl Host {
    /// A node with its MACs.
    pub fn of(node: &Node, uplink: Mac, director: Option<Mac>) -> Host {
        Host {
            v4: node.v4,
            v6: node.v6,
            uplink,
            director,
        }
    }

    fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }
}

/// Another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub host: Host,
    /// Its speaker is heard, so that it would answer.
    pub heard: bool,
    /// Its director is used: what it says of its way to here is about what reaches this node.
    pub directs: bool,
}

/// Of the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }
}

/// A frame to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shot {
    /// On the director's link, else on the uplink itself.
    pub by_director: bool,
    /// Under which addresses; the ports are the caller's.
    pub eth: (Mac, Mac),
    /// See `eth`.
    pub ip: (IpAddr, IpAddr),
    /// What it carries.
    pub probe: Probe,
}

impl Shot {
    /// The frame's addresses, from and to this port.
    pub fn route(&self, port: u16) -> udp::Route {
        udp::Route {
            eth: self.eth,
            ip: self.ip,
            port: (port, port),
        }
    }
}

/// The way to one node in one family.
#[derive(Debug, Default)]
struct Trial {
    /// When it is its turn.
    due: Duration,
    /// The round that goes on or comes next is because the other node asked.
    back: bool,
    /// When its last round ended.
    ended: Duration,
    /// Of the round that goes on.
    tries: u32,
    asked: Set,
    answered: Set,
    /// Questions under way, by serial.
    open: BTreeMap<u64, Question>,
    /// What the last round with an answer found lost; `None` before the first.
    lost: Option<Set>,
    /// That is from before the restart, and no round has confirmed it since.
    remembered: bool,
    /// Good rounds in a row after a loss.
    good: u32,
    /// What the other node says of its way to here, and until when it counts.
    told: Option<(Set, Duration)>,
}

/// The test of all ways from this node, and what others found of theirs to it.
#[derive(Debug)]
pub struct Tester {
    me: u64,
    boot_id: u64,
    own: Host,
    peers: BTreeMap<NodeName, Peer>,
    digests: BTreeMap<u64, NodeName>,
    trials: BTreeMap<(NodeName, Family), Trial>,
    /// What was known before the restart of nodes that have not been heard since, and until when.
    remembered: BTreeMap<(NodeName, Family), Way>,
    forget: Duration,
    serial: u64,
    /// No batch before this.
    slot: Duration,
    /// When another node was first heard, and whether that was long enough ago for a verdict.
    heard: Option<Duration>,
    long: bool,
}

impl Tester {
    /// A test that knows no peer yet, but what it had found when the speaker last ran. `boot_id` is that of
    /// the heartbeats.
    pub fn new(me: &NodeName, boot_id: u64, own: Host, kept: &Kept, now: Duration) -> Tester {
        let same = kept.own == kept::fingerprint(&own);
        let ways = kept.ways.iter().filter(|_| same);
        Tester {
            remembered: ways.map(|way| (way.key(), way.clone())).collect(),
            forget: now + REMEMBERED,
            me: digest(me),
            boot_id,
            own,
            peers: BTreeMap::new(),
            digests: BTreeMap::new(),
            trials: BTreeMap::new(),
            serial: 0,
            slot: Duration::ZERO,
            heard: None,
            long: false,
        }
    }

    /// The own node has other addresses: all ways are asked for anew.
    pub fn set_own(&mut self, own: Host, now: Duration) {
        if self.own != own {
            self.own = own;
            self.remembered.clear();
            self.again(now);
            let peers = std::mem::take(&mut self.peers);
            self.set_peers(peers, now);
        }
    }

    /// The nodes that answer the test. What was found of one that is not heard holds until it
    /// is; what was found of other addresses does not.
    pub fn set_peers(&mut self, peers: BTreeMap<NodeName, Peer>, now: Duration) {
        let anybody = peers.values().any(|peer| peer.heard);
        self.heard = self.heard.or(anybody.then_some(now));
        self.trials.retain(|(name, _), _| peers.contains_key(name));
        for (name, Peer { host, .. }) in &peers {
            let known = self.peers.get(name);
            let changed = known.is_some_and(|known| known.host != *host);
            for family in [Family::V4, Family::V6] {
                let key = (name.clone(), family);
                if self.own.address(family).is_none() || host.address(family).is_none() {
                    self.trials.remove(&key);
                    self.remembered.remove(&key);
                } else if changed || !self.trials.contains_key(&key) {
                    // What the other one found of us does not depend on its addresses alone, but
                    // it too asks anew.
                    let way = self.remembered.remove(&key);
                    let way = way.filter(|way| way.host == kept::fingerprint(host));
                    let trial = Trial {
                        due: now + SLOT,
                        lost: way.as_ref().and_then(Way::found),
                        remembered: way.is_some(),
                        told: way
                            .as_ref()
                            .and_then(Way::told)
                            .map(|lost| (lost, now + REMEMBERED_WORD)),
                        ..Trial::default()
                    };
                    self.trials.insert(key, trial);
                }
            }
        }
        self.digests = peers
            .keys()
            .map(|name| (digest(name), name.clone()))
            .collect();
        self.peers = peers;
    }

    /// Asks for all ways anew, because something of the uplink changed. What was found holds until
    /// the answers are there.
    pub fn again(&mut self, now: Duration) {
        for trial in self.trials.values_mut() {
            trial.begin(now);
            trial.back = false;
        }
    }

    /// Takes what came in by a frame of this family; returns the answer.
    pub fn on_probe(&mut self, probe: &Probe, family: Family, now: Duration) -> Option<Shot> {
        if probe.answer {
            self.on_answer(probe, family, now);
            return None;
        }
        if probe.asked != self.me {
            return None;
        }
        let name = self.digests.get(&probe.asker)?;
        let peer = self.peers.get(name)?.host;
        if let Some(trial) = self.trials.get_mut(&(name.clone(), family)) {
            trial.told = Some((probe.lost, now + FRESH));
            // Something is new over there, so it may be here: both ways are known anew then.
            if !probe.back && trial.tries == 0 {
                trial.begin((now + SOON).max(trial.ended + ASK_BACK));
                trial.back = true;
            }
        }
        Some(Shot {
            by_director: false,
            eth: (self.own.uplink, peer.uplink),
            ip: (self.own.address(family)?, peer.address(family)?),
            probe: Probe {
                answer: true,
                back: false,
                ..*probe
            },
        })
    }

    fn on_answer(&mut self, probe: &Probe, family: Family, now: Duration) {
        if probe.asker != self.me || probe.boot_id != self.boot_id {
            return;
        }
        let Some(name) = self.digests.get(&probe.asked) else {
            return;
        };
        let Some(trial) = self.trials.get_mut(&(name.clone(), family)) else {
            return;
        };
        // A recorded answer has a serial that is not open any more.
        if trial.open.remove(&probe.serial) == Some(probe.question) {
            trial.answered.insert(probe.question);
            if trial.asked.without(trial.answered).is_empty() {
                trial.end(now);
            }
        }
    }

    /// Sends what is due: questions to at most one node.
    pub fn tick(&mut self, now: Duration) -> Vec<Shot> {
        if now >= self.forget {
            self.remembered.clear();
        }
        self.long |= self.judged_at().is_some_and(|at| now >= at);
        if now < self.slot {
            return Vec::new();
        }
        // Rounds that ended without all answers cost no frame.
        for (_, trial) in self.live() {
            if trial.due <= now && trial.tries >= TRIES {
                trial.end(now);
            }
        }
        let next = self.live().filter(|(_, trial)| trial.due <= now);
        // What has begun is ended first: of many ways some are then known soon, if frames are lost on all.
        let next = next.min_by_key(|(_, trial)| (trial.tries == 0, trial.due));
        let Some((name, family)) = next.map(|(key, _)| key.clone()) else {
            return Vec::new();
        };
        self.slot = now + SLOT;
        self.ask(&name, family, now)
    }

    fn live(&mut self) -> impl Iterator<Item = (&(NodeName, Family), &mut Trial)> {
        let peers = &self.peers;
        let all = self.trials.iter_mut();
        all.filter(|((name, _), _)| peers.get(name).is_some_and(|peer| peer.heard))
    }

    fn ask(&mut self, name: &NodeName, family: Family, now: Duration) -> Vec<Shot> {
        let (own, me, boot_id) = (self.own, self.me, self.boot_id);
        let Some(Peer { host: peer, .. }) = self.peers.get(name).copied() else {
            return Vec::new();
        };
        let (Some(from), Some(to)) = (own.address(family), peer.address(family)) else {
            return Vec::new();
        };
        let Some(trial) = self.trials.get_mut(&(name.clone(), family)) else {
            return Vec::new();
        };
        trial.asked = Question::ALL
            .into_iter()
            .filter(|question| match question {
                Question::Plain => true,
                Question::ToDirector => peer.director.is_some(),
                _ => own.director.is_some(),
            })
            .collect();
        trial.tries += 1;
        trial.due = now + GAP;
        let mut shots = Vec::new();
        for question in Question::ALL {
            // The plain one is asked each time: it says whether answers come at all now.
            let again = question == Question::Plain || !trial.answered.has(question);
            if !trial.asked.has(question) || !again {
                continue;
            }
            let director = own.director.unwrap_or(own.uplink);
            let (eth, source) = match question {
                Question::Plain => ((own.uplink, peer.uplink), from),
                Question::FromDirector => ((director, peer.uplink), from),
                Question::Foreign => ((director, peer.uplink), foreign(family, 0)),
                Question::OtherForeign => ((director, peer.uplink), foreign(family, 1)),
                Question::ToDirector => ((own.uplink, peer.director.unwrap_or(peer.uplink)), from),
            };
            self.serial += 1;
            trial.open.insert(self.serial, question);
            shots.push(Shot {
                by_director: eth.0 != own.uplink,
                eth,
                ip: (source, to),
                probe: Probe {
                    answer: false,
                    back: trial.back,
                    question,
                    lost: trial.lost.unwrap_or_default(),
                    asker: me,
                    asked: digest(name),
                    boot_id,
                    serial: self.serial,
                },
            });
        }
        shots
    }

    /// When [`Tester::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        let due = self.heard_trials().map(|trial| trial.due).min();
        let due = due.map(|due| due.max(self.slot));
        let forget = (!self.remembered.is_empty()).then_some(self.forget);
        let judged = self.judged_at().filter(|_| !self.long);
        due.into_iter().chain(forget).chain(judged).min()
    }

    /// What follows from all that is known now.
    pub fn verdict(&self, now: Duration) -> Verdict {
        let votes = self.trials.iter().map(|((name, _), trial)| Vote {
            peer: name,
            found: trial.lost,
            told: trial.told(now),
            forwards: self.peers.get(name).is_some_and(|peer| peer.directs),
        });
        let remembered = self.remembered.values().map(|way| Vote {
            peer: &way.peer,
            found: way.found(),
            told: way.told(),
            forwards: way.directs,
        });
        let has_director = self.own.director.is_some();
        Verdict::of(votes.chain(remembered), has_director, self.judged())
    }

    /// When the node that is asked last has told what it found, if frames are lost on no way there.
    fn judged_at(&self) -> Option<Duration> {
        let ways = u32::try_from(self.trials.len()).unwrap_or(u32::MAX);
        Some(self.heard? + JUDGED + SLOT.saturating_mul(ways))
    }

    fn judged(&self) -> bool {
        // Or there was no answer to ever so many questions.
        let is_asked = |trial: &&Trial| trial.lost.is_some() || !trial.ended.is_zero();
        let all = self.heard_trials().count();
        self.long && self.heard_trials().filter(is_asked).count() >= all.min(ENOUGH)
    }

    /// Those of nodes that are heard.
    fn heard_trials(&self) -> impl Iterator<Item = &Trial> {
        let heard = |name| self.peers.get(name).is_some_and(|peer| peer.heard);
        let all = self.trials.iter();
        all.filter(move |((name, _), _)| heard(name))
            .map(|(_, trial)| trial)
    }

    /// What the next start of the speaker should know besides this verdict: nothing where all is well.
    pub fn kept(&self, verdict: &Verdict, now: Duration) -> Kept {
        if verdict.fine() {
            return Kept::default();
        }
        let ways = self.trials.iter().filter_map(|((name, family), trial)| {
            let peer = self.peers.get(name)?;
            Some(Way {
                peer: name.clone(),
                v6: *family == Family::V6,
                host: kept::fingerprint(&peer.host),
                found: trial.lost.map(Set::bits),
                told: trial.told(now).map(Set::bits),
                directs: peer.directs,
            })
        });
        Kept {
            own: kept::fingerprint(&self.own),
            ways: ways.chain(self.remembered.values().cloned()).collect(),
        }
    }
}

impl Trial {
    /// What the other node said lately of its way to here.
    fn told(&self, now: Duration) -> Option<Set> {
        let (lost, until) = self.told?;
        (now < until).then_some(lost)
    }

    fn begin(&mut self, now: Duration) {
        self.due = self.due.min(now);
        self.tries = 0;
        self.answered = Set::default();
        self.open.clear();
    }

    /// All questions of the round are answered, or have been asked often enough.
    fn end(&mut self, now: Duration) {
        let missing = self.asked.without(self.answered);
        let before = self.lost;
        let mut next = REPEAT;
        if !self.answered.has(Question::Plain) {
            // Neither node can say anything of the way: perhaps the other one is gone.
            next = AFTER_LOSS;
            if self.remembered {
                self.lost = None;
            }
        } else if !missing.is_empty() {
            self.lost = Some(missing);
            self.good = 0;
            // The other one is told by the next questions.
            next = if before == self.lost {
                AFTER_LOSS
            } else {
                SOON
            };
        } else if before.is_some_and(|lost| !lost.is_empty()) {
            self.good += 1;
            next = SOON;
            if self.good >= GOOD {
                self.lost = Some(Set::default());
            }
        } else {
            self.lost = Some(Set::default());
        }
        self.remembered = false;
        self.ended = now;
        self.back = false;
        self.due = Duration::MAX;
        self.begin(now + next);
    }
}

fn foreign(family: Family, index: usize) -> IpAddr {
    match family {
        Family::V4 => FOREIGN_V4[index].into(),
        Family::V6 => FOREIGN_V6[index].into(),
    }
}

#[cfg(test)]
mod tests;
