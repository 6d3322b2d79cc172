//! SQS queues in memory. `queue_poller.rs` hands their messages to functions.
//! <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html>
//!
//! A message that a function reads counts as in flight until it is deleted or a dead letter, so that writers wait for room and a
//! stopping stack waits for it. Nobody waits for a queue that no function reads, such as one of dead letters: it keeps its
//! newest messages.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use shared::timestamp::UnixMillis;
use tokio::sync::Notify;
use tracing::{error, warn};
use uuid::Uuid;

use crate::asynchronous::{InFlight, InFlightEvent};
use crate::clock::Clock;
use crate::mutex::Mutex;
use crate::template;

/// The messages that a queue keeps which no function reads.
const MAX_KEPT: usize = 1_000;
/// A visibility timeout here: nobody has minutes, and however fast the clock is, the machine needs time for other things too.
const REAL_PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(1);

pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) sent_at: UnixMillis,
    pub(crate) first_received_at: Option<UnixMillis>,
    /// How often it has been received.
    pub(crate) receives: u64,
    counted: Option<InFlightEvent>,
}

struct Queue {
    spec: template::Queue,
    /// Whether a function reads it.
    is_read: bool,
    /// What is visible, the next one first.
    messages: Mutex<VecDeque<Message>>,
    has_more: Notify,
    /// Held by who gathers a batch, so that readers do not take each other's messages.
    gathering: tokio::sync::Mutex<()>,
}

pub(crate) struct Queues {
    queues: BTreeMap<String, Queue>,
    in_flight: InFlight,
    clock: Clock,
}

/// How much a batch may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Queues {
    pub(crate) fn new(
        specs: &[template::Queue],
        is_read: impl Fn(&str) -> bool,
        in_flight: InFlight,
        clock: Clock,
    ) -> Arc<Self> {
        let queue = |spec: &template::Queue| {
            let queue = Queue {
                spec: spec.clone(),
                is_read: is_read(&spec.name),
                messages: Mutex::default(),
                has_more: Notify::new(),
                gathering: tokio::sync::Mutex::default(),
            };
            (spec.name.clone(), queue)
        };
        Arc::new(Self { queues: specs.iter().map(queue).collect(), in_flight, clock })
    }

    pub(crate) fn send(&self, queue: &str, body: String) {
        let (id, sent_at) = (Uuid::new_v4().to_string(), self.clock.now());
        self.put(queue, Message { id, body, sent_at, first_received_at: None, receives: 0, counted: None });
    }

    fn put(&self, name: &str, mut message: Message) {
        let Some(queue) = self.queues.get(name) else {
            error!(queue = name, message = message.body, "a message is lost: there is no such queue");
            return;
        };
        message.counted = queue.is_read.then(|| self.in_flight.one());
        let mut messages = queue.messages.lock();
        messages.push_back(message);
        if !queue.is_read && messages.len() > MAX_KEPT {
            let oldest = messages.pop_front();
            warn!(
                queue = name,
                id = oldest.map(|oldest| oldest.id),
                "no function reads the queue: its oldest message is gone"
            );
        }
        queue.has_more.notify_one();
    }

    /// The next messages of a queue, each now received once more: at least one, for which this waits, and what else comes
    /// until they are as many as fit or `ended` resolves, which it is asked to do once the first one is there. `bytes_of` is
    /// what a message takes.
    pub(crate) async fn receive<E: Future<Output = ()>>(
        &self,
        queue: &str,
        limits: Limits,
        bytes_of: impl Fn(&Message) -> usize,
        ended: impl FnOnce() -> E,
    ) -> Vec<Message> {
        let Some(queue) = self.queues.get(queue) else { return std::future::pending().await };
        let _alone = queue.gathering.lock().await;
        let mut batch = Batch { messages: Vec::new(), bytes: 0, limits };
        while batch.messages.is_empty() {
            let more = queue.has_more.notified();
            if !self.take(queue, &mut batch, &bytes_of) && batch.messages.is_empty() {
                more.await;
            }
        }
        let mut ended = std::pin::pin!(ended());
        loop {
            let more = queue.has_more.notified();
            if self.take(queue, &mut batch, &bytes_of) {
                return batch.messages;
            }
            tokio::select! {
                biased;
                () = &mut ended => return batch.messages,
                () = more => {}
            }
        }
    }

    /// Moves what is visible into a batch. Returns whether the batch is full.
    fn take(&self, queue: &Queue, batch: &mut Batch, bytes_of: impl Fn(&Message) -> usize) -> bool {
        let mut messages = queue.messages.lock();
        while let Some(mut message) = messages.pop_front() {
            let bytes = bytes_of(&message);
            if !batch.has_room_for(bytes) {
                messages.push_front(message);
                return true;
            }
            message.receives += 1;
            message.first_received_at.get_or_insert_with(|| self.clock.now());
            batch.bytes += bytes;
            batch.messages.push(message);
        }
        batch.messages.len() == batch.limits.messages
    }

    /// Takes back what was received and not deleted: it becomes visible again after the visibility timeout, or a dead letter once
    /// it was received as often as the queue allows. A function never works longer than the visibility timeout, which here
    /// begins when it has failed.
    pub(crate) fn take_back(self: &Arc<Self>, name: &str, messages: Vec<Message>) {
        let Some(queue) = self.queues.get(name) else { return };
        let redrive = queue.spec.redrive.as_ref();
        let is_dead = |message: &Message| redrive.is_some_and(|redrive| message.receives >= redrive.max_receive_count);
        let (dead, failed): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_dead);
        for message in dead {
            let (id, receives, body) = (&message.id, message.receives, &message.body);
            error!(queue = name, id, receives, body, "a message failed each time and is a dead letter");
            if let Some(redrive) = redrive {
                self.put(&redrive.dead_letter_queue, Message { receives: 0, first_received_at: None, ..message });
            }
        }
        if failed.is_empty() {
            return;
        }
        let timeout = self.clock.really(queue.spec.visibility_timeout);
        let pause = timeout.clamp(*REAL_PAUSE.start(), *REAL_PAUSE.end());
        let (queues, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            failed.into_iter().for_each(|message| queues.put(&name, message));
        });
    }

    /// What a queue holds.
    #[cfg(test)]
    pub(crate) fn bodies(&self, queue: &str) -> Vec<String> {
        self.queues[queue].messages.lock().iter().map(|message| message.body.clone()).collect()
    }
}

struct Batch {
    messages: Vec<Message>,
    bytes: usize,
    limits: Limits,
}

impl Batch {
    /// One message always fits, as in Lambda.
    fn has_room_for(&self, bytes: usize) -> bool {
        self.messages.is_empty()
            || (self.messages.len() < self.limits.messages && self.bytes + bytes <= self.limits.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::future::{pending, ready};
    use tokio::time::{Instant, sleep, timeout};

    const WIDE: Limits = Limits { messages: 1_000, bytes: usize::MAX };

    fn queues(in_flight: &InFlight, clock: Clock) -> Arc<Queues> {
        let redrive = template::Redrive { dead_letter_queue: "dead".into(), max_receive_count: 2 };
        let queue = |name: &str, redrive| template::Queue {
            name: name.into(),
            visibility_timeout: Duration::from_secs(360),
            redrive,
        };
        let specs = [queue("work", Some(redrive)), queue("dead", None)];
        Queues::new(&specs, |name| name == "work", in_flight.clone(), clock)
    }

    fn real() -> Clock {
        Clock::new(None, lambda_setup::now())
    }

    fn bodies(messages: &[Message]) -> Vec<&str> {
        messages.iter().map(|message| message.body.as_str()).collect()
    }

    #[rstest]
    #[case::as_many_as_are_there(WIDE, &["a", "bb", "ccc"])]
    #[case::at_most_so_many(Limits { messages: 2, bytes: usize::MAX }, &["a", "bb"])]
    #[case::at_most_so_many_bytes(Limits { messages: 10, bytes: 3 }, &["a", "bb"])]
    #[case::one_byte_less(Limits { messages: 10, bytes: 2 }, &["a"])]
    #[case::one_in_any_case(Limits { messages: 10, bytes: 0 }, &["a"])]
    #[tokio::test]
    async fn a_batch_is_bounded(#[case] limits: Limits, #[case] expected: &[&str]) {
        let queues = queues(&InFlight::default(), real());
        ["a", "bb", "ccc"].iter().for_each(|body| queues.send("work", (*body).into()));
        let batch = queues.receive("work", limits, |message| message.body.len(), || ready(())).await;
        assert_eq!(bodies(&batch), expected);
        assert_eq!(queues.bodies("work").len(), 3 - expected.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_for_more_until_it_is_full_or_its_window_is_over() {
        let queues = queues(&InFlight::default(), real());
        let window = || sleep(Duration::from_secs(5));
        let sender = tokio::spawn({
            let queues = queues.clone();
            async move {
                for body in ["a", "b", "c", "d"] {
                    sleep(Duration::from_secs(3)).await;
                    queues.send("work", body.into());
                }
            }
        });
        // The window begins with the first message.
        assert_eq!(bodies(&queues.receive("work", WIDE, |_| 0, window).await), ["a", "b"]);
        let two = Limits { messages: 2, bytes: usize::MAX };
        assert_eq!(bodies(&queues.receive("work", two, |_| 0, pending).await), ["c", "d"]);
        sender.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_visible_again_after_the_timeout_and_then_a_dead_letter() {
        let in_flight = InFlight::default();
        let queues = queues(&in_flight, real());
        queues.send("work", "a".into());
        let first = queues.receive("work", WIDE, |_| 0, || ready(())).await;
        let received = (first[0].id.clone(), first[0].first_received_at);
        assert_eq!(first[0].receives, 1);
        let failed_at = Instant::now();
        queues.take_back("work", first);
        let second = queues.receive("work", WIDE, |_| 0, || ready(())).await;
        assert_eq!(failed_at.elapsed(), *REAL_PAUSE.end());
        assert_eq!(
            (second[0].id.clone(), second[0].first_received_at, second[0].receives),
            (received.0, received.1, 2)
        );
        assert_eq!(in_flight.count(), 1);
        queues.take_back("work", second);
        assert_eq!(queues.bodies("dead"), ["a"]);
        // Nobody waits for it any more, and it does not come again.
        assert_eq!(in_flight.count(), 0);
        assert!(timeout(Duration::from_secs(60), queues.receive("work", WIDE, |_| 0, || ready(()))).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_visibility_timeout_passes_at_the_clocks_pace() {
        let pace = "2026-11-18T00:00:00Z x3600".parse().unwrap();
        let queues = queues(&InFlight::default(), Clock::new(Some(pace), lambda_setup::now()));
        queues.send("work", "a".into());
        let batch = queues.receive("work", WIDE, |_| 0, || ready(())).await;
        let failed_at = Instant::now();
        queues.take_back("work", batch);
        queues.receive("work", WIDE, |_| 0, || ready(())).await;
        assert_eq!(failed_at.elapsed(), Duration::from_millis(100));
    }

    #[tokio::test]
    async fn a_queue_that_no_function_reads_keeps_its_newest_messages() {
        let in_flight = InFlight::default();
        let queues = queues(&in_flight, real());
        (0..MAX_KEPT).for_each(|number| queues.send("dead", number.to_string()));
        assert_eq!((queues.bodies("dead").len(), queues.bodies("dead")[0].as_str()), (MAX_KEPT, "0"));
        queues.send("dead", "one more".into());
        assert_eq!((queues.bodies("dead").len(), queues.bodies("dead")[0].as_str()), (MAX_KEPT, "1"));
        assert_eq!(in_flight.count(), 0);
    }
}
