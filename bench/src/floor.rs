//! bzip2 alone, in C at its default level: the work that landing would not get below with the usual library.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::measure::median;

/// What compressing the lines of a job costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Floor {
    pub(crate) cpu_us: f64,
    pub(crate) compressed_bytes: u64,
}

impl Floor {
    pub(crate) fn median(of: &[Self]) -> Option<Self> {
        let compressed_bytes = of.first()?.compressed_bytes;
        Some(Self { cpu_us: median(of, |floor| floor.cpu_us)?, compressed_bytes })
    }
}

/// The lines in a file, for as long as this lives.
pub(crate) struct LinesFile {
    path: PathBuf,
}

impl LinesFile {
    pub(crate) fn new(lines: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("playhead-bench-{}.jsonl", std::process::id()));
        std::fs::write(&path, lines).with_context(|| path.display().to_string())?;
        Ok(Self { path })
    }
}

impl Drop for LinesFile {
    fn drop(&mut self) {
        if let Err(problem) = std::fs::remove_file(&self.path) {
            eprintln!("{} is left: {problem}", self.path.display());
        }
    }
}

/// Runs the C program of `reference/bzip2_floor.c`.
pub(crate) fn measure(reference: &Path, lines: &LinesFile, rounds: u32) -> anyhow::Result<Floor> {
    let program = reference.join("bin/bzip2_floor");
    let output = Command::new(&program)
        .arg(&lines.path)
        .arg(rounds.to_string())
        .output()
        .with_context(|| format!("{}; `make bench` builds it", program.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    }
    parse(&String::from_utf8_lossy(&output.stdout)).with_context(|| format!("{} printed nonsense", program.display()))
}

fn parse(printed: &str) -> Option<Floor> {
    let (nanoseconds, bytes) = printed.trim().split_once(' ')?;
    Some(Floor { cpu_us: nanoseconds.parse::<f64>().ok()? / 1e3, compressed_bytes: bytes.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_prints() {
        assert_eq!(parse("4639070 25147\n"), Some(Floor { cpu_us: 4639.07, compressed_bytes: 25_147 }));
        assert_eq!(parse("4639070"), None);
        assert_eq!(parse("usage"), None);
    }
}
