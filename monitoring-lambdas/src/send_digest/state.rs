//! `digests/dt=….json`: a day's digest as it was composed, and what is still to be sent to whom. It is written before anything is
//! sent, so that a run that is killed may send something twice and never loses it.

use std::collections::BTreeMap;

use bytes::Bytes;
use lambda_setup::bucket::{Bucket, BucketError, Condition};
use serde::{Deserialize, Serialize};
use shared::timestamp::{UnixMillis, UtcDate};

use crate::notify::recipient::Recipient;
use crate::notify::{ChannelStates, Delivery};

/// The version of the format.
const VERSION: u8 = 1;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    v: u8,
    /// The time of the event that had it composed.
    pub(crate) composed_at: UnixMillis,
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
    /// By group.
    pub(crate) groups: BTreeMap<String, ChannelStates>,
    /// The run that sends, or sent last.
    run: Run,
}

/// An invocation, by what Lambda says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The same for the retries of an event.
    pub(crate) request_id: String,
    /// When Lambda ends it, in milliseconds since 1970.
    pub(crate) ends_at: u64,
}

/// A state that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("the state of the digest is not JSON as this version writes it")]
    Json(#[from] serde_json::Error),
}

/// `digests/dt=2026-11-21.json`
pub(crate) fn key(date: UtcDate) -> String {
    format!("digests/{}.json", date.partition())
}

impl State {
    pub(crate) fn new(composed_at: UnixMillis, subject: String, text: String, html: String, run: Run) -> Self {
        Self { v: VERSION, composed_at, subject, text, html, groups: BTreeMap::new(), run }
    }

    /// Whether another run may be sending at the time at which `run`, of an invocation of `timeout_ms`, began.
    pub(crate) fn is_taken(&self, run: &Run, timeout_ms: u64) -> bool {
        self.run.request_id != run.request_id && run.ends_at.saturating_sub(timeout_ms) < self.run.ends_at
    }

    /// Takes the sending over, to these groups: what was not sent to one, for whatever reason, is to be sent.
    pub(crate) fn take(&mut self, run: &Run, to: &[&Recipient]) {
        self.run = run.clone();
        for recipient in to {
            let used = ChannelStates::unsent(recipient);
            let states = self.groups.entry(recipient.group.clone()).or_default();
            states.webhook = open(states.webhook, used.webhook);
            states.email = open(states.email, used.email);
            states.mail = open(states.mail, used.mail);
        }
    }

    pub(crate) fn states(&self, group: &str) -> ChannelStates {
        self.groups.get(group).copied().unwrap_or_default()
    }

    /// Whether nothing is left to send to these groups.
    pub(crate) fn is_done(&self, to: &[&Recipient]) -> bool {
        let mut taken = self.clone();
        taken.take(&self.run, to);
        to.iter().all(|recipient| taken.states(&recipient.group).are_done())
    }
}

/// A person may have mended what refused it.
fn open(before: Delivery, used: Delivery) -> Delivery {
    if before == Delivery::Sent { before } else { used }
}

/// A date's state and its `ETag`; `None` when there is none.
pub(crate) async fn load(bucket: &impl Bucket, date: UtcDate) -> Result<Option<(State, String)>, StateError> {
    let Some(content) = bucket.get(&key(date)).await? else { return Ok(None) };
    Ok(Some((serde_json::from_slice(&content.body)?, content.etag)))
}

/// Writes it over what has the `ETag`, or where nothing is; its own `ETag`.
pub(crate) async fn store(
    bucket: &impl Bucket,
    date: UtcDate,
    state: &State,
    etag: Option<&str>,
) -> Result<String, StateError> {
    let body = Bytes::from(serde_json::to_vec_pretty(state)?);
    Ok(bucket.put(&key(date), body, Condition::unchanged(etag)).await?)
}
