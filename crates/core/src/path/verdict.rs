//! What the answers of all peers say of this node's place in the network.

use std::collections::BTreeSet;
use std::fmt;

use lightship_membership::path::{Question, Set};

use crate::world::NodeName;

/// What the network does to this node's director.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Frames from the director's MAC do not arrive.
    FramesFromDirectorDropped,
    /// Frames to it do not arrive.
    FramesToDirectorDropped,
    /// Frames from it arrive, but not those with another source IP than this node's.
    ForeignSourceDropped,
}

impl Fault {
    /// One word, CamelCase.
    pub fn reason(self) -> &'static str {
        match self {
            Fault::FramesFromDirectorDropped => "FramesFromDirectorDropped",
            Fault::FramesToDirectorDropped => "FramesToDirectorDropped",
            Fault::ForeignSourceDropped => "ForeignSourceDropped",
        }
    }

    /// What is probably the cause and what to change.
    fn advice(self) -> &'static str {
        match self {
            Fault::FramesFromDirectorDropped => {
                "the network drops frames from a second MAC on this node's port; allow them \
                 (VMware: forged transmits; Hyper-V: MAC address spoofing; OpenStack: port security \
                 off or allowed address pairs; Proxmox: MAC filter off; switch: port security for \
                 two MACs)"
            }
            Fault::FramesToDirectorDropped => {
                "the network does not deliver frames to a second MAC on this node's port; allow \
                 them (VMware: MAC learning or promiscuous mode; switch: at least two MACs for each \
                 port)"
            }
            Fault::ForeignSourceDropped => {
                "the network drops packets whose source is not this node's own address; allow them \
                 (OpenStack: port security off; Proxmox: IP filter off; switch: IP source guard \
                 off). Until then replies to clients may be dropped too, for they have a VIP as \
                 their source: while another node can serve, it gets this one's addresses and new \
                 connections"
            }
        }
    }
}

/// What is known of the way to one peer in one family, and of the way back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vote<'a> {
    /// Which.
    pub(super) peer: &'a NodeName,
    /// What was found lost on the way there; `None`: not known.
    pub(super) found: Option<Set>,
    /// What the peer found lost on its way to here; `None`: it did not say lately.
    pub(super) told: Option<Set>,
    /// The peer's director is used. Of one whose own port is to blame it is not.
    pub(super) forwards: bool,
}

/// What follows for this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why its director should not be used.
    pub fault: Option<Fault>,
    /// What other directors forward does not reach this node.
    pub deaf: bool,
    /// With whom it fails, if with anybody: also where that is too few for a fault.
    pub with: BTreeSet<NodeName>,
    /// On how many ways anything is known.
    pub known: usize,
    /// Frames were seen to pass here both ways. Not so where most others say that theirs did not come, whoever is to
    /// blame for that.
    pub proven: bool,
    /// Others were heard and asked for so long that a loss on either end would be known.
    pub judged: bool,
}

impl Verdict {
    /// Judges by the majority: of a single failing way the other end, or what lies between, is as
    /// likely the cause.
    pub(super) fn of<'a>(
        votes: impl Iterator<Item = Vote<'a>>,
        has_director: bool,
        judged: bool,
    ) -> Verdict {
        let votes: Vec<Vote<'a>> = votes.collect();
        let foreign = |lost: Set| {
            let both = lost.has(Question::Foreign) && lost.has(Question::OtherForeign);
            both && !lost.has(Question::FromDirector)
        };
        let found = |bad: &dyn Fn(Set) -> bool| Share::of(&votes, |vote| vote.found, bad);
        let told = |bad: &dyn Fn(Set) -> bool| Share::of(&votes, |vote| vote.told, bad);
        let from = found(&|lost| lost.has(Question::FromDirector));
        let to = told(&|lost| lost.has(Question::ToDirector));
        let out = found(&foreign);
        // What directors forward has their MAC and a client's address.
        let lost = |lost: Set| lost.has(Question::FromDirector) || foreign(lost);
        let forwarded = |vote: &Vote<'_>| vote.told.filter(|_| vote.forwards);
        let back = Share::of(&votes, forwarded, &lost);
        let come = !told(&lost).most;
        let faults = [
            (Fault::FramesFromDirectorDropped, &from),
            (Fault::FramesToDirectorDropped, &to),
            (Fault::ForeignSourceDropped, &out),
        ];
        let fault = faults.iter().find(|(_, share)| share.most);
        let fault = fault.map(|(fault, _)| *fault).filter(|_| has_director);
        let with = match fault {
            Some(fault) => faults[fault as usize].1.with.clone(),
            None => [&from, &to, &out, &back]
                .into_iter()
                .flat_map(|share| share.with.iter().cloned())
                .collect(),
        };
        // A rule of the whole network makes every node fail as a sender; then who receives is not
        // to blame, and all announce.
        let deaf = back.most && !from.most && !out.most;
        let known = votes.iter().filter(|vote| vote.found.is_some()).count();
        Verdict {
            fault,
            deaf,
            with,
            known,
            proven: has_director && fault.is_none() && !deaf && come && known > 0,
            judged,
        }
    }

    /// All is well as far as is known.
    pub fn fine(&self) -> bool {
        *self
            == Verdict {
                known: self.known,
                proven: self.proven,
                judged: self.judged,
                ..Verdict::default()
            }
    }

    /// One word, CamelCase.
    pub fn reason(&self) -> &'static str {
        match self.fault {
            Some(fault) => fault.reason(),
            None if self.deaf => "ForwardedFramesDropped",
            None if !self.with.is_empty() => "SomePathsFail",
            None if self.known == 0 => "NotTested",
            None => "Passed",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = || {
            let names: Vec<&str> = self.with.iter().take(5).map(|name| &**name).collect();
            let more = if self.with.len() > 5 { ", …" } else { "" };
            format!("{}{more}", names.join(", "))
        };
        match self.fault {
            Some(fault) => {
                write!(f, "tested with {}: {}", with(), fault.advice())?;
                if self.deaf {
                    f.write_str(
                        ". What other directors forward does not reach this node either: until it does, new \
                         connections go to other nodes",
                    )?;
                }
                Ok(())
            }
            None if self.deaf => write!(
                f,
                "what the directors of {} forward does not reach this node: the network does not \
                 deliver packets from foreign sources, or with a director's MAC as source, to its port \
                 (IP source guard, anti-spoofing, list of allowed MACs). \
                 Until that is off, new connections go to other nodes",
                with()
            ),
            None if !self.with.is_empty() => write!(
                f,
                "test frames are lost on the way to or from {}; connections that are spread there \
                 fail. Look for what differs at that node's port or between the two",
                with()
            ),
            None if self.known == 0 => f.write_str("no other node has answered test frames yet"),
            None => f.write_str("test frames as a director sends them pass to and from the others"),
        }
    }
}

/// For how many ways something holds.
struct Share {
    /// For more than half of those known.
    most: bool,
    with: BTreeSet<NodeName>,
}

impl Share {
    fn of(
        votes: &[Vote<'_>],
        which: impl Fn(&Vote<'_>) -> Option<Set>,
        bad: &dyn Fn(Set) -> bool,
    ) -> Share {
        let known: Vec<_> = votes
            .iter()
            .filter_map(|vote| Some((vote.peer, which(vote)?)))
            .collect();
        let failing: Vec<_> = known.iter().filter(|(_, lost)| bad(*lost)).collect();
        Share {
            most: failing.len() * 2 > known.len(),
            with: failing.iter().map(|(peer, _)| (*peer).clone()).collect(),
        }
    }
}
