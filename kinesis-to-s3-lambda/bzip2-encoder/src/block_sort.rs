//! The Burrows-Wheeler transform: the last column of the sorted rotations of a block.
//!
//! bzip2 sorts rotations, and suffix arrays sort suffixes. They agree on a text that is the least of its own rotations:
//! where one suffix begins another, the shorter one's rotation goes on with the whole text, which nothing is less than. So
//! the block is turned to its least rotation first; which rotations there are does not change by that.

use libsais::SuffixArrayConstruction;
use memchr::memchr;

/// A block could not be sorted.
#[derive(Debug, thiserror::Error)]
#[error("a block of {bytes} bytes could not be sorted: {reason}")]
pub struct SortError {
    bytes: usize,
    reason: String,
}

/// What is left of the sorted rotations.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sorted {
    pub(crate) last_column: Vec<u8>,
    /// The row in which the block itself stands; of several equal ones, any.
    pub(crate) original_row: u32,
}

/// Sorts the rotations of a block that is not empty.
pub(crate) fn sort(block: &[u8]) -> Result<Sorted, SortError> {
    let length = block.len();
    // With the block twice, each of its rotations is a slice.
    let twice = block.repeat(2);
    let start = least_rotation(&twice);
    let turned = &twice[start..start + length];
    let suffixes = SuffixArrayConstruction::for_text(turned).in_owned_buffer32().single_threaded().run();
    let suffixes = suffixes.map_err(|error| SortError { bytes: length, reason: format!("{error:?}") })?.into_vec();
    let original = (length - start) as i32 % length as i32;
    let row = suffixes.iter().position(|suffix| *suffix == original);
    let original_row =
        row.ok_or_else(|| SortError { bytes: length, reason: "the block is not among its rotations".into() })?;
    // The byte before a rotation is its last. Suffixes are places in the text, so never negative.
    let last = turned[length - 1];
    let last_column = suffixes.iter().map(|suffix| match suffix {
        0 => last,
        _ => turned[*suffix as usize - 1],
    });
    Ok(Sorted { last_column: last_column.collect(), original_row: original_row as u32 })
}

/// Where the least rotation of a block begins that is there twice. Two candidates run against each other; the one that turns
/// out greater is moved past all places that it has lost for, so that each byte is looked at a constant number of times. It
/// begins with the least byte, so that other places are passed over.
fn least_rotation(twice: &[u8]) -> usize {
    let block = &twice[..twice.len() / 2];
    let least = block.iter().copied().min().unwrap_or_default();
    let next = |from: usize| from + block.get(from..).and_then(|rest| memchr(least, rest)).unwrap_or(block.len());
    let mut one = next(0);
    let mut other = next(one + 1);
    while one.max(other) < block.len() {
        let equal = common_prefix(&twice[one..][..block.len()], &twice[other..][..block.len()]);
        if equal == block.len() {
            break;
        }
        if twice[one + equal] > twice[other + equal] {
            one = next(one + equal + 1);
        } else {
            other = next(other + equal + 1);
        }
        if one == other {
            other = next(other + 1);
        }
    }
    one.min(other)
}

fn common_prefix(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(left, right)| left == right).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition.
    fn by_comparison(block: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut rotations: Vec<Vec<u8>> =
            (0..block.len()).map(|start| [&block[start..], &block[..start]].concat()).collect();
        rotations.sort();
        (rotations.iter().map(|rotation| rotation[block.len() - 1]).collect(), rotations)
    }

    #[test]
    fn a_known_example() {
        let sorted = sort(b"banana").unwrap();
        assert_eq!((&sorted.last_column[..], sorted.original_row), (&b"nnbaaa"[..], 3));
    }

    proptest! {
        #[test]
        fn it_is_what_sorting_the_rotations_gives(block in prop_oneof![
            prop::collection::vec(any::<u8>(), 1..80),
            prop::collection::vec(0u8..2, 1..80),
            (prop::collection::vec(0u8..3, 1..6), 1usize..12).prop_map(|(unit, times)| unit.repeat(times)),
        ]) {
            let sorted = sort(&block)?;
            let (last_column, rotations) = by_comparison(&block);
            prop_assert_eq!(sorted.last_column, last_column);
            prop_assert_eq!(&rotations[sorted.original_row as usize], &block);
        }
    }
}
