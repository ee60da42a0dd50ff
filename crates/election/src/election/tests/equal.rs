//! Equal claims, of which one is a node's that should not own the VIP.

use super::*;

/// VIPs for which, of equal claims, that of `a` holds over that of `b`, or the other way round.
fn lasts(a_holds: bool) -> impl Iterator<Item = u8> {
    let (a, b) = (name("a"), name("b"));
    let holds = move |last: &u8| stronger(&vip(*last), &(6, &a), &(6, &b)).is_gt();
    (1..=50).filter(move |last| holds(last) == a_holds)
}

#[test]
fn who_should_not_own_yields_to_an_equal_claim_only_if_that_one_does_not_yield_to_it() {
    for (a_holds, yields) in [(true, false), (false, true)] {
        for last in lasts(a_holds) {
            let mut election = settled(&[last]);
            election.resume(&[claim(last, 6)]);
            election.step(ms(0));
            election.set_vips(vips(&[last], &["b", "c"]));
            election.on_claims(&name("b"), 0, 2, &[claim(last, 6)]);
            let to_b = [release(last, Some("b"), MoveReason::PolicyExcluded)];
            let said = election.step(ms(1));
            assert_eq!(said, if yields { &to_b[..] } else { &[] });
            // The other one's claim is raised, or its successor's is.
            election.on_claims(&name("b"), 0, 3, &[claim(last, 8)]);
            let said = election.step(ms(2));
            assert_eq!(said, if yields { &[] } else { &to_b[..] });
        }
    }
}

#[test]
fn an_equal_claim_of_who_should_not_own_is_topped_if_it_holds_for_those_who_do_not_know() {
    for (a_holds, raises) in [(true, false), (false, true)] {
        for last in lasts(a_holds) {
            let mut election = settled(&[last]);
            election.resume(&[claim(last, 6)]);
            election.step(ms(0));
            election.set_vips(vips(&[last], &["a", "c"]));
            election.on_claims(&name("b"), 0, 2, &[claim(last, 6)]);
            let over_b = [take(last, 8, Some("b"), MoveReason::PolicyExcluded)];
            let said = election.step(ms(1));
            assert_eq!(said, if raises { &over_b[..] } else { &[] });
            assert_eq!(election.step(ms(2)), []);
        }
    }
}
