//! The main numbers of a run, in the order in which the report and the comparison show them.

use super::quantity::Quantity;
use crate::result::{Distribution, Events, Generator, Posts, RunResult, Truth};

/// Numbers about one thing.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) numbers: Vec<Number>,
}

#[derive(Debug)]
pub(crate) struct Number {
    pub(crate) label: &'static str,
    pub(crate) value: f64,
    pub(crate) quantity: Quantity,
}

impl Number {
    pub(crate) fn show(&self) -> String {
        self.quantity.show(self.value)
    }
}

/// All numbers of a run; without a look at the bucket there are none of it.
pub(crate) fn groups(result: &RunResult) -> Vec<Group> {
    let seconds = result.plan.duration_seconds;
    let mut groups = vec![posts(&result.posts, seconds), events(&result.events, seconds)];
    groups.push(Group { title: "Latency, from the planned time", numbers: percentiles(&result.latency) });
    groups.push(Group { title: "Service time, from the real sending", numbers: percentiles(&result.service_time) });
    if let Some(truth) = &result.truth {
        groups.push(landed(truth));
        groups.push(Group { title: "End to end, planned to landed", numbers: percentiles(&truth.end_to_end) });
    }
    groups.push(generator(&result.generator));
    groups
}

/// Counts of a run are far below 2^53.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

fn number(label: &'static str, value: u64, quantity: Quantity) -> Number {
    Number { label, value: float(value), quantity }
}

fn count(label: &'static str, value: u64) -> Number {
    number(label, value, Quantity::Count)
}

fn per_second(label: &'static str, value: u64, seconds: f64) -> Number {
    let mut number = number(label, value, Quantity::Rate);
    number.value /= seconds.max(f64::MIN_POSITIVE);
    number
}

fn posts(posts: &Posts, seconds: f64) -> Group {
    let mut share = number("error share", posts.errors(), Quantity::Share);
    share.value /= number("", posts.planned.max(1), Quantity::Count).value;
    let numbers = vec![
        count("planned", posts.planned),
        count("answered as expected", posts.as_expected),
        count("errors", posts.errors()),
        share,
        per_second("as expected, a second", posts.as_expected, seconds),
    ];
    Group { title: "POSTs", numbers }
}

fn events(events: &Events, seconds: f64) -> Group {
    let numbers = vec![
        count("sent", events.sent),
        count("accepted", events.accepted),
        count("rejected, bad on purpose", events.rejected),
        count("not stored", events.not_stored),
        count("unknown", events.unknown),
        per_second("accepted, a second", events.accepted, seconds),
        number("bytes of bodies", events.body_bytes, Quantity::Bytes),
    ];
    Group { title: "Events", numbers }
}

fn percentiles(times: &Distribution) -> Vec<Number> {
    let time = |label, micros| number(label, micros, Quantity::Time);
    vec![
        time("p50", times.p50_us),
        time("p90", times.p90_us),
        time("p95", times.p95_us),
        time("p99", times.p99_us),
        time("p99.9", times.p99_9_us),
        time("p99.99", times.p99_99_us),
        time("max", times.max_us),
    ]
}

fn landed(truth: &Truth) -> Group {
    let waited = Number { label: "waited", value: truth.waited_seconds, quantity: Quantity::Seconds };
    let numbers = vec![
        count("expected", truth.expected),
        count("landed", truth.landed),
        count("missing", truth.missing),
        count("doubled", truth.doubled),
        count("misplaced", truth.misplaced),
        count("landed unannounced", truth.landed_unknown),
        count("files", truth.files),
        number("compressed", truth.compressed_bytes, Quantity::Bytes),
        number("uncompressed", truth.uncompressed_bytes, Quantity::Bytes),
        waited,
    ];
    Group { title: "Landed, by each id", numbers }
}

fn generator(generator: &Generator) -> Group {
    let numbers = vec![
        number("lag p99", generator.lag.p99_us, Quantity::Time),
        number("lag max", generator.lag.max_us, Quantity::Time),
        Number { label: "CPU", value: generator.cores_used, quantity: Quantity::Cores },
        Number { label: "waited for a CPU", value: generator.run_queue_seconds, quantity: Quantity::Seconds },
        number("peak memory", generator.peak_rss_bytes, Quantity::Bytes),
        count("connections opened", generator.connections_opened),
        count("POSTs held back", generator.held_back),
    ];
    Group { title: "Generator", numbers }
}
