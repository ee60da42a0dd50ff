//! What is fuzzed.

use std::fmt::Debug;

mod arp;
mod heartbeat;
mod ipvs;
mod ndp;
mod snapshot;

/// A decoder under test.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Gives it an input and says in a word what it did with it. Panics on what must not be.
    pub run: fn(&[u8]) -> String,
    /// Mends what would be refused before most of the decoder is reached.
    pub repair: fn(&mut Vec<u8>),
    /// What the decoder meets in life: from these the corpus was made.
    pub seeds: fn() -> Vec<(String, Vec<u8>)>,
}

/// All of them.
pub const TARGETS: [Target; 5] = [
    arp::TARGET,
    ndp::TARGET,
    heartbeat::TARGET,
    snapshot::TARGET,
    ipvs::TARGET,
];

/// An error by its kind: numbers in it are not told apart.
fn kind(error: impl Debug) -> String {
    let text = format!("{error:?}");
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}
