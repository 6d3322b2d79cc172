//! check-completeness: did everything that was sent land, and once? Loss is a number here.
//!
//! Each hour it looks at the six newest hours whose neighbours are sealed too: late data has its grace, and an hour that was
//! re-sealed is looked at again. Of each it compares what ingest says that it accepted, by the time of receipt, with the
//! lines that landed, by the same time, wherever they landed; and the records that arrived on the stream with those that
//! landed. An event of 10:59:59.9 that arrived at 11:00:00.1 is thus in its own hour.
//!
//! - Lines without an envelope have no receipt. Foreign producers' lines are neither lost nor doubled by that.
//! - With `EVENT_FORMAT=raw` no event has a receipt. Then the events of an hour are compared as they landed, with what its
//!   neighbours have too much counted in, which is exact only up to what is in flight at the full hour; foreign producers'
//!   events count as doubled.
//! - Records are compared in the same way: CloudWatch counts them by the minute.
//! - What redrive lands from rejected lines is doubled by its own doing.
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
use crate::rules::completeness::{Around, Balance, Sent, balance, received_events, received_rejected};
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
const LOOKBACK_HOURS: usize = 12;
const HOUR: Duration = Duration::from_secs(3_600);

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
    landed: Sent,
    balance: Balance,
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
        let worst = |number: fn(&Balance) -> f64| hours.iter().map(|hour| number(&hour.balance)).reduce(f64::max);
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
        let newest = now.hour().plus(-1);
        let landed = self.landed(newest).await?;
        let mut sent = vec![Sent::default(); LOOKBACK_HOURS];
        if landed.iter().flatten().next().is_some() {
            self.read_sent(newest, &mut sent).await?;
        }
        let mut balanced = Vec::new();
        for (back, (landed, sent)) in landed.windows(3).zip(sent.windows(3)).enumerate() {
            let [Some(next), Some(this), Some(previous)] = landed else { continue };
            let landed = Around { previous, this, next };
            let sent = Around { previous: sent[2], this: sent[1], next: sent[0] };
            let hour = newest.plus(-1 - i64::try_from(back).unwrap_or(i64::MAX));
            balanced.push(self.balanced(hour, sent, landed));
        }
        balanced.truncate(HOURS);
        Ok(balanced)
    }

    fn balanced(&self, hour: UtcHour, sent: Around<Sent>, landed: Around<&Totals>) -> Balanced {
        let events = match self.config.event_format {
            EventFormat::Envelope => received_events(landed),
            EventFormat::Raw => landed.this.events as f64,
        };
        Balanced {
            hour,
            sent: sent.this,
            landed: Sent { accepted: events, rejected: received_rejected(landed), records: landed.this.records as f64 },
            balance: balance(sent, landed, self.config.event_format),
        }
    }

    /// What landed in the hours that are looked at, newest first; `None` for one that is not sealed.
    async fn landed(&self, newest: UtcHour) -> Result<Vec<Option<Totals>>, SuccessError> {
        let mut landed = Vec::with_capacity(LOOKBACK_HOURS);
        let mut hour = newest;
        for _ in 0..LOOKBACK_HOURS {
            let success = success::read(&self.bucket, Partition::Hour(hour)).await?;
            landed.push(success.map(|success| success.totals));
            hour = hour.plus(-1);
        }
        Ok(landed)
    }

    /// What was sent in the same hours. Where CloudWatch has nothing, nothing was sent.
    async fn read_sent(&self, newest: UtcHour, sent: &mut [Sent]) -> Result<(), MetricsError> {
        let ingest = ("FunctionName", &self.config.ingest_function_name);
        let stream = ("StreamName", &self.config.stream_name);
        let accepted = self.read(newest, NAMESPACE, Metric::AcceptedEvents.as_str(), ingest).await?;
        let rejected = self.read(newest, NAMESPACE, Metric::RejectedLines.as_str(), ingest).await?;
        let records = self.read(newest, "AWS/Kinesis", "IncomingRecords", stream).await?;
        let mut hour = newest;
        for sent in sent {
            let sum = |values: &[(UnixMillis, f64)]| {
                values.iter().filter(|(at, _)| at.hour() == hour).map(|(_, value)| value).fold(0.0, std::ops::Add::add)
            };
            *sent = Sent { accepted: sum(&accepted), rejected: sum(&rejected), records: sum(&records) };
            hour = hour.plus(-1);
        }
        Ok(())
    }

    async fn read(
        &self,
        newest: UtcHour,
        namespace: &str,
        name: &str,
        (dimension, value): (&str, &String),
    ) -> Result<Vec<(UnixMillis, f64)>, MetricsError> {
        let query = Query {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            dimensions: vec![(dimension.to_owned(), value.clone())],
            statistic: "Sum".to_owned(),
            from: newest.plus(1 - LOOKBACK_HOURS as i64).start(),
            to: newest.end(),
            period: HOUR,
        };
        self.metrics.read(&query).await
    }
}

fn log(balanced: &Balanced) {
    let Balanced { hour, sent, landed, balance } = balanced;
    let (hour, lost, doubled) = (hour.partition(), balance.lost_events, balance.doubled_events);
    let (accepted, rejected, arrived_records) = (sent.accepted, sent.rejected, sent.records);
    let (landed_events, landed_rejected, landed_records) = (landed.accepted, landed.rejected, landed.records);
    let lost_records = balance.lost_records;
    if *balance == Balance::default() {
        tracing::info!(
            hour,
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
