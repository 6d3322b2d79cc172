//! One invocation: notices are recorded in the ledgers, and messages that are due are sent.

use futures_util::future::join_all;
use lambda_runtime::Context;
use lambda_setup::deadline::Deadline;
use shared::timestamp::UnixMillis;

use super::alarm::{Change, Invocation, State};
use super::channels::{Channels, Parcel};
use super::chart::{self, Chart};
use super::config::Rules;
use super::details;
use super::incident::{Kind, Message};
use super::ledger::{Ledger, MessageId};
use super::mail::Mailer;
use super::message::{MAX_DESCRIBED, Origin, compose};
use super::recipient::Recipient;
use super::store::{self, StoreError};
use super::topic::Topic;
use super::webhook::Webhooks;
use crate::cloudwatch::Metrics;
use lambda_setup::bucket::Streams;
use lambda_setup::event::EventError;

/// Time reserved for recording what was sent, and for the answer.
const ANSWER_TIME: std::time::Duration = std::time::Duration::from_secs(10);

/// Notifies groups of people.
pub struct Handler<B, M, W, T, S> {
    pub recipients: Vec<Recipient>,
    pub rules: Rules,
    pub stack_name: String,
    pub runbook_url: String,
    pub bucket: B,
    pub metrics: M,
    pub channels: Channels<W, T, S>,
}

/// An invocation that did not do everything. What is unsent is in the ledgers, and a later invocation sends it.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error("the incidents of {group} could not be kept")]
    Store {
        group: String,
        #[source]
        source: StoreError,
    },
    #[error("{0} messages could not be sent")]
    Unsent(usize),
}

impl<B: Streams, M: Metrics, W: Webhooks, T: Topic, S: Mailer> Handler<B, M, W, T, S> {
    /// # Errors
    ///
    /// When a message could not be sent or a ledger not be stored; everything else has been done by then.
    pub async fn handle(&self, invocation: Invocation, context: Context) -> Result<(), NotifyError> {
        self.handle_until(invocation, Deadline::before(context.deadline, ANSWER_TIME)).await
    }

    async fn handle_until(&self, invocation: Invocation, deadline: Deadline) -> Result<(), NotifyError> {
        let mut result = Ok(());
        match invocation {
            Invocation::Notices(event) => {
                for notice in event.messages() {
                    match Change::of(&notice) {
                        Ok(change) => result = result.and(self.change(&change, deadline).await),
                        Err(error) => {
                            let source = std::error::Error::source(&error).map(ToString::to_string);
                            tracing::warn!(%error, source, "a notice is not acted on");
                        }
                    }
                }
            }
            Invocation::Tick(event) => {
                let now = event.at()?;
                let ticks = self.recipients.iter().map(|recipient| self.tick(recipient, now, deadline));
                result = join_all(ticks).await.into_iter().fold(result, Result::and);
            }
        }
        result
    }

    async fn change(&self, change: &Change, deadline: Deadline) -> Result<(), NotifyError> {
        let owners: Vec<_> = self.recipients.iter().filter(|recipient| recipient.owns(&change.name)).collect();
        if owners.is_empty() {
            tracing::warn!(alarm = change.name, "no group gets this alarm");
            return Ok(());
        }
        let mut change = change.clone();
        let mut chart = None;
        if change.state == State::Alarm {
            chart = self.chart(change.about.watched.as_ref(), change.at).await;
            let watched = change.about.watched.as_ref();
            change.about.details = details::read(&self.bucket, watched, change.at, deadline).await;
        }
        // Concurrently: a group's webhook that does not answer must not take the others' time.
        let notices = owners.into_iter().map(|recipient| self.notify_of(recipient, &change, chart.as_ref(), deadline));
        join_all(notices).await.into_iter().collect()
    }

    async fn notify_of(
        &self,
        to: &Recipient,
        change: &Change,
        chart: Option<&Chart>,
        deadline: Deadline,
    ) -> Result<(), NotifyError> {
        let now = change.noticed_at;
        let record = |ledger: &mut Ledger| {
            ledger.record(&to.group, change, chart.cloned());
            let kind = ledger.due_after_change(&self.rules.parents)?;
            self.add(ledger, kind, now, to)
        };
        match store::update(&self.bucket, &to.group, record).await {
            Ok((ledger, added)) => self.send(to, &ledger, added.into_iter().collect(), deadline).await,
            Err(error) => {
                // The message is sent although the incident is not stored: the alarm may be about S3 being away.
                let mut ledger = Ledger::default();
                let added = record(&mut ledger);
                let parcels: Vec<_> = added.and_then(|id| ledger.message(id)).map(parcel).into_iter().collect();
                self.channels.deliver(&parcels, to, deadline).await;
                Err(NotifyError::Store { group: to.group.clone(), source: error })
            }
        }
    }

    /// Sends messages that earlier invocations did not finish, further alarms and reminders.
    async fn tick(&self, to: &Recipient, now: UnixMillis, deadline: Deadline) -> Result<(), NotifyError> {
        let failed = |source| NotifyError::Store { group: to.group.clone(), source };
        let known = store::load(&self.bucket, &to.group).await.map_err(failed)?;
        let charts = match known.due_by(now, &self.rules) {
            Some(Kind::Reminder) => self.charts(&known, now).await,
            _ => Vec::new(),
        };
        let record = |ledger: &mut Ledger| {
            let mut ids = ledger.claim(now);
            if let Some(kind) = ledger.due_by(now, &self.rules) {
                refresh(ledger, &charts);
                ids.extend(self.add(ledger, kind, now, to));
            }
            ids
        };
        let (ledger, ids) = store::update(&self.bucket, &to.group, record).await.map_err(failed)?;
        self.send(to, &ledger, ids, deadline).await
    }

    fn add(&self, ledger: &mut Ledger, kind: Kind, now: UnixMillis, to: &Recipient) -> Option<MessageId> {
        let origin = Origin { stack: &self.stack_name, runbook: &self.runbook_url };
        let text = compose(kind, ledger.open.as_ref()?, now, &self.rules.parents, origin);
        ledger.add(kind, text, now, to, &self.rules.parents)
    }

    /// Sends messages that are unsent in the ledger, records the outcomes, and archives finished incidents.
    async fn send(
        &self,
        to: &Recipient,
        ledger: &Ledger,
        ids: Vec<MessageId>,
        deadline: Deadline,
    ) -> Result<(), NotifyError> {
        let (ids, parcels): (Vec<_>, Vec<_>) =
            ids.into_iter().filter_map(|id| Some((id, parcel(ledger.message(id)?)))).unzip();
        let deliveries = self.channels.deliver(&parcels, to, deadline).await;
        let failed = |source| NotifyError::Store { group: to.group.clone(), source };
        let note = |ledger: &mut Ledger| {
            ids.iter().zip(&deliveries).for_each(|(id, deliveries)| ledger.note(*id, deliveries));
        };
        let (ledger, ()) = store::update(&self.bucket, &to.group, note).await.map_err(failed)?;
        self.archive(to, &ledger).await.map_err(failed)?;
        match deliveries.iter().filter(|deliveries| !deliveries.are_sent()).count() {
            0 => Ok(()),
            unsent => Err(NotifyError::Unsent(unsent)),
        }
    }

    async fn archive(&self, to: &Recipient, ledger: &Ledger) -> Result<(), StoreError> {
        if ledger.finished().next().is_none() {
            return Ok(());
        }
        for incident in ledger.finished() {
            store::keep(&self.bucket, incident).await?;
        }
        store::update(&self.bucket, &to.group, Ledger::drop_finished).await?;
        Ok(())
    }

    /// Current charts of the alarms that a reminder describes.
    async fn charts(&self, ledger: &Ledger, now: UnixMillis) -> Vec<(String, Chart)> {
        let mut charts = Vec::new();
        for (name, episode) in ledger.open.iter().flat_map(|incident| incident.on()).take(2 * MAX_DESCRIBED) {
            if let Some(chart) = self.chart(episode.about.watched.as_ref(), now).await {
                charts.push((name.to_owned(), chart));
            }
        }
        charts
    }

    async fn chart(&self, watched: Option<&super::alarm::Watched>, until: UnixMillis) -> Option<Chart> {
        match chart::read(&self.metrics, watched?, until).await {
            Ok(chart) => Some(chart),
            Err(error) => {
                // The message is sent without it.
                tracing::warn!(%error, "no chart");
                None
            }
        }
    }
}

fn parcel(message: &Message) -> Parcel<'_> {
    Parcel { subject: &message.subject, text: &message.text, html: None, states: message.channels }
}

fn refresh(ledger: &mut Ledger, charts: &[(String, Chart)]) {
    let Some(incident) = &mut ledger.open else { return };
    for (name, chart) in charts {
        if let Some(episode) = incident.alarms.get_mut(name) {
            episode.chart = Some(chart.clone());
        }
    }
}

#[cfg(test)]
mod tests;
