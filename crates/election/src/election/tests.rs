//! One test per rule. `cluster` holds what several elections do together, `equal` what becomes of equal claims where a
//! node should not own the VIP.

use std::sync::Arc;

use super::*;
use crate::MoveReason;

mod changes;
mod cluster;
mod equal;

const SETTLE: Duration = Duration::from_millis(1000);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn name(name: &str) -> NodeName {
    name.into()
}

fn names(names: &[&str]) -> BTreeSet<NodeName> {
    names.iter().map(|node| name(node)).collect()
}

fn vip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn claim(last: u8, epoch: u64) -> Claim {
    Claim {
        vip: vip(last),
        epoch,
    }
}

fn vips(lasts: &[u8], nodes: &[&str]) -> BTreeMap<IpAddr, Candidates> {
    let candidates = Candidates::equal(names(nodes));
    lasts
        .iter()
        .map(|last| (vip(*last), candidates.clone()))
        .collect()
}

fn take(last: u8, epoch: u64, from: Option<&str>, reason: MoveReason) -> Action {
    Action::Take {
        vip: vip(last),
        epoch,
        from: from.map(name),
        reason,
    }
}

fn release(last: u8, to: Option<&str>, reason: MoveReason) -> Action {
    Action::Release {
        vip: vip(last),
        to: to.map(name),
        reason,
    }
}

/// Node `a`, settled, of a cluster of `a`, `b` and `c` that all live, with these VIPs.
fn settled(lasts: &[u8]) -> Election {
    let mut election = Election::new(name("a"), SETTLE, ms(0));
    election.set_vips(vips(lasts, &["a", "b", "c"]));
    election.set_live(names(&["a", "b", "c"]));
    election.on_claims(&name("b"), 0, 1, &[]);
    election.on_claims(&name("c"), 0, 1, &[]);
    election
}

/// As `settled`, with one VIP that `b` owns with epoch 6.
fn b_owns() -> Election {
    let mut election = settled(&[200]);
    election.on_claims(&name("b"), 0, 1, &[claim(200, 6)]);
    assert_eq!(election.step(ms(0)), []);
    assert_eq!(election.owner(&vip(200)), Some((name("b"), 6)));
    election
}

/// As `settled`, with one VIP that we own with epoch 6.
fn a_owns() -> Election {
    let mut election = settled(&[200]);
    election.resume(&[claim(200, 6)]);
    assert_eq!(
        election.step(ms(0)),
        [take(200, 6, Some("a"), MoveReason::Resumed)]
    );
    election
}

#[test]
fn the_first_owner_starts_at_epoch_two() {
    let mut election = Election::new(name("a"), SETTLE, ms(0));
    election.set_vips(vips(&[200, 201], &["a"]));
    election.set_live(names(&["a"]));
    let first = |last| take(last, 2, None, MoveReason::FirstOwner);
    assert_eq!(election.step(ms(0)), [first(200), first(201)]);
    assert_eq!(election.claims(), [claim(200, 2), claim(201, 2)]);
    assert_eq!(election.step(ms(1)), []);
}

#[test]
fn takes_nothing_new_before_settling() {
    let mut election = Election::new(name("a"), SETTLE, ms(0));
    election.set_vips(vips(&[200], &["a", "b"]));
    election.set_live(names(&["a"]));
    assert_eq!(election.step(ms(999)), []);
    assert_eq!(election.next_deadline(ms(999)), Some(ms(1000)));
    assert_eq!(
        election.step(ms(1000)),
        [take(200, 2, None, MoveReason::FirstOwner)]
    );
}

#[test]
fn takes_nothing_new_before_it_could_answer_and_wakes_for_nothing_meanwhile() {
    let mut election = Election::new(name("a"), SETTLE, ms(0));
    election.set_vips(vips(&[200], &["a", "b"]));
    election.set_live(names(&["a"]));
    election.set_prepared(false);
    assert_eq!(election.step(ms(1000)), []);
    assert_eq!(election.next_deadline(ms(1000)), None);
    election.set_prepared(true);
    assert_eq!(
        election.step(ms(5000)),
        [take(200, 2, None, MoveReason::FirstOwner)]
    );
    // What it has it keeps.
    election.set_prepared(false);
    assert_eq!(election.step(ms(6000)), []);
    assert_eq!(election.claims().len(), 1);
}

#[test]
fn settles_early_when_every_candidate_was_heard() {
    let mut election = Election::new(name("a"), SETTLE, ms(0));
    election.set_vips(vips(&[200], &["a", "b", "c"]));
    election.set_live(names(&["a"]));
    election.heard(&name("b"));
    assert_eq!(election.step(ms(10)), []);
    election.heard(&name("c"));
    assert_eq!(election.step(ms(20)).len(), 1);
}

#[test]
fn a_node_heard_in_part_is_not_heard() {
    let mut election = Election::new(name("a"), SETTLE, ms(0));
    election.set_vips(vips(&[200], &["a", "b"]));
    election.set_live(names(&["a", "b"]));
    election.heard(&name("b"));
    election.on_claims(&name("b"), 0, 2, &[]);
    assert_eq!(election.step(ms(10)), []);
    election.on_claims(&name("b"), 1, 2, &[claim(200, 3)]);
    assert_eq!(election.step(ms(20)), []);
    assert_eq!(election.owner(&vip(200)), Some((name("b"), 3)));
}

#[test]
fn a_process_that_was_stopped_takes_nothing_until_it_listened() {
    let mut election = b_owns();
    election.listen_until(ms(5400));
    election.set_live(names(&["a"]));
    assert_eq!(election.step(ms(5000)), []);
    let taken = take(200, 8, Some("b"), MoveReason::OwnerDied);
    assert_eq!(election.step(ms(5400)), [taken]);
}

#[test]
fn a_live_owner_keeps_its_vip_whoever_comes() {
    let mut election = b_owns();
    election.set_live(names(&["b"]));
    assert_eq!(election.step(ms(100)), []);
    election.set_live(names(&["a", "b", "c"]));
    assert_eq!(election.step(ms(5000)), []);
    assert_eq!(election.owner(&vip(200)), Some((name("b"), 6)));
}

#[test]
fn a_death_is_answered_in_the_same_step_with_all_its_vips() {
    let mut election = settled(&[200, 201, 202]);
    let all = [claim(200, 6), claim(201, 1), claim(202, 10)];
    election.on_claims(&name("b"), 0, 1, &all);
    assert_eq!(election.step(ms(0)), []);
    election.set_live(names(&["a"]));
    let taken = |last, epoch| take(last, epoch, Some("b"), MoveReason::OwnerDied);
    assert_eq!(
        election.step(ms(1)),
        [taken(200, 8), taken(201, 4), taken(202, 12)]
    );
}

#[test]
fn reasons_tell_why_the_owner_lost_it() {
    let reason = |prepare: fn(&mut Election)| {
        let mut election = b_owns();
        prepare(&mut election);
        match election.step(ms(1))[..] {
            [Action::Take { reason, .. }] => reason,
            ref other => panic!("{other:?}"),
        }
    };
    let dead = reason(|e| e.set_live(names(&["a"])));
    assert_eq!(dead, MoveReason::OwnerDied);
    let left = reason(|e| {
        e.set_live(names(&["a"]));
        e.set_away([(name("b"), Away::Left)].into());
    });
    assert_eq!(left, MoveReason::OwnerLeft);
    let unfit = reason(|e| {
        e.set_live(names(&["a"]));
        e.set_away([(name("b"), Away::NotEligible)].into());
    });
    assert_eq!(unfit, MoveReason::OwnerNotEligible);
    let excluded = reason(|e| e.set_vips(vips(&[200], &["a"])));
    assert_eq!(excluded, MoveReason::PolicyExcluded);
}

#[test]
fn a_higher_claim_silences_a_lower_one_and_not_the_reverse() {
    let mut election = a_owns();
    election.on_claims(&name("b"), 0, 1, &[claim(200, 4)]);
    assert_eq!(election.step(ms(1)), []);
    election.on_claims(&name("b"), 0, 1, &[claim(200, 8)]);
    assert_eq!(
        election.step(ms(2)),
        [release(200, Some("b"), MoveReason::HigherEpoch)]
    );
    assert_eq!(election.claims(), []);
}

#[test]
fn of_two_equal_claims_exactly_one_stays() {
    for last in 0..=255 {
        let stays = |me: &str, other: &str| {
            let mut election = Election::new(name(me), SETTLE, ms(0));
            election.set_vips(vips(&[last], &["a", "b"]));
            election.set_live(names(&["a", "b"]));
            election.resume(&[claim(last, 7)]);
            election.on_claims(&name(other), 0, 1, &[claim(last, 7)]);
            election.step(ms(0));
            !election.claims().is_empty()
        };
        assert_ne!(stays("a", "b"), stays("b", "a"), "{last}");
    }
}

/// Whoever looks on: the claim that lost is as high as the one that won, and was perhaps heard before it.
#[test]
fn after_two_equal_claims_the_vip_is_followed_from_the_winner() {
    for (last, me) in (0..=255).flat_map(|last| ["a", "c"].map(|me| (last, me))) {
        let mut election = Election::new(name(me), SETTLE, ms(0));
        election.set_vips(vips(&[last], &["a", "b", "c"]));
        election.set_live(names(&["a", "b", "c"]));
        if me == "a" {
            election.resume(&[claim(last, 2)]);
        } else {
            election.on_claims(&name("a"), 0, 1, &[claim(last, 2)]);
        }
        election.step(ms(0));
        election.on_claims(&name("b"), 0, 1, &[claim(last, 2)]);
        election.step(ms(1));
        let (winner, _) = election.owner(&vip(last)).unwrap();
        if winner == name(me) {
            continue;
        }
        let loser = if winner == name("a") { "b" } else { "a" };
        election.on_claims(&name(loser), 0, 1, &[]);
        assert_eq!(election.step(ms(100)), []);
        election.set_live([name(me), name(loser)].into());
        let wait = DEFAULT_PATIENCE * 2;
        let taken = [ms(200), ms(200) + wait].map(|at| election.step(at));
        let expected = take(last, 4, Some(&winner), MoveReason::OwnerDied);
        assert_eq!(taken.concat(), [expected], "{last} at {me}");
    }
}

#[test]
fn an_address_that_comes_again_had_no_owner_whoever_heard_late_of_its_end() {
    let mut election = b_owns();
    election.set_vips(BTreeMap::new());
    assert_eq!(election.step(ms(1)), []);
    election.on_claims(&name("b"), 0, 1, &[claim(200, 6)]);
    election.on_claims(&name("b"), 0, 1, &[]);
    election.set_live(names(&["a"]));
    election.set_vips(vips(&[200], &["a", "b", "c"]));
    let first = take(200, 2, None, MoveReason::FirstOwner);
    assert_eq!(election.step(ms(2)), [first]);
}

#[test]
fn an_address_that_a_dead_node_once_had_comes_again_without_owner_and_above_its_claim() {
    let mut election = b_owns();
    election.set_live(names(&["a"]));
    let taken = take(200, 8, Some("b"), MoveReason::OwnerDied);
    assert_eq!(election.step(ms(1)), [taken]);
    election.set_vips(BTreeMap::new());
    let removed = release(200, None, MoveReason::VipRemoved);
    assert_eq!(election.step(ms(2)), [removed]);
    let mut again = election.clone();
    again.set_vips(vips(&[200], &["a", "b"]));
    let first = take(200, 8, None, MoveReason::FirstOwner);
    assert_eq!(again.step(ms(3)), [first]);
    // Had it come back with its claim, it would have had it.
    election.on_claims(&name("b"), 0, 1, &[claim(200, 6)]);
    election.set_vips(vips(&[200], &["a", "b"]));
    let taken = take(200, 8, Some("b"), MoveReason::OwnerDied);
    assert_eq!(election.step(ms(3)), [taken]);
}

#[test]
fn an_address_that_went_just_when_its_owner_died_comes_again_without_owner() {
    let mut election = b_owns();
    // Nobody knows yet that b is dead.
    election.set_vips(BTreeMap::new());
    assert_eq!(election.step(ms(1)), []);
    election.set_live(names(&["a"]));
    assert_eq!(election.step(ms(2)), []);
    let mut anew = election.clone();
    anew.set_vips(vips(&[200], &["a", "b"]));
    let first = take(200, 8, None, MoveReason::FirstOwner);
    assert_eq!(anew.step(ms(3)), [first]);
    // Had it heard of the new one before it died, it would have had that.
    election.on_claims(&name("b"), 0, 1, &[claim(200, 8)]);
    election.set_vips(vips(&[200], &["a", "b"]));
    let taken = take(200, 10, Some("b"), MoveReason::OwnerDied);
    assert_eq!(election.step(ms(3)), [taken]);
}

#[test]
fn who_claims_an_address_before_it_is_known_here_had_it() {
    let mut election = settled(&[]);
    election.on_claims(&name("b"), 0, 1, &[claim(200, 6)]);
    election.set_live(names(&["a"]));
    election.set_vips(vips(&[200], &["a", "b", "c"]));
    let taken = take(200, 8, Some("b"), MoveReason::OwnerDied);
    assert_eq!(election.step(ms(1)), [taken]);
}

#[test]
fn what_was_owned_before_a_restart_is_kept_at_once_with_the_same_epoch() {
    let mut election = Election::new(name("a"), SETTLE, ms(0));
    election.resume(&[claim(200, 6), claim(201, 2)]);
    // Neither VIPs nor peers are known yet.
    let resumed = |last, epoch| take(last, epoch, Some("a"), MoveReason::Resumed);
    assert_eq!(election.step(ms(0)), [resumed(200, 6), resumed(201, 2)]);
    election.set_vips(vips(&[200], &["a", "b"]));
    election.set_live(names(&["a"]));
    assert_eq!(
        election.step(ms(10)),
        [release(201, None, MoveReason::VipRemoved)]
    );
    assert_eq!(election.claims(), [claim(200, 6)]);
}

#[test]
fn a_resumed_claim_yields_to_who_took_over_meanwhile() {
    let mut election = Election::new(name("a"), SETTLE, ms(0));
    election.resume(&[claim(200, 6)]);
    election.set_live(names(&["a", "b"]));
    election.on_claims(&name("b"), 0, 1, &[claim(200, 8)]);
    assert_eq!(
        election.step(ms(0)),
        [release(200, Some("b"), MoveReason::HigherEpoch)]
    );
}

#[test]
fn leaving_keeps_each_vip_until_it_is_taken() {
    let mut election = a_owns();
    assert!(!election.handed_over());
    election.leave();
    assert_eq!(election.step(ms(1)), []);
    assert_eq!(election.claims(), [claim(200, 6)]);
    assert!(!election.handed_over());
    election.on_claims(&name("c"), 0, 1, &[claim(200, 8)]);
    assert_eq!(
        election.step(ms(2)),
        [release(200, Some("c"), MoveReason::OwnerLeft)]
    );
    assert!(election.handed_over());
}

#[test]
fn leaving_does_not_wait_for_what_nobody_can_take() {
    let mut election = a_owns();
    election.set_live(names(&["a"]));
    election.leave();
    assert_eq!(election.step(ms(1)), []);
    assert!(election.handed_over());
    // It is still answered for until the process ends.
    assert_eq!(election.claims(), [claim(200, 6)]);
}

#[test]
fn an_owner_that_policy_excludes_hands_over_and_is_not_silent_between() {
    let mut election = a_owns();
    election.set_vips(vips(&[200], &["b", "c"]));
    assert_eq!(election.step(ms(1)), []);
    election.on_claims(&name("b"), 0, 1, &[claim(200, 8)]);
    assert_eq!(
        election.step(ms(2)),
        [release(200, Some("b"), MoveReason::PolicyExcluded)]
    );
}

#[test]
fn an_owner_that_policy_excludes_stops_if_nobody_can_follow() {
    let mut election = a_owns();
    election.set_vips(vips(&[200], &["d"]));
    assert_eq!(
        election.step(ms(1)),
        [release(200, None, MoveReason::PolicyExcluded)]
    );
    assert_eq!(election.unowned(), [vip(200)]);
}

#[test]
fn an_owner_that_cannot_own_keeps_on_until_somebody_can() {
    let mut election = a_owns();
    election.set_live(names(&[]));
    assert_eq!(election.step(ms(1)), []);
    assert_eq!(election.unowned(), [vip(200)]);
    election.set_live(names(&["b"]));
    election.on_claims(&name("b"), 0, 1, &[claim(200, 8)]);
    assert_eq!(
        election.step(ms(2)),
        [release(200, Some("b"), MoveReason::OwnerNotEligible)]
    );
}

#[test]
fn the_claim_of_an_unfit_node_is_topped_but_not_ten_times_a_second() {
    let mut election = a_owns();
    election.set_vips(vips(&[200], &["a", "c"]));
    election.on_claims(&name("b"), 0, 1, &[claim(200, 8)]);
    let topped = |epoch| take(200, epoch, Some("b"), MoveReason::PolicyExcluded);
    assert_eq!(election.step(ms(100)), [topped(10)]);
    election.on_claims(&name("b"), 0, 1, &[claim(200, 12)]);
    assert_eq!(election.step(ms(200)), []);
    assert_eq!(election.next_deadline(ms(200)), Some(ms(600)));
    assert_eq!(election.step(ms(600)), [topped(14)]);
}

#[test]
fn a_vip_that_is_gone_is_released() {
    let mut election = a_owns();
    election.set_vips(BTreeMap::new());
    assert_eq!(
        election.step(ms(1)),
        [release(200, None, MoveReason::VipRemoved)]
    );
    assert_eq!(election.owner(&vip(200)), None);
}

#[test]
fn who_is_not_chosen_waits_and_then_passes_the_silent_one_over() {
    // b died; of a and c one is chosen. Take a VIP for which it is c.
    let last = (0..=255)
        .find(|last| {
            let mut election = settled(&[*last]);
            election.set_live(names(&["a", "c"]));
            election.step(ms(0)).is_empty()
        })
        .unwrap();
    let mut election = settled(&[last]);
    election.set_live(names(&["a", "c"]));
    assert_eq!(election.step(ms(0)), []);
    assert_eq!(election.step(ms(499)), []);
    // c does not take it; nor would it ever, for all we know.
    assert_eq!(election.next_deadline(ms(2000)), Some(ms(500)));
    let first = take(last, 2, None, MoveReason::FirstOwner);
    assert_eq!(election.clone().step(ms(500)), [first]);
    // Who may not take it any more must not be woken at once for it, again and again.
    election.set_live(names(&["c"]));
    assert_eq!(election.step(ms(500)), []);
    assert_eq!(election.next_deadline(ms(500)), Some(ms(1000)), "settled");
}

#[test]
fn deals_evenly_and_counts_what_is_owned_already() {
    let lasts: Vec<u8> = (0..30).collect();
    let mut election = settled(&lasts);
    // b already has ten of the thirty, so a and c get ten each.
    let tens: Vec<Claim> = (0..10).map(|last| claim(last, 1)).collect();
    election.on_claims(&name("b"), 0, 1, &tens);
    assert_eq!(election.step(ms(0)).len(), 10);
}

#[test]
fn preference_comes_before_load() {
    let lasts: Vec<u8> = (0..40).collect();
    let taken = |preference: &[(&str, u32)], live: &[&str]| {
        let mut election = settled(&[]);
        let mut all = vips(&lasts, &["a", "b", "c"]);
        for candidates in all.values_mut() {
            let all = preference.iter().map(|(n, p)| (name(n), *p));
            candidates.preference = Arc::new(all.collect());
        }
        election.set_vips(all);
        election.set_live(names(live));
        election.step(ms(0)).len()
    };
    assert_eq!(taken(&[("a", 2)], &["a", "b", "c"]), 40);
    assert_eq!(taken(&[("b", 2), ("a", 1)], &["a", "b", "c"]), 0);
    assert_eq!(taken(&[("b", 2), ("a", 1)], &["a", "c"]), 40);
    assert_eq!(
        taken(&[("a", 3), ("b", 3)], &["a", "b", "c"]),
        20,
        "equals share"
    );
}

/// One VIP that `a`, `b` and `c` may own, with `change`.
fn with_candidates(change: impl Fn(&mut Candidates)) -> BTreeMap<IpAddr, Candidates> {
    let mut all = vips(&[200], &["a", "b", "c"]);
    all.values_mut().for_each(change);
    all
}

#[test]
fn a_node_that_is_avoided_hands_over_and_keeps_what_nobody_else_can_own() {
    let mut election = a_owns();
    election.set_vips(with_candidates(|c| c.avoid = names(&["a"]).into()));
    assert_eq!(election.step(ms(1)), [], "it answers until it is followed");
    election.on_claims(&name("b"), 0, 1, &[claim(200, 8)]);
    assert_eq!(
        election.step(ms(2)),
        [release(200, Some("b"), MoveReason::Drained)]
    );
    // The follower's view.
    let mut election = b_owns();
    election.set_live(names(&["a", "b"]));
    election.set_vips(with_candidates(|c| c.avoid = names(&["b"]).into()));
    let taken = take(200, 8, Some("b"), MoveReason::Drained);
    assert_eq!(election.step(ms(1)), [taken]);
    // Where all are to be avoided, none is.
    let mut election = a_owns();
    election.set_vips(with_candidates(|c| {
        c.avoid = names(&["a", "b", "c"]).into()
    }));
    assert_eq!(election.step(ms(1)), []);
    assert!(election.owner(&vip(200)).is_some());
}

#[test]
fn the_wanted_node_takes_at_once_and_is_not_rebalanced_away() {
    let mut election = b_owns().with_rebalancing(ms(1_000));
    election.set_vips(with_candidates(|c| c.wanted = Some(name("a"))));
    let taken = take(200, 8, Some("b"), MoveReason::Requested);
    assert_eq!(election.step(ms(1)), [taken]);
    election.on_claims(&name("b"), 0, 1, &[]);
    assert_eq!(election.step(ms(60_000)), []);
    // It is not taken from others by a node that cannot own it.
    let mut election = b_owns();
    election.set_vips(with_candidates(|c| c.wanted = Some(name("a"))));
    election.set_live(names(&["b", "c"]));
    assert_eq!(election.step(ms(1)), []);
}

#[test]
fn a_vip_that_its_owner_drops_is_not_taken_before_the_reason_may_have_come() {
    let mut election = b_owns();
    election.set_live(names(&["a", "b"]));
    election.on_claims(&name("b"), 0, 1, &[]);
    assert_eq!(election.step(ms(1)), []);
    let wake = election.next_deadline(ms(1)).unwrap();
    assert!(wake <= ms(501), "{wake:?}");
    // The VIP was deleted, which we hear a little later.
    let mut deleted = election.clone();
    deleted.set_vips(BTreeMap::new());
    assert_eq!(deleted.step(ms(10)), []);
    // It was not.
    assert_eq!(election.step(ms(700)).len(), 1);

    // In a large cluster the one that it yielded to may be heard only after a round.
    let mut election = b_owns();
    election.set_live(names(&["a", "b"]));
    election.set_round(ms(770));
    election.on_claims(&name("b"), 0, 1, &[]);
    assert_eq!(election.step(ms(1)), []);
    assert_eq!(election.step(ms(770)), []);
    assert_eq!(election.step(ms(772)).len(), 1);
}

#[test]
fn in_a_minority_claims_stay_below_those_of_nodes_out_of_sight() {
    let mut election = b_owns();
    election.set_majority(false, ms(1));
    election.set_live(names(&["a"]));
    let weak = take(200, 5, Some("b"), MoveReason::OwnerDied);
    assert_eq!(election.step(ms(1)), [weak]);
    assert_eq!(election.step(ms(10_000)), []);
    // Healed, and others are heard before the owner is.
    election.set_majority(true, ms(20_000));
    election.set_live(names(&["a", "c"]));
    assert_eq!(election.step(ms(20_001)), []);
    election.set_live(names(&["a", "b", "c"]));
    election.on_claims(&name("b"), 0, 1, &[claim(200, 6)]);
    assert_eq!(
        election.step(ms(20_100)),
        [release(200, Some("b"), MoveReason::HigherEpoch)]
    );
}

#[test]
fn claims_are_not_raised_over_those_of_nodes_that_are_heard_seldom() {
    let mut election = b_owns();
    election.set_majority(false, ms(1));
    election.set_round(ms(770));
    election.set_live(names(&["a"]));
    assert_eq!(election.step(ms(1)).len(), 1);
    election.set_majority(true, ms(20_000));
    election.set_live(names(&["a", "c"]));
    assert_eq!(election.step(ms(20_001)), []);
    // Longer than the patience, which is enough where all are heard at every heartbeat.
    assert_eq!(election.next_deadline(ms(20_769)), Some(ms(20_770)));
    assert_eq!(election.step(ms(20_769)), []);
    let raised = take(200, 8, Some("b"), MoveReason::OwnerDied);
    assert_eq!(election.step(ms(20_770)), [raised]);
}

#[test]
fn in_a_minority_a_node_in_sight_is_followed_by_a_claim_that_beats_its_own() {
    let mut election = b_owns();
    election.set_majority(false, ms(1));
    election.set_live(names(&["a"]));
    election.set_away([(name("b"), Away::NotEligible)].into());
    let taken = take(200, 7, Some("b"), MoveReason::OwnerNotEligible);
    assert_eq!(election.step(ms(1)), [taken]);
}

#[test]
fn a_preferred_node_gets_its_vips_slowly_if_rebalancing_is_on() {
    let prefer = || with_candidates(|c| c.preference = Arc::new([(name("a"), 10)].into()));
    let mut election = b_owns();
    election.set_vips(prefer());
    assert_eq!(election.step(ms(3_600_000)), []);
    let mut election = b_owns().with_rebalancing(ms(30_000));
    election.set_vips(prefer());
    assert_eq!(election.step(ms(1)), []);
    // It would have to answer at once.
    election.set_prepared(false);
    assert_eq!(election.step(ms(31_000)), []);
    election.set_prepared(true);
    let taken = take(200, 8, Some("b"), MoveReason::Rebalanced);
    assert_eq!(election.step(ms(31_001)), [taken]);
}

#[test]
fn a_claim_between_pages_is_not_lost() {
    let mut election = settled(&[200, 201]);
    let b = name("b");
    election.on_claims(&b, 0, 2, &[claim(200, 6)]);
    election.on_claims(&b, 1, 2, &[claim(201, 6)]);
    assert_eq!(election.step(ms(0)), []);
    // 201 moves to the first page, which gets lost; the second one arrives empty.
    election.on_claims(&b, 1, 2, &[]);
    assert_eq!(election.step(ms(1)), []);
    // One unbroken run without it is not yet proof, a second one is.
    for at in [2, 3] {
        assert_eq!(election.owner(&vip(201)), Some((b.clone(), 6)));
        election.on_claims(&b, 0, 2, &[claim(200, 6)]);
        election.on_claims(&b, 1, 2, &[]);
        election.step(ms(at));
    }
    assert_ne!(election.owner(&vip(201)), Some((b, 6)));
}

#[test]
fn an_unchanged_world_costs_nothing() {
    let mut election = b_owns();
    election.set_vips(vips(&[200], &["a", "b", "c"]));
    election.set_live(names(&["a", "b", "c"]));
    election.heard(&name("b"));
    election.heard(&name("b"));
    election.step(ms(2000));
    election.on_claims(&name("b"), 0, 1, &[claim(200, 6)]);
    election.heard(&name("b"));
    assert!(!election.dirty);
    assert_eq!(election.next_deadline(ms(2000)), None);
}

#[test]
fn rebalancing_waits_for_calm_and_stops_when_even() {
    let pause = ms(30_000);
    let mut election = settled(&[200, 201, 202]).with_rebalancing(pause);
    let b_has = [claim(200, 6), claim(201, 6), claim(202, 6)];
    election.on_claims(&name("b"), 0, 1, &b_has);
    election.set_live(names(&["a", "b"]));
    assert_eq!(election.step(ms(0)), []);
    // A change of the live nodes begins the pause anew.
    election.set_live(names(&["a", "b", "d"]));
    assert_eq!(election.step(ms(20_000)), []);
    assert_eq!(election.step(ms(49_999)), []);
    assert_eq!(election.next_deadline(ms(49_999)), Some(ms(50_000)));
    let moved = election.step(ms(50_000));
    let [
        Action::Take {
            vip: got,
            epoch: 8,
            from: Some(from),
            reason,
        },
    ] = &moved[..]
    else {
        panic!("{moved:?}");
    };
    assert_eq!((&**from, *reason), ("b", MoveReason::Rebalanced));
    // b yields, and two to one is as even as it gets.
    let kept: Vec<Claim> = b_has
        .into_iter()
        .filter(|claim| claim.vip != *got)
        .collect();
    election.on_claims(&name("b"), 0, 1, &kept);
    assert_eq!(election.step(ms(60_000)), []);
    assert_eq!(election.next_deadline(ms(60_000)), None);
    assert_eq!(election.step(ms(600_000)), []);
}

#[test]
fn a_vip_that_nobody_can_own_does_not_stop_the_others_from_being_evened_out() {
    let mut election = settled(&[200, 201, 202]).with_rebalancing(ms(30_000));
    let mut all = vips(&[200, 201, 202], &["a", "b", "c"]);
    all.extend(vips(&[203], &["elsewhere"]));
    election.set_vips(all);
    election.set_live(names(&["a", "b"]));
    let b_has = [claim(200, 6), claim(201, 6), claim(202, 6)];
    election.on_claims(&name("b"), 0, 1, &b_has);
    assert_eq!(election.step(ms(0)), []);
    assert_eq!(election.unowned(), [vip(203)]);
    let moved = election.step(ms(30_000));
    assert!(
        matches!(
            &moved[..],
            [Action::Take {
                reason: MoveReason::Rebalanced,
                ..
            }]
        ),
        "{moved:?}"
    );
}

#[test]
fn a_node_that_is_held_off_gets_what_nobody_else_can_take() {
    let lasts: Vec<u8> = (0..20).collect();
    let taken = |held: &[&str], live: &[&str]| {
        let mut election = settled(&lasts);
        election.set_held(names(held));
        election.set_live(names(live));
        election.step(ms(0)).len()
    };
    assert_eq!(taken(&["b"], &["a", "b"]), 20);
    assert_eq!(taken(&["a"], &["a", "b"]), 0);
    assert_eq!(taken(&["a"], &["a"]), 20);
    assert_eq!(taken(&["a", "b"], &["a", "b"]), 10);
}

#[test]
fn what_nodes_claimed_that_left_the_cluster_is_forgotten() {
    let mut election = b_owns();
    assert_eq!(election.claimants(&vip(200)).count(), 1);
    election.set_nodes(&names(&["a", "c"]));
    assert_eq!(election.claimants(&vip(200)).count(), 0);
    assert!(!election.peers.contains_key("b") && !election.heard.contains("b"));
}

#[test]
fn without_rebalancing_nothing_moves_however_uneven() {
    let mut election = settled(&[200, 201, 202]);
    let b_has = [claim(200, 6), claim(201, 6), claim(202, 6)];
    election.on_claims(&name("b"), 0, 1, &b_has);
    assert_eq!(election.step(ms(0)), []);
    assert_eq!(election.step(ms(3_600_000)), []);
}
