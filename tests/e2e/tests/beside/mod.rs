//! The checks that are run beside every kube-proxy, whatever its mode.

#[path = "../datapath/endpoints.rs"]
pub(crate) mod endpoints;
#[path = "../datapath/failover.rs"]
pub(crate) mod failover;
#[path = "../datapath/hosts.rs"]
pub(crate) mod hosts;
#[path = "../datapath/lifecycle.rs"]
pub(crate) mod lifecycle;
#[path = "../datapath/off_lan.rs"]
pub(crate) mod off_lan;
#[path = "../datapath/path_mtu.rs"]
pub(crate) mod path_mtu;
#[path = "../datapath/sctp.rs"]
pub(crate) mod sctp;
#[path = "../datapath/shared.rs"]
pub(crate) mod shared;
#[path = "../datapath/spread.rs"]
pub(crate) mod spread;
#[path = "../datapath/unchanged.rs"]
pub(crate) mod unchanged;
#[path = "../datapath/without.rs"]
pub(crate) mod without;

use crate::common::Test;

/// What holds beside each mode.
pub(crate) const CHECKS: [(&str, Test); 11] = [
    ("connections_spread_and_the_client_is_seen", spread::spread),
    ("policy_cluster_serves_from_every_node", spread::cluster),
    ("a_client_with_affinity_stays_on_a_node", spread::affinity),
    ("without_endpoints_refused_or_silent", without::none),
    ("whoever_asks_a_service_gets_an_answer", unchanged::ways),
    ("source_ranges_keep_others_out", unchanged::source_ranges),
    ("the_kernel_never_answers_for_a_vip", lifecycle::silence),
    ("a_node_without_a_rule_drops", lifecycle::loop_guard),
    ("a_deleted_service_leaves_no_trace", lifecycle::deletion),
    ("a_crash_costs_only_its_own", failover::crash),
    ("a_crash_over_ipv6_costs_only_its_own", failover::crash_v6),
];

/// What holds beside each mode too, and takes three nodes.
pub(crate) const OF_THREE_NODES: [(&str, Test); 11] = [
    ("sctp_spreads_and_survives_a_move", sctp::spread_and_move),
    (
        "services_share_an_address_by_port",
        shared::ports_of_two_services,
    ),
    ("endpoints_are_followed", endpoints::followed),
    ("the_last_endpoints_serve_to_the_end", endpoints::last_ones),
    ("endpoints_off_the_lan", off_lan::reached),
    (
        "traffic_distribution_prefers_own_pods",
        endpoints::preferred,
    ),
    (
        "pods_on_the_hosts_network_are_backends",
        hosts::host_network,
    ),
    ("two_ports_of_two_owners", hosts::two_ports_and_owners),
    ("strict_reverse_path_filters", hosts::strict_rp_filter),
    ("packets_too_big_for_the_way_back", path_mtu::path_mtu),
    (
        "a_crash_of_a_backend_resets_its_own",
        failover::backend_crash,
    ),
];
