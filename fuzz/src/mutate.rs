//! Damage: how one input is made from others.

/// A small generator of random numbers (splitmix64), the same for the same seed.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        match end as u64 {
            0 => 0,
            end => (self.next() % end) as usize,
        }
    }
}

/// Values at which lengths and counts go wrong.
const EDGES: [u8; 9] = [0, 1, 2, 3, 4, 0x7f, 0x80, 0xfe, 0xff];

/// The longest input, in octets: longer than any that a decoder takes.
const LONGEST: usize = 16 << 10;

/// Damages `input` in one to four places; `other` is one to take pieces from.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    for _ in 0..=rng.below(4) {
        once(input, other, rng);
    }
    input.truncate(LONGEST);
}

fn once(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let at = rng.below(input.len());
    let edge = EDGES[rng.below(EDGES.len())];
    match rng.below(10) {
        0 if !input.is_empty() => input[at] ^= 1 << rng.below(8),
        1 if !input.is_empty() => input[at] = edge,
        2 if !input.is_empty() => input[at] = rng.below(256) as u8,
        3 if !input.is_empty() => {
            let by = 1 + rng.below(4) as u8;
            let up = rng.below(2) == 0;
            input[at] = if up {
                input[at].wrapping_add(by)
            } else {
                input[at].wrapping_sub(by)
            };
        }
        // A number of two or four octets, in either order.
        4 if input.len() > 4 => {
            let at = rng.below(input.len() - 4);
            let number = (rng.below(70_000) as u32).to_be_bytes();
            match rng.below(4) {
                0 => input[at..at + 2].copy_from_slice(&number[2..]),
                1 => input[at..at + 4].copy_from_slice(&number),
                2 => input[at..at + 4].copy_from_slice(&u32::from_be_bytes(number).to_le_bytes()),
                _ => input[at..at + 4].fill(edge),
            }
        }
        5 => input.truncate(at),
        6 => {
            let end = (at + 1 + rng.below(16)).min(input.len());
            input.drain(at.min(end)..end);
        }
        7 => {
            let count = 1 + rng.below(16);
            input.splice(at..at, std::iter::repeat_n(edge, count));
        }
        // A piece of its own, again.
        8 => {
            let end = (at + 1 + rng.below(64)).min(input.len());
            let piece = input[at.min(end)..end].to_vec();
            let to = rng.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        // The end, or a piece, of another.
        _ => {
            let from = rng.below(other.len());
            let to = (from + 1 + rng.below(128)).min(other.len());
            let piece = other[from.min(to)..to].to_vec();
            if rng.below(2) == 0 {
                input.truncate(at);
                input.extend(piece);
            } else {
                let end = (at + piece.len()).min(input.len());
                input.splice(at..end, piece);
            }
        }
    }
}
