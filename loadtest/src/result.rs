//! What a run found. It is written as JSON; the verdict, the report and the comparison read nothing else.

use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};

/// Everything about one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunResult {
    /// Of this format: 1.
    pub(crate) version: u32,
    pub(crate) plan: Plan,
    /// When the first POST was planned, in milliseconds since 1970.
    pub(crate) started_unix_ms: u64,
    pub(crate) posts: Posts,
    pub(crate) events: Events,
    /// From the planned time to the end of the answer: waiting for a connection or for the generator counts. A POST that
    /// timed out waited at least so long, and counts too; other POSTs without an answer don't.
    pub(crate) latency: Distribution,
    /// From the time at which the request really left. The difference from `latency` is what a closed loop would hide.
    pub(crate) service_time: Distribution,
    pub(crate) generator: Generator,
    /// One a second, from the first second on.
    pub(crate) seconds: Vec<Second>,
    /// `None` without access to the bucket.
    pub(crate) truth: Option<Truth>,
    /// The system's own metrics, as far as they could be had.
    pub(crate) system_metrics: Vec<MetricSeries>,
    pub(crate) verdict: Verdict,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) run_id: String,
    pub(crate) seed: u64,
    pub(crate) url: String,
    /// As on the command line, such as `1000` or `100..2000`: POSTs a second.
    pub(crate) rate: String,
    pub(crate) duration_seconds: f64,
    /// `HTTP/1.1` or `HTTP/2`.
    pub(crate) protocol: String,
    /// Connections that are open from the start, and how many there may be.
    pub(crate) connections: usize,
    pub(crate) max_connections: usize,
    /// In words: `players, 20 events a POST`, or `replay of session.jsonl at 10 times its speed`.
    pub(crate) workload: String,
}

/// POSTs by their outcome; they add up to `planned`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Posts {
    pub(crate) planned: u64,
    /// Answered as they should be: good ones with 200, bad ones with the 4xx that is theirs.
    pub(crate) as_expected: u64,
    /// Answered in another way; by status.
    pub(crate) unexpected: std::collections::BTreeMap<u16, u64>,
    /// Not answered; by what went wrong: `timeout`, `refused`, `reset` ...
    pub(crate) unanswered: std::collections::BTreeMap<String, u64>,
}

impl Posts {
    /// POSTs that did not get the answer that they should have got.
    pub(crate) fn errors(&self) -> u64 {
        self.unexpected.values().sum::<u64>() + self.unanswered.values().sum::<u64>()
    }
}

/// Events, and pieces of bad input, by what the answers said of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Events {
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    /// Bad on purpose, and told so.
    pub(crate) rejected: u64,
    /// Named in `not_stored` of a 503.
    pub(crate) not_stored: u64,
    /// Without an answer that says what became of them.
    pub(crate) unknown: u64,
    pub(crate) body_bytes: u64,
}

/// A distribution of times.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Distribution {
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p95_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p99_9_us: u64,
    pub(crate) p99_99_us: u64,
    pub(crate) max_us: u64,
    /// The highest time of each bucket and how many lie in it; three significant digits.
    pub(crate) buckets: Vec<(u64, u64)>,
}

impl Distribution {
    /// Of a histogram of microseconds.
    pub(crate) fn of<C: Counter>(histogram: &Histogram<C>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        let bucket = |step: hdrhistogram::iterators::IterationValue<C>| {
            (step.value_iterated_to(), step.count_at_value().as_u64())
        };
        Self {
            count: histogram.len(),
            mean_us: histogram.mean(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: histogram.max(),
            buckets: histogram.iter_recorded().map(bucket).collect(),
        }
    }
}

/// The generator itself: whether it may be believed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Generator {
    /// From the planned time to the moment at which the generator turned to the request. What it then waits for, such as a
    /// connection that is being opened, is the system's.
    pub(crate) lag: Distribution,
    pub(crate) cpu_seconds: f64,
    /// CPU seconds over the run's seconds: 1 is a whole core.
    pub(crate) cores_used: f64,
    /// How long it was ready to run while others had the CPU.
    pub(crate) run_queue_seconds: f64,
    pub(crate) peak_rss_bytes: u64,
    pub(crate) connections_opened: u64,
    /// POSTs that waited because there were already `max_connections`, all of them busy.
    pub(crate) held_back: u64,
}

/// One second of the run, by planned time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Second {
    pub(crate) planned: u64,
    /// Those that left in this second, whenever they were planned.
    pub(crate) sent: u64,
    /// Answers that came in this second.
    pub(crate) answered: u64,
    /// POSTs of this second that did not get the answer that they should have got.
    pub(crate) errors: u64,
    /// Events of this second's POSTs that were accepted.
    pub(crate) accepted_events: u64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p99_9_us: u64,
    pub(crate) max_us: u64,
    pub(crate) lag_p99_us: u64,
}

/// What is in the files, by each event's id.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Truth {
    /// Events and rejected pieces that the answers called stored.
    pub(crate) expected: u64,
    /// Different ones of this run that are in the files.
    pub(crate) landed: u64,
    /// Called stored, and in no file.
    pub(crate) missing: u64,
    /// In more than one line.
    pub(crate) doubled: u64,
    /// Landed without an answer that said so. Their POST was not answered, so both is right.
    pub(crate) landed_unknown: u64,
    /// Landed as an event though bad, or under `rejected/` though good.
    pub(crate) misplaced: u64,
    /// The first twenty ids of what is missing, doubled or misplaced, with the word.
    pub(crate) examples: Vec<String>,
    pub(crate) files: u64,
    pub(crate) compressed_bytes: u64,
    pub(crate) uncompressed_bytes: u64,
    /// From the planned time to when S3 says that the file was stored.
    pub(crate) end_to_end: Distribution,
    /// How exactly S3 says it: 1,000 where it gives whole seconds.
    pub(crate) resolution_ms: u64,
    /// Events landed by the end of each second from the start, cumulative.
    pub(crate) landed_by_second: Vec<u64>,
    /// How long after the last answer it was looked for.
    pub(crate) waited_seconds: f64,
}

/// A metric of the system.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MetricSeries {
    /// Such as `Playhead LandedEvents (kinesis-to-s3-lambda)`.
    pub(crate) name: String,
    /// `Sum`, `Maximum` ...
    pub(crate) statistic: String,
    /// Seconds since 1970 and the value.
    pub(crate) points: Vec<(u64, f64)>,
}

/// Whether the run shows what it was to show.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) thresholds: Vec<ThresholdOutcome>,
    /// Why the generator may not be believed; empty unless the outcome is `Invalid`.
    pub(crate) invalid_because: Vec<String>,
}

/// In the words that the command prints and that the JSON holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Outcome {
    Pass,
    Fail,
    /// The generator fell behind its plan: what was measured is not the system.
    Invalid,
}

/// One threshold and what was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ThresholdOutcome {
    /// As given: `p99<50ms`.
    pub(crate) threshold: String,
    /// As found, in the threshold's unit; `None` when it can't be known, which fails it.
    pub(crate) found: Option<String>,
    pub(crate) holds: bool,
}
