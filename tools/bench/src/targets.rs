//! What the functions are held to: ratios, where times depend on the machine.

use std::fmt;

use crate::implementation::Implementation::{Python, Rust};
use crate::results::Row;
use crate::targets::Bound::{AtLeast, AtMost};
use crate::workload::Workload;

/// A target, and what was measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    /// The title of what was measured.
    pub(crate) of: String,
    pub(crate) what: &'static str,
    pub(crate) bound: Bound,
    pub(crate) measured: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl fmt::Display for Bound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(out, "at least {bound}"),
            Self::AtMost(bound) => write!(out, "at most {bound}"),
        }
    }
}

impl Target {
    /// NaN meets nothing.
    pub(crate) fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.measured >= bound,
            Bound::AtMost(bound) => self.measured <= bound,
        }
    }
}

/// The number that a target is about; `None` where it was not measured.
type Measured = fn(&Row) -> Option<f64>;

fn rules(workload: Workload) -> Vec<(&'static str, Bound, Measured)> {
    let start: [(&str, Bound, Measured); 4] = [
        ("start-up, ms", AtMost(15.0), |row| Some(row.cost(Rust)?.start_up_ms)),
        ("Python's start-up, divided by ours", AtLeast(30.0), |row| {
            Some(row.cost(Python)?.start_up_ms / row.cost(Rust)?.start_up_ms)
        }),
        ("first answer, ms", AtMost(10.0), |row| Some(row.cost(Rust)?.first_answer_ms)),
        ("peak memory, MiB", AtMost(12.0), |row| Some(row.cost(Rust)?.peak_rss_mib)),
    ];
    let python: (&str, Bound, Measured) = ("Python's CPU time, divided by ours", AtLeast(4.0), |row| {
        Some(row.cost(Python)?.cpu_us / row.cost(Rust)?.cpu_us)
    });
    let libbz2: [(&str, Bound, Measured); 2] = [
        ("our CPU time, divided by libbz2's alone", AtMost(1.0), |row| {
            Some(row.cost(Rust)?.cpu_us / row.libbz2?.cpu_us)
        }),
        ("our file's bytes, divided by libbz2's", AtMost(1.01), |row| {
            Some(row.cost(Rust)?.stored_bytes / row.libbz2?.compressed_bytes as f64)
        }),
    ];
    match workload {
        Workload::IngestOne => [&[python], &start[..]].concat(),
        Workload::IngestTwenty => vec![python],
        Workload::LandingSmall => [&libbz2, &start[..]].concat(),
        Workload::LandingLarge | Workload::LandingSmallFrames | Workload::LandingFrames => libbz2.to_vec(),
    }
}

/// The targets of which the rows say something.
pub(crate) fn targets(rows: &[Row]) -> Vec<Target> {
    rows.iter().flat_map(targets_of).collect()
}

fn targets_of(row: &Row) -> Vec<Target> {
    let target = |(what, bound, measured): (&'static str, Bound, Measured)| {
        Some(Target { of: row.workload.title().into(), what, bound, measured: measured(row)? })
    };
    rules(row.workload).into_iter().filter_map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::implementation::Implementation;
    use crate::libbz2::Libbz2;
    use crate::measure::Cost;
    use crate::workload::Workload::{IngestOne, IngestTwenty, LandingLarge};
    use rstest::rstest;

    #[rstest]
    #[case(Bound::AtLeast(10.0), 10.0, true)]
    #[case(Bound::AtLeast(10.0), 9.999, false)]
    #[case(Bound::AtMost(3.0), 3.0, true)]
    #[case(Bound::AtMost(3.0), 3.001, false)]
    #[case(Bound::AtMost(3.0), f64::NAN, false)]
    #[case(Bound::AtLeast(3.0), f64::NAN, false)]
    fn bounds_are_inclusive(#[case] bound: Bound, #[case] measured: f64, #[case] is_met: bool) {
        assert_eq!(Target { of: String::new(), what: "", bound, measured }.is_met(), is_met);
    }

    fn row(workload: Workload, cpu_us: &[(Implementation, f64)], libbz2: Option<Libbz2>) -> Row {
        let cost = |cpu_us: f64| Cost {
            start_up_ms: cpu_us / 10.0,
            first_answer_ms: 5.0,
            cpu_us,
            peak_rss_mib: 12.0,
            records: 1.0,
            stored_bytes: 1_000.0,
        };
        let costs = cpu_us.iter().map(|(implementation, cpu_us)| (*implementation, cost(*cpu_us))).collect();
        Row { workload, events: 1, input_bytes: 1, costs, spread_percent: 0.0, libbz2 }
    }

    fn missed(row: &Row) -> Vec<&'static str> {
        targets_of(row).into_iter().filter(|target| !target.is_met()).map(|target| target.what).collect()
    }

    #[test]
    fn a_ratio_just_beyond_its_bound_is_missed() {
        let ingest = |python| row(IngestTwenty, &[(Rust, 90.0), (Python, python)], None);
        assert_eq!(missed(&ingest(360.0)), [""; 0]);
        assert_eq!(missed(&ingest(359.0)), ["Python's CPU time, divided by ours"]);

        let landing =
            |cpu_us, compressed_bytes| row(LandingLarge, &[(Rust, 100.0)], Some(Libbz2 { cpu_us, compressed_bytes }));
        assert_eq!(missed(&landing(100.0, 1_000)), [""; 0]);
        assert_eq!(missed(&landing(99.9, 1_000)), ["our CPU time, divided by libbz2's alone"]);
        assert_eq!(missed(&landing(100.0, 990)), ["our file's bytes, divided by libbz2's"]);
    }

    #[test]
    fn what_was_not_measured_has_no_target() {
        assert_eq!(targets_of(&row(IngestOne, &[(Rust, 9.0)], None)).len(), 3);
        assert!(targets_of(&row(IngestOne, &[], None)).is_empty());
    }
}
