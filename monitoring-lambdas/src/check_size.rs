//! check-size: is a partition that was just sealed as large as it should be?
//!
//! It reads `_SUCCESS` objects and nothing else: that of the partition, of the day before and of the same weekday of eight
//! weeks: at most ten GETs, and one `PutMetricData`. At 25 partitions a day that is 250 GETs and 25 puts.
//!
//! A partition that breaks a rule is an ERROR line and a metric, and the invocation succeeds: one that failed would be
//! repeated, and nothing would be different. An event that comes twice puts the same values at the same time again: alarms
//! and charts take the maximum, the minimum or the average, never the sum.

mod words;

use lambda_runtime::{Context, Diagnostic};
use lambda_setup::environment::{self, EnvironmentError};
use shared::metric::Metric;
use shared::timestamp::UnixMillis;

use crate::bucket::Bucket;
use crate::cloudwatch::{Datum, Metrics, MetricsError};
use crate::event::{Created, EventError, S3Event};
use crate::manifest::Totals;
use crate::rules::partition::Partition;
use crate::rules::robust::Seasonal;
use crate::rules::size::{self, Limits, Measured, Outcome, Rule, Sizes};
use crate::success::{self, SuccessError};

/// A check that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckSizeError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Success(#[from] SuccessError),
    #[error("{key} was announced and is not there")]
    Gone { key: String },
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

impl From<CheckSizeError> for Diagnostic {
    fn from(error: CheckSizeError) -> Self {
        Self { error_type: "CheckSizeError".into(), error_message: error.to_string() }
    }
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
struct Checked {
    partition: Partition,
    sizes: Sizes,
    measured: Measured,
    judged: [(Rule, Outcome); 3],
}

impl<B: Bucket, O: Fn(String) -> B, M: Metrics> Handler<O, M> {
    /// `open` gives the bucket of a name.
    pub fn new(open: O, metrics: M, limits: Limits) -> Self {
        Self { open, metrics, limits }
    }

    /// Checks each partition that the event tells of.
    ///
    /// # Errors
    ///
    /// When S3 or CloudWatch do not answer, or a `_SUCCESS` is none; not when a partition breaks a rule.
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
        let sizes = sizes(&bucket, partition, success.totals.bytes).await?;
        let measured = sizes.measure();
        let judged = measured.judge(self.limits.minimum_bytes(partition), &self.limits);
        let checked = Checked { partition, sizes, measured, judged };
        // Before the metrics: the line must not wait for CloudWatch.
        self.log(&checked, &success.totals);
        let dimensions = vec![
            ("BucketName", created.bucket.clone()),
            ("Key", partition.pattern().to_owned()),
            ("FunctionName", function_name.to_owned()),
        ];
        let values = values(&checked, &success.totals);
        Ok(self.metrics.put(&data(&values, created.at, &dimensions)).await?)
    }

    fn log(&self, checked: &Checked, totals: &Totals) {
        let partition = checked.partition.text();
        for (rule, outcome) in checked.judged {
            let (expected, actual) = words::explain(rule, checked, &self.limits);
            match outcome {
                Outcome::Violation => {
                    tracing::error!(partition, ?rule, expected, actual, "the partition's size is not as it should be");
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

/// The sizes that a partition is measured by. Where a `_SUCCESS` is none it is as if that partition were not sealed: what
/// is wrong in one week must not keep the next eight from being checked.
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
    let lines = totals.events + totals.rejected;
    let rejected_percent = if lines == 0 { 0.0 } else { totals.rejected as f64 / lines as f64 * 100.0 };
    let violations = checked.judged.iter().filter(|(_, outcome)| *outcome == Outcome::Violation).count();
    let mut values = vec![
        (Metric::TotalFileSize, totals.bytes as f64),
        (Metric::TotalEvents, totals.events as f64),
        (Metric::RejectedShare, rejected_percent),
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

fn data(values: &[(Metric, f64)], at: UnixMillis, dimensions: &[(&'static str, String)]) -> Vec<Datum> {
    let datum = |&(metric, value): &(Metric, f64)| Datum { metric, value, at, dimensions: dimensions.to_vec() };
    values.iter().map(datum).collect()
}

#[cfg(test)]
mod tests;
