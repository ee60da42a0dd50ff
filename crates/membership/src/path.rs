//! The datagrams of the path test: by them nodes find out which frames their network drops.
//!
//! ```text
//!  0       1      2          3      4          12         20        28       36
//! +-------+------+----------+------+----------+----------+---------+--------+-----+
//! | 0x50  | kind | question | lost | asker    | asked    | boot id | serial | tag |
//! +-------+------+----------+------+----------+----------+---------+--------+-----+
//! kind = 1 question, 2 answer, 3 question because the other node asked; question = 0 to 4, see [`Question`]
//! lost = one bit for each question, of those that the asker has found lost on this way
//! asker, asked = digests of the two nodes' names; boot id, serial = the asker's
//! ```
//!
//! All integers are big-endian. An answer is the question's bytes with the other kind. The tag is
//! HMAC-SHA-256 over everything before it, cut to 16 bytes, with a key that is derived from the
//! heartbeats' secret under a label of its own: neither kind of datagram can pass for the other.
//! The first byte is no version of a heartbeat, so that one port serves both. Bytes between the
//! serial and the tag are ignored, so a later release can append fields.

use crate::heartbeat::{Keys, TAG_LEN};

/// The first byte of every datagram of the path test.
pub const MAGIC: u8 = 0x50;
/// Separates this use of the secret from any other.
pub const LABEL: &[u8] = b"lightship path test key v1";

const BODY: usize = 36;
const MAX: usize = 256;

/// One way for a frame, or what it looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Question {
    /// From the uplink's own MAC to that of the other node: what every network passes. Without an
    /// answer to it nothing follows from the others.
    Plain,
    /// From the director's MAC.
    FromDirector,
    /// From the director's MAC with the source IP of neither node, as a forwarded packet has.
    Foreign,
    /// The same with a source of another range: a filter of odd sources drops one of the two.
    OtherForeign,
    /// To the other director's MAC.
    ToDirector,
}

impl Question {
    /// All of them, in the order of their numbers.
    pub const ALL: [Question; 5] = [
        Question::Plain,
        Question::FromDirector,
        Question::Foreign,
        Question::OtherForeign,
        Question::ToDirector,
    ];

    /// Its bit in a [`Set`].
    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Some of the questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Set(u8);

impl Set {
    /// Whether it is among them.
    pub fn has(self, question: Question) -> bool {
        self.0 & question.bit() != 0
    }

    /// Adds it.
    pub fn insert(&mut self, question: Question) {
        self.0 |= question.bit();
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// One bit for each, as in a datagram.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The set of these bits; those that stand for nothing change nothing.
    pub fn from_bits(bits: u8) -> Set {
        Set(bits)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn without(self, other: Set) -> Set {
        Set(self.0 & !other.0)
    }
}

impl FromIterator<Question> for Set {
    fn from_iter<T: IntoIterator<Item = Question>>(questions: T) -> Self {
        let mut set = Set::default();
        questions.into_iter().for_each(|q| set.insert(q));
        set
    }
}

/// A question or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Probe {
    /// Whether it is the answer.
    pub answer: bool,
    /// Asked because the other node did, which is no reason for that to ask again. Not kept by answers.
    pub back: bool,
    /// What is asked.
    pub question: Question,
    /// What the asker has found lost on its way to the asked; empty where it does not know.
    pub lost: Set,
    /// [`crate::graph::digest`] of the name of the node that asks.
    pub asker: u64,
    /// The same of the node that is asked.
    pub asked: u64,
    /// The asker's [`crate::Heartbeat::boot_id`].
    pub boot_id: u64,
    /// Grows with every question of the asker.
    pub serial: u64,
}

/// Writes a datagram, signed with the current key. `keys` are made with [`LABEL`].
pub fn encode(probe: &Probe, keys: &Keys) -> Vec<u8> {
    let kind = match (probe.answer, probe.back) {
        (true, _) => 2,
        (false, false) => 1,
        (false, true) => 3,
    };
    let mut out = vec![MAGIC, kind, probe.question as u8, probe.lost.0];
    for number in [probe.asker, probe.asked, probe.boot_id, probe.serial] {
        out.extend(number.to_be_bytes());
    }
    let tag = keys.current.tag(&out);
    out.extend(tag);
    out
}

/// Verifies and reads one datagram; `None` if it is not one of these, forged or unknown.
pub fn decode(datagram: &[u8], keys: &Keys) -> Option<Probe> {
    if datagram.len() > MAX {
        return None;
    }
    let (body, tag) = datagram.split_at_checked(datagram.len().checked_sub(TAG_LEN)?)?;
    let fixed = body.get(..BODY)?;
    let [MAGIC, kind, question, lost, ..] = *fixed else {
        return None;
    };
    if !keys.verify(body, tag) {
        return None;
    }
    let number = |at: usize| {
        let bytes = fixed.get(at..at + 8)?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    };
    Some(Probe {
        answer: match kind {
            1 | 3 => false,
            2 => true,
            _ => return None,
        },
        back: kind == 3,
        question: *Question::ALL.get(usize::from(question))?,
        lost: Set(lost),
        asker: number(4)?,
        asked: number(12)?,
        boot_id: number(20)?,
        serial: number(28)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> Keys {
        Keys::labelled(b"secret", None, LABEL)
    }

    fn probe(answer: bool, question: Question) -> Probe {
        Probe {
            answer,
            back: false,
            question,
            lost: [Question::Foreign].into_iter().collect(),
            asker: 1,
            asked: u64::MAX,
            boot_id: 3,
            serial: 4,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for question in Question::ALL {
            for answer in [false, true] {
                for back in [false, !answer] {
                    let probe = Probe {
                        back,
                        ..probe(answer, question)
                    };
                    let datagram = encode(&probe, &keys());
                    assert_eq!(decode(&datagram, &keys()), Some(probe));
                }
            }
        }
    }

    #[test]
    fn it_and_a_heartbeat_cannot_pass_for_each_other() {
        let heartbeats = Keys::new(b"secret", None);
        let datagram = encode(&probe(false, Question::Plain), &keys());
        assert!(crate::decode(&datagram, &heartbeats).is_err());
        assert_eq!(decode(&datagram, &heartbeats), None);
        assert_ne!(MAGIC, crate::heartbeat::VERSION);
    }

    #[test]
    fn no_changed_bit_and_no_cut_is_accepted() {
        let datagram = encode(&probe(true, Question::ToDirector), &keys());
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&changed, &keys()), None, "bit {bit}");
        }
        for end in 0..datagram.len() {
            assert_eq!(decode(&datagram[..end], &keys()), None, "{end} bytes");
        }
    }

    #[test]
    fn what_a_later_release_appends_is_ignored() {
        let wanted = probe(false, Question::Foreign);
        let datagram = encode(&wanted, &keys());
        let mut longer = datagram[..BODY].to_vec();
        longer.extend(b"more");
        let tag = keys().current.tag(&longer);
        longer.extend(tag);
        assert_eq!(decode(&longer, &keys()), Some(wanted));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(decode(&bytes, &keys()), None);
        }
    }
}
