//! The director on three nodes with kernels that have IPVS, beside a real kube-proxy.

mod common;
#[path = "datapath/drain.rs"]
mod drain;
#[path = "datapath/early.rs"]
mod early;
#[path = "datapath/failover.rs"]
mod failover;
#[path = "datapath/lifecycle.rs"]
mod lifecycle;
#[path = "datapath/packets.rs"]
mod packets;
#[path = "datapath/paths.rs"]
mod paths;
#[path = "datapath/sctp.rs"]
mod sctp;
#[path = "datapath/shared.rs"]
mod shared;
#[path = "datapath/spread.rs"]
mod spread;
#[path = "datapath/unchanged.rs"]
mod unchanged;
#[path = "datapath/upkeep.rs"]
mod upkeep;

use std::process::ExitCode;

fn main() -> ExitCode {
    common::main(
        None,
        None,
        &[
            ("every_director_holds_the_same_table", spread::same_table),
            ("connections_spread_and_the_client_is_seen", spread::spread),
            ("policy_cluster_serves_from_every_node", spread::cluster),
            ("a_client_with_affinity_stays_on_a_node", spread::affinity),
            ("sctp_spreads_and_survives_a_move", sctp::spread_and_move),
            (
                "services_share_an_address_by_port",
                shared::ports_of_two_services,
            ),
            ("a_node_without_a_rule_drops", lifecycle::loop_guard),
            (
                "clients_that_come_before_kube_proxy_are_forgotten",
                early::clients,
            ),
            ("a_deleted_service_leaves_no_trace", lifecycle::deletion),
            ("a_changed_type_leaves_no_trace", lifecycle::type_change),
            ("the_kernel_never_answers_for_a_vip", lifecycle::silence),
            ("a_restarted_speaker_adopts", lifecycle::adoption),
            ("packets_a_ping_is_answered_by_the_director", packets::ping),
            (
                "packets_lose_one_hop_and_may_be_fragments",
                packets::forwarded,
            ),
            ("packets_too_big_for_the_way_back", packets::path_mtu),
            ("whoever_asks_a_service_gets_an_answer", unchanged::ways),
            ("source_ranges_keep_others_out", unchanged::source_ranges),
            ("ports_that_filter_are_found_and_got_round", paths::filters),
            ("upkeep_what_is_changed_by_hand_is_mended", upkeep::drift),
            ("upkeep_a_refused_vip_hurts_no_other", upkeep::refused),
            ("upkeep_cleanup_leaves_nothing", upkeep::cleanup),
            ("a_drained_node_keeps_what_it_has", drain::keeps),
            ("a_stopped_speaker_loses_nothing", failover::planned),
            ("a_killed_speaker_loses_nothing", failover::killed),
            ("a_crash_costs_only_its_own", failover::crash),
            (
                "a_crash_of_a_backend_resets_its_own",
                failover::backend_crash,
            ),
            (
                "a_crash_without_the_api_server",
                failover::crash_without_api,
            ),
        ],
    )
}
