//! The main figures of runs as tables, with a column for each run: a report shows one, a comparison two.

use indicatif::{DecimalBytes, HumanFloatCount};

use crate::result::{Distribution, RunResult, STATISTICS, Statistic, Truth};

/// What a figure measures, and so how it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    Count,
    /// A second.
    Rate,
    /// Microseconds.
    Time,
    Seconds,
    Bytes,
    /// 1 is all.
    Share,
    /// CPU cores.
    Cores,
    /// One figure over another.
    Ratio,
}

impl Quantity {
    /// With its unit: `1,234`, `12.34 ms`, `4.56 MB`.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Count => HumanFloatCount(value.round()).to_string(),
            Self::Rate => format!("{:.1}/s", HumanFloatCount(value)),
            Self::Time if value >= 1e6 => four_digits(value / 1e6, "s"),
            Self::Time if value >= 1e3 => four_digits(value / 1e3, "ms"),
            Self::Time => four_digits(value, "µs"),
            Self::Seconds => four_digits(value, "s"),
            Self::Bytes => DecimalBytes(value as u64).to_string(),
            Self::Share => four_digits(value * 100.0, "%"),
            Self::Cores => four_digits(value, "cores"),
            Self::Ratio => format!("{value:.2}"),
        }
    }
}

/// Four significant digits; digits before the point are all kept.
fn four_digits(value: f64, unit: &str) -> String {
    let decimals = match value.abs() {
        1_000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        1.0.. => 3,
        _ => 4,
    };
    format!("{:.decimals$} {unit}", HumanFloatCount(value))
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) rows: Vec<Row>,
}

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) label: &'static str,
    /// One for each run.
    pub(crate) cells: Vec<String>,
    /// Of two runs: the second over the first, or that they differ.
    pub(crate) note: String,
}

impl Row {
    /// `None` if no run knows the figure.
    pub(crate) fn figure(label: &'static str, quantity: Quantity, values: &[Option<f64>]) -> Option<Self> {
        values.iter().flatten().next()?;
        let show = |value: &Option<f64>| value.map_or_else(|| "not known".to_owned(), |value| quantity.show(value));
        let note = match values {
            [Some(a), Some(b)] if *a != 0.0 => Quantity::Ratio.show(b / a),
            _ => String::new(),
        };
        Some(Self { label, cells: values.iter().map(show).collect(), note })
    }

    fn of_plan(label: &'static str, cells: Vec<String>) -> Self {
        let note = if cells.windows(2).all(|pair| pair[0] == pair[1]) { "" } else { DIFFERS };
        Self { label, cells, note: note.to_owned() }
    }

    pub(crate) fn differs(&self) -> bool {
        self.note == DIFFERS
    }
}

const DIFFERS: &str = "differs";

/// What was asked for.
pub(crate) fn plan(runs: &[&RunResult]) -> Table {
    let row = |label, cell: fn(&RunResult) -> String| Row::of_plan(label, runs.iter().map(|run| cell(run)).collect());
    let rows = vec![
        row("URL", |run| run.plan.url.clone()),
        row("workload", |run| run.plan.workload.clone()),
        row("rate", |run| format!("{} POSTs a second", run.plan.rate)),
        row("duration", |run| Quantity::Seconds.show(run.plan.duration_seconds)),
        row("protocol", |run| run.plan.protocol.clone()),
        row("connections", |run| format!("{} to {}", run.plan.connections, run.plan.max_connections)),
        row("seed", |run| run.plan.seed.to_string()),
    ];
    Table { title: "Asked", rows }
}

/// What was found, without tables of which no run knows anything.
pub(crate) fn results(runs: &[&RunResult]) -> Vec<Table> {
    let table = |title, figures: &[Figure]| Table {
        title,
        rows: figures.iter().filter_map(|(label, quantity, find)| row(runs, label, *quantity, find)).collect(),
    };
    let times = |title, find: FindTimes| {
        let row = |(label, statistic): &(&'static str, Statistic)| {
            row(runs, label, Quantity::Time, |run| find(run).map(statistic))
        };
        Table { title, rows: STATISTICS.iter().filter_map(row).collect() }
    };
    let mut tables = vec![
        table("POSTs", &POSTS),
        table("Events", &EVENTS),
        times("Latency, from the planned time", |run| Some(&run.latency)),
        times("Service time, from when it left", |run| Some(&run.service_time)),
        table("Landed, by each id", &LANDED),
        times("End to end, planned to landed", |run| run.truth.as_ref().map(|truth| &truth.end_to_end)),
        table("Generator", &GENERATOR),
    ];
    tables.retain(|table| !table.rows.is_empty());
    tables
}

fn row(
    runs: &[&RunResult],
    label: &'static str,
    quantity: Quantity,
    find: impl Fn(&RunResult) -> Option<f64>,
) -> Option<Row> {
    Row::figure(label, quantity, &runs.iter().map(|run| find(run)).collect::<Vec<_>>())
}

pub(crate) type Find = fn(&RunResult) -> Option<f64>;
pub(crate) type FindTimes = fn(&RunResult) -> Option<&Distribution>;
type Figure = (&'static str, Quantity, Find);

/// Counts of a run are far below 2^53.
fn known(count: u64) -> Option<f64> {
    Some(count as f64)
}

pub(crate) fn error_share(run: &RunResult) -> f64 {
    run.posts.errors() as f64 / run.posts.planned.max(1) as f64
}

fn a_second(run: &RunResult, count: u64) -> Option<f64> {
    Some(count as f64 / run.plan.duration_seconds)
}

fn truth(run: &RunResult, count: fn(&Truth) -> u64) -> Option<f64> {
    run.truth.as_ref().map(|truth| count(truth) as f64)
}

const POSTS: [Figure; 5] = [
    ("planned", Quantity::Count, |run| known(run.posts.planned)),
    ("answered as expected", Quantity::Count, |run| known(run.posts.as_expected)),
    ("errors", Quantity::Count, |run| known(run.posts.errors())),
    ("error share", Quantity::Share, |run| Some(error_share(run))),
    ("as expected, a second", Quantity::Rate, |run| a_second(run, run.posts.as_expected)),
];

const EVENTS: [Figure; 7] = [
    ("sent", Quantity::Count, |run| known(run.events.sent)),
    ("accepted", Quantity::Count, |run| known(run.events.accepted)),
    ("rejected, bad on purpose", Quantity::Count, |run| known(run.events.rejected)),
    ("not stored", Quantity::Count, |run| known(run.events.not_stored)),
    ("unknown", Quantity::Count, |run| known(run.events.unknown)),
    ("accepted, a second", Quantity::Rate, |run| a_second(run, run.events.accepted)),
    ("bytes of bodies", Quantity::Bytes, |run| known(run.events.body_bytes)),
];

const LANDED: [Figure; 10] = [
    ("expected", Quantity::Count, |run| truth(run, |truth| truth.expected)),
    ("landed", Quantity::Count, |run| truth(run, |truth| truth.landed)),
    ("missing", Quantity::Count, |run| truth(run, |truth| truth.missing)),
    ("doubled", Quantity::Count, |run| truth(run, |truth| truth.doubled)),
    ("misplaced", Quantity::Count, |run| truth(run, |truth| truth.misplaced)),
    ("landed unannounced", Quantity::Count, |run| truth(run, |truth| truth.landed_unknown)),
    ("files", Quantity::Count, |run| truth(run, |truth| truth.files)),
    ("compressed", Quantity::Bytes, |run| truth(run, |truth| truth.compressed_bytes)),
    ("uncompressed", Quantity::Bytes, |run| truth(run, |truth| truth.uncompressed_bytes)),
    ("waited", Quantity::Seconds, |run| run.truth.as_ref().map(|truth| truth.waited_seconds)),
];

const GENERATOR: [Figure; 7] = [
    ("lag p99", Quantity::Time, |run| known(run.generator.lag.p99_us)),
    ("lag max", Quantity::Time, |run| known(run.generator.lag.max_us)),
    ("CPU", Quantity::Cores, |run| Some(run.generator.cores_used)),
    ("waited for a CPU", Quantity::Seconds, |run| Some(run.generator.run_queue_seconds)),
    ("peak memory", Quantity::Bytes, |run| known(run.generator.peak_rss_bytes)),
    ("connections opened", Quantity::Count, |run| known(run.generator.connections_opened)),
    ("POSTs held back", Quantity::Count, |run| known(run.generator.held_back)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Quantity::Count, 0.0, "0")]
    #[case(Quantity::Count, 999.0, "999")]
    #[case(Quantity::Count, 1_000.0, "1,000")]
    #[case(Quantity::Count, 1_234_567.0, "1,234,567")]
    #[case(Quantity::Rate, 49.96, "50/s")]
    #[case(Quantity::Rate, 9_999.84, "9,999.8/s")]
    #[case(Quantity::Rate, 10_000.04, "10,000/s")]
    #[case(Quantity::Time, 0.0, "0 µs")]
    #[case(Quantity::Time, 999.0, "999 µs")]
    #[case(Quantity::Time, 1_000.0, "1 ms")]
    #[case(Quantity::Time, 12_345.0, "12.35 ms")]
    #[case(Quantity::Time, 1_500_000.0, "1.5 s")]
    #[case(Quantity::Bytes, 999.0, "999 B")]
    #[case(Quantity::Bytes, 4_560_000.0, "4.56 MB")]
    #[case(Quantity::Share, 0.001, "0.1 %")]
    #[case(Quantity::Share, 0.000_999, "0.0999 %")]
    #[case(Quantity::Share, 1.0, "100 %")]
    #[case(Quantity::Cores, 0.25, "0.25 cores")]
    #[case(Quantity::Seconds, 60.0, "60 s")]
    #[case(Quantity::Ratio, 1.5, "1.50")]
    fn values_are_shown_with_their_unit(#[case] quantity: Quantity, #[case] value: f64, #[case] expected: &str) {
        assert_eq!(quantity.show(value), expected);
    }
}
