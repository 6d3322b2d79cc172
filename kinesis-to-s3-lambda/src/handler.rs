//! One batch, from what the mapping hands over to the acknowledgement.

use std::time::Duration;

use lambda_runtime::Context;
use lambda_setup::deadline::Deadline;
use lambda_setup::vital_signs::{VitalSigns, remaining_time};
use shared::emf;
use shared::line::EventFormat;
use shared::metric::Metric;
use shared::object::Attempt;
use shared::timestamp::UnixMillis;

use crate::group::{Group, group};
use crate::kinesis_event::{BatchAnswer, KinesisEvent};
use crate::landing::{LandingError, ObjectStore, land};
use crate::metrics::{self, Times};

/// What it takes to answer after the last attempt to store.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Lands batches, one at a time.
pub struct Handler<S> {
    store: S,
    format: EventFormat,
    vital_signs: VitalSigns,
}

impl<S: ObjectStore> Handler<S> {
    /// `format` is that of ingest's events.
    pub fn new(store: S, format: EventFormat) -> Self {
        Self { store, format, vital_signs: VitalSigns::new() }
    }

    /// Acknowledges the batch whole or not at all.
    ///
    /// # Errors
    ///
    /// Never: a batch that can't land is answered as to be sent again.
    pub async fn handle(&self, event: KinesisEvent, context: Context) -> Result<BatchAnswer, std::convert::Infallible> {
        self.handle_at(event, context, lambda_setup::now()).await
    }

    /// [`Handler::handle`], for a batch that was handed over at `began`.
    ///
    /// # Errors
    ///
    /// Never.
    pub async fn handle_at(
        &self,
        event: KinesisEvent,
        context: Context,
        began: UnixMillis,
    ) -> Result<BatchAnswer, std::convert::Infallible> {
        let deadline = Deadline::before(context.deadline, ANSWER_TIME);
        let attempt = Attempt {
            began,
            deadline: UnixMillis(i64::try_from(context.deadline).unwrap_or(i64::MAX)),
            request_id: context.request_id.clone(),
        };
        let groups = group(&event.records, self.format);
        let mut landed = Vec::with_capacity(groups.len());
        for group in &groups {
            match land(&self.store, group, &attempt, deadline, rand::random::<f64>).await {
                Ok(one) => landed.push(one),
                Err(error) => {
                    report(&error, group, event.records.len(), &context.request_id);
                    log_given_back(lambda_setup::now(), &context);
                    return Ok(BatchAnswer::send_again(&event.records));
                }
            }
        }
        let ended = lambda_setup::now();
        let remaining = remaining_time(context.deadline, ended);
        let vital_signs = std::iter::once(remaining).chain(self.vital_signs.of_environment());
        let values = metrics::values(&event, &groups, &landed, Times { began, ended }, vital_signs);
        log(ended, &values, &context);
        Ok(BatchAnswer::landed())
    }
}

/// One line a batch with its numbers.
fn log(at: UnixMillis, values: &[(Metric, u64)], context: &Context) {
    let properties = [("request_id", context.request_id.as_str())];
    println!("{}", emf::line(at, &context.env_config.function_name, values, &properties));
}

/// A line for the function, and one for its version, which a canary watches.
fn log_given_back(at: UnixMillis, context: &Context) {
    let value = (Metric::GivenBackBatches, 1);
    log(at, &[value], context);
    let lambda_runtime::Config { function_name, version, .. } = &*context.env_config;
    if let Some(line) = emf::line_of_version(at, function_name, version, value) {
        println!("{line}");
    }
}

/// Nothing is lost: the batch is sent again. But if that can't help, a person must.
fn report(error: &LandingError, group: &Group, records: usize, request_id: &str) {
    let key = group.key();
    if error.is_permanent() {
        tracing::error!(request_id, key, records, %error, "batch not landed, and no retry will help");
    } else {
        tracing::warn!(request_id, key, records, %error, "batch not landed; it will be sent again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::record;
    use crate::landing::tests::{MemoryStore, done_but_fails, permanent};

    fn context() -> Context {
        let mut context = Context::default();
        context.deadline = u64::try_from(lambda_setup::now().0).unwrap() + 3_000;
        context
    }

    fn event() -> KinesisEvent {
        KinesisEvent { records: vec![record(7, "{}", 0.0), record(8, "x", 0.0), record(9, "{}", 3600.0)] }
    }

    #[tokio::test]
    async fn a_batch_lands_whole() {
        let store = MemoryStore::default();
        let answer = Handler::new(&store, EventFormat::Envelope).handle(event(), context()).await.unwrap();
        assert_eq!(answer, BatchAnswer::landed());
        assert_eq!(store.bucket.borrow().objects().count(), 3);
    }

    #[tokio::test]
    async fn with_one_group_missing_the_whole_batch_is_asked_for_again() {
        let store = MemoryStore::scripted([done_but_fails(), done_but_fails(), permanent()]);
        let answer = Handler::new(&store, EventFormat::Envelope).handle(event(), context()).await.unwrap();
        assert_eq!(answer.batch_item_failures[0].item_identifier, "7");
    }

    /// Lambda would end it within one that takes seconds to compress, and nothing would say that the batch did not land.
    #[tokio::test]
    async fn a_batch_whose_time_is_over_is_given_back_before_anything_is_written() {
        let (store, mut over) = (MemoryStore::default(), context());
        over.deadline -= 1_000;
        let answer = Handler::new(&store, EventFormat::Envelope).handle(event(), over).await.unwrap();
        assert_eq!(answer.batch_item_failures[0].item_identifier, "7");
        assert_eq!(store.bucket.borrow().objects().count(), 0);
    }

    #[tokio::test]
    async fn an_empty_batch_is_landed() {
        let store = MemoryStore::default();
        let answer = Handler::new(&store, EventFormat::Envelope)
            .handle(KinesisEvent { records: Vec::new() }, context())
            .await
            .unwrap();
        assert_eq!(answer, BatchAnswer::landed());
        assert_eq!(store.bucket.borrow().objects().count(), 0);
    }
}
