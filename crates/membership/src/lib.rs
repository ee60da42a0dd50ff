//! Membership of the speakers: who is there, and how they tell each other.
//!
//! Parts, none of which knows a clock, a socket or Kubernetes:
//!
//! * [`heartbeat`]: the datagram that speakers send each other, authenticated
//!   and at most [`heartbeat::MAX_DATAGRAM`] bytes long;
//! * [`replay`]: refuses datagrams that are not newer than what was heard;
//! * [`detector`]: turns heartbeats, probe replies and silence into the state
//!   of each peer;
//! * [`path`]: the datagrams by which nodes find out what their network drops;
//! * [`graph`] and [`rota`]: who gets which heartbeat, where there are too many nodes for all to
//!   get all.
//!
//! Time is always an argument: a [`std::time::Duration`] since an arbitrary
//! monotonic origin that the caller chooses once.
//!
//! What the shell around it does:
//!
//! 1. a datagram arrives: [`heartbeat::decode`], then [`replay::ReplayGuard::check`],
//!    then [`detector::Detector::on_heartbeat`]; if the heartbeat carries
//!    [`heartbeat::Flags::solicit`], it answers that sender at once with one of its own;
//! 2. at [`detector::Detector::next_deadline`]: [`detector::Detector::on_tick`];
//! 3. for each [`detector::Event::Probe`]: an ARP request or neighbour solicitation
//!    to the node's address, **and** a heartbeat with `solicit` set to that node;
//! 4. each [`detector::Config::interval`], and at once when its claims change: a heartbeat
//!    with the next counter to every peer, or to those of them that [`rota::Rota`] names, of which
//!    [`heartbeat::Draft`] gives each what it needs;
//! 5. for each [`detector::Event::Late`]: [`rota::Rota::tell_late`] and a heartbeat at once; for
//!    each late node that a heartbeat names: [`detector::Detector::on_late`];
//! 6. those of the first interval after its start with `solicit`, so that it knows all claims
//!    after one round trip;
//! 7. before each step of the election: [`detector::Detector::woken_at`]; for a
//!    [`detector::Config::timeout`] from then on the election takes nothing new.

use std::sync::Arc;

pub mod detector;
pub mod graph;
pub mod heartbeat;
pub mod path;
pub mod replay;
pub mod rota;

pub use detector::{Config, ConfigError, Detector, Event, PeerState};
pub use heartbeat::{
    Claim, DecodeError, Draft, Flags, Heartbeat, Key, Keys, Scope, Turns, decode, encode,
};
pub use replay::{ReplayError, ReplayGuard};
pub use rota::Rota;

/// The Kubernetes name of a node.
pub type NodeName = Arc<str>;
