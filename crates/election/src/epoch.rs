//! The numbers of ownerships.
//!
//! An even epoch is *strong*: whoever made the claim saw more than half of the cluster's nodes. An
//! odd one is *weak*: its maker did not, so the owner before may live on the other side of a
//! partition. A weak claim in place of an owner that is out of sight stays just below that owner's,
//! so when both meet again the VIP is where most of the cluster has had it all the time. If the
//! owner really was dead, the weak claim is the only one left, and holds.

/// The epoch of a claim that beats `above`. `majority`: more than half of the cluster is in sight.
///
/// A strong claim over a weak one also beats the strong one that the weak one may stand for.
pub(crate) fn over(above: u64, majority: bool) -> u64 {
    let next = above.saturating_add(1);
    if majority {
        (next / 2).saturating_add(1).saturating_mul(2)
    } else {
        next | 1
    }
}

/// The epoch of a weak claim in place of `of`, whose owner is out of sight: below a strong
/// one, the same as a weak one.
pub(crate) fn in_place_of(of: u64) -> u64 {
    of.saturating_sub(1) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strong_claims_are_even_and_beat_whatever_was_there() {
        for above in 0..20 {
            let strong = over(above, true);
            assert!(strong.is_multiple_of(2) && strong > above, "{above}");
            // Also the strong claim that a weak one was made in place of.
            assert!(above.is_multiple_of(2) || strong > above + 1, "{above}");
            let weak = over(above, false);
            assert!(!weak.is_multiple_of(2) && weak > above, "{above}");
        }
    }

    #[test]
    fn a_weak_claim_gives_way_to_the_strong_one_it_stands_for_and_to_the_next() {
        for strong in (2..20).step_by(2) {
            let weak = in_place_of(strong);
            assert!(!weak.is_multiple_of(2) && weak < strong && weak > strong - 2);
            assert_eq!(in_place_of(weak), weak);
            assert!(over(strong, true) > weak);
        }
        assert_eq!(in_place_of(0), 1);
    }
}
