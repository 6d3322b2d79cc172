//! What the page is about, read once from the environment. docs/STATUS.md describes each variable.

use std::collections::BTreeMap;
use std::time::Duration;

use lambda_setup::environment::{self, EnvironmentError};
use local::clock::{Clock, Pace};
use monitoring_lambdas::check_size;
use monitoring_lambdas::rules::size::Limits;
use monitoring_lambdas::seal_partition;
use shared::line::EventFormat;
use shared::timestamp::UnixMillis;

pub(crate) struct Config {
    /// `PORT`; 0 is any that is free.
    pub(crate) port: u16,
    pub(crate) bucket: String,
    pub(crate) stream: String,
    /// The functions' names by their logical ids in template.yaml.
    pub(crate) functions: BTreeMap<String, String>,
    /// How the stack's alarms begin; `None` where there are none.
    pub(crate) alarm_prefix: Option<String>,
    /// Where players post.
    pub(crate) events_url: Option<String>,
    pub(crate) runbook_url: Option<String>,
    /// Members of an event whose value is its key, best first.
    pub(crate) key_fields: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) due_minutes: i64,
    /// Whether landed lines are what clients sent, alone: nothing is made Parquet of them.
    pub(crate) is_raw: bool,
    /// How long landing waits for a batch to fill.
    pub(crate) batching_window: Duration,
    /// How long CloudWatch may take to show a value.
    pub(crate) metrics_delay: Duration,
    pub(crate) refresh: Duration,
    pub(crate) clock: Clock,
    /// Whether it ends with its standard input, a pipe: who started it is gone then.
    pub(crate) until_stdin_ends: bool,
    /// When the one-machine stack started, by its clock: what was due before can't have been done in time.
    pub(crate) started: Option<UnixMillis>,
}

impl Config {
    /// # Errors
    ///
    /// A variable that is missing or has no value in its range.
    pub(crate) fn from_environment() -> Result<Self, EnvironmentError> {
        let (clock, started) = clock()?;
        let milliseconds = environment::number("REFRESH_MILLISECONDS", 5_000, 200..=60_000)?;
        Ok(Self {
            port: environment::number("PORT", 8081, 0..=u16::MAX)?,
            bucket: environment::required("BUCKET_NAME")?,
            stream: environment::required("STREAM_NAME")?,
            functions: functions(&environment::required("FUNCTIONS")?)?,
            alarm_prefix: environment::optional("ALARM_PREFIX")?,
            events_url: environment::optional("EVENTS_URL")?,
            runbook_url: environment::optional("RUNBOOK_URL")?,
            key_fields: environment::list("PARTITION_KEY_FIELDS", "session_id,sessionId,viewer_id,viewerId,xid,sid")?,
            limits: check_size::limits()?,
            due_minutes: seal_partition::due_minutes(seal_partition::grace_minutes()?)?,
            is_raw: environment::choice("EVENT_FORMAT", &EventFormat::NAMES)? == EventFormat::Raw,
            batching_window: Duration::from_secs(environment::number("BATCHING_WINDOW_SECONDS", 5, 0..=300)?),
            metrics_delay: Duration::from_secs(environment::number("METRICS_DELAY_SECONDS", 120, 0..=600)?),
            refresh: Duration::from_millis(milliseconds),
            clock,
            started,
            until_stdin_ends: environment::choice("UNTIL_STDIN_ENDS", &[("no", false), ("yes", true)])?,
        })
    }

    pub(crate) fn function(&self, id: &str) -> Option<&str> {
        self.functions.get(id).map(String::as_str)
    }
}

/// `IngestFunction=ingest-lambda,LandingFunction=kinesis-to-s3-lambda`
fn functions(text: &str) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let pair = |pair: &str| {
        let (id, name) = pair.trim().split_once('=').filter(|(id, name)| !id.is_empty() && !name.is_empty())?;
        Some((id.to_owned(), name.to_owned()))
    };
    let problem = || EnvironmentError::new("FUNCTIONS", format!("is {text:?}; it takes Id=name,Id=name"));
    text.split(',').map(|text| pair(text).ok_or_else(problem)).collect()
}

/// The one-machine stack's, which may run fast, with the time at which it started by itself.
fn clock() -> Result<(Clock, Option<UnixMillis>), EnvironmentError> {
    let pace = environment::optional("CLOCK")?.map(|text| text.parse::<Pace>()).transpose();
    let pace = pace.map_err(|problem| EnvironmentError::new("CLOCK", problem.to_string()))?;
    let started = match environment::optional("CLOCK_STARTED")? {
        None if pace.is_some() => return Err(EnvironmentError::new("CLOCK_STARTED", "is not set; CLOCK needs it")),
        None => return Ok((Clock::new(None, lambda_setup::now()), None)),
        Some(started) => started,
    };
    let problem = || {
        EnvironmentError::new("CLOCK_STARTED", format!("is {started:?}; it takes a time like 2026-11-21T09:00:00.000Z"))
    };
    let started = UnixMillis::parse(&started).ok_or_else(problem)?;
    let clock = Clock::new(pace, started);
    Ok((clock, Some(clock.at(started))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_pairs() {
        let expected = BTreeMap::from([("A".to_owned(), "a-1".to_owned()), ("B".to_owned(), "b".to_owned())]);
        assert_eq!(functions("A=a-1, B=b").unwrap(), expected);
        for wrong in ["", "A", "A=", "=a", "A=a,"] {
            assert!(functions(wrong).unwrap_err().to_string().contains("FUNCTIONS"), "{wrong}");
        }
    }
}
