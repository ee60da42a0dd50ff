//! Announcing, membership and failover on nodes that are namespaces of this machine's kernel.
//!
//! Where that kernel has no `ip_vs`, the speakers choose mode `Announce` by themselves: the
//! owner's kube-proxy takes a VIP's traffic. Where it has, they direct, and the same must hold.

#[path = "net/announcing.rs"]
mod announcing;
mod common;
#[path = "net/conflicts.rs"]
mod conflicts;
#[path = "net/copied.rs"]
mod copied;
#[path = "net/crowd.rs"]
mod crowd;
#[path = "net/early.rs"]
mod early;
#[path = "net/failover.rs"]
mod failover;
#[path = "net/l2_announcement.rs"]
mod l2_announcement;
#[path = "net/metrics.rs"]
mod metrics;
#[path = "net/modes.rs"]
mod modes;
#[path = "net/placing.rs"]
mod placing;
#[path = "net/remade.rs"]
mod remade;
#[path = "net/second_lan.rs"]
mod second_lan;
#[path = "net/speakers.rs"]
mod speakers;
#[path = "net/strangers.rs"]
mod strangers;
#[path = "datapath/without.rs"]
mod without;

use std::process::ExitCode;

use lightship_lab::addressing::Families;
use lightship_lab::options::{Options, SubstrateKind};

fn main() -> ExitCode {
    common::main(
        Options::resolve(3, Some(SubstrateKind::Netns), None, Families::Dual, true),
        "",
        &[&[
            ("the_mode_is_chosen_and_said", modes::chosen_and_said),
            (
                "each_node_says_what_it_is_and_has",
                speakers::true_to_the_node,
            ),
            ("metrics_and_probes_are_served", metrics::served),
            ("a_node_says_that_strict_arp_is_off", speakers::strict_arp),
            ("both_families_are_served", modes::both_families),
            ("policy_cluster_is_served", modes::cluster),
            ("without_endpoints_refused_or_silent", without::none),
            (
                "announcements_are_right_to_strangers",
                announcing::as_strangers_see_it,
            ),
            (
                "questions_are_answered_in_every_form",
                announcing::questions,
            ),
            (
                "clients_with_other_settings_follow_a_move",
                strangers::caches,
            ),
            ("arp_for_others_wakes_no_speaker", announcing::flood),
            ("an_address_in_use_is_not_announced", conflicts::in_use),
            ("vips_are_put_by_hand", placing::by_hand),
            ("a_vip_without_a_node_says_why", placing::nobody),
            (
                "an_l2_announcement_chooses_and_prefers_nodes",
                l2_announcement::nodes,
            ),
            (
                "an_l2_announcement_chooses_interfaces",
                l2_announcement::interfaces,
            ),
            (
                "an_address_of_another_network_follows_it",
                placing::off_link,
            ),
            (
                "an_address_of_a_second_lan_is_announced_there",
                second_lan::announced,
            ),
            (
                "an_uplink_that_is_made_anew_is_used_again",
                remade::used_again,
            ),
            ("a_stopped_speaker_hands_over", failover::planned),
            ("a_killed_speaker_is_back_unnoticed", failover::killed),
            ("an_unplugged_owner_is_replaced", failover::unplug),
            ("a_partition_ends_with_one_owner", failover::partition),
            ("a_link_that_fails_one_way_has_one_owner", failover::one_way),
            ("a_stopped_speaker_wakes_to_nothing", failover::paused),
            (
                "a_change_of_the_heartbeat_key_moves_nothing",
                failover::rotated,
            ),
            (
                "a_virtual_ip_has_one_manager_for_spec_and_one_for_status",
                speakers::managers,
            ),
            ("a_crashed_owner_is_replaced", failover::crash),
            (
                "a_thousand_vips_are_announced_within_a_second_of_a_crash",
                crowd::announced,
            ),
            ("a_dead_nodes_pods_are_marked_early", early::crash),
            ("a_copied_mac_address_is_told", copied::told),
            // The rest is last, because kube-proxy takes its time to come back after an outage of the API
            // server, and would not know the next test's Service on every node.
            (
                "a_speaker_restarts_without_the_api_server",
                failover::restart_without_api,
            ),
            (
                "a_crash_without_the_api_server",
                failover::crash_without_api,
            ),
            ("what_a_node_says_is_kept_up", speakers::kept_up),
        ]],
    )
}
