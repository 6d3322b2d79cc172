//! The events that wait for functions which are invoked asynchronously: S3's, be they direct or by a topic, and other messages of
//! topics.
//!
//! Each is delivered at least once: up to three times when the function fails, then an ERROR line says that it is dropped.
//! They wait in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use tokio::sync::{Mutex, mpsc};

use crate::asynchronous::{self, InFlight, InFlightEvent, Source};
use crate::clock::Clock;
use crate::function::{Function, new_request_id};

/// Events that one function works on at once. The functions on the way of the data need the machine too.
pub(crate) const AT_ONCE: usize = 4;

struct Event {
    payload: Bytes,
    source: Source,
    _counted: InFlightEvent,
}

type Queue = (mpsc::UnboundedSender<Event>, Arc<Mutex<mpsc::UnboundedReceiver<Event>>>);

pub(crate) struct EventQueues {
    /// By the function's logical id.
    queues: BTreeMap<String, Queue>,
    in_flight: InFlight,
    clock: Clock,
}

impl EventQueues {
    /// Queues for the functions of these logical ids. Nothing is delivered before [`EventQueues::deliver_to`].
    pub(crate) fn new(functions: impl IntoIterator<Item = String>, in_flight: InFlight, clock: Clock) -> Arc<Self> {
        let queue = |function| {
            let (sender, receiver) = mpsc::unbounded_channel();
            (function, (sender, Arc::new(Mutex::new(receiver))))
        };
        Arc::new(Self { queues: functions.into_iter().map(queue).collect(), in_flight, clock })
    }

    pub(crate) fn has(&self, function: &str) -> bool {
        self.queues.contains_key(function)
    }

    pub(crate) fn deliver_to(&self, function: &Arc<Function>) {
        let Some((_, receiver)) = self.queues.get(&function.spec.id) else { return };
        for _ in 0..AT_ONCE {
            let (function, receiver, clock) = (function.clone(), receiver.clone(), self.clock);
            tokio::spawn(async move {
                loop {
                    let event = receiver.lock().await.recv().await;
                    let Some(event) = event else { return };
                    asynchronous::invoke(new_request_id(), &function, &event.payload, &event.source, clock).await;
                }
            });
        }
    }

    pub(crate) fn send(&self, function: &str, source: &Source, payload: Bytes) {
        let event = Event { payload, source: source.clone(), _counted: self.in_flight.one() };
        if self.queues.get(function).is_none_or(|(sender, _)| sender.send(event).is_err()) {
            tracing::error!(function, "no function takes {source}");
        }
    }

    /// The payload of the next event, as the function would get it.
    #[cfg(test)]
    pub(crate) async fn next(&self, function: &str) -> serde_json::Value {
        let event = self.queues[function].1.lock().await.recv().await.unwrap();
        serde_json::from_slice(&event.payload).unwrap()
    }
}
