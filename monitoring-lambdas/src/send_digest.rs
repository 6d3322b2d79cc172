//! send-digest: the UTC day before, in one message to each group that asks for it.
//!
//! Facts are read (`read`) and become lines (`digest`), text and a page (`render`). They are kept under `digests/` before they
//! are sent, with what is still to be sent to whom (`state`): a repeated event sends nothing again, and a retry only what was
//! not sent. A run that is killed between sending and recording it doubles a message; none is lost while Lambda, or a person,
//! retries.
//!
//! Requests a day: some 300 GETs, nine listings and one more for each older date that had an incident (400 at most), and two PUTs
//! of S3, and ten `GetMetricData`.

mod digest;
mod facts;
mod read;
mod render;
mod state;

use std::time::Duration;

use futures_util::future::join_all;
use lambda_runtime::Context;
use lambda_setup::bucket::{Bucket, BucketError};
use lambda_setup::deadline::Deadline;
use lambda_setup::environment::{self, EnvironmentError};
use lambda_setup::event::{EventError, ScheduledEvent};
use shared::timestamp::{UnixMillis, UtcDate};

use self::digest::Digest;
use self::read::Sources;
use self::state::{Run, State, StateError};
use crate::check_completeness;
use crate::check_size;
use crate::cloudwatch::Metrics;
use crate::notify::Channels;
use crate::notify::channels::{Deliveries, Parcel};
use crate::notify::config::mail_from;
use crate::notify::mail::Mailer;
use crate::notify::mail_address::MailAddress;
use crate::notify::parameter::Parameter;
use crate::notify::recipient::Recipient;
use crate::notify::recipients::Recipients;
use crate::notify::topic::Topic;
use crate::notify::webhook::Webhooks;
use crate::rules::size::Limits;

/// The function's `Timeout`: how long another run may still be sending.
pub const TIMEOUT: Duration = Duration::from_secs(120);
/// Time reserved for recording what was sent, and for the answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// What the environment says.
#[derive(Debug, Clone)]
pub struct Config {
    /// `NOTICES_TOPIC_ARN`
    pub topic_arn: String,
    /// `RECIPIENTS_PARAMETER`: the name of the parameter that has the recipients.
    pub recipients_parameter: String,
    /// `MAIL_FROM`
    pub mail_from: Option<MailAddress>,
    /// `BUCKET_NAME` and others, as check-completeness reads them.
    pub completeness: check_completeness::Config,
    pub settings: Settings,
}

/// What a digest says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `STACK_NAME`
    pub stack_name: String,
    /// `RECENCY_DUE_MINUTES`
    pub due_minutes: i64,
    /// As check-size reads them.
    pub limits: Limits,
}

impl Config {
    /// # Errors
    ///
    /// When a variable is missing or malformed; the error names it.
    pub fn from_environment() -> Result<Self, EnvironmentError> {
        Ok(Self {
            topic_arn: environment::required("NOTICES_TOPIC_ARN")?,
            recipients_parameter: environment::required("RECIPIENTS_PARAMETER")?,
            mail_from: mail_from()?,
            completeness: check_completeness::Config::from_environment()?,
            settings: Settings {
                stack_name: environment::required("STACK_NAME")?,
                due_minutes: environment::number("RECENCY_DUE_MINUTES", 40, 1..=720)?,
                limits: check_size::limits()?,
            },
        })
    }
}

/// A digest that was not sent to all. What was not sent is kept, and the next run for the same day sends it.
#[derive(Debug, thiserror::Error)]
pub enum SendDigestError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(r#"no group of the recipients has "digest":true; add it to one, or set DigestHour to "" for no digest"#)]
    NoGroup,
    #[error("the digest of {date} could not be kept: {problem}")]
    Store { date: String, problem: String },
    #[error("another run may be sending the digest of {0}")]
    Taken(String),
    #[error("the digest of {date} did not reach {groups} groups on all of their channels")]
    Unsent { date: String, groups: usize },
}

/// Sends digests.
pub struct Handler<P, B, M, W, T, S> {
    pub recipients: Recipients<P>,
    pub bucket: B,
    pub metrics: M,
    /// Those of AWS's bill.
    pub billing: M,
    pub channels: Channels<W, T, S>,
    pub completeness: check_completeness::Config,
    pub settings: Settings,
}

impl<P: Parameter, B: Bucket, M: Metrics, W: Webhooks, T: Topic, S: Mailer> Handler<P, B, M, W, T, S> {
    /// Sends the digest of the day before the event's.
    ///
    /// # Errors
    ///
    /// When it can't be kept in the bucket, did not reach a group, or is for none; not when facts could not be read.
    pub async fn handle(&self, event: ScheduledEvent, context: Context) -> Result<(), SendDigestError> {
        let now = event.at()?;
        let run = Run { request_id: context.request_id, ends_at: context.deadline };
        self.send(now, run, Deadline::before(context.deadline, ANSWER_TIME)).await
    }

    async fn send(&self, now: UnixMillis, run: Run, deadline: Deadline) -> Result<(), SendDigestError> {
        let date = now.hour().date().plus(-1);
        let recipients = self.recipients.current(lambda_setup::now(), deadline).await;
        let to: Vec<&Recipient> = recipients.iter().filter(|recipient| recipient.digest).collect();
        if to.is_empty() {
            return Err(SendDigestError::NoGroup);
        }
        let failed = |error| store_error(date, error);
        let known = state::load(&self.bucket, date).await.map_err(failed)?;
        let (mut state, etag) = match known {
            Some((state, _)) if state.is_done(&to) => {
                tracing::info!(date = date.partition(), "the digest was sent before");
                return Ok(());
            }
            Some((state, _)) if state.is_taken(&run, TIMEOUT.as_millis() as u64) => {
                return Err(SendDigestError::Taken(date.partition()));
            }
            Some((state, etag)) => (state, Some(etag)),
            None => (self.compose(&recipients, (date, now), &run, deadline).await, None),
        };
        state.take(&run, &to);
        let etag = state::store(&self.bucket, date, &state, etag.as_deref()).await.map_err(failed)?;
        let deliveries = join_all(to.iter().map(|recipient| self.deliver(&state, recipient, deadline))).await;
        for (recipient, deliveries) in to.iter().zip(&deliveries) {
            state.groups.entry(recipient.group.clone()).or_default().note(deliveries, false);
        }
        state::store(&self.bucket, date, &state, Some(&etag)).await.map_err(failed)?;
        match deliveries.iter().filter(|deliveries| !deliveries.are_sent()).count() {
            0 => Ok(()),
            groups => Err(SendDigestError::Unsent { date: date.partition(), groups }),
        }
    }

    async fn compose(
        &self,
        recipients: &[Recipient],
        (date, now): (UtcDate, UnixMillis),
        run: &Run,
        deadline: Deadline,
    ) -> State {
        let Settings { stack_name, due_minutes, limits } = &self.settings;
        let Self { bucket, metrics, billing, completeness, .. } = self;
        let due_minutes = *due_minutes;
        let sources = Sources { bucket, metrics, billing, completeness, limits, due_minutes, recipients };
        let facts = sources.read(date, now, deadline).await;
        let digest = Digest::compose(&facts, stack_name, due_minutes);
        let (text, html) = (digest.text(), render::html(&digest));
        State::new(now, digest.subject, text, html, run.clone())
    }

    async fn deliver(&self, state: &State, to: &Recipient, deadline: Deadline) -> Deliveries {
        let State { subject, text, html, .. } = state;
        let parcel = Parcel { subject, text, html: Some(html), states: state.states(&to.group) };
        self.channels.deliver(&[parcel], to, deadline).await.pop().unwrap_or_default()
    }
}

fn store_error(date: UtcDate, error: StateError) -> SendDigestError {
    let date = date.partition();
    match error {
        StateError::Bucket(BucketError::ConditionFailed { .. }) => SendDigestError::Taken(date),
        error => SendDigestError::Store { date, problem: error.to_string() },
    }
}

#[cfg(test)]
mod tests;
