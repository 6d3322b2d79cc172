//! Sends a message on a group's ways, and says what became of it on each.

use lambda_setup::deadline::Deadline;

use super::incident::{Delivery, Message};
use super::outcome::Outcome;
use super::recipient::Recipient;
use super::topic::Topic;
use super::webhook::Webhooks;

/// What became of a message; `None` where it was not to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deliveries {
    pub webhook: Option<Outcome>,
    pub email: Option<Outcome>,
}

impl Deliveries {
    /// Whether it is sent wherever it was to be.
    #[must_use]
    pub fn are_sent(&self) -> bool {
        [&self.webhook, &self.email].into_iter().flatten().all(|outcome| *outcome == Outcome::Sent)
    }
}

/// Sends a message where it is unsent.
pub async fn deliver(
    message: &Message,
    to: &Recipient,
    webhooks: &impl Webhooks,
    topic: &impl Topic,
    deadline: Deadline,
) -> Deliveries {
    let mut deliveries = Deliveries::default();
    if let Some(webhook) = to.webhook.as_ref().filter(|_| message.webhook == Delivery::Unsent) {
        deliveries.webhook = Some(webhooks.post(webhook, &message.text, deadline).await);
    }
    if message.email == Delivery::Unsent {
        deliveries.email = Some(topic.publish(&to.group, &message.subject, &message.text, deadline).await);
    }
    report("webhook", deliveries.webhook.as_ref(), &to.group);
    report("e-mail", deliveries.email.as_ref(), &to.group);
    deliveries
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
