//! CPU and memory that the generator itself uses.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::result::Generator;

/// Up to one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Of all threads, in the kernel too.
    cpu: Duration,
    /// How long threads were ready to run while others had the CPU; zero where the kernel does not say.
    run_queue: Duration,
    peak_rss_bytes: u64,
}

impl Usage {
    pub(crate) fn until_now() -> Result<Self, nix::Error> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let cpu = duration(usage.user_time()) + duration(usage.system_time());
        // Linux gives kilobytes: <https://man7.org/linux/man-pages/man2/getrusage.2.html>
        let peak_rss_bytes = u64::try_from(usage.max_rss()).unwrap_or_default() * 1024;
        Ok(Self { cpu, run_queue: run_queue(), peak_rss_bytes })
    }

    /// Adds what was used from `before` until now, in that many seconds, to a result.
    pub(crate) fn report(&self, before: &Self, seconds: f64, generator: &mut Generator) {
        generator.cpu_seconds = self.cpu.saturating_sub(before.cpu).as_secs_f64();
        generator.cores_used = generator.cpu_seconds / seconds;
        generator.run_queue_seconds = self.run_queue.saturating_sub(before.run_queue).as_secs_f64();
        generator.peak_rss_bytes = self.peak_rss_bytes;
    }
}

fn duration(time: TimeVal) -> Duration {
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec())) + Duration::from_micros(part(time.tv_usec()))
}

/// The second number of `schedstat`, in nanoseconds: <https://docs.kernel.org/scheduler/sched-stats.html>
fn run_queue() -> Duration {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Duration::ZERO };
    let of_thread = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
    };
    threads.flatten().filter_map(|thread| of_thread(thread.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_grows_with_what_is_done() {
        let (before, mut used, mut sum) = (Usage::until_now().unwrap(), Generator::default(), 0_u64);
        while used.cpu_seconds < 0.005 {
            sum = std::hint::black_box((0..100_000_u64).fold(sum, u64::wrapping_add));
            Usage::until_now().unwrap().report(&before, 0.1, &mut used);
        }
        assert!(used.peak_rss_bytes > 100_000 && used.cores_used > 0.04);
    }
}
