//! From who may answer for a VIP to the election's candidates. Pure.
//!
//! VIPs of which the same nodes may answer share one [`Eligibility`] and so one set of candidates:
//! at 500 nodes and 1,000 VIPs that is 500 entries and not half a million.

use std::sync::Arc;

use lightship_election::Candidates;

use crate::eligibility::Eligibility;

/// The candidates that were made, each with what of.
#[derive(Debug, Default)]
pub(super) struct Nominated(Vec<(Arc<Eligibility>, Candidates)>);

impl Nominated {
    /// The candidates, with nobody wanted.
    pub(super) fn of(&mut self, eligibility: &Arc<Eligibility>) -> Candidates {
        let mut known = self.0.iter();
        if let Some((_, known)) = known.find(|(of, _)| Arc::ptr_eq(of, eligibility)) {
            return known.clone();
        }
        let seats = &eligibility.seats;
        let preferred = seats.iter().filter(|(_, seat)| seat.preference > 0);
        let avoided = seats.iter().filter(|(_, seat)| seat.avoid.is_some());
        let new = Candidates {
            nodes: Arc::new(seats.keys().cloned().collect()),
            preference: Arc::new(
                preferred
                    .map(|(name, seat)| (name.clone(), seat.preference))
                    .collect(),
            ),
            avoid: Arc::new(avoided.map(|(name, _)| name.clone()).collect()),
            wanted: None,
        };
        self.0.push((eligibility.clone(), new.clone()));
        new
    }

    /// Forgets what nobody else holds any more.
    pub(super) fn tidy(&mut self) {
        self.0.retain(|(of, _)| Arc::strong_count(of) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eligibility::{Avoid, Seat};

    #[test]
    fn equal_vips_share_their_candidates_and_what_is_gone_is_forgotten() {
        let seat = |preference, avoid| Seat {
            preference,
            avoid,
            ..Seat::default()
        };
        let seats = [
            ("a".into(), seat(0, None)),
            ("b".into(), seat(7, Some(Avoid::Drained))),
        ];
        let eligibility = Arc::new(Eligibility {
            seats: seats.into(),
            ..Eligibility::default()
        });
        let mut nominated = Nominated::default();
        let (one, two) = (nominated.of(&eligibility), nominated.of(&eligibility));
        assert!(Arc::ptr_eq(&one.nodes, &two.nodes));
        assert_eq!(one.nodes.len(), 2);
        assert_eq!(*one.preference, [("b".into(), 7)].into());
        assert_eq!(*one.avoid, ["b".into()].into());
        nominated.tidy();
        assert_eq!(nominated.0.len(), 1);
        drop(eligibility);
        nominated.tidy();
        assert!(nominated.0.is_empty());
    }
}
