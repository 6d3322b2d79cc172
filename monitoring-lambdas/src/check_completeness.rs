//! check-completeness: did everything that was sent land, exactly once? Loss is a number here.
//!
//! An hour is balanced for six hours from when it and both of its neighbours are sealed, and again when one of them is sealed
//! again: late data has its grace, and an hour that was held back for days is balanced once it is whole. What ingest says
//! that it accepted, by the time of receipt, is compared with the lines that landed, by the same time, wherever they landed;
//! and the records that arrived on the stream with those that landed. An event of 10:59:59.9 that arrived at 11:00:00.1 is
//! thus in its own hour.
//!
//! - Lines without an envelope have no time of receipt: those of other producers count neither as lost nor as doubled.
//! - With `EVENT_FORMAT=raw` no event has one. Then an hour's events are compared as they landed: a neighbouring hour's
//!   surplus makes up for what is missing, up to what was sent within five minutes of the full hour between them. Other
//!   producers' events count as doubled.
//! - Records are compared in the same way.
//! - What redrive makes of rejected lines counts neither as lost nor as doubled, in both formats.
//! - Records that the manifest shows in two objects are doubled, and make up for no lost ones.
//! - Records are compared with the stream's own count, both ways. Ingest's counts may be incomplete, or taken twice: for each
//!   request by which they differ from Lambda's, [`MAX_EVENTS_PER_REQUEST`](shared::limits::MAX_EVENTS_PER_REQUEST) events are
//!   not reported, and the log says that they are unknown. What an idle environment still holds back is there when the hour is
//!   balanced again.
//!
//! The metrics have the time of the invocation, so that an alarm on the last hour sees them, and the worst of the balanced
//! hours as their value: an hour's loss shows for six hours, or until it is made good. A repeated event puts the
//! same values again. A `_SUCCESS` that can't be read fails the invocation, after the other hours are balanced.
//!
//! Requests a day: 8,064 GETs, 120 `GetMetricData` of one metric each and 24 `PutMetricData`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use lambda_runtime::Context;
use lambda_setup::environment::{self, EnvironmentError};
use shared::line::EventFormat;
use shared::metric::{Metric, NAMESPACE};
use shared::timestamp::{UnixMillis, UtcHour};

use crate::cloudwatch::{self, Metrics, MetricsError, Query};
use crate::manifest::{Success, Totals};
use crate::rules::completeness::{Balance, Counted, Hour, Sent, balances, received_events, received_rejected};
use crate::rules::partition::Partition;
use crate::success::{self, SuccessError};
use lambda_setup::bucket::Bucket;
use lambda_setup::event::{EventError, ScheduledEvent};

/// What the environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `BUCKET_NAME`
    pub bucket_name: String,
    /// `STREAM_NAME`
    pub stream_name: String,
    /// `INGEST_FUNCTION_NAME`
    pub ingest_function_name: String,
    /// `EVENT_FORMAT`
    pub event_format: EventFormat,
}

impl Config {
    /// # Errors
    ///
    /// A variable that is missing or has an unknown value.
    pub fn from_environment() -> Result<Self, EnvironmentError> {
        Ok(Self {
            bucket_name: environment::required("BUCKET_NAME")?,
            stream_name: environment::required("STREAM_NAME")?,
            ingest_function_name: environment::required("INGEST_FUNCTION_NAME")?,
            event_format: environment::choice("EVENT_FORMAT", &EventFormat::NAMES)?,
        })
    }
}

/// Why hours were not balanced.
#[derive(Debug, thiserror::Error)]
pub enum CheckCompletenessError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Success(#[from] SuccessError),
    /// The other hours were balanced.
    #[error("{partition} is not balanced: {source}; put late/{partition} to have it sealed again")]
    Unreadable { partition: String, source: SuccessError },
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// How long an hour's balance is reported.
const REPORTED_MILLIS: i64 = 6 * 3_600_000;
/// How many hours back are looked at: an hour is held back for as long as it takes to redrive its batches.
const LOOKBACK_HOURS: i64 = 14 * 24;
/// Requests to S3 that are under way at once.
const CONCURRENCY: usize = 64;
/// What CloudWatch sums up for us. It keeps five minutes for 63 days.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricStat.html>
const PERIOD: Duration = Duration::from_secs(300);

/// Checks each hour.
pub struct Handler<B, M> {
    bucket: B,
    metrics: M,
    config: Config,
}

/// An hour's balance, and the numbers behind it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Balanced {
    pub(crate) hour: UtcHour,
    pub(crate) sent: Sent,
    pub(crate) landed: Landed,
    pub(crate) found: Balance,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Landed {
    pub(crate) events: f64,
    pub(crate) rejected: f64,
    pub(crate) records: u64,
}

impl<B: Bucket, M: Metrics> Handler<B, M> {
    pub fn new(bucket: B, metrics: M, config: Config) -> Self {
        Self { bucket, metrics, config }
    }

    /// Checks the hours before the event's time.
    ///
    /// # Errors
    ///
    /// When S3 or CloudWatch does not answer, or a `_SUCCESS` can't be read; not when something is missing.
    pub async fn handle(&self, event: ScheduledEvent, context: Context) -> Result<(), CheckCompletenessError> {
        let now = event.at()?;
        let sealed = self.sealed(now).await?;
        let hours = self.balance(&sealed, now).await?;
        hours.iter().for_each(log);
        let worst = |number: fn(&Balance) -> f64| hours.iter().map(|hour| number(&hour.found)).reduce(f64::max);
        let values = [
            (Metric::LostEvents, worst(|balance| balance.lost_events)),
            (Metric::DoubledEvents, worst(|balance| balance.doubled_events)),
            (Metric::LostRecords, worst(|balance| balance.lost_records)),
            (Metric::DoubledRecords, worst(|balance| balance.doubled_records)),
        ];
        let values: Vec<_> = values.into_iter().filter_map(|(metric, value)| Some((metric, value?))).collect();
        if values.is_empty() {
            tracing::info!("no hour is sealed with both of its neighbours: nothing to compare yet");
        } else {
            cloudwatch::put(&self.metrics, &context.env_config.function_name, now, &values).await?;
        }
        sealed.unreadable.map_or(Ok(()), Err)
    }

    /// The balances of the hours that are to be balanced, newest first.
    async fn balance(&self, sealed: &Sealed, now: UnixMillis) -> Result<Vec<Balanced>, MetricsError> {
        let landed = sealed.hours.iter().map(|(hour, sealed)| (*hour, &sealed.landed)).collect();
        balance_hours(&self.metrics, &self.config, &landed, &sealed.to_balance(now)).await
    }

    /// The sealed hours of the lookback.
    async fn sealed(&self, now: UnixMillis) -> Result<Sealed, SuccessError> {
        let mut sealed = Sealed::default();
        let hours: Vec<UtcHour> = (1..=LOOKBACK_HOURS).map(|back| now.hour().plus(-back)).collect();
        for hours in hours.chunks(CONCURRENCY) {
            let read = |hour: &UtcHour| sealed_hour(&self.bucket, *hour);
            for (hour, read) in hours.iter().zip(join_all(hours.iter().map(read)).await) {
                sealed.add(*hour, read)?;
            }
        }
        Ok(sealed)
    }
}

/// The balances of the chosen ones of what sealed hours have, newest first; none of an hour that lacks a sealed neighbour.
pub(crate) async fn balance_hours(
    metrics: &impl Metrics,
    config: &Config,
    sealed: &BTreeMap<UtcHour, &Totals>,
    chosen: &BTreeSet<UtcHour>,
) -> Result<Vec<Balanced>, MetricsError> {
    let (Some(first), Some(last)) = (chosen.first(), chosen.last()) else { return Ok(Vec::new()) };
    let (oldest, newest) = (first.plus(-1), last.plus(1));
    let counts = Counts::read(metrics, config, oldest, newest).await?;
    let sealed = sealed.range(oldest..=newest);
    let hours: Vec<Hour<'_>> = sealed.map(|(&hour, &landed)| Hour { hour, sent: counts.sent(hour), landed }).collect();
    let mut balanced = Vec::new();
    for consecutive in hours.chunk_by(|one, next| one.hour.plus(1) == next.hour) {
        let found = consecutive.windows(3).zip(balances(consecutive, config.event_format));
        let found = found.filter(|(around, _)| chosen.contains(&around[1].hour));
        balanced.extend(found.map(|(around, found)| with_numbers(around, found, config.event_format)));
    }
    balanced.reverse();
    Ok(balanced)
}

fn with_numbers(around: &[Hour<'_>], found: Balance, event_format: EventFormat) -> Balanced {
    let Hour { hour, sent, landed } = around[1];
    let events = match event_format {
        EventFormat::Envelope => received_events(around),
        EventFormat::Raw => landed.events as f64,
    };
    let landed = Landed { events, rejected: received_rejected(around), records: landed.records };
    Balanced { hour, sent, landed, found }
}

/// What a `_SUCCESS` says.
struct SealedHour {
    sealed_at: UnixMillis,
    landed: Totals,
}

async fn sealed_hour(bucket: &impl Bucket, hour: UtcHour) -> Result<Option<SealedHour>, SuccessError> {
    let success = success::read(bucket, Partition::Hour(hour)).await?;
    Ok(success.map(|Success { sealed_at, totals, .. }| SealedHour { sealed_at, landed: totals }))
}

/// The hours that are sealed.
#[derive(Default)]
struct Sealed {
    hours: BTreeMap<UtcHour, SealedHour>,
    /// The newest one whose `_SUCCESS` can't be read: it counts as not sealed.
    unreadable: Option<CheckCompletenessError>,
}

impl Sealed {
    fn add(&mut self, hour: UtcHour, read: Result<Option<SealedHour>, SuccessError>) -> Result<(), SuccessError> {
        match read {
            Ok(sealed) => self.hours.extend(sealed.map(|sealed| (hour, sealed))),
            Err(source) if source.is_content() => {
                let unreadable = CheckCompletenessError::Unreadable { partition: hour.partition(), source };
                tracing::error!(%unreadable, "an hour was not balanced");
                self.unreadable.get_or_insert(unreadable);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The hours that, with both neighbours, are sealed as they are since less than [`REPORTED_MILLIS`].
    fn to_balance(&self, now: UnixMillis) -> BTreeSet<UtcHour> {
        let sealed_at = |hour: UtcHour| self.hours.get(&hour).map(|sealed| sealed.sealed_at);
        let is_new = |hour: &UtcHour| {
            let around: Option<Vec<UnixMillis>> =
                [-1, 0, 1].map(|hours| sealed_at(hour.plus(hours))).into_iter().collect();
            let since = around.and_then(|around| around.into_iter().max());
            since.is_some_and(|since| now.0.saturating_sub(since.0) < REPORTED_MILLIS)
        };
        self.hours.keys().copied().filter(is_new).collect()
    }
}

/// Values of CloudWatch, each of a [`PERIOD`].
struct Counts {
    accepted: Vec<(UnixMillis, f64)>,
    rejected: Vec<(UnixMillis, f64)>,
    requests: Vec<(UnixMillis, f64)>,
    server_requests: Vec<(UnixMillis, f64)>,
    invocations: Vec<(UnixMillis, f64)>,
    records: Vec<(UnixMillis, f64)>,
}

impl Counts {
    /// What was sent from one hour to another. Where CloudWatch has nothing, nothing was sent.
    async fn read(
        metrics: &impl Metrics,
        config: &Config,
        oldest: UtcHour,
        newest: UtcHour,
    ) -> Result<Self, MetricsError> {
        let ingest = ("FunctionName", config.ingest_function_name.as_str());
        let stream = ("StreamName", config.stream_name.as_str());
        let sums = |namespace, name, of| {
            let query = Query::by_minute((namespace, name), of, "Sum", (oldest.start(), newest.end()));
            Query { period: PERIOD, ..query }
        };
        Ok(Self {
            accepted: metrics.read(&sums(NAMESPACE, Metric::AcceptedEvents.as_str(), ingest)).await?,
            rejected: metrics.read(&sums(NAMESPACE, Metric::RejectedLines.as_str(), ingest)).await?,
            requests: metrics.read(&sums(NAMESPACE, Metric::Requests.as_str(), ingest)).await?,
            server_requests: metrics.read(&sums(NAMESPACE, Metric::ServerRequests.as_str(), ingest)).await?,
            invocations: metrics.read(&sums("AWS/Lambda", "Invocations", ingest)).await?,
            records: metrics.read(&sums("AWS/Kinesis", "IncomingRecords", stream)).await?,
        })
    }

    fn sent(&self, hour: UtcHour) -> Sent {
        let counted = |values| counted(values, hour, PERIOD);
        let server_requests = counted(&self.server_requests);
        Sent {
            accepted: counted(&self.accepted),
            rejected: counted(&self.rejected),
            requests: counted(&self.requests).without(server_requests),
            server_requests,
            invocations: counted(&self.invocations),
            records: counted(&self.records),
        }
    }
}

/// An hour's sums, of values each of a period.
pub(crate) fn counted(values: &[(UnixMillis, f64)], hour: UtcHour, period: Duration) -> Counted {
    let sum = |from: UnixMillis, to: UnixMillis| -> f64 {
        values.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, value)| value).sum()
    };
    let (start, end) = (hour.start(), hour.end());
    let period = period.as_millis() as i64;
    Counted {
        whole: sum(start, end),
        first: sum(start, UnixMillis(start.0 + period)),
        last: sum(UnixMillis(end.0 - period), end),
    }
}

fn log(balanced: &Balanced) {
    let Balanced { hour, sent, landed, found } = balanced;
    macro_rules! log {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                hour = hour.partition(),
                lost_events = found.lost_events,
                doubled_events = found.doubled_events,
                lost_records = found.lost_records,
                doubled_records = found.doubled_records,
                unknown_events = found.unknown_events,
                accepted = sent.accepted.whole,
                landed_events = landed.events,
                rejected = sent.rejected.whole,
                landed_rejected = landed.rejected,
                requests = sent.requests.whole,
                server_requests = sent.server_requests.whole,
                invocations = sent.invocations.whole,
                arrived_records = sent.records.whole,
                landed_records = landed.records,
                $message
            )
        };
    }
    if !found.is_even() {
        log!(error, "what landed is not what was sent");
    } else if found.unknown_events > 0.0 {
        log!(warn, "unknown: ingest did not count all of its requests, or counted some twice");
    } else {
        log!(info, "complete");
    }
}

#[cfg(test)]
mod tests;
