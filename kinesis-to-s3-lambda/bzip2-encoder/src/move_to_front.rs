//! The third layer: each byte becomes the number of other bytes since it was last there, and runs of zeros are written as
//! numbers. What was sorted is mostly zeros then.

use crate::bits::BitWriter;

/// The digits of a number of zeros, which has the digits 1 and 2 instead of 0 and 1.
const RUN_A: u16 = 0;
const RUN_B: u16 = 1;

/// Of a block.
#[derive(Debug)]
pub(crate) struct Symbols {
    /// Runs of zeros, then places from 2 on, then the mark of the end.
    pub(crate) symbols: Vec<u16>,
    /// Which bytes the block has.
    used: [bool; 256],
    /// Symbols that may occur: the bytes that are used, one more digit than places, and the end.
    pub(crate) alphabet_size: usize,
}

/// Encodes bytes of which there is at least one.
pub(crate) fn encode(bytes: &[u8]) -> Symbols {
    let used = used(bytes);
    let in_use: Vec<u8> = (0..=255).filter(|byte| used[usize::from(*byte)]).collect();
    let alphabet_size = in_use.len() + 2;
    let mut recent = Recent::new(&in_use);
    let mut symbols = Vec::with_capacity(bytes.len() / 2);
    let mut zeros = 0u32;
    for &byte in bytes {
        if byte == recent.first() {
            zeros += 1;
            continue;
        }
        write_zeros(&mut symbols, std::mem::take(&mut zeros));
        symbols.push(recent.bring_to_front(byte) + 1);
    }
    write_zeros(&mut symbols, zeros);
    // 257 at most.
    symbols.push(alphabet_size as u16 - 1);
    Symbols { symbols, used, alphabet_size }
}

fn used(bytes: &[u8]) -> [bool; 256] {
    let mut used = [false; 256];
    bytes.iter().for_each(|byte| used[usize::from(*byte)] = true);
    used
}

/// Bytes, the last used one first. Most are found among the first eight, which are searched and moved as one number: a loop
/// over them would end at another place each time, which processors are slow at.
struct Recent {
    /// The first eight, the first in the lowest bits.
    front: u64,
    rest: Vec<u8>,
}

const EACH_BYTE: u64 = 0x0101_0101_0101_0101;
const HIGHEST_BITS: u64 = 0x8080_8080_8080_8080;

impl Recent {
    fn new(bytes: &[u8]) -> Self {
        let (front, rest) = bytes.split_at(bytes.len().min(8));
        // Places that no byte has hold one that comes before them.
        let mut places = [bytes.first().copied().unwrap_or_default(); 8];
        places[..front.len()].copy_from_slice(front);
        Self { front: u64::from_le_bytes(places), rest: rest.to_vec() }
    }

    fn first(&self) -> u8 {
        self.front as u8
    }

    /// Moves a byte to the front; its place before.
    #[inline]
    fn bring_to_front(&mut self, byte: u8) -> u16 {
        let differing = self.front ^ (EACH_BYTE * u64::from(byte));
        // The lowest bit that is set is in the first byte that does not differ.
        let found = differing.wrapping_sub(EACH_BYTE) & !differing & HIGHEST_BITS;
        if found == 0 {
            return self.bring_from_rest(byte);
        }
        let bits = found.trailing_zeros() + 1;
        let moved = u64::MAX >> (64 - bits);
        self.front = self.front & !moved | self.front << 8 & moved | u64::from(byte);
        (bits / 8 - 1) as u16
    }

    fn bring_from_rest(&mut self, byte: u8) -> u16 {
        let mut moved = (self.front >> 56) as u8;
        self.front = self.front << 8 | u64::from(byte);
        let mut place = 0;
        while moved != byte {
            moved = std::mem::replace(&mut self.rest[place], moved);
            place += 1;
        }
        place as u16 + 7
    }
}

fn write_zeros(symbols: &mut Vec<u16>, mut zeros: u32) {
    while zeros > 0 {
        symbols.push(if zeros % 2 == 1 { RUN_A } else { RUN_B });
        zeros = (zeros - 1) / 2;
    }
}

impl Symbols {
    /// Writes which bytes there are: which sixteenths have any, then which of each of those.
    pub(crate) fn write_alphabet(&self, out: &mut BitWriter) {
        let is_any = |sixteenth: &[bool]| sixteenth.contains(&true);
        self.used.chunks(16).for_each(|sixteenth| out.write(1, u32::from(is_any(sixteenth))));
        for sixteenth in self.used.chunks(16).filter(|sixteenth| is_any(sixteenth)) {
            sixteenth.iter().for_each(|is_used| out.write(1, u32::from(*is_used)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case(b"a", &[0, 2])]
    #[case(b"aa", &[1, 2])]
    #[case(b"aaa", &[0, 0, 2])]
    #[case(b"aaaaaaa", &[0, 0, 0, 2])]
    #[case(b"ab", &[0, 2, 3])]
    #[case(b"cba", &[3, 3, 3, 4])]
    fn known_examples(#[case] bytes: &[u8], #[case] expected: &[u16]) {
        assert_eq!(encode(bytes).symbols, expected);
    }

    proptest! {
        #[test]
        fn it_can_be_undone(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..3], 1..300)) {
            let encoded = encode(&bytes);
            let mut recent: Vec<u8> = (0..=255).filter(|byte| bytes.contains(byte)).collect();
            prop_assert_eq!(encoded.alphabet_size, recent.len() + 2);
            let (mut decoded, mut zeros, mut digit) = (Vec::new(), 0, 1);
            for symbol in encoded.symbols {
                if symbol <= RUN_B {
                    zeros += digit * (usize::from(symbol) + 1);
                    digit *= 2;
                    continue;
                }
                decoded.extend(std::iter::repeat_n(recent[0], std::mem::take(&mut zeros)));
                digit = 1;
                if usize::from(symbol) <= recent.len() {
                    let byte = recent.remove(usize::from(symbol) - 1);
                    recent.insert(0, byte);
                    decoded.push(byte);
                }
            }
            prop_assert_eq!(decoded, bytes);
        }
    }
}
