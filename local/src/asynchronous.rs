//! Asynchronous invocation, as Lambda does it for S3, SNS, EventBridge and callers of `Invoke`: the sender does not wait, and a
//! failed event is retried as often as the function's EventInvokeConfig says, at most twice.
//! <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>

use std::fmt;
use std::time::Duration;

use axum::body::Bytes;
use shared::timestamp::UnixMillis;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, warn};

use crate::clock::Clock;
use crate::function::{Function, InvokeError};

/// How long Lambda waits before the second and the third try, and the longest that this stack does: nobody here has minutes.
const PAUSES: [(Duration, Duration); 2] =
    [(Duration::from_secs(60), Duration::from_millis(500)), (Duration::from_secs(120), Duration::from_secs(1))];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A schedule's name, and when it was due.
    Schedule(String, UnixMillis),
    /// The key of an object that was created.
    Object(String),
    /// The name of an alarm that changed its state.
    Alarm(String),
    /// What somebody published to a topic, by its name.
    Topic(String),
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
            Self::Alarm(name) => write!(formatter, "the notice of the alarm {name}"),
            Self::Topic(name) => write!(formatter, "a message of the topic {name}"),
            Self::ByHand => formatter.write_str("an event that was sent by hand"),
        }
    }
}

impl Source {
    /// The key of the object that it is about.
    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Self::Object(key) => Some(key),
            Self::Schedule(..) | Self::Alarm(_) | Self::Topic(_) | Self::ByHand => None,
        }
    }

    /// Whether the next event makes up for this one, so that nobody need act on its failure: the function has said what is wrong.
    fn is_superseded(&self, problem: &InvokeError) -> bool {
        matches!((self, problem), (Self::Schedule(..), InvokeError::Reported(_)))
    }
}

/// Counts the events in flight, so that a stopping stack can wait for them.
#[derive(Debug, Clone, Default)]
pub struct InFlight(watch::Sender<u64>);

/// An event that is counted until this is dropped.
#[derive(Debug)]
pub struct InFlightEvent(InFlight);

impl InFlight {
    pub fn one(&self) -> InFlightEvent {
        self.0.send_modify(|events| *events += 1);
        InFlightEvent(self.clone())
    }

    pub fn count(&self) -> u64 {
        *self.0.borrow()
    }

    /// Resolves when there are fewer than `limit`.
    pub(crate) async fn fewer_than(&self, limit: u64) {
        if self.0.subscribe().wait_for(|events| *events < limit).await.is_err() {
            unreachable!("the sender is here");
        }
    }
}

impl Drop for InFlightEvent {
    fn drop(&mut self) {
        self.0.0.send_modify(|events| *events -= 1);
    }
}

/// Hands an event to a function, and retries while it fails and may be retried, under one request id. When the last try fails,
/// an ERROR says so: a person is needed, unless the next run of a schedule does the same work.
pub async fn invoke(request_id: String, function: &Function, event: &Bytes, source: &Source, clock: Clock) {
    let retries = usize::try_from(function.spec.event_retries).unwrap_or(PAUSES.len());
    let pauses = PAUSES.map(|(lambda, longest)| Some(clock.really(lambda).min(longest)));
    for pause in pauses.into_iter().take(retries).chain([None]) {
        let Err(problem) = function.invoke(request_id.clone(), event.clone()).await else { return };
        let function = function.name();
        match pause {
            Some(pause) => {
                warn!(function, request_id, %problem, "{source} failed and is tried again");
                sleep(pause).await;
            }
            None if source.is_superseded(&problem) => {
                warn!(function, request_id, %problem, "{source} failed {} times; the next run does its work", retries + 1);
            }
            None => error!(function, request_id, %problem, "{source} failed {} times and is dropped", retries + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_api::FunctionError;
    use rstest::rstest;

    fn reported() -> InvokeError {
        FunctionError { error_type: "Error".into(), error_message: "no new hour".into() }.into()
    }

    #[rstest]
    #[case::a_schedule(Source::Schedule("Checks".into(), UnixMillis(0)), reported(), true)]
    #[case::a_schedule_whose_function_died(Source::Schedule("Checks".into(), UnixMillis(0)), InvokeError::Killed, false)]
    #[case::an_object(Source::Object("events/x".into()), reported(), false)]
    #[case::by_hand(Source::ByHand, reported(), false)]
    fn a_person_is_needed_unless_the_next_run_does_the_work(
        #[case] source: Source,
        #[case] problem: InvokeError,
        #[case] expected: bool,
    ) {
        assert_eq!(source.is_superseded(&problem), expected);
    }

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
