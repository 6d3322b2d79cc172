//! The main figures of a run, in the order in which the report and the comparison show them.

use crate::result::{Distribution, Events, Generator, Plan, Posts, RunResult, Truth};

/// What a figure is of, and so how it is shown.
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
            Self::Count => thousands(value.round()),
            Self::Rate => format!("{}/s", thousands((value * 10.0).round() / 10.0)),
            Self::Time => scaled(value, &[(1e6, "s"), (1e3, "ms")], "µs"),
            Self::Seconds => format!("{} s", significant(value)),
            Self::Bytes => scaled(value, &[(1e9, "GB"), (1e6, "MB"), (1e3, "kB")], "B"),
            Self::Share => format!("{} %", significant(value * 100.0)),
            Self::Cores => format!("{} cores", significant(value)),
            Self::Ratio => format!("{value:.2}"),
        }
    }
}

fn scaled(value: f64, scales: &[(f64, &str)], unit: &str) -> String {
    let (scale, unit) = *scales.iter().find(|(scale, _)| value >= *scale).unwrap_or(&(1.0, unit));
    format!("{} {unit}", significant(value / scale))
}

/// Four significant digits, without zeros at the end; digits before the point are all kept.
fn significant(value: f64) -> String {
    let digits = match value.abs() {
        1_000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        1.0.. => 3,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// With commas between thousands.
fn thousands(value: f64) -> String {
    let text = value.to_string();
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// Counts of a run are far below 2^53.
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// Figures about one thing.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) figures: Vec<Figure>,
}

#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) label: &'static str,
    /// `None` when it is not known.
    pub(crate) value: Option<f64>,
    quantity: Quantity,
}

impl Figure {
    pub(crate) fn new(label: &'static str, value: impl Into<Option<f64>>, quantity: Quantity) -> Self {
        Self { label, value: value.into(), quantity }
    }

    pub(crate) fn show(&self) -> String {
        self.value.map_or_else(|| "not known".to_owned(), |value| self.quantity.show(value))
    }
}

/// The same groups of every run.
pub(crate) fn groups(result: &RunResult) -> [Group; 7] {
    let (seconds, truth) = (result.plan.duration_seconds, result.truth.as_ref());
    [
        Group { title: "POSTs", figures: posts(&result.posts, seconds) },
        Group { title: "Events", figures: events(&result.events, seconds) },
        Group { title: "Latency, from the planned time", figures: percentiles(Some(&result.latency)) },
        Group { title: "Service time, from when it left", figures: percentiles(Some(&result.service_time)) },
        Group { title: "Landed, by each id", figures: landed(truth) },
        Group { title: "End to end, planned to landed", figures: percentiles(truth.map(|truth| &truth.end_to_end)) },
        Group { title: "Generator", figures: generator(&result.generator) },
    ]
}

fn posts(posts: &Posts, seconds: f64) -> Vec<Figure> {
    vec![
        count("planned", posts.planned),
        count("answered as expected", posts.as_expected),
        count("errors", posts.errors()),
        Figure::new("error share", float(posts.errors()) / float(posts.planned.max(1)), Quantity::Share),
        Figure::new("as expected, a second", float(posts.as_expected) / seconds, Quantity::Rate),
    ]
}

fn events(events: &Events, seconds: f64) -> Vec<Figure> {
    vec![
        count("sent", events.sent),
        count("accepted", events.accepted),
        count("rejected, bad on purpose", events.rejected),
        count("not stored", events.not_stored),
        count("unknown", events.unknown),
        Figure::new("accepted, a second", float(events.accepted) / seconds, Quantity::Rate),
        bytes("bytes of bodies", events.body_bytes),
    ]
}

fn percentiles(times: Option<&Distribution>) -> Vec<Figure> {
    let time = |label, us: fn(&Distribution) -> u64| time(label, times.map(us));
    vec![
        time("p50", |times| times.p50_us),
        time("p90", |times| times.p90_us),
        time("p95", |times| times.p95_us),
        time("p99", |times| times.p99_us),
        time("p99.9", |times| times.p99_9_us),
        time("p99.99", |times| times.p99_99_us),
        time("max", |times| times.max_us),
    ]
}

fn landed(truth: Option<&Truth>) -> Vec<Figure> {
    let count = |label, figure: fn(&Truth) -> u64| count(label, truth.map(figure));
    vec![
        count("expected", |truth| truth.expected),
        count("landed", |truth| truth.landed),
        count("missing", |truth| truth.missing),
        count("doubled", |truth| truth.doubled),
        count("misplaced", |truth| truth.misplaced),
        count("landed unannounced", |truth| truth.landed_unknown),
        count("files", |truth| truth.files),
        bytes("compressed", truth.map(|truth| truth.compressed_bytes)),
        bytes("uncompressed", truth.map(|truth| truth.uncompressed_bytes)),
        Figure::new("waited", truth.map(|truth| truth.waited_seconds), Quantity::Seconds),
    ]
}

fn generator(generator: &Generator) -> Vec<Figure> {
    vec![
        time("lag p99", generator.lag.p99_us),
        time("lag max", generator.lag.max_us),
        Figure::new("CPU", generator.cores_used, Quantity::Cores),
        Figure::new("waited for a CPU", generator.run_queue_seconds, Quantity::Seconds),
        bytes("peak memory", generator.peak_rss_bytes),
        count("connections opened", generator.connections_opened),
        count("POSTs held back", generator.held_back),
    ]
}

fn count(label: &'static str, count: impl Into<Option<u64>>) -> Figure {
    Figure::new(label, count.into().map(float), Quantity::Count)
}

fn bytes(label: &'static str, bytes: impl Into<Option<u64>>) -> Figure {
    Figure::new(label, bytes.into().map(float), Quantity::Bytes)
}

fn time(label: &'static str, us: impl Into<Option<u64>>) -> Figure {
    Figure::new(label, us.into().map(float), Quantity::Time)
}

/// What was asked for, each with its name.
pub(crate) fn asked(plan: &Plan) -> Vec<(&'static str, String)> {
    vec![
        ("URL", plan.url.clone()),
        ("workload", plan.workload.clone()),
        ("rate", format!("{} POSTs a second", plan.rate)),
        ("duration", Quantity::Seconds.show(plan.duration_seconds)),
        ("protocol", plan.protocol.clone()),
        ("connections", format!("{} to {}", plan.connections, plan.max_connections)),
        ("seed", plan.seed.to_string()),
    ]
}

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
