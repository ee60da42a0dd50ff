//! Of which of its sender's claims a datagram tells all.
//!
//! Claims lie on pages in the order of their addresses. A page that says where it begins and ends says
//! also which VIPs its sender does *not* claim, so nothing has to be pieced together: pages may be lost, come
//! in any order, and be cut anew with each heartbeat. And each datagram has a number that stands for all claims, so
//! who has missed a change notices it, whichever page it gets.

use std::net::{IpAddr, Ipv4Addr};

use super::DecodeError;
use super::wire::{Reader, put_address};

/// What a datagram says of all claims of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Scope {
    /// The datagram names all VIPs that the sender claims from this one on; none: from the first.
    pub from: Option<IpAddr>,
    /// And below this one; none: to the last. It may name others too.
    pub until: Option<IpAddr>,
    /// Stands for all claims of the sender with their epochs, those of its other datagrams included. How it is
    /// computed is the matter of who compares claims: equal for equal ones, in every release.
    pub digest: u64,
    /// The receiver is sent no other datagram of this heartbeat.
    pub alone: bool,
}

/// The address that both ends of an empty scope have.
const NOWHERE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

const FROM: u8 = 1;
const UNTIL: u8 = 2;
const ALONE: u8 = 4;

impl Scope {
    /// Bytes of one without ends.
    pub(super) const LEAST: usize = 1 + 8;
    /// The most bytes of any.
    pub(super) const MOST: usize = Self::LEAST + 2 * (1 + 16);

    /// Of no claims at all.
    pub(super) fn nothing(self) -> Self {
        Self {
            from: NOWHERE,
            until: NOWHERE,
            ..self
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        out.push(
            bit(self.from.is_some(), FROM)
                | bit(self.until.is_some(), UNTIL)
                | bit(self.alone, ALONE),
        );
        for end in [self.from, self.until].into_iter().flatten() {
            put_address(out, end);
        }
        out.extend(self.digest.to_be_bytes());
    }
}

impl Reader<'_> {
    /// A scope; none if nothing follows.
    pub(super) fn scope(&mut self) -> Result<Option<Scope>, DecodeError> {
        const WHAT: &str = "scope";
        if self.is_empty() {
            return Ok(None);
        }
        let [marks] = self.array(WHAT)?;
        let mut end = |bit: u8| match marks & bit {
            0 => Ok(None),
            _ => self.address(WHAT, WHAT).map(Some),
        };
        let (from, until) = (end(FROM)?, end(UNTIL)?);
        Ok(Some(Scope {
            from,
            until,
            digest: u64::from_be_bytes(self.array(WHAT)?),
            alone: marks & ALONE != 0,
        }))
    }
}
