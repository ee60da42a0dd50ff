//! The director on three nodes with kernels that have IPVS, beside a real kube-proxy.

mod beside;
mod common;
#[path = "datapath/drain.rs"]
mod drain;
#[path = "datapath/early.rs"]
mod early;
#[path = "datapath/ipvs.rs"]
mod ipvs;
#[path = "datapath/moves.rs"]
mod moves;
#[path = "datapath/packets.rs"]
mod packets;
#[path = "datapath/paths.rs"]
mod paths;
#[path = "datapath/replaced.rs"]
mod replaced;
#[path = "datapath/second_lan.rs"]
mod second_lan;
#[path = "datapath/upkeep.rs"]
mod upkeep;

use std::process::ExitCode;

use beside::{failover, hosts, lifecycle, spread};
use lightship_lab::addressing::Families;
use lightship_lab::options::Options;

fn main() -> ExitCode {
    common::main(
        Options::resolve(3, None, None, Families::Dual, true),
        "",
        &[
            &[("the_ipvs_crate_agrees_with_the_kernel", ipvs::live)],
            &beside::CHECKS[..],
            &beside::OF_THREE_NODES[..],
            &[
                ("every_director_holds_the_same_table", spread::same_table),
                ("a_second_lan_is_served_by_all_nodes", second_lan::served),
                ("strays_at_a_director", hosts::strays),
                (
                    "ten_thousand_requests_over_moves_lose_none",
                    moves::ten_thousand,
                ),
                (
                    "clients_that_come_before_kube_proxy_are_forgotten",
                    early::clients,
                ),
                ("a_changed_type_leaves_no_trace", lifecycle::type_change),
                ("a_restarted_speaker_adopts", lifecycle::adoption),
                ("packets_a_ping_is_answered_by_the_director", packets::ping),
                (
                    "packets_lose_one_hop_and_may_be_fragments",
                    packets::forwarded,
                ),
                ("ports_that_filter_are_found_and_got_round", paths::filters),
                ("a_replaced_kube_proxy_is_found_and_said", replaced::cilium),
                ("upkeep_what_is_changed_by_hand_is_mended", upkeep::drift),
                ("upkeep_a_refused_vip_hurts_no_other", upkeep::refused),
                ("upkeep_cleanup_leaves_nothing", upkeep::cleanup),
                ("a_drained_node_keeps_what_it_has", drain::keeps),
                ("a_stopped_speaker_loses_nothing", failover::planned),
                ("a_killed_speaker_loses_nothing", failover::killed),
                (
                    "a_crash_without_the_api_server",
                    failover::crash_without_api,
                ),
                (
                    "a_crash_while_another_backend_goes",
                    failover::crash_with_change,
                ),
            ],
        ],
    )
}
