//! check-completeness: did everything that was sent land, and once? Loss is a number here.
//!
//! Each hour it looks at the six newest hours whose neighbours are sealed too: late data has its grace, and an hour that was
//! re-sealed is looked at again. Of each it compares what ingest says that it accepted, by the time of receipt, with the
//! lines that landed, by the same time, wherever they landed; and the records that arrived on the stream with those that
//! landed. An event of 10:59:59.9 that arrived at 11:00:00.1 is thus in its own hour.
//!
//! - Lines without an envelope have no receipt. Foreign producers' lines are neither lost nor doubled by that.
//! - With `EVENT_FORMAT=raw` no event has a receipt. Then the events of an hour are compared as they landed. What a
//!   neighbouring hour has too much makes good for what is missing, up to what was sent within five minutes of the full
//!   hour between them. Foreign producers' events count as doubled.
//! - Records are compared in the same way: CloudWatch counts them by the minute.
//! - What redrive makes of rejected lines is neither lost nor doubled, in both formats: it is made up for.
//! - Records that the manifest shows in two objects make good for no lost ones.
//! - A ten-thousandth of an hour's accepted events may be lost or doubled: CloudWatch may drop or repeat a line of
//!   ingest's log. Of records none may.
//!
//! The metrics have the time of the invocation, so that an alarm on the last hour sees them, and the worst of the six
//! hours as their value: an hour's loss is on show for six hours, or until it is made good. A repeated event puts the
//! same again.
//!
//! Requests a day: 288 GETs, 72 `GetMetricData` of one metric each and 24 `PutMetricData`.

use std::time::Duration;

use lambda_runtime::{Context, Diagnostic};
use lambda_setup::environment::{self, EnvironmentError};
use shared::line::EventFormat;
use shared::metric::{Metric, NAMESPACE};
use shared::timestamp::{UnixMillis, UtcHour};

use crate::bucket::Bucket;
use crate::cloudwatch::{Datum, Metrics, MetricsError, Query};
use crate::event::{EventError, ScheduledEvent};
use crate::manifest::Totals;
use crate::rules::completeness::{Balance, Counted, Hour, Sent, balances, received_events, received_rejected};
use crate::rules::partition::Partition;
use crate::success::{self, SuccessError};

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
    /// A variable that is missing or has none of its values.
    pub fn from_environment() -> Result<Self, EnvironmentError> {
        Ok(Self {
            bucket_name: environment::required("BUCKET_NAME")?,
            stream_name: environment::required("STREAM_NAME")?,
            ingest_function_name: environment::required("INGEST_FUNCTION_NAME")?,
            event_format: environment::choice("EVENT_FORMAT", &EventFormat::NAMES)?,
        })
    }
}

/// A check that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckCompletenessError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Success(#[from] SuccessError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

impl From<CheckCompletenessError> for Diagnostic {
    fn from(error: CheckCompletenessError) -> Self {
        Self { error_type: "CheckCompletenessError".into(), error_message: error.to_string() }
    }
}

/// Hours that are looked at in one run.
const HOURS: usize = 6;
/// Hours back that can be among them: six with their neighbours, and four that a long grace may keep open.
const LOOKBACK_HOURS: i64 = 12;
/// What CloudWatch sums up for us. It keeps five minutes for 63 days.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricStat.html>
pub(crate) const PERIOD: Duration = Duration::from_secs(300);

/// Checks each hour.
pub struct Handler<B, M> {
    bucket: B,
    metrics: M,
    config: Config,
}

/// An hour's balance, with the numbers that it was drawn from.
#[derive(Debug, Clone, PartialEq)]
struct Balanced {
    hour: UtcHour,
    sent: Sent,
    landed: Landed,
    /// To the event, and what of it is reported.
    found: Balance,
    reported: Balance,
}

#[derive(Debug, Clone, PartialEq)]
struct Landed {
    events: f64,
    rejected: f64,
    records: u64,
}

impl<B: Bucket, M: Metrics> Handler<B, M> {
    pub fn new(bucket: B, metrics: M, config: Config) -> Self {
        Self { bucket, metrics, config }
    }

    /// Checks the hours before the event's time.
    ///
    /// # Errors
    ///
    /// When S3 or CloudWatch do not answer, or a `_SUCCESS` is none; not when something is missing.
    pub async fn handle(&self, event: ScheduledEvent, context: Context) -> Result<(), CheckCompletenessError> {
        let now = event.at()?;
        let hours = self.balance(now).await?;
        hours.iter().for_each(log);
        let worst = |number: fn(&Balance) -> f64| hours.iter().map(|hour| number(&hour.reported)).reduce(f64::max);
        let values = [
            (Metric::LostEvents, worst(|balance| balance.lost_events)),
            (Metric::DoubledEvents, worst(|balance| balance.doubled_events)),
            (Metric::LostRecords, worst(|balance| balance.lost_records)),
        ];
        let dimensions = vec![("FunctionName", context.env_config.function_name.clone())];
        let datum = |(metric, value): (Metric, Option<f64>)| {
            Some(Datum { metric, value: value?, at: now, dimensions: dimensions.clone() })
        };
        let data: Vec<Datum> = values.into_iter().filter_map(datum).collect();
        if data.is_empty() {
            tracing::info!("no hour is sealed with both of its neighbours: nothing to compare yet");
            return Ok(());
        }
        Ok(self.metrics.put(&data).await?)
    }

    /// The balances of the newest hours that can be balanced, newest first.
    async fn balance(&self, now: UnixMillis) -> Result<Vec<Balanced>, CheckCompletenessError> {
        let oldest = now.hour().plus(-LOOKBACK_HOURS);
        let landed = self.landed(oldest).await?;
        if landed.iter().all(Option::is_none) {
            return Ok(Vec::new());
        }
        let sent = self.sent(oldest).await?;
        let hours = hours_from(oldest).zip(sent).zip(&landed);
        let hours = hours.map(|((hour, sent), landed)| landed.as_ref().map(|landed| Hour { hour, sent, landed }));
        let hours: Vec<Option<Hour<'_>>> = hours.collect();
        let mut balanced = Vec::new();
        for consecutive in hours.split(Option::is_none) {
            let consecutive: Vec<Hour<'_>> = consecutive.iter().flatten().copied().collect();
            let found = balances(&consecutive, self.config.event_format);
            balanced.extend(consecutive.windows(3).zip(found).map(|(around, found)| self.balanced(around, found)));
        }
        balanced.reverse();
        balanced.truncate(HOURS);
        Ok(balanced)
    }

    fn balanced(&self, around: &[Hour<'_>], found: Balance) -> Balanced {
        let Hour { hour, sent, landed } = around[1];
        let events = match self.config.event_format {
            EventFormat::Envelope => received_events(around),
            EventFormat::Raw => landed.events as f64,
        };
        let landed = Landed { events, rejected: received_rejected(around), records: landed.records };
        Balanced { hour, sent, landed, found, reported: found.beyond_tolerance(sent.accepted.whole) }
    }

    /// What landed in the hours that are looked at, oldest first; `None` for one that is not sealed.
    async fn landed(&self, oldest: UtcHour) -> Result<Vec<Option<Totals>>, SuccessError> {
        let mut landed = Vec::new();
        for hour in hours_from(oldest) {
            let success = success::read(&self.bucket, Partition::Hour(hour)).await?;
            landed.push(success.map(|success| success.totals));
        }
        Ok(landed)
    }

    /// What was sent in the same hours. Where CloudWatch has nothing, nothing was sent.
    async fn sent(&self, oldest: UtcHour) -> Result<Vec<Sent>, MetricsError> {
        let ingest = ("FunctionName", &self.config.ingest_function_name);
        let stream = ("StreamName", &self.config.stream_name);
        let accepted = self.read(oldest, NAMESPACE, Metric::AcceptedEvents.as_str(), ingest).await?;
        let rejected = self.read(oldest, NAMESPACE, Metric::RejectedLines.as_str(), ingest).await?;
        let records = self.read(oldest, "AWS/Kinesis", "IncomingRecords", stream).await?;
        let sent = |hour| Sent {
            accepted: counted(&accepted, hour),
            rejected: counted(&rejected, hour),
            records: counted(&records, hour),
        };
        Ok(hours_from(oldest).map(sent).collect())
    }

    async fn read(
        &self,
        oldest: UtcHour,
        namespace: &str,
        name: &str,
        (dimension, value): (&str, &String),
    ) -> Result<Vec<(UnixMillis, f64)>, MetricsError> {
        let query = Query {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            dimensions: vec![(dimension.to_owned(), value.clone())],
            statistic: "Sum".to_owned(),
            from: oldest.start(),
            to: oldest.plus(LOOKBACK_HOURS).start(),
            period: PERIOD,
        };
        self.metrics.read(&query).await
    }
}

fn hours_from(oldest: UtcHour) -> impl Iterator<Item = UtcHour> {
    (0..LOOKBACK_HOURS).map(move |hours| oldest.plus(hours))
}

/// An hour's sums, of values that stand for a [`PERIOD`] each.
pub(crate) fn counted(values: &[(UnixMillis, f64)], hour: UtcHour) -> Counted {
    let sum = |from: UnixMillis, to: UnixMillis| -> f64 {
        values.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, value)| value).sum()
    };
    let (start, end) = (hour.start(), hour.end());
    let period = PERIOD.as_millis() as i64;
    Counted {
        whole: sum(start, end),
        first: sum(start, UnixMillis(start.0 + period)),
        last: sum(UnixMillis(end.0 - period), end),
    }
}

fn log(balanced: &Balanced) {
    let Balanced { hour, sent, landed, found, reported } = balanced;
    let (hour, lost, doubled) = (hour.partition(), found.lost_events, found.doubled_events);
    let (accepted, rejected, arrived_records) = (sent.accepted.whole, sent.rejected.whole, sent.records.whole);
    let (landed_events, landed_rejected, landed_records) = (landed.events, landed.rejected, landed.records);
    let lost_records = found.lost_records;
    if *reported == Balance::default() {
        tracing::info!(
            hour,
            lost,
            doubled,
            accepted,
            landed_events,
            rejected,
            landed_rejected,
            arrived_records,
            landed_records,
            "complete"
        );
    } else {
        tracing::error!(
            hour,
            lost,
            doubled,
            lost_records,
            accepted,
            landed_events,
            rejected,
            landed_rejected,
            arrived_records,
            landed_records,
            "what landed is not what was sent"
        );
    }
}

#[cfg(test)]
mod tests;
