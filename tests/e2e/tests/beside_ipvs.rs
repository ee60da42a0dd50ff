//! The same director beside a kube-proxy in ipvs mode, which makes VIPs addresses of the host
//! and has an IPVS table of its own; and on uplinks that are a bridge and a bond.
#![allow(
    dead_code,
    reason = "the tests are shared with datapath.rs, which runs more of them"
)]

mod common;
#[path = "datapath/failover.rs"]
mod failover;
#[path = "datapath/lifecycle.rs"]
mod lifecycle;
#[path = "datapath/spread.rs"]
mod spread;
#[path = "beside_ipvs/strict_arp.rs"]
mod strict_arp;
#[path = "datapath/unchanged.rs"]
mod unchanged;
#[path = "beside_ipvs/uplinks.rs"]
mod uplinks;

use std::process::ExitCode;

use lightship_lab::addressing::Families;
use lightship_lab::options::{Options, ProxyMode, SubstrateKind, UplinkKind};

/// A node of each kind, so that whatever is tested here is tested on all.
const UPLINKS: [UplinkKind; 3] = [UplinkKind::Bridge, UplinkKind::Bond, UplinkKind::Plain];

fn main() -> ExitCode {
    let (uml, ipvs) = (Some(SubstrateKind::Uml), Some(ProxyMode::Ipvs));
    let options = Options::resolve(3, uml, ipvs, Families::Dual, true);
    common::main_on(
        options.map(|options| options.with_uplinks(&UPLINKS)),
        &[
            ("bridges_and_bonds_carry_directors", uplinks::kinds),
            ("ipvs_mode_spreads_and_shows_the_client", spread::spread),
            ("ipvs_mode_serves_cluster_from_every_node", spread::cluster),
            ("ipvs_mode_leaves_every_other_way", unchanged::ways),
            ("ipvs_mode_keeps_source_ranges", unchanged::source_ranges),
            ("ipvs_mode_never_answers_for_a_vip", lifecycle::silence),
            ("ipvs_mode_without_strict_arp_is_said", strict_arp::said),
            ("ipvs_mode_a_deletion_leaves_no_trace", lifecycle::deletion),
            ("ipvs_mode_a_crash_costs_only_its_own", failover::crash),
        ],
    )
}
