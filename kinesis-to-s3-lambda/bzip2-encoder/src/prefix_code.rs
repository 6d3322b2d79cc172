//! Prefix codes after Huffman, none longer than the format's decoders take.

use crate::bits::BitWriter;

/// Symbols of the largest alphabet: all 256 bytes, another digit of runs, and the end.
pub(crate) const MAX_SYMBOLS: usize = 258;
/// Decoders take 20 bits; libbz2 writes at most 17, and no more are needed.
const MAX_BITS: u8 = 17;

/// How many bits each symbol's code has.
pub(crate) type Lengths = [u8; MAX_SYMBOLS];

/// The lengths of the best code for symbols that occur so often. Each gets one, also if it does not occur.
pub(crate) fn lengths(frequencies: &[u32]) -> Lengths {
    // A symbol that does not occur could have a longer code, but lengths that differ cost more to write than that saves.
    let mut weights = [0; MAX_SYMBOLS];
    let weights = &mut weights[..frequencies.len()];
    weights.iter_mut().zip(frequencies).for_each(|(weight, frequency)| *weight = (*frequency).max(1));
    loop {
        let (lengths, longest) = unlimited_lengths(weights);
        if longest <= MAX_BITS {
            return lengths;
        }
        // With weights that differ less, codes differ less in length.
        weights.iter_mut().for_each(|weight| *weight = *weight / 2 + 1);
    }
}

/// Huffman's lengths, and the longest of them.
///
/// Nodes are merged from two queues, the symbols by weight and the merged nodes, which come in order of weight by
/// themselves.
fn unlimited_lengths(weights: &[u32]) -> (Lengths, u8) {
    let symbols = weights.len();
    // Of equally heavy symbols the last gets the longer code: lengths that grow with the symbols are cheap to write.
    let mut queue = [0u64; MAX_SYMBOLS];
    for (place, (symbol, weight)) in weights.iter().enumerate().rev().enumerate() {
        queue[place] = u64::from(*weight) << 32 | (place << 16 | symbol) as u64;
    }
    let queue = &mut queue[..symbols];
    queue.sort_unstable();
    let mut nodes = [0u32; 2 * MAX_SYMBOLS];
    let mut parents = [0u16; 2 * MAX_SYMBOLS];
    let root = 2 * symbols - 2;
    let (mut next_symbol, mut next_merged) = (0, symbols);
    for node in symbols..=root {
        for _ in 0..2 {
            let lightest = match queue.get(next_symbol) {
                Some(symbol) if next_merged == node || (symbol >> 32) as u32 <= nodes[next_merged] => {
                    next_symbol += 1;
                    nodes[node] += (symbol >> 32) as u32;
                    usize::from(*symbol as u16)
                }
                _ => {
                    nodes[node] += nodes[next_merged];
                    next_merged += 1;
                    next_merged - 1
                }
            };
            parents[lightest] = node as u16;
        }
    }
    depths(&parents, symbols, root)
}

fn depths(parents: &[u16; 2 * MAX_SYMBOLS], symbols: usize, root: usize) -> (Lengths, u8) {
    let mut depths = [0u8; 2 * MAX_SYMBOLS];
    for node in (0..root).rev().filter(|node| *node >= symbols) {
        depths[node] = depths[usize::from(parents[node])] + 1;
    }
    let mut lengths = [0; MAX_SYMBOLS];
    for symbol in 0..symbols {
        lengths[symbol] = depths[usize::from(parents[symbol])] + 1;
    }
    (lengths, lengths.iter().copied().max().unwrap_or(0))
}

/// The codes to lengths: shorter ones first, equally long ones in the order of their symbols.
pub(crate) fn codes(lengths: &Lengths, symbols: usize) -> [u32; MAX_SYMBOLS] {
    let mut codes = [0; MAX_SYMBOLS];
    let mut next = 0;
    for bits in 1..=MAX_BITS {
        for symbol in (0..symbols).filter(|symbol| lengths[*symbol] == bits) {
            codes[symbol] = next;
            next += 1;
        }
        next <<= 1;
    }
    codes
}

/// Writes lengths: the first, and from each to the next a `10` for one more, a `11` for one less, then a 0.
pub(crate) fn write_lengths(lengths: &[u8], out: &mut BitWriter) {
    let mut current = lengths[0];
    out.write(5, u32::from(current));
    for &length in lengths {
        for _ in current..length {
            out.write(2, 0b10);
        }
        for _ in length..current {
            out.write(2, 0b11);
        }
        out.write(1, 0);
        current = length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The weight of the best tree, by always merging the two lightest.
    fn best(frequencies: &[u32]) -> u64 {
        let mut nodes: Vec<u64> = frequencies.iter().map(|frequency| u64::from(*frequency)).collect();
        let mut total = 0;
        while nodes.len() > 1 {
            nodes.sort_unstable_by(|one, other| other.cmp(one));
            let merged = nodes.pop().unwrap() + nodes.pop().unwrap();
            total += merged;
            nodes.push(merged);
        }
        total
    }

    #[test]
    fn no_code_is_too_long() {
        // Fibonacci's numbers make the deepest trees.
        let mut frequencies = vec![1u32, 1];
        while frequencies.len() < 30 {
            frequencies.push(frequencies[frequencies.len() - 1] + frequencies[frequencies.len() - 2]);
        }
        let lengths = lengths(&frequencies);
        assert!(lengths.iter().all(|length| *length <= MAX_BITS));
        assert!(kraft(&lengths, 30) <= 1 << MAX_BITS);
    }

    /// The share of all codes that these lengths take, in units of the shortest possible one.
    fn kraft(lengths: &Lengths, symbols: usize) -> u64 {
        lengths[..symbols].iter().map(|length| 1u64 << (MAX_BITS - length)).sum()
    }

    proptest! {
        #[test]
        fn codes_are_as_short_as_any(frequencies in prop::collection::vec(1u32..1_000, 3..=MAX_SYMBOLS)) {
            let lengths = lengths(&frequencies);
            prop_assert_eq!(kraft(&lengths, frequencies.len()), 1 << MAX_BITS);
            let total: u64 = frequencies.iter().zip(lengths).map(|(frequency, length)| u64::from(*frequency) * u64::from(length)).sum();
            prop_assert_eq!(total, best(&frequencies));
        }

        #[test]
        fn no_code_begins_another(frequencies in prop::collection::vec(0u32..50, 3..40)) {
            let lengths = lengths(&frequencies);
            let codes = codes(&lengths, frequencies.len());
            let texts: Vec<String> = (0..frequencies.len())
                .map(|symbol| format!("{:0width$b}", codes[symbol], width = usize::from(lengths[symbol]))).collect();
            for (place, text) in texts.iter().enumerate() {
                for (other_place, other) in texts.iter().enumerate() {
                    prop_assert!(place == other_place || !other.starts_with(text), "{} {}", text, other);
                }
            }
        }
    }
}
