//! The path test: whether the network passes what a director sends and gets. Pure.
//!
//! Many virtual switches, and some real ones, drop frames from or to a second MAC on a port, or packets
//! whose source is not the port's own address. Both is what a director lives by, and nothing in a
//! node's kernel tells of it. So each speaker sends test frames to each other one, by the same ways as
//! forwarded packets take; who gets one answers on the plain way that heartbeats take.
//!
//! - [`tester`]: what is asked when, and what was answered
//! - [`verdict`]: what follows
//! - [`kept`]: what outlives a restart
//!
//! The sockets are in `prober.rs`.

mod kept;
mod tester;
mod verdict;

use std::collections::BTreeMap;

use crate::world::NodeName;

pub use kept::Kept;
pub use tester::{Family, Host, Peer, Shot, Tester};
pub use verdict::{Fault, Verdict};

/// Every node that could be asked, as its heartbeats tell.
pub type Peers = BTreeMap<NodeName, Peer>;
