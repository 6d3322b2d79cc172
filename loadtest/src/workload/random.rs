//! Random numbers determined by a seed. They are derived here because no library promises the same results in its next
//! version.

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
        // The upper half of the product: even but for one part in four billion.
        ((u64::from(self.0.next_u32()) * u64::from(bound)) >> 32) as u32
    }

    /// From the first to the last, both included.
    pub(super) fn between(&mut self, first: u32, last: u32) -> u32 {
        first + self.below((last - first).saturating_add(1))
    }

    /// True this often in a million.
    pub(super) fn is_one_of_a_million(&mut self, chances: u32) -> bool {
        self.below(1_000_000) < chances
    }

    pub(super) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u32) as usize]
    }

    /// Of version 4.
    pub(super) fn uuid(&mut self) -> String {
        let bits = (u128::from(self.0.next_u64()) << 64) | u128::from(self.0.next_u64());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
    }

    /// Lower-case letters and digits from 2 to 7: five random bits each.
    pub(super) fn letters(&mut self, count: usize) -> String {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let twelve = |bits: u64| (0..12).map(move |place| char::from(LETTERS[(bits >> (5 * place) & 31) as usize]));
        std::iter::repeat_with(|| self.0.next_u64()).flat_map(twelve).take(count).collect()
    }

    /// The numbers below `count` in random order.
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
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut random = Random::new(1);
        let numbers: Vec<u32> = (0..5).map(|_| random.below(1_000)).collect();
        let letters = random.letters(14);
        assert_eq!(numbers, [870, 199, 690, 260, 704]);
        assert_eq!(random.uuid(), "bd471ec3-88a8-4ae6-a815-3e2a33dae070");
        assert_eq!(letters, "xtbgi4e4zmi5lv");
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
