//! C's libbz2 alone, at its default level: the least that landing would cost with the usual library.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::implementation::existing;
use crate::measure::median;

/// What it costs to compress the lines of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Libbz2 {
    pub(crate) cpu_us: f64,
    pub(crate) compressed_bytes: u64,
}

impl Libbz2 {
    /// Runs the program of `reference/bzip2_floor.c`.
    pub(crate) async fn measure(reference: &Path, lines: &str, rounds: u32) -> anyhow::Result<Self> {
        let mut command = Command::new(existing(&reference.join("bin/bzip2_floor"))?);
        let mut child = command.arg(rounds.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child.stdin.take().context("no standard input")?.write_all(lines.as_bytes()).await?;
        let output = child.wait_with_output().await?;
        Self::parse(&String::from_utf8_lossy(&output.stdout)).context("bzip2_floor did not print two numbers")
    }

    fn parse(printed: &str) -> Option<Self> {
        let (nanoseconds, bytes) = printed.trim().split_once(' ')?;
        Some(Self { cpu_us: nanoseconds.parse::<f64>().ok()? / 1e3, compressed_bytes: bytes.parse().ok()? })
    }

    pub(crate) fn median(rounds: &[Self]) -> Option<Self> {
        let compressed_bytes = rounds.first()?.compressed_bytes;
        Some(Self { cpu_us: median(rounds, |round| round.cpu_us)?, compressed_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_prints_nanoseconds_and_bytes() {
        assert_eq!(Libbz2::parse("4639070 25147\n"), Some(Libbz2 { cpu_us: 4639.07, compressed_bytes: 25_147 }));
        assert_eq!(Libbz2::parse("4639070"), None);
        assert_eq!(Libbz2::parse("usage"), None);
    }
}
