//! Numbers that a seed determines. What is made of them is spelled out here, because no library promises to make the same of
//! them in its next version.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

#[derive(Debug, Clone)]
pub(super) struct Random(Pcg64Mcg);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// From 0 to one less than `bound`, which is at least 1.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        // The upper half of the product: evenly but for one part in four billion.
        ((u64::from(self.0.next_u32()) * u64::from(bound)) >> 32) as u32
    }

    /// From the first to the last, both included.
    pub(super) fn between(&mut self, first: u32, last: u32) -> u32 {
        first + self.below((last - first).saturating_add(1))
    }

    /// Whether it is one of so many in a million.
    pub(super) fn is_one_of_a_million(&mut self, chances: u32) -> bool {
        self.below(1_000_000) < chances
    }

    pub(super) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let place = self.below(u32::try_from(choices.len()).unwrap_or(u32::MAX)) as usize;
        &choices[place]
    }

    /// A UUID of version 4.
    pub(super) fn uuid(&mut self) -> String {
        let bits = (u128::from(self.0.next_u64()) << 64) | u128::from(self.0.next_u64());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
    }

    /// So many lower-case letters and digits from 2 to 7: five bits of chance each.
    pub(super) fn write_letters(&mut self, out: &mut Vec<u8>, count: usize) {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let end = out.len() + count;
        out.reserve(count);
        while out.len() < end {
            let mut bits = self.0.next_u64();
            for _ in 0..12.min(end - out.len()) {
                out.push(LETTERS[(bits & 31) as usize]);
                bits >>= 5;
            }
        }
    }

    /// The numbers below `count` in an order of chance.
    pub(super) fn order(&mut self, count: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..count).collect();
        for place in (1..count).rev() {
            order.swap(place as usize, self.between(0, place) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_s_numbers_are_these_for_ever() {
        let mut random = Random::new(1);
        let numbers: Vec<u32> = (0..5).map(|_| random.below(1_000)).collect();
        let mut letters = Vec::new();
        random.write_letters(&mut letters, 14);
        assert_eq!(numbers, [870, 199, 690, 260, 704]);
        assert_eq!(random.uuid(), "bd471ec3-88a8-4ae6-a815-3e2a33dae070");
        assert_eq!(letters, b"xtbgi4e4zmi5lv");
        assert_eq!(random.order(6), [5, 1, 2, 3, 4, 0]);
    }

    #[test]
    fn bounds_are_kept_and_reached() {
        let mut random = Random::new(2);
        let numbers: std::collections::BTreeSet<u32> = (0..1_000).map(|_| random.between(3, 6)).collect();
        assert!(numbers.into_iter().eq(3..=6));
        assert!((0..1_000).all(|_| !random.is_one_of_a_million(0) && random.is_one_of_a_million(1_000_000)));
        let mut order = random.order(100);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..100));
    }
}
