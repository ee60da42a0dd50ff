//! The same director beside a kube-proxy in nftables mode, on a stock kernel: that of User Mode Linux has no
//! nf_tables for IPv4. Two nodes, because where there is no KVM each takes a processor for its emulation.
#![allow(
    dead_code,
    reason = "the tests are shared with datapath.rs, which runs more of them"
)]

mod beside;
mod common;
#[path = "datapath/early.rs"]
mod early;

use std::process::ExitCode;

use lightship_lab::addressing::Families;
use lightship_lab::options::{Options, ProxyMode, SubstrateKind};

fn main() -> ExitCode {
    let (qemu, nftables) = (Some(SubstrateKind::Qemu), Some(ProxyMode::Nftables));
    common::main(
        Options::resolve(2, qemu, nftables, Families::Dual, true),
        "nftables_mode_",
        &[
            &beside::CHECKS[..],
            &[(
                "clients_that_come_before_kube_proxy_are_forgotten",
                early::clients,
            )],
        ],
    )
}
