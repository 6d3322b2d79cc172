//! The state of a group: the open incident, and the newest state of each alarm. Pure: it takes changes and times, and decides
//! which message is due.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::timestamp::UnixMillis;

use super::alarm::{Change, State};
use super::channels::{ChannelStates, Deliveries};
use super::chart::Chart;
use super::config::{Parents, Rules};
use super::formatting::between;
use super::incident::{Episode, Incident, Kind, Message};
use super::message::Text;
use super::recipient::Recipient;

/// The version of the format.
const VERSION: u8 = 1;
/// The most alarms whose newest state is remembered. The template has some fifty; the longest unchanged are forgotten first.
pub(crate) const MAX_ALARMS: usize = 500;
/// A message that nobody has tried to send for this long is taken over by the next run: longer than notify may run.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(120);
/// How often a message is tried: for two hours, with a run every five minutes.
pub(crate) const MAX_TRIES: u32 = 24;

/// A group's ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    v: u8,
    pub open: Option<Incident>,
    /// Incidents that are over, with messages that are not sent yet or not archived yet.
    pub closed: Vec<Incident>,
    seen: BTreeMap<String, Seen>,
}

/// The newest notices of an alarm, in milliseconds since 1970: the same ones and older ones change nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    alarm_at: Option<i64>,
    ok_at: Option<i64>,
}

/// Which message of which incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageId {
    pub(crate) opened_at: UnixMillis,
    pub(crate) number: u32,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { v: VERSION, open: None, closed: Vec::new(), seen: BTreeMap::new() }
    }
}

impl Ledger {
    /// Records a change of an alarm. A notice that came before, or that is older than what is known, changes nothing; except
    /// that an alarm whose end came first is recorded as over.
    pub(crate) fn record(&mut self, group: &str, change: &Change, chart: Option<Chart>) {
        let seen = self.seen.entry(change.name.clone()).or_default();
        match change.state {
            State::Alarm if seen.alarm_at < Some(change.at.0) => {
                seen.alarm_at = Some(change.at.0);
                let until = seen.ok_at.filter(|ok_at| *ok_at >= change.at.0).map(UnixMillis);
                self.begin(group, change, until, chart);
            }
            State::Ok | State::Deleted if seen.ok_at < Some(change.at.0) => {
                seen.ok_at = Some(change.at.0);
                self.end(change);
            }
            State::Alarm | State::Ok | State::Deleted => {}
        }
        self.forget();
    }

    fn begin(&mut self, group: &str, change: &Change, until: Option<UnixMillis>, chart: Option<Chart>) {
        let incident = self.open.get_or_insert_with(|| Incident::new(group, change.reporter.as_ref(), change.at));
        let (at, noticed_at, about) = (change.at, change.noticed_at, change.about.clone());
        match incident.alarms.get_mut(&change.name) {
            // A flapping alarm is one piece of news in an incident, not one each time.
            Some(episode) => {
                let announced = episode.announced && !episode.disowned;
                let was = episode.clone();
                *episode = Episode { until, disowned: false, deleted: false, announced, about, chart, ..was };
            }
            None => {
                let (disowned, deleted, announced) = (false, false, false);
                let episode = Episode { since: at, until, disowned, deleted, noticed_at, announced, about, chart };
                incident.alarms.insert(change.name.clone(), episode);
            }
        }
    }

    fn end(&mut self, change: &Change) {
        let episode = self.open.as_mut().and_then(|incident| incident.alarms.get_mut(&change.name));
        if let Some(episode) = episode.filter(|episode| episode.until.is_none() && episode.since <= change.at) {
            episode.until = Some(change.at);
            episode.deleted = change.state == State::Deleted;
        }
    }

    /// Ends the alarms that the group no longer gets: it gets no notice of their end, and would be reminded of them for ever.
    pub(crate) fn disown(&mut self, to: &Recipient, now: UnixMillis) {
        let Some(incident) = &mut self.open else { return };
        let others = incident.alarms.iter_mut().filter(|(name, _)| !to.owns(name));
        for (_, episode) in others.filter(|(_, episode)| episode.until.is_none()) {
            episode.until = Some(now);
            episode.disowned = true;
        }
    }

    fn forget(&mut self) {
        while self.seen.len() > MAX_ALARMS {
            let oldest = self.seen.iter().min_by_key(|(_, seen)| seen.alarm_at.max(seen.ok_at));
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { return };
            self.seen.remove(&name);
        }
    }

    /// The message that is due after a change: what opens an incident, and what closes it.
    pub(crate) fn due_after_change(&self, parents: &Parents) -> Option<Kind> {
        let incident = self.open.as_ref()?;
        if incident.over_at().is_some() {
            return Some(Kind::Resolved);
        }
        (incident.messages.is_empty() && parents.unannounced(incident).next().is_some()).then_some(Kind::Opened)
    }

    /// The message that is due by now: what opens or closes an incident, further alarms, or a reminder.
    pub(crate) fn due_by(&self, now: UnixMillis, rules: &Rules) -> Option<Kind> {
        if let Some(kind) = self.due_after_change(&rules.parents) {
            return Some(kind);
        }
        let incident = self.open.as_ref()?;
        let waited = rules.parents.unannounced(incident).map(|(_, episode)| between(episode.noticed_at, now)).max();
        if waited.is_some_and(|waited| waited >= rules.grouping) {
            return Some(Kind::Update);
        }
        let last = incident.messages.last()?;
        (between(last.at, now) >= rules.reminder).then_some(Kind::Reminder)
    }

    /// Adds a message that is about to be sent, and closes the incident if the message resolves it.
    pub(crate) fn add(
        &mut self,
        kind: Kind,
        text: Text,
        now: UnixMillis,
        to: &Recipient,
        parents: &Parents,
    ) -> Option<MessageId> {
        let mut incident = self.open.take()?;
        let announced: Vec<_> = parents.unannounced(&incident).map(|(name, _)| name.to_owned()).collect();
        for name in announced {
            if let Some(episode) = incident.alarms.get_mut(&name) {
                episode.announced = true;
            }
        }
        let number = incident.message_count;
        let channels = ChannelStates::unsent(to);
        let Text { subject, text } = text;
        incident.add(Message { number, kind, at: now, subject, text, channels, tried_at: now, tries: 1 });
        let id = MessageId { opened_at: incident.opened_at, number };
        if kind == Kind::Resolved {
            incident.resolved_at = incident.over_at();
            self.closed.push(incident);
        } else {
            self.open = Some(incident);
        }
        Some(id)
    }

    /// Takes over the messages that an earlier invocation began to send and did not finish, as far as the group still has the
    /// channels.
    pub(crate) fn claim(&mut self, now: UnixMillis, to: &Recipient) -> Vec<MessageId> {
        let mut claimed = Vec::new();
        for incident in self.open.iter_mut().chain(&mut self.closed) {
            incident.messages.iter_mut().for_each(|message| message.channels.keep_to(to));
            let stale = |message: &&mut Message| !message.is_done() && between(message.tried_at, now) >= RETRY_AFTER;
            for message in incident.messages.iter_mut().filter(stale) {
                message.tried_at = now;
                message.tries += 1;
                claimed.push(MessageId { opened_at: incident.opened_at, number: message.number });
            }
        }
        claimed
    }

    pub(crate) fn message(&self, id: MessageId) -> Option<&Message> {
        let mut incidents = self.open.iter().chain(&self.closed);
        let incident = incidents.find(|incident| incident.opened_at == id.opened_at)?;
        incident.messages.iter().find(|message| message.number == id.number)
    }

    /// Records the outcomes of a message.
    pub(crate) fn note(&mut self, id: MessageId, deliveries: &Deliveries) {
        let mut incidents = self.open.iter_mut().chain(&mut self.closed);
        let Some(incident) = incidents.find(|incident| incident.opened_at == id.opened_at) else { return };
        if let Some(message) = incident.messages.iter_mut().find(|message| message.number == id.number) {
            message.channels.note(deliveries, message.tries >= MAX_TRIES);
        }
    }

    /// Whether there is nothing to send, to end or to archive.
    pub(crate) fn is_settled(&self) -> bool {
        self.open.is_none() && self.closed.is_empty()
    }

    /// Incidents that are over, with nothing left to send.
    pub(crate) fn finished(&self) -> impl Iterator<Item = &Incident> {
        self.closed.iter().filter(|incident| incident.is_delivered())
    }

    /// Drops the finished incidents, which are archived.
    pub(crate) fn drop_finished(&mut self) {
        self.closed.retain(|incident| !incident.is_delivered());
    }
}
