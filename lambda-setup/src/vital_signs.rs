//! What invocations say of their environment: whether it is a new one, the time that was left, the memory that was used.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::metric::Metric;
use shared::timestamp::UnixMillis;

/// Linux's description of this process. <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>
const STATUS: &str = "/proc/self/status";

/// Bytes of it that are read; it has some 1,500, and the line that matters stands in the first half.
const STATUS_BYTES: usize = 2048;

/// The vital signs of an environment. There is one in each handler, for as long as the process lives.
#[derive(Debug)]
pub struct VitalSigns {
    /// Whether the cold start has been counted.
    started: AtomicBool,
    /// Open all the time, to be read without a name to look up. `None` where there is none, on other systems than Linux.
    status: Option<File>,
}

impl VitalSigns {
    /// Those of this process.
    #[must_use]
    pub fn new() -> Self {
        Self { started: AtomicBool::new(false), status: File::open(STATUS).ok() }
    }

    /// The peak of memory, where the system says it, and for the first caller the cold start. To look takes some 20 µs.
    pub fn of_environment(&self) -> impl Iterator<Item = (Metric, u64)> {
        let is_first = !self.started.swap(true, Ordering::Relaxed);
        let peak = self.peak().map(|bytes| (Metric::PeakMemory, bytes));
        peak.into_iter().chain(is_first.then_some((Metric::ColdStarts, 1)))
    }

    fn peak(&self) -> Option<u64> {
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

/// The time that is left to an invocation which is done at `now` and which Lambda would have ended at `end_unix_ms`.
#[must_use]
pub fn remaining_time(end_unix_ms: u64, now: UnixMillis) -> (Metric, u64) {
    (Metric::RemainingTime, end_unix_ms.saturating_sub(u64::try_from(now.0).unwrap_or(0)))
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

    fn value(vital_signs: &VitalSigns, metric: Metric) -> Option<u64> {
        vital_signs.of_environment().find(|(found, _)| *found == metric).map(|(_, value)| value)
    }

    #[test]
    fn an_environment_has_one_cold_start() {
        let vital_signs = VitalSigns::new();
        assert_eq!([(); 3].map(|()| value(&vital_signs, Metric::ColdStarts)), [Some(1), None, None]);
        assert_eq!(value(&VitalSigns::new(), Metric::ColdStarts), Some(1));
    }

    #[rstest]
    #[case(10_000, 7_500, 2_500)]
    #[case(10_000, 10_000, 0)]
    #[case(10_000, 10_001, 0)]
    #[case(10_000, -1, 10_000)]
    #[case(u64::MAX, 1, u64::MAX - 1)]
    fn what_is_left_never_falls_below_nothing(#[case] end: u64, #[case] now: i64, #[case] left: u64) {
        assert_eq!(remaining_time(end, UnixMillis(now)), (Metric::RemainingTime, left));
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
    fn the_peak_grows_with_what_is_used() {
        const GROWTH: usize = 64 << 20;
        let vital_signs = VitalSigns::new();
        let before = value(&vital_signs, Metric::PeakMemory).unwrap();
        assert!(before > 500_000);
        drop(std::hint::black_box(vec![1u8; GROWTH]));
        let after = value(&vital_signs, Metric::PeakMemory).unwrap();
        assert!(after >= before + GROWTH as u64 / 2, "{before} {after}");
    }

    #[test]
    fn without_a_status_there_is_no_peak() {
        let vital_signs = VitalSigns { status: None, ..VitalSigns::new() };
        assert!(vital_signs.of_environment().eq([(Metric::ColdStarts, 1)]));
    }
}
