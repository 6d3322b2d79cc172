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
use super::parameter::Parameter;
use super::recipient::Recipient;
use super::recipients::Recipients;
use super::reporter::{Reporter, TrustedAccounts};
use super::store::{self, Owner, StoreError};
use super::topic::Topic;
use super::webhook::Webhooks;
use crate::cloudwatch::Metrics;
use lambda_setup::bucket::Streams;
use lambda_setup::event::EventError;

/// Time reserved for recording what was sent, and for the answer.
const ANSWER_TIME: std::time::Duration = std::time::Duration::from_secs(10);

/// Notifies groups of people.
pub struct Handler<P, B, M, W, T, S> {
    pub recipients: Recipients<P>,
    pub rules: Rules,
    /// Of which other accounts alarms are taken.
    pub trusted: TrustedAccounts,
    /// Where it runs.
    pub home: Reporter,
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
    #[error("the incidents of {name} could not be kept")]
    Store {
        /// The ledger's: a group's, or with account and region.
        name: String,
        #[source]
        source: StoreError,
    },
    #[error("the ledgers could not be listed")]
    Listing(#[source] StoreError),
    #[error("{0} messages could not be sent")]
    Unsent(usize),
}

impl<P: Parameter, B: Streams, M: Metrics, W: Webhooks, T: Topic, S: Mailer> Handler<P, B, M, W, T, S> {
    /// # Errors
    ///
    /// When a message could not be sent or a ledger not be stored; everything else has been done by then.
    pub async fn handle(&self, invocation: Invocation, context: Context) -> Result<(), NotifyError> {
        self.handle_until(invocation, Deadline::before(context.deadline, ANSWER_TIME)).await
    }

    async fn handle_until(&self, invocation: Invocation, deadline: Deadline) -> Result<(), NotifyError> {
        let recipients = self.recipients.current(lambda_setup::now(), deadline).await;
        let mut result = Ok(());
        match invocation {
            Invocation::Notices(event) => {
                for notice in event.messages() {
                    match Change::of(&notice) {
                        Ok(change) => result = result.and(self.change(&change, &recipients, deadline).await),
                        Err(error) => not_acted_on(&error),
                    }
                }
            }
            Invocation::Report(report) => match report.changes(&self.trusted, &self.home) {
                Ok(changes) => {
                    for change in changes {
                        result = result.and(self.change(&change, &recipients, deadline).await);
                    }
                }
                Err(error) => not_acted_on(&error),
            },
            Invocation::Tick(event) => result = self.tick_all(&recipients, event.at()?, deadline).await,
        }
        result
    }

    async fn tick_all(&self, recipients: &[Recipient], now: UnixMillis, deadline: Deadline) -> Result<(), NotifyError> {
        let (owners, listed) = match store::owners(&self.bucket).await {
            Ok(owners) => (owners, Ok(())),
            Err(source) => (Vec::new(), Err(NotifyError::Listing(source))),
        };
        let of_groups = recipients.iter().map(|recipient| (recipient, None));
        // Those of accounts that are no longer trusted rest: nothing would end their incidents.
        let of_others = owners.iter().filter_map(|(group, reporter)| {
            let reporter = reporter.as_ref().filter(|reporter| self.trusted.include(reporter))?;
            Some((find(recipients, group)?, Some(reporter)))
        });
        let ticks = of_groups.chain(of_others).map(|(to, reporter)| self.tick(to, reporter, now, deadline));
        let ticked = join_all(ticks).await.into_iter().fold(listed, Result::and);
        let gone = owners.into_iter().filter(|(group, _)| find(recipients, group).is_none()).collect();
        ticked.and(self.close_of_gone(gone, now, deadline).await)
    }

    /// Closes and archives the incidents of groups that are not among the recipients: no notice would end them.
    async fn close_of_gone(&self, gone: Vec<Owner>, now: UnixMillis, deadline: Deadline) -> Result<(), NotifyError> {
        let look = async |owner: Owner| {
            let name = store::name(&owner.0, owner.1.as_ref());
            let known = store::load(&self.bucket, &name).await;
            let known = known.map_err(|source| NotifyError::Store { name, source })?;
            Ok((!known.is_settled()).then_some(owner))
        };
        let looks = join_all(gone.into_iter().map(look)).await;
        let unsettled = looks.into_iter().filter_map(Result::transpose).collect::<Result<Vec<Owner>, NotifyError>>()?;
        if unsettled.is_empty() {
            return Ok(());
        }
        // Another environment may know of a group that was added since this one read them, or the parameter may be unusable.
        let Some(recipients) = self.recipients.reread(lambda_setup::now(), deadline).await else { return Ok(()) };
        let closing = unsettled.iter().filter(|(group, _)| find(&recipients, group).is_none());
        let closed = closing.map(async |(group, reporter)| {
            tracing::warn!(group, "its incident is closed: the group is not among the recipients");
            self.tick(&Recipient::gone(group), reporter.as_ref(), now, deadline).await
        });
        join_all(closed).await.into_iter().collect()
    }

    async fn change(&self, change: &Change, recipients: &[Recipient], deadline: Deadline) -> Result<(), NotifyError> {
        let owners: Vec<_> = recipients.iter().filter(|recipient| recipient.owns(&change.name)).collect();
        if owners.is_empty() {
            tracing::warn!(alarm = change.name, "no group gets this alarm");
            return Ok(());
        }
        let mut change = change.clone();
        let mut chart = None;
        // Of an alarm elsewhere, notify's own bucket and CloudWatch know nothing.
        if change.state == State::Alarm && change.reporter.is_none() {
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
        let name = store::name(&to.group, change.reporter.as_ref());
        match store::update(&self.bucket, &name, record).await {
            Ok((ledger, added)) => self.send((to, &name), &ledger, added.into_iter().collect(), deadline).await,
            Err(error) => {
                // The message is sent although the incident is not stored: the alarm may be about S3 being away.
                let mut ledger = Ledger::default();
                let added = record(&mut ledger);
                let parcels: Vec<_> = added.and_then(|id| ledger.message(id)).map(parcel).into_iter().collect();
                self.channels.deliver(&parcels, to, deadline).await;
                Err(NotifyError::Store { name, source: error })
            }
        }
    }

    /// Sends messages that earlier invocations did not finish, further alarms and reminders.
    async fn tick(
        &self,
        to: &Recipient,
        reporter: Option<&Reporter>,
        now: UnixMillis,
        deadline: Deadline,
    ) -> Result<(), NotifyError> {
        let name = store::name(&to.group, reporter);
        let failed = |source| NotifyError::Store { name: name.clone(), source };
        let known = store::load(&self.bucket, &name).await.map_err(failed)?;
        let charts = match known.due_by(now, &self.rules) {
            Some(Kind::Reminder) if reporter.is_none() => self.charts(&known, now).await,
            _ => Vec::new(),
        };
        let record = |ledger: &mut Ledger| {
            let mut ids = ledger.claim(now, to);
            ledger.disown(to, now);
            if let Some(kind) = ledger.due_by(now, &self.rules) {
                refresh(ledger, &charts);
                ids.extend(self.add(ledger, kind, now, to));
            }
            ids
        };
        let (ledger, ids) = store::update(&self.bucket, &name, record).await.map_err(failed)?;
        self.send((to, &name), &ledger, ids, deadline).await
    }

    fn add(&self, ledger: &mut Ledger, kind: Kind, now: UnixMillis, to: &Recipient) -> Option<MessageId> {
        let origin = Origin { stack: &self.stack_name, runbook: &self.runbook_url };
        let mut text = compose(kind, ledger.open.as_ref()?, now, &self.rules.parents, origin);
        if to.is_gone() {
            text.add_line(&format!("Nobody gets this: the group {} is not among the recipients.", to.group));
        }
        ledger.add(kind, text, now, to, &self.rules.parents)
    }

    /// Sends messages that are unsent in the ledger of this name, records the outcomes, and archives finished incidents.
    async fn send(
        &self,
        (to, name): (&Recipient, &str),
        ledger: &Ledger,
        ids: Vec<MessageId>,
        deadline: Deadline,
    ) -> Result<(), NotifyError> {
        let (ids, parcels): (Vec<_>, Vec<_>) =
            ids.into_iter().filter_map(|id| Some((id, parcel(ledger.message(id)?)))).unzip();
        let deliveries = self.channels.deliver(&parcels, to, deadline).await;
        let failed = |source| NotifyError::Store { name: name.to_owned(), source };
        let note = |ledger: &mut Ledger| {
            ids.iter().zip(&deliveries).for_each(|(id, deliveries)| ledger.note(*id, deliveries));
        };
        let (ledger, ()) = store::update(&self.bucket, name, note).await.map_err(failed)?;
        self.archive(name, &ledger).await.map_err(failed)?;
        match deliveries.iter().filter(|deliveries| !deliveries.are_sent()).count() {
            0 => Ok(()),
            unsent => Err(NotifyError::Unsent(unsent)),
        }
    }

    async fn archive(&self, name: &str, ledger: &Ledger) -> Result<(), StoreError> {
        if ledger.finished().next().is_none() {
            return Ok(());
        }
        for incident in ledger.finished() {
            store::keep(&self.bucket, incident).await?;
        }
        store::update(&self.bucket, name, Ledger::drop_finished).await?;
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

fn find<'a>(recipients: &'a [Recipient], group: &str) -> Option<&'a Recipient> {
    recipients.iter().find(|recipient| recipient.group == group)
}

fn not_acted_on(error: &(impl std::error::Error + 'static)) {
    let source = error.source().map(ToString::to_string);
    tracing::warn!(%error, source, "a notice is not acted on");
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
