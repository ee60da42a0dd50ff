//! The controller and the CRDs against a real kube-apiserver and etcd, with the objects,
//! roles and service accounts of `deploy/`.
//!
//! Needs what the lab needs to get Kubernetes (see `docs/lab.md`), but neither root nor nodes:
//! the control plane listens on loopback. It can run beside a lab.

#[path = "api/addresses.rs"]
mod addresses;
#[path = "api/bench/mod.rs"]
mod bench;
#[path = "api/choice.rs"]
mod choice;
#[path = "api/cluster.rs"]
mod cluster;
#[path = "api/crashes.rs"]
mod crashes;
#[path = "api/docs.rs"]
mod docs;
#[path = "api/faults.rs"]
mod faults;
#[path = "api/install.rs"]
mod install;
#[path = "api/isolation.rs"]
mod isolation;
#[path = "api/kube.rs"]
mod kube;
#[path = "api/leadership.rs"]
mod leadership;
#[path = "api/lifecycle.rs"]
mod lifecycle;
#[path = "api/pools.rs"]
mod pools;
#[path = "api/proxy.rs"]
mod proxy;
#[path = "api/replica.rs"]
mod replica;
#[path = "api/sharing.rs"]
mod sharing;
#[path = "api/upkeep.rs"]
mod upkeep;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

use cluster::Cluster;

type Test = fn(&mut Cluster) -> Result<()>;

const TESTS: &[(&str, Test)] = &[
    (
        "deploy_installs_and_roles_grant_no_more_than_needed",
        install::roles,
    ),
    ("cleanup_of_all_nodes_is_accepted", install::cleanup),
    (
        "the_rights_for_early_word_are_installed_on_request_and_exact",
        install::early_rights,
    ),
    (
        "the_heartbeat_key_is_made_when_it_is_missing_and_left_alone_else",
        install::heartbeat_key,
    ),
    ("samples_apply_and_work", install::samples),
    (
        "malformed_objects_are_refused_with_the_fix",
        pools::refusals,
    ),
    (
        "addresses_that_no_host_has_become_a_condition",
        pools::no_hosts,
    ),
    (
        "an_overlapping_pool_is_flagged_and_disturbs_nobody",
        pools::overlap,
    ),
    (
        "restricted_pools_follow_namespace_labels",
        pools::restricted,
    ),
    ("pools_that_shrink_or_go_keep_their_holders", pools::shrink),
    (
        "pools_have_their_defaults_and_kubectl_shows_usage_and_users",
        pools::columns,
    ),
    (
        "old_equipments_addresses_are_avoided_even_if_asked_for",
        pools::avoid_buggy,
    ),
    (
        "a_speaker_reports_its_node_and_kubectl_shows_it",
        install::speaker_object,
    ),
    (
        "a_service_gets_an_address_a_virtual_ip_and_an_event",
        addresses::plain,
    ),
    (
        "dual_stack_in_the_order_asked_from_one_pool",
        addresses::dual_stack,
    ),
    ("a_named_pool_and_no_other", addresses::named_pool),
    ("an_address_asked_for_and_no_other", addresses::explicit),
    ("two_services_asking_for_one_address", addresses::contested),
    ("an_exhausted_pool_says_why", addresses::exhausted),
    ("no_pool_says_so", addresses::no_pool),
    ("classes_ours_foreign_and_none", addresses::classes),
    (
        "pools_are_taken_by_name_then_priority_then_the_rest",
        choice::order,
    ),
    (
        "a_restricted_pool_needs_the_namespace_and_the_service_to_match",
        choice::restrictions,
    ),
    (
        "a_service_that_changes_its_families_keeps_what_it_can",
        choice::families_change,
    ),
    (
        "bad_pools_keep_nobody_from_being_served_not_even_after_a_restart",
        isolation::bad_pools,
    ),
    (
        "handling_one_service_writes_to_no_other",
        isolation::others_untouched,
    ),
    (
        "of_two_services_found_with_one_address_the_older_keeps_it",
        isolation::older_keeps,
    ),
    (
        "virtual_ips_are_the_controllers_alone_and_nothing_has_finalizers",
        isolation::ownership,
    ),
    ("services_share_an_address", sharing::shared),
    ("who_may_not_share_is_told_why", sharing::refused),
    (
        "local_services_share_if_they_have_the_same_backends",
        sharing::local,
    ),
    (
        "sharing_across_namespaces_if_the_pool_says_so",
        sharing::across_namespaces,
    ),
    (
        "external_ips_are_claims_where_a_pool_allows_them",
        sharing::external_ips,
    ),
    ("a_released_address_rests", upkeep::reuse_delay),
    (
        "a_service_created_again_gets_its_address_again",
        upkeep::by_name,
    ),
    (
        "an_address_outside_its_pool_is_kept_and_flagged",
        upkeep::kept,
    ),
    (
        "a_pool_may_have_its_services_move_when_it_shrinks",
        upkeep::reallocated,
    ),
    (
        "addresses_of_the_lan_itself_are_not_given_away",
        upkeep::withheld,
    ),
    ("metallb_annotations_with_the_switch", upkeep::metallb),
    ("no_node_ports_are_needed", upkeep::without_node_ports),
    ("docs_pools_examples_give_what_they_say", docs::pools),
    ("docs_services_examples_give_what_they_say", docs::services),
    (
        "docs_migrate_examples_keep_and_give_what_they_say",
        docs::migration,
    ),
    ("docs_other_examples_are_accepted", docs::others),
    ("deletion_releases", lifecycle::deletion),
    ("a_type_change_releases", lifecycle::type_change),
    ("edits_by_hand_are_undone", lifecycle::forged),
    ("events_come_on_change_only", lifecycle::quiet),
    ("a_killed_controller_adopts_everything", lifecycle::adoption),
    (
        "what_happened_while_the_controller_was_down",
        lifecycle::while_down,
    ),
    ("a_hundred_services_at_once", lifecycle::burst),
    (
        "after_a_leader_is_killed_another_takes_over_within_15_seconds",
        leadership::killed,
    ),
    (
        "a_leader_that_is_told_to_stop_hands_over_at_once",
        leadership::stopped,
    ),
    (
        "a_leader_that_was_paused_and_replaced_changes_nothing",
        leadership::paused,
    ),
    (
        "a_crash_between_any_two_writes_leaves_nothing_wrong",
        leadership::crashes,
    ),
    (
        "a_crash_after_each_single_write_is_made_good_by_the_next_leader",
        crashes::after_each_write,
    ),
    (
        "replicas_outlive_an_api_server_that_stands_still",
        leadership::outage,
    ),
    (
        "a_lease_taken_away_or_deleted_by_hand_is_respected_and_made_anew",
        leadership::deposed,
    ),
    (
        "writes_that_are_refused_or_lost_are_repeated_until_all_is_right",
        faults::refusals,
    ),
    (
        "a_service_whose_writes_dawdle_or_fail_delays_no_other",
        faults::slow,
    ),
    (
        "broken_watches_and_full_lists_miss_nothing_and_rewrite_nothing",
        faults::broken_watches,
    ),
    ("a_storm_is_written_at_the_rate_allowed", faults::rate),
    (
        "after_half_a_minute_of_503_and_429_all_is_served_within_seconds",
        faults::outage,
    ),
    ("the_roles_were_enough", install::nothing_forbidden),
    // After the last one, which looks for refusals: here one is wanted.
    (
        "a_virtual_ip_refused_by_policy_delays_no_other_service",
        isolation::refused_vip,
    ),
    ("an_api_server_that_restarts", lifecycle::api_restart),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share one API server, and clear it between them.
    arguments.test_threads = Some(1);
    if arguments.list {
        return run(&arguments, None);
    }
    match Cluster::start() {
        Ok(cluster) if arguments.bench => bench::run(cluster),
        Ok(cluster) => run(&arguments, Some(cluster)),
        Err(error) => {
            eprintln!("these tests cannot run here: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, cluster: Option<Cluster>) -> ExitCode {
    let cluster = Arc::new(Mutex::new(cluster));
    let trials = TESTS.iter().map(|(name, test)| {
        let cluster = cluster.clone();
        Trial::test(*name, move || {
            // A test that panicked has left nothing half done that clearing does not mend.
            let mut cluster = cluster
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            let cluster = cluster.as_mut().ok_or("no control plane")?;
            let outcome = cluster.clear().and_then(|()| test(cluster));
            outcome.map_err(|error| Failed::from(format!("{error:#}\n{}", cluster.log_tail())))
        })
    });
    let conclusion = libtest_mimic::run(arguments, trials.collect());
    if let Some(cluster) = cluster
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .take()
    {
        cluster.stop(conclusion.has_failed());
    }
    conclusion.exit_code()
}
