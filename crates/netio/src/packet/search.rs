//! A set of 32-bit keys as a piece of a BPF program: a search tree over ranges.

use super::bpf::{ACCEPT, JEQ, JGE, JGT, Op, jump, skip};

/// Ranges that one leaf of the tree compares one after the other. With two instructions for
/// each, a conditional jump (at most 255 far) reaches the leaf's end.
const LEAF: usize = 16;

/// Keys as ranges from first to last, in order, that neither overlap nor touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    /// The ranges of exactly these keys, given in any order.
    pub(super) fn new(keys: impl IntoIterator<Item = u32>) -> Ranges {
        let mut keys: Vec<u32> = keys.into_iter().collect();
        keys.sort_unstable();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for key in keys {
            match ranges.last_mut() {
                Some((_, last)) if key <= last.saturating_add(1) => *last = key,
                _ => ranges.push((key, key)),
            }
        }
        Ranges(ranges)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// At most `limit` (at least 1) ranges that hold all keys of these, and more: the narrowest
    /// gaps are closed. Addresses between those of a pool are mostly the pool's own, so hardly
    /// any other machine is in them.
    pub(super) fn at_most(&self, limit: usize) -> Ranges {
        if self.0.len() <= limit.max(1) {
            return self.clone();
        }
        let mut gaps: Vec<(u32, usize)> = self
            .0
            .windows(2)
            .zip(1..)
            .map(|(pair, index)| (pair[1].0 - pair[0].1, index))
            .collect();
        // The widest stay open.
        gaps.sort_unstable_by(|a, b| b.cmp(a));
        gaps.truncate(limit.max(1) - 1);
        let mut starts: Vec<usize> = gaps.into_iter().map(|(_, index)| index).collect();
        starts.sort_unstable();
        let bounds = std::iter::once(0).chain(starts.iter().copied());
        let ends = starts.iter().copied().chain([self.0.len()]);
        let merged = bounds
            .zip(ends)
            .map(|(from, to)| (self.0[from].0, self.0[to - 1].1));
        Ranges(merged.collect())
    }

    /// Accepts the frame if the accumulator is within a range; else runs on behind the piece.
    pub(super) fn search(&self) -> Vec<Op> {
        let mut piece = Vec::new();
        let mut misses = Vec::new();
        if !self.0.is_empty() {
            tree(&self.0, &mut piece, &mut misses);
        }
        let end = piece.len();
        for at in misses {
            piece[at] = skip(end - at - 1);
        }
        piece
    }
}

/// Appends the tree of `ranges`, and to `misses` where it has to jump behind the whole piece.
fn tree(ranges: &[(u32, u32)], piece: &mut Vec<Op>, misses: &mut Vec<usize>) {
    if ranges.len() <= LEAF {
        return leaf(ranges, piece, misses);
    }
    // Leaves are filled up, so that there are few.
    let leaves = ranges.len().div_ceil(LEAF);
    let (left, right) = ranges.split_at(leaves / 2 * LEAF);
    let at = piece.len();
    piece.extend([jump(JGE, right[0].0, 0, 1), skip(0)]);
    tree(left, piece, misses);
    piece[at + 1] = skip(piece.len() - at - 2);
    tree(right, piece, misses);
}

fn leaf(ranges: &[(u32, u32)], piece: &mut Vec<Op>, misses: &mut Vec<usize>) {
    let mut ops: Vec<Op> = Vec::with_capacity(2 * LEAF + 2);
    let mut hits = Vec::new();
    for (first, last) in ranges {
        if first == last {
            hits.push((ops.len(), true));
            ops.push(jump(JEQ, *first, 0, 0));
        } else {
            ops.push(jump(JGE, *first, 0, 1));
            hits.push((ops.len(), false));
            ops.push(jump(JGT, *last, 0, 0));
        }
    }
    let accept = ops.len() + 1;
    for (at, if_true) in hits {
        let far = (accept - at - 1) as u8;
        let op = &mut ops[at];
        (op.jt, op.jf) = if if_true { (far, 0) } else { (0, far) };
    }
    piece.extend(ops);
    misses.push(piece.len());
    piece.extend([skip(0), ACCEPT]);
}
