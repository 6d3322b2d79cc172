//! What the generator itself takes of the machine: whether it can be believed.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// Up to one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Taken {
    /// By all threads, in the kernel too.
    pub(crate) cpu: Duration,
    /// How long threads were ready to run while others had the CPU; zero where the kernel does not say.
    pub(crate) run_queue: Duration,
    pub(crate) peak_rss_bytes: u64,
}

impl Taken {
    /// # Errors
    ///
    /// None on Linux.
    pub(crate) fn until_now() -> Result<Self, nix::Error> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        Ok(Self { cpu: cpu(&usage), run_queue: run_queue(), peak_rss_bytes: peak_rss_bytes(&usage) })
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            run_queue: self.run_queue.saturating_sub(before.run_queue),
            peak_rss_bytes: self.peak_rss_bytes,
        }
    }
}

fn cpu(usage: &Usage) -> Duration {
    duration(usage.user_time()) + duration(usage.system_time())
}

fn duration(time: TimeVal) -> Duration {
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec())) + Duration::from_micros(part(time.tv_usec()))
}

/// Linux gives kilobytes: <https://man7.org/linux/man-pages/man2/getrusage.2.html>
fn peak_rss_bytes(usage: &Usage) -> u64 {
    u64::try_from(usage.max_rss()).unwrap_or_default() * 1024
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
    fn what_is_taken_grows_with_what_is_done() {
        let before = Taken::until_now().unwrap();
        let mut sum = 0_u64;
        while Taken::until_now().unwrap().since(&before).cpu < Duration::from_millis(5) {
            sum = std::hint::black_box((0..100_000_u64).fold(sum, u64::wrapping_add));
        }
        assert!(before.peak_rss_bytes > 100_000);
    }
}
