//! An incident: from the first alarm of a group to the moment when none is on, with the messages that the group got.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::timestamp::UnixMillis;

use super::alarm::About;
use super::channels::ChannelStates;
use super::chart::Chart;
use super::reporter::Reporter;
use super::store;

/// The most messages that an incident keeps; the oldest that are done are dropped first.
pub(crate) const MAX_MESSAGES: usize = 100;

/// What happened to a group's alarms, and the messages about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub group: String,
    /// Where its alarms are; absent for those of notify's own stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reporter: Option<Reporter>,
    pub opened_at: UnixMillis,
    pub resolved_at: Option<UnixMillis>,
    /// By name.
    pub alarms: BTreeMap<String, Episode>,
    pub messages: Vec<Message>,
    /// Messages so far, which is the number of the next one.
    pub message_count: u32,
}

/// An alarm in an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    pub since: UnixMillis,
    /// When it was over; absent while it is on.
    pub until: Option<UnixMillis>,
    /// Whether it ended for the group alone, which no longer gets this alarm.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disowned: bool,
    /// Whether it ended because the alarm was deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// When SNS got the notice.
    pub noticed_at: UnixMillis,
    /// Whether a message named it.
    #[serde(rename = "told")]
    pub announced: bool,
    pub about: About,
    /// Absent when CloudWatch did not answer.
    pub chart: Option<Chart>,
}

/// Why a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The first alarm came on.
    Opened,
    /// Further alarms came on.
    Update,
    /// It is still going on.
    Reminder,
    /// The last alarm is over.
    Resolved,
}

/// A message to a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// From 0, in this incident.
    pub number: u32,
    pub kind: Kind,
    pub at: UnixMillis,
    pub subject: String,
    pub text: String,
    #[serde(flatten)]
    pub channels: ChannelStates,
    /// When the last attempt began.
    pub tried_at: UnixMillis,
    pub tries: u32,
}

impl Incident {
    pub(crate) fn new(group: &str, reporter: Option<&Reporter>, opened_at: UnixMillis) -> Self {
        Self {
            group: group.to_owned(),
            reporter: reporter.cloned(),
            opened_at,
            resolved_at: None,
            alarms: BTreeMap::new(),
            messages: Vec::new(),
            message_count: 0,
        }
    }

    /// The alarms that are on.
    pub(crate) fn on(&self) -> impl Iterator<Item = (&str, &Episode)> {
        self.alarms
            .iter()
            .filter(|(_, episode)| episode.until.is_none())
            .map(|(name, episode)| (name.as_str(), episode))
    }

    /// When the last alarm was over; `None` while one is on.
    pub(crate) fn over_at(&self) -> Option<UnixMillis> {
        let ends: Option<Vec<_>> = self.alarms.values().map(|episode| episode.until).collect();
        ends?.into_iter().max()
    }

    /// Adds a message, dropping others if necessary.
    pub(crate) fn add(&mut self, message: Message) {
        self.message_count = message.number + 1;
        while self.messages.len() >= MAX_MESSAGES {
            // The oldest of all if none is done: the newest message says more than a hundred unsent ones.
            let oldest = self.messages.iter().position(Message::is_done).unwrap_or(0);
            self.messages.remove(oldest);
        }
        self.messages.push(message);
    }

    /// Whether nothing is left to send.
    pub(crate) fn is_delivered(&self) -> bool {
        self.messages.iter().all(Message::is_done)
    }

    /// `incidents/dt=2026-11-21/20261121T094012345Z-platform.json`: where it is kept once it is over.
    pub(crate) fn key(&self) -> String {
        let opened = self.opened_at.rfc3339();
        let compact = opened.replace(['-', ':', '.'], "");
        let name = store::name(&self.group, self.reporter.as_ref());
        format!("incidents/{}/{compact}-{name}.json", self.opened_at.hour().date().partition())
    }
}

impl Message {
    /// Whether no channel is left to send it through.
    pub(crate) fn is_done(&self) -> bool {
        self.channels.are_done()
    }
}

#[cfg(test)]
mod tests {
    use super::super::channels::Delivery;
    use super::*;

    pub(crate) fn message(number: u32, email: Delivery) -> Message {
        let at = UnixMillis(0);
        let (subject, text) = (String::new(), String::new());
        Message {
            number,
            kind: Kind::Reminder,
            at,
            subject,
            text,
            channels: ChannelStates { email, ..ChannelStates::default() },
            tried_at: at,
            tries: 1,
        }
    }

    #[test]
    fn an_incident_keeps_a_hundred_messages_and_all_that_are_unsent() {
        let mut incident = Incident::new("platform", None, UnixMillis(0));
        incident.add(message(0, Delivery::Unsent));
        for number in 1..=100 {
            incident.add(message(number, Delivery::Sent));
        }
        let numbers: Vec<_> = incident.messages.iter().map(|message| message.number).collect();
        assert_eq!((numbers.len(), numbers[0], numbers[1], numbers[99]), (100, 0, 2, 100));
        assert!(!incident.is_delivered());
    }

    #[test]
    fn a_message_of_an_earlier_version_is_read() {
        let written = serde_json::json!({
            "number": 0, "kind": "opened", "at": "2026-11-21T09:40:12.345Z", "subject": "s", "text": "t",
            "webhook": "sent", "email": "unsent", "tried_at": "2026-11-21T09:40:12.345Z", "tries": 1,
        });
        let message: Message = serde_json::from_value(written.clone()).unwrap();
        let expected = ChannelStates { webhook: Delivery::Sent, email: Delivery::Unsent, mail: Delivery::None };
        assert_eq!(message.channels, expected);
        let mut again = serde_json::to_value(&message).unwrap();
        assert_eq!(again.as_object_mut().unwrap().remove("mail").unwrap(), "none");
        assert_eq!(again, written);
    }

    #[test]
    fn its_key_names_time_and_group() {
        let incident = Incident::new("platform", None, UnixMillis(1_795_253_528_006));
        assert_eq!(incident.key(), "incidents/dt=2026-11-21/20261121T093208006Z-platform.json");
        let elsewhere = Reporter::new("111122223333", "eu-west-1");
        let key = Incident { reporter: elsewhere, ..incident }.key();
        assert_eq!(key, "incidents/dt=2026-11-21/20261121T093208006Z-platform.111122223333.eu-west-1.json");
    }
}
