//! The director on nodes whose LAN is a VLAN, with tagged frames between them; the client is in it, too.
#![allow(
    dead_code,
    reason = "the tests are shared with datapath.rs and beside_ipvs.rs, which run more of them"
)]

mod common;
#[path = "datapath/sctp.rs"]
mod sctp;
#[path = "beside_ipvs/uplinks.rs"]
mod uplinks;

use std::process::ExitCode;

use lightship_lab::addressing::Families;
use lightship_lab::options::{Options, SubstrateKind, UplinkKind};

fn main() -> ExitCode {
    let options = Options::resolve(3, Some(SubstrateKind::Uml), None, Families::Dual, true);
    common::main(
        options.map(|options| options.with_uplinks(&[UplinkKind::Vlan])),
        "",
        &[&[
            ("a_vlan_is_the_uplink", uplinks::said),
            ("on_a_vlan_directors_spread_and_move", sctp::spread_and_move),
        ]],
    )
}
