//! Sends messages through a group's channels, and reports the outcome of each.

use lambda_setup::deadline::Deadline;

use super::incident::{Delivery, Message};
use super::outcome::Outcome;
use super::recipient::Recipient;
use super::topic::Topic;
use super::webhook::Webhooks;

/// The outcomes of a message; `None` for a channel that it was not to be sent through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Deliveries {
    pub(crate) webhook: Option<Outcome>,
    pub(crate) email: Option<Outcome>,
}

impl Deliveries {
    /// Whether it was sent through every channel that it was to be sent through.
    pub(crate) fn are_sent(&self) -> bool {
        [&self.webhook, &self.email].into_iter().flatten().all(|outcome| *outcome == Outcome::Sent)
    }
}

/// Sends messages through the channels where they are unsent, in order. The channels don't wait for each other: one that does
/// not answer must not take the other's time.
pub(crate) async fn deliver(
    messages: &[&Message],
    to: &Recipient,
    webhooks: &impl Webhooks,
    topic: &impl Topic,
    deadline: Deadline,
) -> Vec<Deliveries> {
    let posts = in_turn(messages, async |message| match &to.webhook {
        Some(webhook) if message.webhook == Delivery::Unsent => {
            Some(webhooks.post(webhook, &message.text, deadline).await)
        }
        _ => None,
    });
    let emails = in_turn(messages, async |message| match message.email {
        Delivery::Unsent => Some(topic.publish(&to.group, &message.subject, &message.text, deadline).await),
        _ => None,
    });
    let (posts, emails) = tokio::join!(posts, emails);
    posts.iter().for_each(|outcome| report("webhook", outcome.as_ref(), &to.group));
    emails.iter().for_each(|outcome| report("e-mail", outcome.as_ref(), &to.group));
    posts.into_iter().zip(emails).map(|(webhook, email)| Deliveries { webhook, email }).collect()
}

async fn in_turn(messages: &[&Message], send: impl AsyncFn(&Message) -> Option<Outcome>) -> Vec<Option<Outcome>> {
    let mut outcomes = Vec::with_capacity(messages.len());
    for message in messages {
        outcomes.push(send(message).await);
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
