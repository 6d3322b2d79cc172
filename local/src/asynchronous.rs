//! Asynchronous invocation, as Lambda does it for S3, EventBridge and callers of `Invoke`: the sender does not wait, and a
//! failed event is retried as often as the function's EventInvokeConfig says, at most twice.
//! <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use shared::timestamp::UnixMillis;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{error, warn};

use crate::clock::Clock;
use crate::function::{Function, new_request_id};

/// How long Lambda waits before the second and the third try, and the longest that this stack does: nobody here has minutes.
const PAUSES: [(Duration, Duration); 2] =
    [(Duration::from_secs(60), Duration::from_millis(500)), (Duration::from_secs(120), Duration::from_secs(1))];

/// Where an event comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A schedule's name, and when it was due.
    Schedule(String, UnixMillis),
    /// The key of an object that was created.
    Object(String),
    /// `Invoke` with the type `Event`.
    ByHand,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schedule(name, due) => {
                write!(formatter, "the run of the schedule {name} that was due {}", due.rfc3339())
            }
            Self::Object(key) => write!(formatter, "the S3 event of {key}"),
            Self::ByHand => formatter.write_str("an event that was sent by hand"),
        }
    }
}

impl Source {
    /// What happens after the last try has failed.
    fn after(&self) -> &'static str {
        match self {
            Self::Schedule(..) => "; the next run does its work",
            Self::Object(_) | Self::ByHand => "",
        }
    }
}

/// Counts the events in flight, so that a stopping stack can wait for them.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<Counter>);

#[derive(Debug, Default)]
struct Counter {
    events: AtomicU64,
    changed: Notify,
}

/// An event that is counted until this is dropped.
#[derive(Debug)]
pub struct InFlightEvent(InFlight);

impl InFlight {
    /// Counts one more.
    #[must_use]
    pub fn one(&self) -> InFlightEvent {
        self.0.events.fetch_add(1, Ordering::SeqCst);
        InFlightEvent(self.clone())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.events.load(Ordering::SeqCst)
    }

    /// Resolves when there are fewer than `limit`.
    pub async fn fewer_than(&self, limit: u64) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // From here on no change goes unnoticed.
            changed.as_mut().enable();
            if self.count() < limit {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for InFlightEvent {
    fn drop(&mut self) {
        self.0.0.events.fetch_sub(1, Ordering::SeqCst);
        self.0.0.changed.notify_waiters();
    }
}

/// Hands an event to a function, and retries while it fails and may be retried, under one request id. When the last try fails,
/// an ERROR says so: a person is needed.
pub async fn invoke(function: &Function, event: &Bytes, source: &Source, clock: Clock) {
    invoke_as(new_request_id(), function, event, source, clock).await;
}

/// [`invoke`] under a request id that the sender knows already.
pub async fn invoke_as(request_id: String, function: &Function, event: &Bytes, source: &Source, clock: Clock) {
    let retries = usize::try_from(function.event_retries()).unwrap_or(PAUSES.len());
    let pauses = PAUSES.map(|(lambda, longest)| Some(clock.really(lambda).min(longest)));
    for pause in pauses.into_iter().take(retries).chain([None]) {
        let Err(problem) = function.invoke(request_id.clone(), event.clone()).await else { return };
        let function = function.name();
        match pause {
            Some(pause) => {
                warn!(function, request_id, %problem, "{source} failed and is tried again");
                sleep(pause).await;
            }
            None => {
                error!(function, request_id, %problem, "{source} failed {} times and is dropped{}", retries + 1, source.after())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_is_woken_when_the_last_event_has_arrived() {
        let events = InFlight::default();
        let (one, other) = (events.one(), events.one());
        let waiting = tokio::spawn({
            let events = events.clone();
            async move { events.fewer_than(1).await }
        });
        drop(one);
        events.fewer_than(2).await;
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(other);
        waiting.await.unwrap();
        assert_eq!(events.count(), 0);
    }
}
