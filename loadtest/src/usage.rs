//! What the generator itself takes of the machine.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// Up to one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Of all threads, in the kernel too.
    pub(crate) cpu: Duration,
    /// How long threads were ready to run while others had the CPU; zero where the kernel does not say.
    pub(crate) run_queue: Duration,
    pub(crate) peak_rss_bytes: u64,
}

impl Usage {
    /// # Errors
    ///
    /// None on Linux.
    pub(crate) fn until_now() -> Result<Self, nix::Error> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let cpu = duration(usage.user_time()) + duration(usage.system_time());
        // Linux gives kilobytes: <https://man7.org/linux/man-pages/man2/getrusage.2.html>
        let peak_rss_bytes = u64::try_from(usage.max_rss()).unwrap_or_default() * 1024;
        Ok(Self { cpu, run_queue: run_queue(), peak_rss_bytes })
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            run_queue: self.run_queue.saturating_sub(before.run_queue),
            peak_rss_bytes: self.peak_rss_bytes,
        }
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
        let before = Usage::until_now().unwrap();
        let mut sum = 0_u64;
        while Usage::until_now().unwrap().since(&before).cpu < Duration::from_millis(5) {
            sum = std::hint::black_box((0..100_000_u64).fold(sum, u64::wrapping_add));
        }
        assert!(before.peak_rss_bytes > 100_000);
    }
}
