//! Finds the numbers of a run's ids in bytes.

use memchr::memmem::Finder;

/// Digits of a number in an id: never fewer ([`crate::ledger::id`]), so that of an id that was cut nothing is taken.
const MIN_DIGITS: usize = 10;
/// Digits of the largest number.
const MAX_DIGITS: usize = 20;

/// Looks for the ids of one run.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    prefix: Finder<'static>,
}

impl Scanner {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: Finder::new(prefix).into_owned() }
    }

    /// All numbers, in order, repeats included.
    pub(super) fn numbers(&self, bytes: &[u8]) -> impl Iterator<Item = u64> {
        let mut from = 0;
        std::iter::from_fn(move || {
            loop {
                let found = from + self.prefix.find(&bytes[from..])?;
                // Not after it: one prefix may begin within another.
                from = found + 1;
                if let Some(number) = number_at_start(&bytes[found + self.prefix.needle().len()..]) {
                    return Some(number);
                }
            }
        })
    }
}

fn number_at_start(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.iter().take(MAX_DIGITS).take_while(|byte| byte.is_ascii_digit()).count();
    if digits < MIN_DIGITS {
        return None;
    }
    std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{id, id_prefix};
    use proptest::prelude::*;
    use rstest::rstest;

    fn numbers(text: &str) -> Vec<u64> {
        Scanner::new("lt-r-").numbers(text.as_bytes()).collect()
    }

    #[rstest]
    #[case::none("nothing of ours", &[])]
    #[case::whole("lt-r-0000000007", &[7])]
    #[case::nine_digits("lt-r-000000007", &[])]
    #[case::cut_prefix("t-r-0000000007", &[])]
    #[case::twice("{\"id\":\"lt-r-0000000007\",\"event\":{\"id\":\"lt-r-0000000007\"}}", &[7, 7])]
    #[case::others_of_a_longer_run_id("lt-r-1-0000000007", &[])]
    #[case::more_digits("lt-r-12345678901", &[12_345_678_901])]
    #[case::largest("lt-r-18446744073709551615", &[u64::MAX])]
    #[case::too_large("lt-r-18446744073709551616", &[])]
    #[case::side_by_side("lt-r-lt-r-0000000001lt-r-0000000002", &[1, 2])]
    fn numbers_are_found(#[case] text: &str, #[case] expected: &[u64]) {
        assert_eq!(numbers(text), expected);
    }

    #[test]
    fn a_self_overlapping_prefix_is_found() {
        let text = b"lt-x-lt-x-lt-0000000003";
        assert_eq!(Scanner::new(&id_prefix("x-lt")).numbers(text).collect::<Vec<_>>(), [3]);
    }

    /// Looks at each place for itself.
    fn slowly(prefix: &str, bytes: &[u8]) -> Vec<u64> {
        let at = |place: usize| {
            let rest = bytes[place..].strip_prefix(prefix.as_bytes())?;
            let digits: String = rest.iter().take(20).map(|byte| char::from(*byte)).collect();
            let digits = digits.split(|digit: char| !digit.is_ascii_digit()).next().filter(|text| text.len() >= 10)?;
            digits.parse().ok()
        };
        (0..bytes.len()).filter_map(at).collect()
    }

    proptest! {
        #[test]
        fn the_scanner_finds_the_same_as_a_naive_search(
            run in "[lt-]{1,3}", pieces in prop::collection::vec("(lt|-|0|00000000000|99999999999999|x){0,6}", 0..12),
            ids in prop::collection::vec(any::<u32>(), 12),
        ) {
            let prefix = id_prefix(&run);
            let mut text = String::new();
            for (piece, number) in pieces.iter().zip(ids) {
                text.push_str(piece);
                text.push_str(&id(&prefix, number.into()));
            }
            let found: Vec<u64> = Scanner::new(&prefix).numbers(text.as_bytes()).collect();
            prop_assert_eq!(found, slowly(&prefix, text.as_bytes()));
        }
    }
}
