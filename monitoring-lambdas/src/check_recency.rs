//! check-recency: is every `_SUCCESS` that should be there by now there, how old is the newest event that landed, and how
//! many objects are broken?
//!
//! It runs each minute and depends on S3 and its own schedule alone: it puts metrics, but without CloudWatch its log and the
//! failed invocation still show what is wrong. The questions are answered independently, and the answers are put before the
//! invocation fails.
//!
//! Requests a day, with S shards and events in each hour: 1,440 × (2 + S) LISTs and 1,440 × S HEADs for the newest event,
//! 1,200 GETs and 50 more for each new environment, 1,440 `PutMetricData`; 5,760 LISTs more in a bucket's first three days.
//! While nothing lands, each minute takes a LIST for every hour since, 48 at most. A partition that is missing takes a GET
//! each minute.
//!
//! The function's timeout must leave time for all three: 60 s or more. A retry of a failed invocation would find the same, so
//! its event invoke configuration should allow none.

mod freshness;
mod partitions;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::error::Error;
use std::time::Duration;

use lambda_runtime::Context;
use lambda_setup::deadline::Deadline;
use lambda_setup::environment::{self, EnvironmentError};
use shared::metric::Metric;
use shared::timestamp::UnixMillis;

use crate::cloudwatch::{self, Metrics};
use crate::manifest::BROKEN_PREFIX;
use crate::seal_partition::{due_minutes, grace_minutes};
use lambda_setup::bucket::{Bucket, BucketError, List};
use lambda_setup::event::{EventError, ScheduledEvent};
use partitions::Report;

/// What the environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `BUCKET_NAME`
    pub bucket_name: String,
    /// `RECENCY_DUE_MINUTES`: from the end of an hour to when it must be sealed.
    pub due_minutes: i64,
}

impl Config {
    /// # Errors
    ///
    /// A variable that is missing or has no value in its range.
    pub fn from_environment() -> Result<Self, EnvironmentError> {
        let bucket_name = environment::required("BUCKET_NAME")?;
        let due_minutes = due_minutes(grace_minutes()?)?;
        Ok(Self { bucket_name, due_minutes })
    }
}

/// Something that is wrong, or that could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error(transparent)]
    Event(#[from] EventError),
    /// Past its time with neither `_SUCCESS` nor `_INCOMPLETE`, or with a `_SUCCESS` that can't be read.
    #[error("NOT_RUN: {count} partitions are not sealed: {names}")]
    NotRun { count: usize, names: String },
    #[error("LATE: {count} partitions were sealed too late: {names}")]
    Late { count: usize, names: String },
    #[error("{what}: {source}")]
    Unanswered { what: &'static str, source: Box<dyn Error + Send + Sync> },
}

/// All that is wrong at once; never empty.
#[derive(Debug, thiserror::Error)]
#[error("{}", texts(.0))]
pub struct CheckRecencyError(pub Vec<Problem>);

fn texts(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

/// What an environment remembers to save requests. The results do not depend on it.
#[derive(Debug, Default)]
struct Memory {
    partitions: partitions::Memory,
    freshness: freshness::Memory,
}

/// Checks each minute.
pub struct Handler<B, M> {
    bucket: B,
    metrics: M,
    due_minutes: i64,
    memory: RefCell<Memory>,
}

/// The time reserved for putting the metrics, with retries.
const REPORT_TIME: Duration = Duration::from_secs(20);
/// The time reserved for the answer after that.
const ANSWER_TIME: Duration = Duration::from_secs(1);

impl<B: Bucket, M: Metrics> Handler<B, M> {
    pub fn new(bucket: B, metrics: M, due_minutes: i64) -> Self {
        Self { bucket, metrics, due_minutes, memory: RefCell::default() }
    }

    /// Checks as of the event's time.
    ///
    /// # Errors
    ///
    /// When a partition is missing or late, and when anything could not be found out or put.
    pub async fn handle(&self, event: ScheduledEvent, context: Context) -> Result<(), CheckRecencyError> {
        let now = event.at().map_err(|error| CheckRecencyError(vec![error.into()]))?;
        // An invocation that is cut off here loses it, which only costs requests.
        let mut memory = self.memory.take();
        let until = Deadline::before(context.deadline, REPORT_TIME);
        let Answers { values, mut problems } = self.answers(now, until, &mut memory).await;
        self.memory.replace(memory);
        // Before the metrics are put: CloudWatch may be away.
        for problem in &problems {
            tracing::error!(%problem, "the landed data is not as it should be by now, or can't be seen");
        }
        let answering = Deadline::before(context.deadline, ANSWER_TIME);
        let put = cloudwatch::put(&self.metrics, &context.env_config.function_name, now, &values);
        if !values.is_empty()
            && let Err(problem) = within("the metrics were not put", answering, answering.remaining(), put).await
        {
            tracing::error!(%problem);
            problems.push(problem);
        }
        if problems.is_empty() { Ok(()) } else { Err(CheckRecencyError(problems)) }
    }

    /// Answers each question within its share of the time.
    async fn answers(&self, now: UnixMillis, until: Deadline, memory: &mut Memory) -> Answers {
        let mut answers = Answers::default();
        let report = partitions::check(&self.bucket, now, self.due_minutes, &mut memory.partitions);
        let half = until.remaining() / 2;
        match within("can't tell whether partitions are sealed", until, half, report).await {
            Ok(report) => answers.add_report(&report),
            Err(problem) => answers.problems.push(problem),
        }
        let half = until.remaining() / 2;
        match within("the broken objects were not counted", until, half, self.broken()).await {
            Ok(count) => answers.values.push((Metric::BrokenObjects, count as f64)),
            Err(problem) => answers.problems.push(problem),
        }
        let newest = freshness::find(&self.bucket, now, &mut memory.freshness);
        match within("the newest event was not found", until, until.remaining(), newest).await {
            Ok(newest) => answers.values.push((Metric::DataFreshness, newest.age_seconds(now))),
            Err(problem) => answers.problems.push(problem),
        }
        answers
    }

    /// How many verdicts of check-object are in the bucket, up to the 1,000 of one page. The alarm follows them:
    /// a verdict stays until landing replaces the object or a person deletes it.
    async fn broken(&self) -> Result<usize, BucketError> {
        let page = self.bucket.list(List { prefix: BROKEN_PREFIX, ..List::default() }).await?;
        Ok(page.objects.len())
    }
}

/// Waits for an answer until the limit or the deadline.
async fn within<T, E: Error + Send + Sync + 'static>(
    what: &'static str,
    deadline: Deadline,
    limit: Duration,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, Problem> {
    match deadline.bound(limit, answer).await {
        Ok(answer) => answer.map_err(|error| Problem::Unanswered { what, source: error.into() }),
        Err(time_is_up) => Err(Problem::Unanswered { what, source: time_is_up.into() }),
    }
}

/// What was found.
#[derive(Default)]
struct Answers {
    values: Vec<(Metric, f64)>,
    problems: Vec<Problem>,
}

impl Answers {
    fn add_report(&mut self, Report { missing, late }: &Report) {
        self.values.push((Metric::MissingPartitions, missing.len() as f64));
        self.values.push((Metric::LatePartitions, late.len() as f64));
        if !missing.is_empty() {
            self.problems.push(Problem::NotRun { count: missing.len(), names: names(missing) });
        }
        if !late.is_empty() {
            self.problems.push(Problem::Late { count: late.len(), names: names(late) });
        }
    }
}

/// The most names in a line; the others are counted.
const MAX_NAMES: usize = 20;

fn names(all: &[String]) -> String {
    let more = all.len().saturating_sub(MAX_NAMES);
    let named = all[..all.len() - more].join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}
