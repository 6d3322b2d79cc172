//! Sends messages on a group's ways, and says what became of them on each.

use lambda_setup::deadline::Deadline;

use super::incident::{Delivery, Message};
use super::outcome::Outcome;
use super::recipient::Recipient;
use super::topic::Topic;
use super::webhook::Webhooks;

/// What became of a message; `None` where it was not to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Deliveries {
    pub(crate) webhook: Option<Outcome>,
    pub(crate) email: Option<Outcome>,
}

impl Deliveries {
    /// Whether it is sent wherever it was to be.
    pub(crate) fn are_sent(&self) -> bool {
        [&self.webhook, &self.email].into_iter().flatten().all(|outcome| *outcome == Outcome::Sent)
    }
}

/// Sends messages where they are unsent, one after the other on each way. The ways don't wait for one another: one that
/// does not answer must not take the other's time.
pub(crate) async fn deliver(
    messages: &[&Message],
    to: &Recipient,
    webhooks: &impl Webhooks,
    topic: &impl Topic,
    deadline: Deadline,
) -> Vec<Deliveries> {
    let posts = async {
        let mut outcomes = Vec::with_capacity(messages.len());
        for message in messages {
            let webhook = to.webhook.as_ref().filter(|_| message.webhook == Delivery::Unsent);
            outcomes.push(match webhook {
                Some(webhook) => Some(webhooks.post(webhook, &message.text, deadline).await),
                None => None,
            });
        }
        outcomes
    };
    let emails = async {
        let mut outcomes = Vec::with_capacity(messages.len());
        for message in messages {
            outcomes.push(match message.email {
                Delivery::Unsent => Some(topic.publish(&to.group, &message.subject, &message.text, deadline).await),
                _ => None,
            });
        }
        outcomes
    };
    let (posts, emails) = tokio::join!(posts, emails);
    posts.iter().for_each(|outcome| report("webhook", outcome.as_ref(), &to.group));
    emails.iter().for_each(|outcome| report("e-mail", outcome.as_ref(), &to.group));
    posts.into_iter().zip(emails).map(|(webhook, email)| Deliveries { webhook, email }).collect()
}

fn report(way: &str, outcome: Option<&Outcome>, group: &str) {
    match outcome {
        None => {}
        Some(Outcome::Sent) => tracing::info!(group, way, "sent"),
        Some(Outcome::Failed(problem)) => tracing::warn!(group, way, problem, "not sent; it is tried again"),
        Some(Outcome::Refused(problem)) => {
            tracing::error!(group, way, problem, "refused; the group has not received it this way")
        }
    }
}
