//! Nodes that have IPv6 addresses alone: their heartbeats, questions and answers have no other way.
#![allow(
    dead_code,
    reason = "the tests are shared with net.rs, which runs more of them"
)]

mod common;
#[path = "net/failover.rs"]
mod failover;
#[path = "net/modes.rs"]
mod modes;

use std::process::ExitCode;

use lightship_lab::addressing::Families;
use lightship_lab::options::{Options, SubstrateKind};

fn main() -> ExitCode {
    common::main(
        Options::resolve(3, Some(SubstrateKind::Netns), None, Families::Ipv6, true),
        "",
        &[&[
            ("on_ipv6_a_crashed_owner_is_replaced", failover::crash),
            ("on_ipv6_a_stopped_speaker_hands_over", failover::planned),
        ]],
    )
}
