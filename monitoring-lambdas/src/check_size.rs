//! check-size: is a partition that was just sealed as large as it should be, and not too much of it rejected?
//!
//! It reads `_SUCCESS` objects and nothing else: that of the partition, of the day before and of the same weekday of eight
//! weeks: at most ten GETs, and one `PutMetricData`. At 25 partitions a day that is 250 GETs and 25 puts.
//!
//! A partition that breaks a rule becomes an ERROR line and a metric, and the invocation succeeds: a retry would find the
//! same. An event that comes twice puts the same values at the same time again: alarms and charts take the maximum, the
//! minimum or the average, never the sum.

mod explanation;

use lambda_runtime::Context;
use lambda_setup::environment::{self, EnvironmentError};
use shared::metric::Metric;
use shared::rejection::Reason;
use shared::timestamp::UnixMillis;

use crate::cloudwatch::{Datum, Metrics, MetricsError};
use crate::manifest::Totals;
use crate::rules::partition::Partition;
use crate::rules::rejected::Lines;
use crate::rules::robust::Seasonal;
use crate::rules::size::{self, Limits, Measured, Outcome, Rule, Sizes};
use crate::success::{self, SuccessError};
use lambda_setup::bucket::Bucket;
use lambda_setup::event::{Created, EventError, S3Event};

/// Why a partition was not checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckSizeError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Success(#[from] SuccessError),
    #[error("S3 sent an event of {key}, which is not there")]
    Gone { key: String },
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// The limits from the environment.
///
/// # Errors
///
/// A variable that has no value in its range.
pub fn limits() -> Result<Limits, EnvironmentError> {
    let shipped = Limits::SHIPPED;
    Ok(Limits {
        minimum_date_bytes: environment::number("MINIMUM_DATE_BYTES", shipped.minimum_date_bytes, 0..=u64::MAX)?,
        minimum_hour_bytes: environment::number("MINIMUM_HOUR_BYTES", shipped.minimum_hour_bytes, 0..=u64::MAX)?,
        maximum_change_percent: environment::number(
            "MAXIMUM_CHANGE_PERCENT",
            shipped.maximum_change_percent,
            1.0..=1_000.0,
        )?,
        maximum_seasonal_score: environment::number(
            "MAXIMUM_SEASONAL_SCORE",
            shipped.maximum_seasonal_score,
            1.0..=1_000.0,
        )?,
        minimum_seasonal_percent: shipped.minimum_seasonal_percent,
        maximum_rejected_percent: environment::number(
            "MAXIMUM_REJECTED_PERCENT",
            shipped.maximum_rejected_percent,
            0.0..=100.0,
        )?,
    })
}

/// Checks partitions as they are sealed.
pub struct Handler<O, M> {
    open: O,
    metrics: M,
    limits: Limits,
}

/// A partition that was checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Checked {
    partition: Partition,
    sizes: Sizes,
    measured: Measured,
    lines: Lines,
    judged: Vec<(Rule, Outcome)>,
}

impl<B: Bucket, O: Fn(String) -> B, M: Metrics> Handler<O, M> {
    /// `open` gives the bucket of a name.
    pub fn new(open: O, metrics: M, limits: Limits) -> Self {
        Self { open, metrics, limits }
    }

    /// Checks each partition that the event names.
    ///
    /// # Errors
    ///
    /// When S3 or CloudWatch do not answer, or a `_SUCCESS` can't be read; not when a partition breaks a rule.
    pub async fn handle(&self, event: S3Event, context: Context) -> Result<(), CheckSizeError> {
        for created in event.created()? {
            match Partition::of_success_key(&created.key) {
                Some(partition) => self.check(partition, &created, &context.env_config.function_name).await?,
                None => tracing::warn!(key = created.key, "not the _SUCCESS of a partition: not checked"),
            }
        }
        Ok(())
    }

    async fn check(&self, partition: Partition, created: &Created, function_name: &str) -> Result<(), CheckSizeError> {
        let bucket = (self.open)(created.bucket.clone());
        let Some(success) = success::read(&bucket, partition).await? else {
            return Err(CheckSizeError::Gone { key: created.key.clone() });
        };
        let checked = compare(&bucket, partition, &success.totals, &self.limits).await?;
        // Before the metrics: the log must not wait for CloudWatch.
        self.log(&checked, &success.totals);
        let dimensions = vec![
            ("BucketName", created.bucket.clone()),
            ("Key", partition.pattern().to_owned()),
            ("FunctionName", function_name.to_owned()),
        ];
        Ok(self.metrics.put(&data(&checked, &success.totals, created.at, &dimensions)).await?)
    }

    fn log(&self, checked: &Checked, totals: &Totals) {
        let partition = checked.partition.text();
        for Found { rule, outcome, expected, actual } in checked.found(&self.limits) {
            match outcome {
                Outcome::Violation => {
                    tracing::error!(partition, ?rule, expected, actual, "the partition is not as it should be");
                }
                Outcome::Fine | Outcome::InsufficientHistory => {
                    tracing::info!(partition, ?rule, ?outcome, expected, actual, "size checked");
                }
            }
        }
        if checked.sizes.day_before.is_none() {
            tracing::info!(partition, "the day before is not sealed: no TotalFileSizeDifference");
        }
        tracing::info!(partition, bytes = totals.bytes, events = totals.events, rejected = totals.rejected, "checked");
    }
}

/// What a rule found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) rule: Rule,
    pub(crate) outcome: Outcome,
    pub(crate) expected: String,
    pub(crate) actual: String,
}

impl Checked {
    /// What each rule found, in words.
    pub(crate) fn found(&self, limits: &Limits) -> impl Iterator<Item = Found> {
        self.judged.iter().map(move |&(rule, outcome)| {
            let (expected, actual) = explanation::explain(rule, self, limits);
            Found { rule, outcome, expected, actual }
        })
    }
}

/// Compares a sealed partition with the day before and earlier weeks.
///
/// # Errors
///
/// When S3 does not answer.
pub(crate) async fn compare(
    bucket: &impl Bucket,
    partition: Partition,
    totals: &Totals,
    limits: &Limits,
) -> Result<Checked, SuccessError> {
    let sizes = sizes(bucket, partition, totals.bytes).await?;
    let measured = sizes.measure();
    let lines = Lines { events: totals.events, rejected: totals.rejected };
    let mut judged = measured.judge(limits.minimum_bytes(partition), limits).to_vec();
    judged.push((Rule::RejectedShare, lines.judge(limits.maximum_rejected_percent)));
    Ok(Checked { partition, sizes, measured, lines, judged })
}

/// The sizes that a partition is compared with. A `_SUCCESS` that can't be read counts as missing: a problem of one week
/// must not prevent the checks of the next eight.
async fn sizes(bucket: &impl Bucket, partition: Partition, bytes: u64) -> Result<Sizes, SuccessError> {
    let mut sizes =
        Sizes { bytes, day_before: size_of(bucket, size::day_before(partition)).await?, ..Sizes::default() };
    for (slot, earlier) in sizes.weeks_before.iter_mut().zip(size::weeks_before(partition)) {
        *slot = size_of(bucket, earlier).await?;
    }
    Ok(sizes)
}

async fn size_of(bucket: &impl Bucket, partition: Partition) -> Result<Option<u64>, SuccessError> {
    match success::read(bucket, partition).await {
        Ok(success) => Ok(success.map(|success| success.totals.bytes)),
        Err(error) if error.is_content() => {
            tracing::warn!(%error, "an earlier partition is left out of the comparison");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn values(checked: &Checked, totals: &Totals) -> Vec<(Metric, f64)> {
    let violations = checked.judged.iter().filter(|(_, outcome)| *outcome == Outcome::Violation).count();
    let mut values = vec![
        (Metric::TotalFileSize, totals.bytes as f64),
        (Metric::TotalEvents, totals.events as f64),
        (Metric::RejectedShare, checked.lines.percent(totals.rejected)),
        (Metric::SizeViolations, violations as f64),
    ];
    if let Some(day_before) = checked.sizes.day_before {
        values.push((Metric::TotalFileSizeDifference, totals.bytes as f64 - day_before as f64));
    }
    if let Seasonal::Score { score, .. } = checked.measured.seasonal {
        values.push((Metric::SeasonalScore, score));
    }
    values
}

/// The values, preceded by the share of each reason that occurred, under one more dimension. Reasons are a closed set, and so
/// are these metrics.
fn data(checked: &Checked, totals: &Totals, at: UnixMillis, dimensions: &[(&'static str, String)]) -> Vec<Datum> {
    let by_reason = totals.rejected_by_reason.iter().filter_map(|(name, count)| {
        let reason = Reason::parse(name)?.as_str().to_owned();
        let dimensions = [dimensions, &[("Reason", reason)]].concat();
        Some(Datum { metric: Metric::RejectedShare, value: checked.lines.percent(*count), at, dimensions })
    });
    let datum = |(metric, value)| Datum { metric, value, at, dimensions: dimensions.to_vec() };
    by_reason.chain(values(checked, totals).into_iter().map(datum)).collect()
}

#[cfg(test)]
mod tests;
