//! The channels that lead to a group: which there are, what is still to be sent through each, and the sending.

use lambda_setup::deadline::Deadline;
use serde::{Deserialize, Serialize};

use super::html;
use super::mail::{Mail, Mailer};
use super::outcome::Outcome;
use super::recipient::Recipient;
use super::topic::Topic;
use super::webhook::Webhooks;

/// The state of a message on one channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// The group does not use this channel.
    #[default]
    None,
    /// It is being sent, or will be retried.
    Unsent,
    Sent,
    /// The receiver refused it.
    Refused,
    /// It failed too often.
    GivenUp,
}

/// The states of a message on a group's channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelStates {
    pub webhook: Delivery,
    /// By the notices topic.
    pub email: Delivery,
    /// By SES; absent in what earlier versions wrote.
    #[serde(default)]
    pub mail: Delivery,
}

/// The outcomes of a message; `None` for a channel that it was not to be sent through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Deliveries {
    pub(crate) webhook: Option<Outcome>,
    pub(crate) email: Option<Outcome>,
    pub(crate) mail: Option<Outcome>,
}

/// What is to be sent to a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parcel<'a> {
    pub(crate) subject: &'a str,
    pub(crate) text: &'a str,
    /// For mails; without it, [`html::notice`] makes it of the text.
    pub(crate) html: Option<&'a str>,
    pub(crate) states: ChannelStates,
}

impl ChannelStates {
    /// Of a message that is new, to this group.
    pub(crate) fn unsent(to: &Recipient) -> Self {
        let state = |is_used: bool| if is_used { Delivery::Unsent } else { Delivery::None };
        Self { webhook: state(to.webhook.is_some()), email: state(to.email), mail: state(!to.mail.is_empty()) }
    }

    /// Whether no channel is left to send it through.
    pub(crate) fn are_done(self) -> bool {
        [self.webhook, self.email, self.mail].iter().all(|state| *state != Delivery::Unsent)
    }

    /// What is unsent on a channel that the group no longer has is never sent, and nothing waits for it.
    pub(crate) fn keep_to(&mut self, to: &Recipient) {
        let has = Self::unsent(to);
        for (state, of_group) in
            [(&mut self.webhook, has.webhook), (&mut self.email, has.email), (&mut self.mail, has.mail)]
        {
            if *state == Delivery::Unsent && of_group == Delivery::None {
                *state = Delivery::None;
            }
        }
    }

    /// Records outcomes. `is_last` says that what fails now is not tried again.
    pub(crate) fn note(&mut self, deliveries: &Deliveries, is_last: bool) {
        self.webhook = after(self.webhook, deliveries.webhook.as_ref(), is_last);
        self.email = after(self.email, deliveries.email.as_ref(), is_last);
        self.mail = after(self.mail, deliveries.mail.as_ref(), is_last);
    }
}

fn after(before: Delivery, outcome: Option<&Outcome>, is_last: bool) -> Delivery {
    match outcome {
        None => before,
        Some(Outcome::Sent) => Delivery::Sent,
        Some(Outcome::Refused(_)) => Delivery::Refused,
        Some(Outcome::Failed(_)) if is_last => Delivery::GivenUp,
        Some(Outcome::Failed(_)) => Delivery::Unsent,
    }
}

impl Deliveries {
    /// Whether it was sent through every channel that it was to be sent through.
    pub(crate) fn are_sent(&self) -> bool {
        let outcomes = [&self.webhook, &self.email, &self.mail];
        outcomes.into_iter().flatten().all(|outcome| *outcome == Outcome::Sent)
    }
}

/// All that messages can be sent through.
pub struct Channels<W, T, M> {
    pub webhooks: W,
    pub topic: T,
    pub mailer: M,
}

impl<W: Webhooks, T: Topic, M: Mailer> Channels<W, T, M> {
    /// Sends parcels through the channels where they are unsent, in order. The channels don't wait for each other: one that
    /// does not answer must not take the others' time.
    pub(crate) async fn deliver(&self, parcels: &[Parcel<'_>], to: &Recipient, deadline: Deadline) -> Vec<Deliveries> {
        let posts = in_turn(parcels, async |parcel| match &to.webhook {
            Some(webhook) if parcel.states.webhook == Delivery::Unsent => {
                Some(self.webhooks.post(webhook, parcel.text, deadline).await)
            }
            _ => None,
        });
        let emails = in_turn(parcels, async |parcel| match parcel.states.email {
            Delivery::Unsent if to.email => {
                Some(self.topic.publish(&to.group, parcel.subject, parcel.text, deadline).await)
            }
            _ => None,
        });
        let mails = in_turn(parcels, async |parcel| match parcel.states.mail {
            Delivery::Unsent if !to.mail.is_empty() => Some(self.mail(parcel, to, deadline).await),
            _ => None,
        });
        let (posts, emails, mails) = tokio::join!(posts, emails, mails);
        posts.iter().for_each(|outcome| report("webhook", outcome.as_ref(), &to.group));
        emails.iter().for_each(|outcome| report("e-mail", outcome.as_ref(), &to.group));
        mails.iter().for_each(|outcome| report("mail", outcome.as_ref(), &to.group));
        let deliveries = posts.into_iter().zip(emails).zip(mails);
        deliveries.map(|((webhook, email), mail)| Deliveries { webhook, email, mail }).collect()
    }

    async fn mail(&self, parcel: &Parcel<'_>, to: &Recipient, deadline: Deadline) -> Outcome {
        let (subject, text) = (parcel.subject, parcel.text);
        let html = parcel.html.map_or_else(|| html::notice(subject, text), str::to_owned);
        self.mailer.send(&to.mail, Mail { subject, text, html: &html }, deadline).await
    }
}

async fn in_turn(parcels: &[Parcel<'_>], send: impl AsyncFn(&Parcel<'_>) -> Option<Outcome>) -> Vec<Option<Outcome>> {
    let mut outcomes = Vec::with_capacity(parcels.len());
    for parcel in parcels {
        outcomes.push(send(parcel).await);
    }
    outcomes
}

fn report(way: &str, outcome: Option<&Outcome>, group: &str) {
    match outcome {
        None => {}
        Some(Outcome::Sent) => tracing::info!(group, way, "sent"),
        Some(Outcome::Failed(problem)) => tracing::warn!(group, way, problem, "not sent; it will be retried"),
        Some(Outcome::Refused(problem)) => {
            tracing::error!(group, way, problem, "refused: the group does not get it this way")
        }
    }
}
