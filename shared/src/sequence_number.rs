//! Sequence numbers of Kinesis, as text.

use std::cmp::Ordering;

/// Compares sequence numbers, which are decimal numbers of any length.
#[must_use]
pub fn compare(one: &str, other: &str) -> Ordering {
    let (one, other) = (one.trim_start_matches('0'), other.trim_start_matches('0'));
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_by_value() {
        assert!(compare("9", "10").is_lt() && compare("010", "9").is_gt() && compare("7", "007").is_eq());
    }
}
