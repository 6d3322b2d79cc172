//! One batch, from what the mapping hands over to the acknowledgement.

use std::time::Duration;

use lambda_runtime::{Context, tracing};
use lambda_setup::deadline::Deadline;
use shared::emf;
use shared::line::Kind;
use shared::metric::Metric;
use shared::object::Attempt;
use shared::timestamp::UnixMillis;

use crate::group::{Group, group};
use crate::kinesis_event::{BatchAnswer, KinesisEvent};
use crate::landing::{Landed, LandingError, ObjectStore, land};

/// What it takes to answer after the last attempt to store.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Lands batches, one at a time.
pub struct Handler<S> {
    store: S,
}

impl<S: ObjectStore> Handler<S> {
    pub fn new(store: S) -> Self {
        Self { store }
    }

    /// Acknowledges the batch whole or not at all.
    ///
    /// # Errors
    ///
    /// Never: a batch that can't land is answered as to be sent again.
    pub async fn handle(&self, event: KinesisEvent, context: Context) -> Result<BatchAnswer, std::convert::Infallible> {
        let deadline = Deadline::before(context.deadline, ANSWER_TIME);
        let attempt = Attempt {
            deadline: UnixMillis(i64::try_from(context.deadline).unwrap_or(i64::MAX)),
            request_id: context.request_id.clone(),
        };
        let groups = group(&event.records);
        let mut landed = Vec::with_capacity(groups.len());
        for group in &groups {
            match land(&self.store, group, &attempt, deadline, rand::random::<f64>).await {
                Ok(one) => landed.push(one),
                Err(error) => {
                    report(&error, group, event.records.len(), &context.request_id);
                    return Ok(BatchAnswer::send_again(&event.records));
                }
            }
        }
        log(&event, &groups, &landed, &context);
        Ok(BatchAnswer::landed())
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

/// One line a batch with its numbers.
fn log(event: &KinesisEvent, groups: &[Group], landed: &[Landed], context: &Context) {
    let lines = |kind| groups.iter().filter(|group| group.kind == kind).map(Group::lines).sum();
    let now = lambda_setup::now();
    let earliest = groups.iter().map(|group| group.received_at().0).min();
    let latency = earliest.map_or(0, |earliest| u64::try_from(now.0.saturating_sub(earliest.0)).unwrap_or(0));
    let values = [
        (Metric::LandedRecords, event.records.len() as u64),
        (Metric::LandedEvents, lines(Kind::Event)),
        (Metric::LandedRejected, lines(Kind::Rejected)),
        (Metric::LandedObjects, landed.len() as u64),
        (Metric::UncompressedBytes, landed.iter().map(|one| one.uncompressed_bytes).sum()),
        (Metric::CompressedBytes, landed.iter().map(|one| one.compressed_bytes as u64).sum()),
        (Metric::ReplacedObjects, landed.iter().filter(|one| one.replaced).count() as u64),
        (Metric::LandingLatency, latency),
    ];
    let properties = [("request_id", context.request_id.as_str())];
    println!("{}", emf::line(now, &context.env_config.function_name, &values, &properties));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::record;
    use crate::landing::tests::{Fault, MemoryStore};

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
        let answer = Handler::new(&store).handle(event(), context()).await.unwrap();
        assert_eq!(answer, BatchAnswer::landed());
        assert_eq!(store.objects.borrow().len(), 3);
    }

    #[tokio::test]
    async fn with_one_group_missing_the_whole_batch_is_asked_for_again() {
        let store = MemoryStore::scripted([Fault::DoneButFails, Fault::DoneButFails, Fault::Permanent]);
        let answer = Handler::new(&store).handle(event(), context()).await.unwrap();
        assert_eq!(answer.batch_item_failures[0].item_identifier, "7");
    }

    #[tokio::test]
    async fn an_empty_batch_is_landed() {
        let store = MemoryStore::default();
        let answer = Handler::new(&store).handle(KinesisEvent { records: Vec::new() }, context()).await.unwrap();
        assert_eq!(answer, BatchAnswer::landed());
        assert!(store.objects.borrow().is_empty());
    }
}
