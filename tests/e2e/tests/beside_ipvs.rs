//! The same director beside a kube-proxy in ipvs mode, which makes VIPs addresses of the host
//! and has an IPVS table of its own; and on uplinks that are a bridge and a bond. And what a cordon does there with
//! `--cordon=move`.
#![allow(
    dead_code,
    reason = "the tests are shared with datapath.rs, which runs more of them"
)]

mod beside;
mod common;
#[path = "datapath/drain.rs"]
mod drain;
#[path = "beside_ipvs/strict_arp.rs"]
mod strict_arp;
#[path = "beside_ipvs/uplinks.rs"]
mod uplinks;
#[path = "beside_ipvs/without_mh.rs"]
mod without_mh;

use std::process::ExitCode;

use lightship_lab::addressing::Families;
use lightship_lab::options::{Options, ProxyMode, SubstrateKind, UplinkKind};

/// A node of each kind, so that whatever is tested here is tested on all.
const UPLINKS: [UplinkKind; 3] = [UplinkKind::Bridge, UplinkKind::Bond, UplinkKind::Plain];

fn main() -> ExitCode {
    let (uml, ipvs) = (Some(SubstrateKind::Uml), Some(ProxyMode::Ipvs));
    let options = Options::resolve(3, uml, ipvs, Families::Dual, true);
    common::main(
        options.map(|options| {
            let options = options.with_uplinks(&UPLINKS);
            options.with_speaker_flags(&["--cordon=move"])
        }),
        "ipvs_mode_",
        &[
            &[("bridges_and_bonds_carry_directors", uplinks::kinds)],
            &beside::CHECKS[..],
            &beside::OF_THREE_NODES[..],
            &[
                ("a_cordoned_node_keeps_what_it_has", drain::cordon_keeps),
                ("without_strict_arp_is_said", strict_arp::said),
                ("without_mh_is_said", without_mh::said),
            ],
        ],
    )
}
