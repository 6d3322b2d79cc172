//! Bits into bytes, the highest first.

/// Collects bits.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that make no 32 yet, in the lowest places.
    pending: u64,
    pending_bits: u32,
}

impl BitWriter {
    /// Appends the lowest `count` bits of `value`, at most 32; the others must be zero.
    #[inline]
    pub(crate) fn write(&mut self, count: u32, value: u32) {
        debug_assert!(count <= 32 && u64::from(value) < 1 << count);
        self.pending = self.pending << count | u64::from(value);
        self.pending_bits += count;
        if self.pending_bits >= 32 {
            self.pending_bits -= 32;
            let word = (self.pending >> self.pending_bits) as u32;
            self.bytes.extend_from_slice(&word.to_be_bytes());
        }
    }

    /// Appends one of the format's 48-bit marks.
    pub(crate) fn write_magic(&mut self, magic: u64) {
        self.write(24, (magic >> 24) as u32);
        self.write(24, (magic & 0xff_ffff) as u32);
    }

    pub(crate) fn write_bytes(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write(8, u32::from(*byte)));
    }

    /// All bytes; zeros fill the last.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let missing = (8 - self.pending_bits % 8) % 8;
        self.write(missing, 0);
        while self.pending_bits > 0 {
            self.pending_bits -= 8;
            self.bytes.push((self.pending >> self.pending_bits) as u8);
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_stand_in_order(pieces in prop::collection::vec((0u32..=32, any::<u32>()), 0..50)) {
            let mut writer = BitWriter::default();
            let mut expected = String::new();
            for (count, value) in pieces {
                let value = (u64::from(value) & ((1u64 << count) - 1)) as u32;
                writer.write(count, value);
                if count > 0 {
                    expected += &format!("{value:0width$b}", width = count as usize);
                }
            }
            let found: String = writer.finish().iter().map(|byte| format!("{byte:08b}")).collect();
            prop_assert_eq!(found.len(), expected.len().div_ceil(8) * 8);
            prop_assert!(found.starts_with(&expected) && !found[expected.len()..].contains('1'));
        }
    }
}
