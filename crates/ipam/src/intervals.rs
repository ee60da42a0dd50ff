//! A set of numbers kept as maximal runs, so that the next gap is one look-up away however many
//! numbers are taken.

use std::collections::BTreeMap;

/// Disjoint, non-adjacent closed intervals: first to last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Intervals(BTreeMap<u128, u128>);

impl Intervals {
    /// The run that contains `n`.
    fn run(&self, n: u128) -> Option<(u128, u128)> {
        let (first, last) = self.0.range(..=n).next_back()?;
        (*last >= n).then_some((*first, *last))
    }

    pub(crate) fn contains(&self, n: u128) -> bool {
        self.run(n).is_some()
    }

    /// Adds a number, joining it with its neighbours.
    pub(crate) fn insert(&mut self, n: u128) {
        if self.contains(n) {
            return;
        }
        let mut first = n;
        let mut last = n;
        if let Some((f, _)) = n.checked_sub(1).and_then(|below| self.run(below)) {
            first = f;
        }
        if let Some((f, l)) = n.checked_add(1).and_then(|above| self.run(above)) {
            self.0.remove(&f);
            last = l;
        }
        self.0.insert(first, last);
    }

    /// Takes a number out, splitting its run.
    pub(crate) fn remove(&mut self, n: u128) {
        let Some((first, last)) = self.run(n) else {
            return;
        };
        self.0.remove(&first);
        if first < n {
            self.0.insert(first, n - 1);
        }
        if n < last {
            self.0.insert(n + 1, last);
        }
    }

    /// The lowest number from `from` to `to` that is not in the set.
    pub(crate) fn first_gap(&self, from: u128, to: u128) -> Option<u128> {
        let candidate = match self.run(from) {
            None => from,
            Some((_, last)) => last.checked_add(1)?,
        };
        (candidate <= to).then_some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_plain_set(ops in prop::collection::vec((any::<bool>(), 0u128..40), 0..200)) {
            let mut runs = Intervals::default();
            let mut plain = BTreeSet::new();
            for (add, n) in ops {
                if add {
                    runs.insert(n);
                    plain.insert(n);
                } else {
                    runs.remove(n);
                    plain.remove(&n);
                }
                for from in 0..41 {
                    prop_assert_eq!(runs.contains(from), plain.contains(&from));
                    let gap = (from..=40).find(|n| !plain.contains(n));
                    prop_assert_eq!(runs.first_gap(from, 40), gap);
                }
                for pair in runs.0.iter().collect::<Vec<_>>().windows(2) {
                    prop_assert!(pair[0].1 + 1 < *pair[1].0, "runs touch: {:?}", runs);
                }
            }
        }
    }

    #[test]
    fn the_end_of_the_space_does_not_overflow() {
        let mut runs = Intervals::default();
        runs.insert(u128::MAX);
        runs.insert(0);
        assert_eq!(runs.first_gap(u128::MAX, u128::MAX), None);
        assert_eq!(runs.first_gap(0, u128::MAX), Some(1));
    }
}
