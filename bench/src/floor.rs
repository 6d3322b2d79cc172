//! bzip2 alone: the work that landing can't avoid.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use bzip2::Compression;
use bzip2::write::BzEncoder;
use shared::object::BlockSize;

/// Prints what compressing the lines costs at the fitted block size and at the largest, which is bzip2's default.
pub(crate) fn print(lines: &str, rounds: u32) -> anyhow::Result<()> {
    for (name, level) in [("bzip2 alone, fitted", BlockSize::fitting(lines.len()).units()), ("bzip2 alone, -9", 9)] {
        let before = cpu_time()?;
        let mut compressed = 0;
        for _ in 0..rounds {
            let mut encoder = BzEncoder::new(Vec::new(), Compression::new(level.into()));
            encoder.write_all(lines.as_bytes())?;
            compressed = encoder.finish()?.len();
        }
        let micros = (cpu_time()? - before).as_secs_f64() * 1e6 / f64::from(rounds);
        println!("{name:<22} {:>22} {micros:>13.0} µs   {} bytes to {compressed} at level {level}", "", lines.len());
    }
    Ok(())
}

/// The time of this thread on the CPU.
fn cpu_time() -> anyhow::Result<Duration> {
    let path = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(path).context(path)?;
    Ok(Duration::from_nanos(text.split_whitespace().next().context(path)?.parse()?))
}
