//! The SQS event source mapping: a queue's messages go to a function in batches, and what it does not name as failed is deleted.
//! <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Bytes;
use md5::{Digest, Md5};
use serde_json::{Value, json};
use shared::limits::MAX_LAMBDA_PAYLOAD_BYTES;
use tokio::sync::watch;
use tracing::warn;

use crate::batch_answer;
use crate::clock::Clock;
use crate::event_queues::AT_ONCE;
use crate::event_source_mapping::Phase;
use crate::function::{Function, InvokeError, new_request_id};
use crate::sqs::{Limits, Message, Queues};
use crate::template::{QueueMapping, REGION, queue_arn};

/// What a batch is handed to.
pub(crate) trait Invoke: Clone + Send + Sync + 'static {
    fn invoke(&self, event: Bytes) -> impl Future<Output = Result<Bytes, InvokeError>> + Send;
}

impl Invoke for Arc<Function> {
    async fn invoke(&self, event: Bytes) -> Result<Bytes, InvokeError> {
        Function::invoke(self, new_request_id(), event).await
    }
}

#[derive(Clone)]
pub(crate) struct QueuePoller<F> {
    pub(crate) spec: QueueMapping,
    pub(crate) queues: Arc<Queues>,
    pub(crate) function: F,
    pub(crate) clock: Clock,
    pub(crate) phase: watch::Receiver<Phase>,
}

impl<F: Invoke> QueuePoller<F> {
    /// Polls for as long as the stack runs.
    pub(crate) fn start(self) {
        for _ in 0..self.spec.maximum_concurrency.unwrap_or(AT_ONCE).min(AT_ONCE) {
            let poller = self.clone();
            tokio::spawn(async move {
                loop {
                    poller.poll().await;
                }
            });
        }
    }

    async fn poll(&self) {
        let frame = json!({"Records": []}).to_string().len();
        let limits = Limits { messages: self.spec.batch_size, bytes: MAX_LAMBDA_PAYLOAD_BYTES - frame };
        let bytes_of = |message: &Message| self.event_record(message).to_string().len() + MAX_GROWTH_BYTES;
        let batch = self.queues.receive(&self.spec.queue, limits, bytes_of, || self.window()).await;
        let records: Vec<Value> = batch.iter().map(|message| self.event_record(message)).collect();
        let answer = self.function.invoke(json!({"Records": records}).to_string().into()).await;
        if let Err(problem) = &answer {
            let (queue, messages) = (&self.spec.queue, batch.len());
            warn!(function = self.spec.function, queue, messages, %problem, "a batch failed and is given back");
        }
        self.queues.take_back(&self.spec.queue, failed(answer.ok().as_deref(), batch));
    }

    /// How long a batch may wait to fill; not at all while the stack stops.
    async fn window(&self) {
        let mut phase = self.phase.clone();
        tokio::select! {
            () = tokio::time::sleep(self.clock.really(self.spec.window)) => {}
            // It fails only once the stack is gone.
            _ = phase.wait_for(|phase| *phase == Phase::Draining) => {}
        }
    }

    fn event_record(&self, message: &Message) -> Value {
        json!({
            "messageId": message.id,
            "receiptHandle": message.id,
            "body": message.body,
            "attributes": {
                "ApproximateReceiveCount": message.receives.to_string(),
                "SentTimestamp": message.sent_at.0.to_string(),
                "SenderId": "LOCAL",
                "ApproximateFirstReceiveTimestamp": message.first_received_at.unwrap_or(message.sent_at).0.to_string(),
            },
            "messageAttributes": {},
            "md5OfBody": hex::encode(Md5::digest(&message.body)),
            "eventSource": "aws:sqs",
            "eventSourceARN": queue_arn(&self.spec.queue),
            "awsRegion": REGION,
        })
    }
}

/// What a record may take more once its message is received: a comma, a digit of the count, and digits of a time.
const MAX_GROWTH_BYTES: usize = 16;

/// The messages that failed: those that the answer names, and all without a readable answer or when it names one that is not
/// there.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>
fn failed(answer: Option<&[u8]>, batch: Vec<Message>) -> Vec<Message> {
    let Some(failures) = answer.and_then(batch_answer::failures) else { return batch };
    let failures: Option<HashSet<String>> = failures.into_iter().collect();
    let is_there = |id: &String| batch.iter().any(|message| message.id == *id);
    match failures {
        Some(failures) if failures.iter().all(is_there) => {
            batch.into_iter().filter(|message| failures.contains(&message.id)).collect()
        }
        _ => batch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asynchronous::InFlight;
    use crate::mutex::Mutex;
    use crate::runtime_api::FunctionError;
    use crate::template::{Queue, Redrive};
    use rstest::rstest;
    use std::future::ready;
    use std::time::Duration;

    /// The answer to messages, which are ids and bodies.
    type Answer = fn(&[(String, String)]) -> Result<String, ()>;

    /// Keeps the events, and answers as its script says to the bodies that it gets.
    #[derive(Clone)]
    struct Scripted {
        events: Arc<Mutex<Vec<Value>>>,
        answer: Answer,
    }

    impl Invoke for Scripted {
        async fn invoke(&self, event: Bytes) -> Result<Bytes, InvokeError> {
            let event: Value = serde_json::from_slice(&event).unwrap();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let records = event["Records"].as_array().unwrap();
            let messages: Vec<_> = records.iter().map(|one| (text(&one["messageId"]), text(&one["body"]))).collect();
            self.events.lock().push(event);
            let error = |()| FunctionError { error_type: "Scripted".into(), error_message: "fails".into() };
            (self.answer)(&messages).map(Bytes::from).map_err(error).map_err(InvokeError::from)
        }
    }

    impl Scripted {
        fn new(answer: Answer) -> Self {
            Self { events: Arc::default(), answer }
        }

        /// The bodies of each batch.
        fn batches(&self) -> Vec<Vec<String>> {
            let bodies = |event: &Value| {
                let records = event["Records"].as_array().unwrap();
                records.iter().map(|record| record["body"].as_str().unwrap().to_owned()).collect()
            };
            self.events.lock().iter().map(bodies).collect()
        }
    }

    /// Names the messages whose bodies begin with `bad`.
    fn bad_ones(messages: &[(String, String)]) -> Result<String, ()> {
        let bad = messages.iter().filter(|(_, body)| body.starts_with("bad"));
        let failures: Vec<_> = bad.map(|(id, _)| json!({"itemIdentifier": id})).collect();
        Ok(json!({"batchItemFailures": failures}).to_string())
    }

    fn fails(_: &[(String, String)]) -> Result<String, ()> {
        Err(())
    }

    fn answers_with_text(_: &[(String, String)]) -> Result<String, ()> {
        Ok("\"done\"".into())
    }

    const RECEIVES: u64 = 3;

    struct Fixture {
        poller: QueuePoller<Scripted>,
        in_flight: InFlight,
        _phase: watch::Sender<Phase>,
    }

    fn fixture(function: Scripted, batch_size: usize) -> Fixture {
        let (in_flight, clock) = (InFlight::default(), Clock::new(None, lambda_setup::now()));
        let queue =
            |name: &str, redrive| Queue { name: name.into(), visibility_timeout: Duration::from_secs(60), redrive };
        let redrive = Redrive { dead_letter_queue: "dead".into(), max_receive_count: RECEIVES };
        let specs = [queue("work", Some(redrive)), queue("dead", None)];
        let queues = Queues::new(&specs, |name| name == "work", in_flight.clone(), clock);
        let (function_id, queue, window) = ("Loader".into(), "work".into(), Duration::ZERO);
        let spec = QueueMapping { function: function_id, queue, batch_size, window, maximum_concurrency: Some(2) };
        let (sender, phase) = watch::channel(Phase::Running);
        Fixture { poller: QueuePoller { spec, queues, function, clock, phase }, in_flight, _phase: sender }
    }

    #[tokio::test(start_paused = true)]
    async fn the_event_has_the_form_of_sqs() {
        let Fixture { poller, .. } = fixture(Scripted::new(bad_ones), 10);
        poller.queues.send("work", "{\"a\":1}".into());
        poller.poll().await;
        let mut event = poller.function.events.lock()[0].take();
        let record = &mut event["Records"][0];
        let (id, handle) = (record["messageId"].take(), record["receiptHandle"].take());
        assert_eq!((id.as_str().unwrap().len(), &id), (36, &handle));
        let sent = record["attributes"]["SentTimestamp"].take();
        assert_eq!(sent.as_str().unwrap().len(), 13);
        assert!(record["attributes"]["ApproximateFirstReceiveTimestamp"].take().is_string());
        let expected = json!({
            "messageId": null,
            "receiptHandle": null,
            "body": "{\"a\":1}",
            "attributes": {
                "ApproximateReceiveCount": "1",
                "SentTimestamp": null,
                "SenderId": "LOCAL",
                "ApproximateFirstReceiveTimestamp": null,
            },
            "messageAttributes": {},
            "md5OfBody": "bb6cb5c68df4652941caf652a366f2d8",
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:work",
            "awsRegion": "us-east-1",
        });
        assert_eq!(*record, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_comes_again_alone_and_becomes_a_dead_letter() {
        let Fixture { poller, in_flight, _phase } = fixture(Scripted::new(bad_ones), 10);
        ["good", "bad one", "also good"].iter().for_each(|body| poller.queues.send("work", (*body).into()));
        poller.clone().start();
        in_flight.fewer_than(1).await;
        let alone = vec!["bad one".to_owned()];
        let all = ["good", "bad one", "also good"].map(str::to_owned).to_vec();
        assert_eq!(poller.function.batches(), [all, alone.clone(), alone.clone()]);
        assert_eq!(poller.queues.bodies("dead"), alone);
        let counts: Vec<_> = poller.function.events.lock().iter().map(last_receive_count).collect();
        assert_eq!(counts, ["1", "2", "3"]);
    }

    fn last_receive_count(event: &Value) -> String {
        let record = event["Records"].as_array().unwrap().iter().find(|record| record["body"] == "bad one");
        record.unwrap()["attributes"]["ApproximateReceiveCount"].as_str().unwrap().to_owned()
    }

    #[rstest]
    #[case::invocation_that_fails(fails)]
    #[case::unreadable_answer(answers_with_text)]
    #[tokio::test(start_paused = true)]
    async fn a_batch_without_a_readable_answer_is_given_back_whole(#[case] answer: Answer) {
        let Fixture { poller, in_flight, _phase } = fixture(Scripted::new(answer), 10);
        ["a", "b"].iter().for_each(|body| poller.queues.send("work", (*body).into()));
        poller.clone().start();
        in_flight.fewer_than(1).await;
        assert_eq!(poller.function.batches(), vec![vec!["a", "b"]; RECEIVES as usize]);
        assert_eq!(poller.queues.bodies("dead"), ["a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn batches_are_no_larger_than_the_mapping_says_or_than_a_payload_may_be() {
        let Fixture { poller, in_flight, _phase } = fixture(Scripted::new(bad_ones), 3);
        (0..7).for_each(|number| poller.queues.send("work", number.to_string()));
        poller.clone().start();
        in_flight.fewer_than(1).await;
        assert_eq!(poller.function.batches().iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);

        let Fixture { poller, in_flight, _phase } = fixture(Scripted::new(bad_ones), 10);
        (0..3).for_each(|_| poller.queues.send("work", "x".repeat(MAX_LAMBDA_PAYLOAD_BYTES / 2 - 1_000)));
        poller.clone().start();
        in_flight.fewer_than(1).await;
        assert_eq!(poller.function.batches().iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        assert!(poller.function.events.lock()[0].to_string().len() <= MAX_LAMBDA_PAYLOAD_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stack_that_stops_does_not_wait_for_a_window() {
        let Fixture { mut poller, _phase: phase, .. } = fixture(Scripted::new(bad_ones), 10);
        poller.spec.window = Duration::from_secs(300);
        poller.queues.send("work", "a".into());
        phase.send_replace(Phase::Draining);
        let begun = tokio::time::Instant::now();
        poller.poll().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[rstest]
    #[case::empty("", &[])]
    #[case::null("null", &[])]
    #[case::no_member("{}", &[])]
    #[case::null_list("{\"batchItemFailures\":null}", &[])]
    #[case::no_failures("{\"batchItemFailures\":[]}", &[])]
    #[case::one("{\"batchItemFailures\":[{\"itemIdentifier\":\"#1\"}]}", &["b"])]
    #[case::two("{\"batchItemFailures\":[{\"itemIdentifier\":\"#2\"},{\"itemIdentifier\":\"#0\"}]}", &["a", "c"])]
    #[case::unknown("{\"batchItemFailures\":[{\"itemIdentifier\":\"x\"}]}", &["a", "b", "c"])]
    #[case::empty_name("{\"batchItemFailures\":[{\"itemIdentifier\":\"\"}]}", &["a", "b", "c"])]
    #[case::null_name("{\"batchItemFailures\":[{\"itemIdentifier\":null}]}", &["a", "b", "c"])]
    #[case::another_name("{\"batchItemFailures\":[{\"id\":\"#1\"}]}", &["a", "b", "c"])]
    #[case::not_json("done", &["a", "b", "c"])]
    #[tokio::test]
    async fn answers_are_read_as_lambda_reads_them(#[case] answer: &str, #[case] expected: &[&str]) {
        let Fixture { poller, .. } = fixture(Scripted::new(bad_ones), 10);
        ["a", "b", "c"].iter().for_each(|body| poller.queues.send("work", (*body).into()));
        let limits = Limits { messages: 10, bytes: usize::MAX };
        let batch = poller.queues.receive("work", limits, |_| 0, || ready(())).await;
        let named = |text: String, at: usize| text.replace(&format!("#{at}"), &batch[at].id);
        let answer = (0..batch.len()).fold(answer.to_owned(), named);
        let failed = failed(Some(answer.as_bytes()), batch);
        assert_eq!(failed.iter().map(|message| message.body.as_str()).collect::<Vec<_>>(), expected);
    }
}
