//! What the functions are held to, as ratios where times depend on the machine.

use std::fmt;

use serde::Serialize;

use crate::functions::Subject;
use crate::measure::Cost;
use crate::rows::{Row, RowName};

/// A promise, and what was seen of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) bound: Bound,
    pub(crate) seen: f64,
    pub(crate) holds: bool,
    /// The numbers that `seen` comes from.
    pub(crate) from: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
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

impl Bar {
    /// A number that is none never holds.
    pub(crate) fn new(what: impl Into<String>, bound: Bound, seen: f64, from: impl Into<String>) -> Self {
        let holds = match bound {
            Bound::AtLeast(bound) => seen >= bound,
            Bound::AtMost(bound) => seen <= bound,
        };
        Self { what: what.into(), bound, seen, holds, from: from.into() }
    }

    pub(crate) fn verdict(&self) -> &'static str {
        if self.holds { "holds" } else { "missed" }
    }
}

const START_UP_MS: f64 = 15.0;
const START_UP_OF_PYTHON_S: f64 = 30.0;
const FIRST_ANSWER_MS: f64 = 5.0;
const PEAK_RSS_MIB: f64 = 12.0;

/// The bars that can be told from the rows: those about references only where these were measured.
pub(crate) fn bars(rows: &[Row]) -> Vec<Bar> {
    rows.iter().flat_map(bars_of).collect()
}

fn bars_of(row: &Row) -> Vec<Bar> {
    let Some(rust) = row.costs.get(&Subject::Rust) else { return Vec::new() };
    let python = row.costs.get(&Subject::Python);
    let empty = row.costs.get(&Subject::Empty);
    let title = row.name.title();
    let mut bars = Vec::new();
    match row.name {
        RowName::IngestOne => {
            bars.extend(python.map(|python| times_of_python(title, 10.0, rust, python)));
            bars.extend(empty.map(|empty| {
                let what = format!("{title}: CPU, of the empty handler's");
                let from = format!("{:.0} µs to {:.0} µs", rust.cpu_us, empty.cpu_us);
                Bar::new(what, Bound::AtMost(3.0), rust.cpu_us / empty.cpu_us, from)
            }));
            bars.extend(start_bars("ingest", rust, python));
        }
        RowName::IngestTwentyOfOneKey => {
            bars.extend(python.map(|python| times_of_python(title, 12.0, rust, python)));
            let from = "counted on the stream";
            bars.push(Bar::new(format!("{title}: records"), Bound::AtMost(1.0), rust.records, from));
        }
        RowName::IngestTwentyOfTwentyKeys => {}
        RowName::LandingHundred => {
            bars.extend(row.bzip2.iter().flat_map(|bzip2| {
                let compressed = bzip2.compressed_bytes as f64;
                let cpu = format!("{:.0} µs to {:.0} µs", rust.cpu_us, bzip2.cpu_us);
                let bytes = format!("{:.0} bytes to {compressed:.0}", rust.stored_bytes);
                [
                    Bar::new(
                        format!("{title}: CPU, of C bzip2 -9 alone"),
                        Bound::AtMost(0.85),
                        rust.cpu_us / bzip2.cpu_us,
                        cpu,
                    ),
                    Bar::new(
                        format!("{title}: bytes, of C bzip2 -9"),
                        Bound::AtMost(1.0),
                        rust.stored_bytes / compressed,
                        bytes,
                    ),
                ]
            }));
            bars.extend(start_bars("landing", rust, python));
        }
    }
    bars
}

fn times_of_python(title: &str, bound: f64, rust: &Cost, python: &Cost) -> Bar {
    let (ours, theirs) = (rust.invocations_per_cpu_second(), python.invocations_per_cpu_second());
    let what = format!("{title}: invocations a CPU second, of Python's");
    Bar::new(what, Bound::AtLeast(bound), ours / theirs, format!("{ours:.0} to {theirs:.0}"))
}

fn start_bars(function: &str, rust: &Cost, python: Option<&Cost>) -> Vec<Bar> {
    let mut bars = vec![Bar::new(
        format!("{function}: start-up, ms"),
        Bound::AtMost(START_UP_MS),
        rust.start_up_ms,
        "to the first request for work",
    )];
    bars.extend(python.map(|python| {
        let from = format!("{:.0} ms to {:.1} ms", python.start_up_ms, rust.start_up_ms);
        let times = python.start_up_ms / rust.start_up_ms;
        Bar::new(format!("{function}: Python's start-up, of ours"), Bound::AtLeast(START_UP_OF_PYTHON_S), times, from)
    }));
    let first_answer = format!("{function}: first answer, ms");
    bars.push(Bar::new(first_answer, Bound::AtMost(FIRST_ANSWER_MS), rust.first_answer_ms, "after start-up"));
    let peak = format!("{function}: peak memory, MiB");
    bars.push(Bar::new(peak, Bound::AtMost(PEAK_RSS_MIB), rust.peak_rss_mib, "resident, with the program"));
    bars
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::Floor;
    use rstest::rstest;

    #[rstest]
    #[case(Bound::AtLeast(10.0), 10.0, true)]
    #[case(Bound::AtLeast(10.0), 9.999, false)]
    #[case(Bound::AtMost(3.0), 3.0, true)]
    #[case(Bound::AtMost(3.0), 3.001, false)]
    #[case(Bound::AtMost(3.0), f64::NAN, false)]
    #[case(Bound::AtLeast(3.0), f64::NAN, false)]
    fn bounds_are_inside(#[case] bound: Bound, #[case] seen: f64, #[case] holds: bool) {
        assert_eq!(Bar::new("", bound, seen, "").holds, holds);
    }

    fn cost(cpu_us: f64) -> Cost {
        Cost {
            start_up_ms: cpu_us / 10.0,
            first_answer_ms: 5.0,
            cpu_us,
            invocations_per_second: 1.0,
            peak_rss_mib: 12.0,
            records: 1.0,
            stored_bytes: 1_000.0,
        }
    }

    fn row(name: RowName, costs: &[(Subject, f64)], bzip2: Option<Floor>) -> Row {
        let costs = costs.iter().map(|(subject, cpu_us)| (*subject, cost(*cpu_us))).collect();
        Row { name, events: 1, costs, bzip2 }
    }

    fn missed(row: &Row) -> Vec<String> {
        bars_of(row).into_iter().filter(|bar| !bar.holds).map(|bar| bar.what).collect()
    }

    #[test]
    fn a_bar_is_missed_just_beyond_its_ratio() {
        let ingest = |python, empty| {
            row(RowName::IngestOne, &[(Subject::Rust, 90.0), (Subject::Python, python), (Subject::Empty, empty)], None)
        };
        assert_eq!(missed(&ingest(2_700.0, 30.0)), [""; 0]);
        assert_eq!(missed(&ingest(2_699.0, 30.0)), ["ingest: Python's start-up, of ours"]);
        assert_eq!(missed(&ingest(2_700.0, 29.9)), ["ingest, 1 event: CPU, of the empty handler's"]);

        let landing = |cpu_us, compressed_bytes| {
            row(RowName::LandingHundred, &[(Subject::Rust, 85.0)], Some(Floor { cpu_us, compressed_bytes }))
        };
        assert_eq!(missed(&landing(100.0, 1_000)), [""; 0]);
        assert_eq!(missed(&landing(99.9, 1_000)), ["landing, 100 records of 400 bytes: CPU, of C bzip2 -9 alone"]);
        assert_eq!(missed(&landing(100.0, 999)), ["landing, 100 records of 400 bytes: bytes, of C bzip2 -9"]);
    }

    #[test]
    fn what_was_not_measured_has_no_bar() {
        assert_eq!(bars_of(&row(RowName::IngestOne, &[(Subject::Rust, 9.0)], None)).len(), 3);
        assert!(bars_of(&row(RowName::IngestOne, &[], None)).is_empty());
    }
}
