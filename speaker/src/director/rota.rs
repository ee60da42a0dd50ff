//! Which part of a table is looked at next: all of a small one each time, a bounded part
//! of a large one, in turn. Pure.

/// Walks over `0..len`, whatever `len` is each time.
#[derive(Debug, Default)]
pub(super) struct Rota {
    next: usize,
}

impl Rota {
    /// The next indices: as long as `cost` of them together stays within `budget`, at least
    /// one, none twice.
    pub(super) fn turn(
        &mut self,
        len: usize,
        budget: usize,
        cost: impl Fn(usize) -> usize,
    ) -> Vec<usize> {
        let mut picked = Vec::new();
        let mut spent = 0;
        while picked.len() < len {
            let index = self.next % len;
            spent += cost(index);
            if !picked.is_empty() && spent > budget {
                break;
            }
            picked.push(index);
            self.next = (index + 1) % len;
        }
        picked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_table_is_seen_whole_and_a_large_one_in_turns() {
        let mut rota = Rota::default();
        assert_eq!(rota.turn(0, 10, |_| 1), [0; 0]);
        assert_eq!(rota.turn(3, 10, |_| 1), [0, 1, 2]);
        assert_eq!(rota.turn(5, 2, |_| 1), [0, 1]);
        assert_eq!(rota.turn(5, 2, |_| 1), [2, 3]);
        assert_eq!(rota.turn(5, 2, |_| 1), [4, 0]);
        // Dearer than the budget: one at a time, and it goes on.
        assert_eq!(rota.turn(5, 2, |_| 9), [1]);
        assert_eq!(rota.turn(5, 2, |_| 9), [2]);
        // It has become shorter.
        assert_eq!(rota.turn(2, 9, |_| 1), [1, 0]);
    }
}
