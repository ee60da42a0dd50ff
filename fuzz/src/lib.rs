//! Hostile input for all that reads bytes which somebody else wrote: frames and datagrams from the
//! LAN, answers of the kernel, the state file.
//!
//! The corpus in `corpus/TARGET/` is what the decoders meet in life, and what once broke them.
//! A run takes one of its inputs, or one that it kept, damages it in the ways of [`mutate`], has
//! the target repair what would be refused at the door (a tag, a checksum), and gives it to the
//! decoder. It keeps an input with which the decoder did something that it had not
//! done before ([`Target::run`] says what it did), so that it gets deeper by and by.
//!
//! A target fails by panicking: what it decodes must also survive a round trip. `cargo test`
//! gives each target some seconds; `cargo xtask fuzz TARGET --for 8h` as long as one likes.
//!
//! That needs nothing but a stable compiler. `cargo fuzz run --features libfuzzer TARGET` gives the
//! same targets to libFuzzer, which sees the branches that an input takes and gets deeper sooner.

#[cfg(feature = "libfuzzer")]
pub mod libfuzzer;
pub mod mutate;
pub mod runner;
pub mod targets;

pub use runner::{Failure, Report, Runner};
pub use targets::{TARGETS, Target};
