//! The checks that are run beside every kube-proxy, whatever its mode.

#[path = "../datapath/failover.rs"]
pub(crate) mod failover;
#[path = "../datapath/lifecycle.rs"]
pub(crate) mod lifecycle;
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
