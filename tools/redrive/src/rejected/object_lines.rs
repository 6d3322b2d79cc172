//! The lines of a landed object, one at a time: memory holds the compressed bytes and one line.

use std::io::{BufRead, BufReader, Read};

use anyhow::ensure;
use bzip2::read::MultiBzDecoder;
use sha2::{Digest, Sha256};
use shared::limits::{MAX_OBJECT_BYTES, MAX_OBJECT_LINE_BYTES};

/// Hands on each line of a compressed object without its line feed, with its number from 1.
///
/// # Errors
///
/// When the object does not decompress, or is larger than what lands; and the first error of `see`.
pub(crate) fn for_each_line(
    compressed: &[u8],
    mut visit: impl FnMut(usize, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut reader = BufReader::new(MultiBzDecoder::new(compressed));
    let (mut line, mut bytes) = (Vec::new(), 0);
    for number in 1.. {
        line.clear();
        let read = reader.by_ref().take(MAX_OBJECT_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
        bytes += read as u64;
        if read == 0 {
            break;
        }
        ensure!(bytes <= MAX_OBJECT_BYTES, "it holds more than {MAX_OBJECT_BYTES} bytes");
        ensure!(read <= MAX_OBJECT_LINE_BYTES, "line {number} is longer than {MAX_OBJECT_LINE_BYTES} bytes");
        visit(number, line.strip_suffix(b"\n").unwrap_or(&line))?;
    }
    Ok(())
}

/// Identifies a line where many are remembered: half of its SHA-256.
pub(crate) fn fingerprint(line: &[u8]) -> u128 {
    let hash: [u8; 32] = Sha256::digest(line).into();
    hash.iter().take(16).fold(0, |print, byte| print << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejected::line::tests::compressed;

    fn lines_of(text: &str) -> anyhow::Result<usize> {
        let mut lines = 0;
        for_each_line(&compressed(text.as_bytes()), |_, _| {
            lines += 1;
            Ok(())
        })?;
        Ok(lines)
    }

    #[test]
    fn a_line_at_the_limit_is_good_and_one_byte_more_is_not() {
        assert_eq!(lines_of(&format!("{}\n{{}}\n", "x".repeat(MAX_OBJECT_LINE_BYTES - 1))).unwrap(), 2);
        assert!(lines_of(&format!("{}\n", "x".repeat(MAX_OBJECT_LINE_BYTES))).is_err());
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let whole = compressed(b"{}\n{}\n");
        assert!(for_each_line(&whole[..whole.len() - 5], |_, _| Ok(())).is_err());
    }
}
