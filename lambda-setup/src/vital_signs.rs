//! What invocations say of their environment: whether it is a new one, the time that was left, the memory that was used.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use shared::metric::Metric;
use shared::timestamp::UnixMillis;

/// Linux's description of this process. <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>
const STATUS: &str = "/proc/self/status";

/// Bytes of it that are read; it has some 1,500, and the line that matters stands in the first half.
const STATUS_BYTES: usize = 2048;

/// How often an environment says them. To look takes some 20 µs, a tenth of a small request, and a line of metrics costs by
/// its length: at 100 million requests a day a hundred bytes in each are 5 USD. One value a second of each environment says
/// as much.
const LOOK_EVERY_MILLIS: i64 = 1_000;

/// The vital signs of an environment. There is one in each handler, for as long as the process lives.
#[derive(Debug)]
pub struct VitalSigns {
    /// Whether an invocation has been counted as the first.
    started: AtomicBool,
    /// Open all the time, to be read without a name to look up. `None` where there is none, on other systems than Linux.
    status: Option<File>,
    looked_at: AtomicI64,
}

impl VitalSigns {
    /// Those of this process.
    #[must_use]
    pub fn new() -> Self {
        Self { started: AtomicBool::new(false), status: File::open(STATUS).ok(), looked_at: AtomicI64::new(i64::MIN) }
    }

    /// What is to be said by an invocation that is done: `end_unix_ms` is when Lambda would have ended it. The first one that
    /// asks is the cold start. There is no peak of memory where the system does not say it.
    pub fn values(&self, end_unix_ms: u64, now: UnixMillis) -> impl Iterator<Item = (Metric, u64)> {
        let is_first = !self.started.swap(true, Ordering::Relaxed);
        let is_due = self.is_due(now);
        [
            is_due.then(|| (Metric::RemainingTime, remaining_millis(end_unix_ms, now))),
            is_due.then(|| self.look()).flatten().map(|bytes| (Metric::PeakMemory, bytes)),
            is_first.then_some((Metric::ColdStarts, 1)),
        ]
        .into_iter()
        .flatten()
    }

    fn is_due(&self, now: UnixMillis) -> bool {
        // A clock that was set back makes it due too.
        let since = now.0.saturating_sub(self.looked_at.load(Ordering::Relaxed));
        let is_due = !(0..LOOK_EVERY_MILLIS).contains(&since);
        if is_due {
            self.looked_at.store(now.0, Ordering::Relaxed);
        }
        is_due
    }

    fn look(&self) -> Option<u64> {
        let mut text = [0; STATUS_BYTES];
        let length = self.status.as_ref()?.read_at(&mut text, 0).ok()?;
        peak_of(&text[..length])
    }
}

impl Default for VitalSigns {
    fn default() -> Self {
        Self::new()
    }
}

fn remaining_millis(end_unix_ms: u64, now: UnixMillis) -> u64 {
    end_unix_ms.saturating_sub(u64::try_from(now.0).unwrap_or(0))
}

/// The line `VmHWM: 2044 kB`: the high-water mark of resident memory, in KiB whatever it says.
fn peak_of(status: &[u8]) -> Option<u64> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"VmHWM:"))?;
    let kibibytes = line.strip_suffix(b"kB")?.trim_ascii();
    std::str::from_utf8(kibibytes).ok()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn value(vital_signs: &VitalSigns, metric: Metric, now: i64) -> Option<u64> {
        vital_signs.values(0, UnixMillis(now)).find(|(found, _)| *found == metric).map(|(_, value)| value)
    }

    #[test]
    fn the_first_invocation_alone_is_a_cold_start() {
        let vital_signs = VitalSigns::new();
        let found = [0, 1, 1_000_000].map(|now| value(&vital_signs, Metric::ColdStarts, now));
        assert_eq!(found, [Some(1), None, None]);
        assert_eq!(value(&VitalSigns::new(), Metric::ColdStarts, 0), Some(1));
    }

    #[rstest]
    #[case(10_000, 7_500, 2_500)]
    #[case(10_000, 10_000, 0)]
    #[case(10_000, 10_001, 0)]
    #[case(10_000, -1, 10_000)]
    #[case(u64::MAX, 1, u64::MAX - 1)]
    fn what_is_left_never_falls_below_nothing(#[case] end: u64, #[case] now: i64, #[case] left: u64) {
        assert_eq!(remaining_millis(end, UnixMillis(now)), left);
    }

    #[rstest]
    #[case(b"Name:\tm\nVmPeak:\t    2956 kB\nVmHWM:\t    2044 kB\nVmRSS:\t 7 kB\n", Some(2_093_056))]
    #[case::cut_off_after_it(b"VmHWM:\t    2044 kB", Some(2_093_056))]
    #[case::cut_off_in_it(b"VmHWM:\t    20", None)]
    #[case::not_there(b"Name:\tm\nState:\tZ (zombie)\n", None)]
    #[case::no_number(b"VmHWM:\t x kB\n", None)]
    #[case::no_text(b"Name:\t\xff\nVmHWM:\t1 kB\n", Some(1024))]
    #[case::too_large(b"VmHWM:\t18446744073709551615 kB\n", None)]
    #[case::nothing(b"", None)]
    fn the_peak_is_read_from_its_line(#[case] status: &[u8], #[case] expected: Option<u64>) {
        assert_eq!(peak_of(status), expected);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_grows_with_what_is_used_and_is_looked_at_once_a_second() {
        const GROWTH: usize = 64 << 20;
        let vital_signs = VitalSigns::new();
        let peak = |now| value(&vital_signs, Metric::PeakMemory, now);
        let before = peak(5_000).unwrap();
        assert!(before > 500_000);
        drop(std::hint::black_box(vec![1u8; GROWTH]));
        assert_eq!(peak(5_999), None);
        let after = peak(6_000).unwrap();
        assert!(after >= before + GROWTH as u64 / 2, "{before} {after}");
        drop(std::hint::black_box(vec![1u8; 4 * GROWTH]));
        assert!(peak(4_000).unwrap() > after, "the clock was set back");
    }

    #[test]
    fn without_a_status_there_is_no_peak_and_all_else() {
        let vital_signs = VitalSigns { status: None, ..VitalSigns::new() };
        let found: Vec<Metric> = vital_signs.values(0, UnixMillis(0)).map(|(metric, _)| metric).collect();
        assert_eq!(found, [Metric::RemainingTime, Metric::ColdStarts]);
    }
}
