//! The heartbeat datagram: what speakers tell each other many times a second.
//!
//! ```text
//!  0        1       2      3            4         12        20           26
//! +--------+-------+------+------------+---------+---------+------------+--------------+
//! | version| flags | mode | sender len | boot id | counter | uplink MAC | director MAC |
//! +--------+-------+------+------------+---------+---------+------------+--------------+
//!  32             40     42      44       46
//! +--------------+------+-------+--------+--------+-----------+-----------+------+----------+------+---------+-------+-----+
//! | table digest | page | pages | claims | sender | claim ... | interface | late | networks | held | further | scope | tag |
//! +--------------+------+-------+--------+--------+-----------+-----------+------+----------+------+---------+-------+-----+
//! claim = family (4 or 6), address (4 or 16 bytes), epoch (8 bytes; 0: claimed until just now, and not
//!         any more)
//! interface = length (0 to 15), name of the uplink
//! late = count (0 to 16), for each node the digest of its name (8 bytes)
//! networks = count (0 to 8), then of each: family, prefix length, address (4 or 16 bytes)
//! held = count (0 or 1), the newest boot id of the receiver that the sender holds (8 bytes)
//! further = count (0 to 4), then of each further uplink: interface, its MAC (6 bytes), the MAC of the
//!           director there (6 bytes), networks (0 to 4)
//! scope = marks (bit 0: from, bit 1: until, bit 2: alone), if marked the VIPs from and until, each family and
//!         address as in a claim; the digest of all of the sender's claims (8 bytes)
//! ```
//!
//! Claims that do not fit one datagram are put on pages in the order of their addresses, and a node gets a page
//! at a time ([`Draft`]). Of the VIPs from `from` on and below `until` ([`Scope`]) the sender claims those that the
//! datagram names with an epoch above 0, and no others. It names others too: those of which something
//! changed lately.
//!
//! All integers are big-endian. The tag is HMAC-SHA-256 over everything before
//! it, cut to 16 bytes (RFC 2104 section 5 allows truncation to half the hash).
//! Nothing is read from a datagram before its tag was verified. Bytes between the
//! scope and the tag are ignored, so a later release can append fields
//! and still be understood by this one during a rolling upgrade; a datagram that ends
//! after the claims, the interface, the networks, the held boot id or the further uplinks is of a release that
//! knew no more. To one that knows no scope, the claims of a page are those of that page; it forgets a claim
//! that it does not find on any page.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use thiserror::Error;

use crate::NodeName;

mod draft;
mod keys;
mod scope;
#[cfg(test)]
mod tests;
mod wire;

pub use draft::{Draft, Turns};
pub use keys::{Key, Keys, TAG_LEN};
pub use scope::Scope;
use wire::Reader;

/// Version of the datagram that this crate writes and reads.
pub const VERSION: u8 = 1;
/// The longest datagram ever written or accepted, in bytes. Fits the IPv6
/// minimum link MTU of 1,280 (RFC 8200 section 5) with IP and UDP headers, so a
/// heartbeat is never fragmented.
pub const MAX_DATAGRAM: usize = 1200;
/// The most datagrams that one heartbeat is split into.
pub const MAX_PAGES: u16 = 256;
/// The longest node name: a DNS subdomain (RFC 1123, as Kubernetes requires).
pub const MAX_NAME: usize = 253;
/// Claims that are carried whatever their family and the sender's name; what is beyond
/// does not reach the peers, which then know that there is more and do not ask for it.
pub const MAX_CLAIMS: usize = MAX_PAGES as usize
    * ((MAX_DATAGRAM
        - HEADER
        - MAX_NAME
        - (1 + MAX_INTERFACE)
        - (1 + 8 * MAX_LATE)
        - (1 + MAX_NETWORKS * NETWORK_V6)
        - (1 + 8)
        - (1 + MAX_FURTHER * (1 + MAX_INTERFACE + 2 * 6 + 1 + MAX_FURTHER_NETWORKS * NETWORK_V6))
        - Scope::MOST
        - TAG_LEN)
        / CLAIM_V6);
/// The most late nodes that one heartbeat names.
pub const MAX_LATE: usize = 16;
/// The longest name of an interface (`IFNAMSIZ` less its NUL, `include/uapi/linux/if.h`).
pub const MAX_INTERFACE: usize = 15;
/// The most networks that are told; what is beyond is left out.
pub const MAX_NETWORKS: usize = 8;
/// The most further uplinks that are told; those beyond are left out.
pub const MAX_FURTHER: usize = 4;
/// The most networks of a further uplink that are told; what is beyond is left out.
pub const MAX_FURTHER_NETWORKS: usize = 4;

const HEADER: usize = 46;
const CLAIM_V4: usize = 1 + 4 + 8;
const CLAIM_V6: usize = 1 + 16 + 8;
const NETWORK_V6: usize = 1 + 1 + 16;

/// One VIP that the sender says it answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// The floating address.
    pub vip: IpAddr,
    /// The number of this ownership; the higher claim wins.
    pub epoch: u64,
}

/// What the sender says of itself in one bit each. All eight are taken: what is told next is a field at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags {
    /// The speaker is going away (SIGTERM) and hands its VIPs over.
    pub leaving: bool,
    /// The speaker may own VIPs: carrier, director and policy are fine.
    pub can_own: bool,
    /// The receiver is asked to answer at once with a heartbeat of its own.
    pub solicit: bool,
    /// The receiver has come and gone lately: it should not be given VIPs to even the spread out.
    pub hold: bool,
    /// The node should get no share of any VIP: its kube-proxy is not known to have its rules yet, or the
    /// network does not let through what that takes. Of a release that does not say so, nobody thinks so.
    pub idle: bool,
    /// The sender answers the frames of the path test ([`crate::path`]).
    pub tests_paths: bool,
    /// The sender has a director, whatever its mode is now.
    pub director: bool,
    /// The path test of the sender found that its port passes what a director sends and gets. Of a release that does
    /// not say so, nobody thinks so.
    pub proven: bool,
}

impl Flags {
    const LEAVING: u8 = 1;
    const CAN_OWN: u8 = 2;
    const SOLICIT: u8 = 4;
    const HOLD: u8 = 8;
    const IDLE: u8 = 16;
    const TESTS_PATHS: u8 = 32;
    const DIRECTOR: u8 = 64;
    const PROVEN: u8 = 128;

    fn to_bits(self) -> u8 {
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        bit(self.leaving, Self::LEAVING)
            | bit(self.can_own, Self::CAN_OWN)
            | bit(self.solicit, Self::SOLICIT)
            | bit(self.hold, Self::HOLD)
            | bit(self.idle, Self::IDLE)
            | bit(self.tests_paths, Self::TESTS_PATHS)
            | bit(self.director, Self::DIRECTOR)
            | bit(self.proven, Self::PROVEN)
    }

    fn from_bits(bits: u8) -> Self {
        Self {
            leaving: bits & Self::LEAVING != 0,
            can_own: bits & Self::CAN_OWN != 0,
            solicit: bits & Self::SOLICIT != 0,
            hold: bits & Self::HOLD != 0,
            idle: bits & Self::IDLE != 0,
            tests_paths: bits & Self::TESTS_PATHS != 0,
            director: bits & Self::DIRECTOR != 0,
            proven: bits & Self::PROVEN != 0,
        }
    }
}

/// One heartbeat, or after [`decode`] one page of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Node name of the sender.
    pub sender: NodeName,
    /// Grows with every start of the sender's speaker: nanoseconds of the wall
    /// clock at start, or the last used value plus one if the clock went back.
    pub boot_id: u64,
    /// Grows by at least one with every heartbeat that is sent.
    pub counter: u64,
    /// One-bit statements.
    pub flags: Flags,
    /// MAC address of the sender's uplink, where its node receives its share.
    pub uplink_mac: [u8; 6],
    /// MAC address of the sender's director, which it announces VIPs with.
    pub director_mac: [u8; 6],
    /// [`MODE_ANNOUNCE`] or [`MODE_DIRECT_ROUTING`].
    pub mode: u8,
    /// Hash of the sender's director table, to see when nodes disagree.
    pub table_digest: u64,
    /// Number of this page, from 0. [`encode`] ignores and sets it.
    pub page: u16,
    /// Pages of this heartbeat. [`encode`] ignores and sets it.
    pub pages: u16,
    /// Name of the sender's uplink, which policies select by; empty if it did not say.
    pub interface: Arc<str>,
    /// Nodes that the sender watches and has not heard for a while, by the digest of their names
    /// ([`crate::graph::digest`]): the receiver should see for itself. Those beyond [`MAX_LATE`] are
    /// left out.
    pub late: Vec<u64>,
    /// The networks whose hosts are neighbours on the sender's uplink; empty if it did not say.
    pub networks: Arc<[IpNet]>,
    /// An answer to a heartbeat whose boot id was too low: the newest one that the sender has heard
    /// of the receiver. The receiver's clock went back over a reboot; it should go on above this.
    pub held_boot: Option<u64>,
    /// The sender's uplinks beside the main one, on which it can announce VIPs too; none if it did not
    /// say.
    pub further: Arc<[Further]>,
    /// What this datagram says of all claims; none is of a release that does not say it. [`encode`] sets
    /// all of it but the digest.
    pub scope: Option<Scope>,
    /// The VIPs that the sender claims, and with epoch 0 those that it has just ceased to claim; after
    /// [`decode`] those of this page.
    pub claims: Vec<Claim>,
}

impl Heartbeat {
    /// Stands for all that the sender says but which of its heartbeats it is: two that say the same have the
    /// same one. Holds within one process.
    pub fn content(&self) -> u64 {
        let Heartbeat {
            sender,
            boot_id,
            counter: _,
            flags,
            uplink_mac,
            director_mac,
            mode,
            table_digest,
            page,
            pages,
            interface,
            late,
            networks,
            held_boot,
            further,
            scope,
            claims,
        } = self;
        let mut hasher = DefaultHasher::new();
        (sender, boot_id, flags, uplink_mac, director_mac, mode).hash(&mut hasher);
        (table_digest, page, pages, interface, late).hash(&mut hasher);
        (networks, held_boot, further, scope, claims).hash(&mut hasher);
        hasher.finish()
    }
}

/// An uplink beside the main one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Further {
    /// Its name.
    pub interface: Arc<str>,
    /// Its own MAC address.
    pub mac: [u8; 6],
    /// The MAC address of the sender's director there.
    pub director_mac: [u8; 6],
    /// The networks whose hosts are neighbours there.
    pub networks: Arc<[IpNet]>,
}

/// [`Heartbeat::mode`]: the host MAC is announced, kube-proxy takes it from there.
pub const MODE_ANNOUNCE: u8 = 0;
/// [`Heartbeat::mode`]: the director's MAC is announced.
pub const MODE_DIRECT_ROUTING: u8 = 1;

/// Why a datagram was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Shorter than any heartbeat.
    #[error("datagram of {0} bytes is shorter than any heartbeat")]
    TooShort(usize),
    /// Longer than [`MAX_DATAGRAM`].
    #[error("datagram of {0} bytes is longer than any heartbeat")]
    TooLong(usize),
    /// The tag fits neither key: another cluster, a wrong key, or a forgery.
    #[error("authentication tag does not match any of our keys")]
    BadMac,
    /// Authentic, but of another format version.
    #[error("heartbeat format version {0} is not known here")]
    Version(u8),
    /// Authentic, but not well-formed; names the field.
    #[error("malformed heartbeat: {0}")]
    Malformed(&'static str),
}

impl DecodeError {
    /// A short stable word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooShort(_) => "too_short",
            Self::TooLong(_) => "too_long",
            Self::BadMac => "bad_mac",
            Self::Version(_) => "version",
            Self::Malformed(_) => "malformed",
        }
    }
}

/// Writes a heartbeat as one or more datagrams, each at most [`MAX_DATAGRAM`] bytes
/// and each with the full header, signed with the current key.
///
/// Claims are sorted by address. Names longer than [`MAX_NAME`] bytes are cut and claims that
/// do not fit [`MAX_PAGES`] pages are left out ([`MAX_CLAIMS`] always fit). See [`Draft`] for a node that
/// needs only a part of it.
pub fn encode(heartbeat: &Heartbeat, keys: &Keys) -> Vec<Vec<u8>> {
    let datagrams = Draft::whole(heartbeat.clone()).all(keys);
    datagrams.iter().map(|one| one.to_vec()).collect()
}

/// Verifies and reads one datagram.
///
/// # Errors
/// See [`DecodeError`]. Never panics, whatever the bytes.
pub fn decode(datagram: &[u8], keys: &Keys) -> Result<Heartbeat, DecodeError> {
    if datagram.len() > MAX_DATAGRAM {
        return Err(DecodeError::TooLong(datagram.len()));
    }
    let body_len = datagram
        .len()
        .checked_sub(TAG_LEN)
        .filter(|len| *len > HEADER)
        .ok_or(DecodeError::TooShort(datagram.len()))?;
    let (body, tag) = datagram.split_at(body_len);
    if !keys.verify(body, tag) {
        return Err(DecodeError::BadMac);
    }
    parse(body)
}

fn parse(body: &[u8]) -> Result<Heartbeat, DecodeError> {
    let mut read = Reader::new(body);
    let [version, flags, mode, name_len] = read.array("header")?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let boot_id = u64::from_be_bytes(read.array("boot id")?);
    let counter = u64::from_be_bytes(read.array("counter")?);
    let uplink_mac = read.array("uplink MAC")?;
    let director_mac = read.array("director MAC")?;
    let table_digest = u64::from_be_bytes(read.array("table digest")?);
    let page = u16::from_be_bytes(read.array("page")?);
    let pages = u16::from_be_bytes(read.array("pages")?);
    let count = u16::from_be_bytes(read.array("claim count")?);
    if page >= pages || pages > MAX_PAGES {
        return Err(DecodeError::Malformed("page"));
    }
    let name = read.bytes(usize::from(name_len), "sender")?;
    let name = std::str::from_utf8(name).map_err(|_| DecodeError::Malformed("sender"))?;
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(DecodeError::Malformed("sender"));
    }
    let claims = (0..count).map(|_| read.claim()).collect::<Result<_, _>>()?;
    let interface = read.interface()?;
    let late = read.late()?;
    let networks = read.networks()?;
    let held_boot = read.held_boot()?;
    let further = read.further()?;
    let scope = read.scope()?;
    Ok(Heartbeat {
        sender: name.into(),
        boot_id,
        counter,
        flags: Flags::from_bits(flags),
        uplink_mac,
        director_mac,
        mode,
        table_digest,
        page,
        pages,
        interface: interface.into(),
        late,
        networks: networks.into(),
        held_boot,
        further: further.into(),
        scope,
        claims,
    })
}
