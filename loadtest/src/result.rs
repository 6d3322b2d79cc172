//! What a run found. It is written as JSON; the verdict, the report and the comparison read nothing else.

use std::collections::BTreeMap;
use std::process::ExitCode;

use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};
use shared::timestamp::UnixMillis;

/// Version of the format of all results.
pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RunResult {
    pub(crate) version: u32,
    pub(crate) plan: Plan,
    /// When the first POST was planned, in milliseconds since 1970.
    pub(crate) started_unix_ms: u64,
    pub(crate) posts: Posts,
    pub(crate) events: Events,
    /// From the planned time to the end of the answer, waiting for the generator or a connection included. A POST that timed
    /// out waited at least that long and counts too; other POSTs without an answer do not.
    pub(crate) latency: Distribution,
    /// From when the request left. A closed loop would hide what `latency` has beyond this.
    pub(crate) service_time: Distribution,
    pub(crate) generator: Generator,
    /// One a second, from the first second on.
    pub(crate) seconds: Vec<Second>,
    /// `None` without access to the bucket.
    pub(crate) truth: Option<Truth>,
    /// The system's own metrics, as far as they are known.
    pub(crate) system_metrics: Vec<MetricSeries>,
    pub(crate) verdict: Verdict,
}

impl RunResult {
    /// As RFC 3339 has it, in UTC.
    pub(crate) fn started(&self) -> String {
        UnixMillis(i64::try_from(self.started_unix_ms).unwrap_or(i64::MAX)).rfc3339()
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) run_id: String,
    pub(crate) seed: u64,
    pub(crate) url: String,
    /// POSTs a second, as on the command line: `1000` or `100..2000`.
    pub(crate) rate: String,
    pub(crate) duration_seconds: f64,
    /// `HTTP/1.1` or `HTTP/2`.
    pub(crate) protocol: String,
    /// Connections that are open from the start, and how many there may be.
    pub(crate) connections: u32,
    pub(crate) max_connections: u32,
    /// In words: `players, 20 events a POST`, or `replay of session.jsonl at 10 times its speed`.
    pub(crate) workload: String,
}

/// POSTs by outcome; they add up to `planned`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Posts {
    pub(crate) planned: u64,
    /// With the expected answer: 200, or for bad ones their own 4xx.
    pub(crate) as_expected: u64,
    /// With another answer, by status.
    pub(crate) unexpected: BTreeMap<u16, u64>,
    /// Without an answer, by what went wrong: `timeout`, `refused`, `reset` …
    pub(crate) unanswered: BTreeMap<String, u64>,
}

impl Posts {
    /// POSTs without the expected answer.
    pub(crate) fn errors(&self) -> u64 {
        self.unexpected.values().sum::<u64>() + self.unanswered.values().sum::<u64>()
    }
}

/// Events, and pieces of bad input, by what the answers said of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Events {
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    /// Bad on purpose.
    pub(crate) rejected: u64,
    /// Named in `not_stored` of a 503.
    pub(crate) not_stored: u64,
    /// Without an answer that says what became of them.
    pub(crate) unknown: u64,
    pub(crate) body_bytes: u64,
}

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
    /// The highest time of each bucket and how many are in it; three significant digits.
    pub(crate) buckets: Vec<(u64, u64)>,
}

impl<C: Counter> From<&Histogram<C>> for Distribution {
    /// Of a histogram of microseconds.
    fn from(histogram: &Histogram<C>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        let buckets = histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value().as_u64()));
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
            buckets: buckets.collect(),
        }
    }
}

pub(crate) type Statistic = fn(&Distribution) -> f64;

/// By the names that thresholds and tables have for them; all are microseconds.
pub(crate) const STATISTICS: [(&str, Statistic); 8] = [
    ("p50", |times| times.p50_us as f64),
    ("p90", |times| times.p90_us as f64),
    ("p95", |times| times.p95_us as f64),
    ("p99", |times| times.p99_us as f64),
    ("p99.9", |times| times.p99_9_us as f64),
    ("p99.99", |times| times.p99_99_us as f64),
    ("max", |times| times.max_us as f64),
    ("mean", |times| times.mean_us),
];

/// The generator itself: whether its numbers can be trusted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Generator {
    /// From the planned time until the generator turned to the request. What the request then waits for, such as a connection,
    /// is the system's.
    pub(crate) lag: Distribution,
    pub(crate) cpu_seconds: f64,
    /// CPU seconds over the run's seconds: 1 is a whole core.
    pub(crate) cores_used: f64,
    /// How long it was ready to run while others had the CPU.
    pub(crate) run_queue_seconds: f64,
    pub(crate) peak_rss_bytes: u64,
    pub(crate) connections_opened: u64,
    /// POSTs that waited because `max_connections` were open and busy.
    pub(crate) held_back: u64,
    /// POSTs that left after the end of the run, by more than the lag that is allowed.
    #[serde(default)]
    pub(crate) sent_after_end: u64,
}

/// One second of the run, by planned time unless said otherwise.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Second {
    pub(crate) planned: u64,
    /// POSTs that left in this second, whenever they were planned.
    pub(crate) sent: u64,
    /// Answers that came in this second.
    pub(crate) answered: u64,
    /// POSTs without the expected answer.
    pub(crate) errors: u64,
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
    /// Landed without an answer that said so: their POST was not answered, so either is right.
    pub(crate) landed_unknown: u64,
    /// Bad but landed as an event, or good but under `rejected/`.
    pub(crate) misplaced: u64,
    /// The first twenty ids that are missing, doubled or misplaced, with the word.
    pub(crate) examples: Vec<String>,
    pub(crate) files: u64,
    pub(crate) compressed_bytes: u64,
    pub(crate) uncompressed_bytes: u64,
    /// From the planned time until the file was stored, by S3's clock.
    pub(crate) end_to_end: Distribution,
    /// How exact S3's times are: 1,000 where it gives whole seconds.
    pub(crate) resolution_ms: u64,
    /// Events landed by the end of each second from the start, cumulative.
    pub(crate) landed_by_second: Vec<u64>,
    /// How long after the last answer the search went on.
    pub(crate) waited_seconds: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MetricSeries {
    /// Such as `Playhead LandedEvents (kinesis-to-s3-lambda)`.
    pub(crate) name: String,
    /// `Sum`, `Maximum` …
    pub(crate) statistic: String,
    /// As CloudWatch spells it; empty in results of older versions.
    #[serde(default)]
    pub(crate) unit: String,
    /// Seconds since 1970 and the value.
    pub(crate) points: Vec<(u64, f64)>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) thresholds: Vec<ThresholdOutcome>,
    /// Why the generator's numbers can't be trusted; empty unless the outcome is `Invalid`.
    pub(crate) invalid_because: Vec<String>,
}

impl Verdict {
    /// In a sentence.
    pub(crate) fn sentence(&self) -> String {
        let (all, broken) = (self.thresholds.len(), self.thresholds.iter().filter(|one| !one.holds).count());
        match self.outcome {
            Outcome::Pass if all == 0 => "No threshold was given.".into(),
            Outcome::Pass => "Every threshold holds.".into(),
            Outcome::Fail => format!("{broken} of {all} thresholds do not hold."),
            Outcome::Invalid => "The generator fell behind its plan: the numbers are not the system's.".into(),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
pub(crate) enum Outcome {
    Pass,
    #[default]
    Fail,
    /// The generator fell behind its plan: the numbers are not the system's.
    Invalid,
}

impl Outcome {
    pub(crate) fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::Invalid => 3,
        })
    }
}

/// One threshold and what was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ThresholdOutcome {
    /// As given: `p99<50ms`.
    pub(crate) threshold: String,
    /// `None` when it is not known, which fails the threshold.
    pub(crate) found: Option<String>,
    pub(crate) holds: bool,
}

impl ThresholdOutcome {
    /// For a terminal.
    pub(crate) fn line(&self) -> String {
        let holds = if self.holds { "holds" } else { "does not hold" };
        format!("{:<24}{:>14}  {holds}", self.threshold, self.found())
    }

    pub(crate) fn found(&self) -> &str {
        self.found.as_deref().unwrap_or("not known")
    }
}

#[cfg(test)]
pub(crate) mod tests;
