//! Finds out which hours the batches in the failed-batches bucket have records of.
//! <https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>

use futures_util::future::try_join_all;
use serde::Deserialize;
use shared::timestamp::{UnixMillis, UtcHour};

use super::CONCURRENCY;
use crate::manifest::{MAX_KEYS, Missing};
use lambda_setup::bucket::{Bucket, BucketError, List, Stream, Streams};

/// Where the mapping puts them.
const PREFIX: &str = "aws/lambda/";
/// The most pages of the listing: 100,000 batches.
const MAX_PAGES: usize = 100;
/// The most batches that are read in a run.
const MAX_READ: usize = 1_000;
/// What describes a batch comes before its payload, which may have megabytes.
const HEAD_BYTES: usize = 16 * 1024;

/// A batch that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FailedBatch {
    key: String,
    /// When its first and its last record arrived.
    arrived: (UnixMillis, UnixMillis),
}

impl FailedBatch {
    /// A batch whose document was not read, or has no times: its records arrived before it was given up.
    fn unread(key: String) -> Self {
        let arrived = (ANY_TIME.0, given_up_at(&key).unwrap_or(ANY_TIME.1));
        Self { key, arrived }
    }
}

const ANY_TIME: (UnixMillis, UnixMillis) = (UnixMillis(i64::MIN), UnixMillis(i64::MAX));

/// The batches that were given up since an hour began.
pub(super) async fn list(bucket: &impl Streams, since: UtcHour) -> Result<Vec<FailedBatch>, BucketError> {
    let (keys, unlisted_after) = keys(bucket, since).await?;
    let mut batches = Vec::with_capacity(keys.len());
    for keys in keys[..keys.len().min(MAX_READ)].chunks(CONCURRENCY) {
        let read = try_join_all(keys.iter().map(|key| read(bucket, key))).await?;
        batches.extend(read.into_iter().flatten());
    }
    batches.extend(keys.into_iter().skip(MAX_READ).map(FailedBatch::unread));
    batches.extend(unlisted_after.map(|key| FailedBatch { key, arrived: ANY_TIME }));
    Ok(batches)
}

/// The batches that may have records of an hour.
pub(super) fn missing(batches: &[FailedBatch], hour: UtcHour) -> Option<Missing> {
    let concerns = |batch: &&FailedBatch| batch.arrived.0 < hour.end() && batch.arrived.1 >= hour.start();
    let keys: Vec<&String> = batches.iter().filter(concerns).map(|batch| &batch.key).collect();
    let (count, named) = (keys.len() as u64, keys.into_iter().take(MAX_KEYS).cloned().collect());
    (count > 0).then_some(Missing::FailedBatches { count, keys: named })
}

/// Records arrive before their batch is given up: what was given up before the hour has none of its records. If there are more
/// batches than are listed, also the last key that was: what comes after it may be of any hour.
async fn keys(bucket: &impl Bucket, since: UtcHour) -> Result<(Vec<String>, Option<String>), BucketError> {
    let mut keys = Vec::new();
    let mut start_after: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let list = List { prefix: PREFIX, start_after: start_after.as_deref(), ..List::default() };
        let page = bucket.list(list).await?;
        start_after = page.objects.last().map(|last| last.key.clone());
        let listed = page.objects.into_iter().map(|listed| listed.key);
        keys.extend(listed.filter(|key| given_up_at(key).is_none_or(|at| at >= since.start())));
        if !page.is_truncated {
            return Ok((keys, None));
        }
    }
    tracing::error!(batches = keys.len(), "there are more failed batches than are listed; redrive them");
    Ok((keys, start_after))
}

/// `aws/lambda/<mapping>/<shard>/2026/11/21/2026-11-21T09.32.08-<uuid>`
fn given_up_at(key: &str) -> Option<UnixMillis> {
    let seconds = key.rsplit('/').next()?.get(..19)?.replace('.', ":");
    UnixMillis::parse(&format!("{seconds}.999Z"))
}

/// `None` for one that somebody has redriven meanwhile.
async fn read(bucket: &impl Streams, key: &str) -> Result<Option<FailedBatch>, BucketError> {
    let Some((_, mut stream)) = bucket.open(key).await? else { return Ok(None) };
    let mut head = Vec::new();
    while head.len() < HEAD_BYTES {
        let Some(piece) = stream.next().await? else { break };
        head.extend_from_slice(&piece[..piece.len().min(HEAD_BYTES - head.len())]);
    }
    let unread = FailedBatch::unread(key.to_owned());
    Ok(Some(FailedBatch { arrived: arrived(&head).unwrap_or(unread.arrived), ..unread }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchInfo {
    approximate_arrival_of_first_record: String,
    approximate_arrival_of_last_record: String,
}

/// The times of arrival in the first bytes of a batch's document.
fn arrived(head: &[u8]) -> Option<(UnixMillis, UnixMillis)> {
    const NAME: &[u8] = br#""KinesisBatchInfo":"#;
    let at = head.windows(NAME.len()).position(|window| window == NAME)?;
    let mut values = serde_json::Deserializer::from_slice(&head[at + NAME.len()..]).into_iter::<BatchInfo>();
    let info = values.next()?.ok()?;
    let first = UnixMillis::parse_aws(&info.approximate_arrival_of_first_record)?;
    Some((first, UnixMillis::parse_aws(&info.approximate_arrival_of_last_record)?))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rstest::rstest;

    use super::*;
    use lambda_setup::memory_bucket::MemoryBucket;

    const KEY: &str = "aws/lambda/4a8f/shardId-000000000000/2026/11/21/2026-11-21T10.32.08-9b1c";

    fn hour() -> UtcHour {
        UtcHour::parse("dt=2026-11-21/hour=09").unwrap()
    }

    /// In the order in which Lambda writes them.
    fn document(first: &str, last: &str) -> String {
        format!(
            r#"{{"requestContext":{{"requestId":"r","condition":"RecordAgeExceeded"}},"version":"1.0",
            "timestamp":"2026-11-21T10:32:08.000Z","KinesisBatchInfo": {{"shardId":"shardId-000000000000",
            "approximateArrivalOfFirstRecord":"{first}","approximateArrivalOfLastRecord":"{last}","batchSize":3}},
            "payload":"{}"}}"#,
            "x".repeat(100_000)
        )
    }

    async fn is_missing(key: &str, body: String) -> bool {
        let bucket = MemoryBucket::default();
        bucket.insert(key, body, HashMap::new());
        missing(&list(&&bucket, hour()).await.unwrap(), hour()).is_some()
    }

    #[tokio::test]
    async fn a_batch_counts_for_the_hours_that_its_records_arrived_in() {
        let cases = [
            ("2026-11-21T09:10:00.000Z", "2026-11-21T09:11:00.000Z", true),
            ("2026-11-21T08:10:00.000Z", "2026-11-21T09:00:00.000Z", true),
            ("2026-11-21T09:59:59.999Z", "2026-11-21T10:11:00.000Z", true),
            ("2026-11-21T08:10:00.000Z", "2026-11-21T10:11:00.000Z", true),
            ("2026-11-21T08:10:00.000Z", "2026-11-21T08:59:59.999Z", false),
            ("2026-11-21T10:00:00.000Z", "2026-11-21T10:11:00.000Z", false),
        ];
        for (first, last, expected) in cases {
            assert_eq!(is_missing(KEY, document(first, last)).await, expected, "{first} to {last}");
        }
    }

    #[tokio::test]
    async fn a_batch_without_times_counts_unless_it_was_given_up_before_the_hour() {
        assert!(is_missing(KEY, "{}".to_owned()).await);
        assert!(is_missing(KEY, format!("{}{}", " ".repeat(HEAD_BYTES), document("", ""))).await);
        assert!(is_missing("aws/lambda/other", String::new()).await);
        assert!(!is_missing(&KEY.replace("T10.", "T08."), "{}".to_owned()).await);
    }

    #[tokio::test]
    async fn a_batch_whose_times_are_not_read_holds_no_hour_that_began_after_it_was_given_up() {
        let bucket = MemoryBucket::default();
        bucket.insert(KEY, "{}", HashMap::new());
        let batches = list(&&bucket, hour()).await.unwrap();
        let holds = [0, 1, 2].map(|later| missing(&batches, hour().plus(later)).is_some());
        assert_eq!(holds, [true, true, false], "given up at 10:32");
    }

    #[tokio::test]
    async fn times_may_have_any_number_of_fraction_digits() {
        let cases = [
            ("2026-11-21T08:10:00Z", "2026-11-21T08:11:00Z", false),
            ("2026-11-21T08:10:00Z", "2026-11-21T09:00:00Z", true),
            ("2026-11-21T08:10:00.5Z", "2026-11-21T08:11:00.25Z", false),
            ("2026-11-21T08:10:00.123456Z", "2026-11-21T08:59:59.999999999Z", false),
        ];
        for (first, last, expected) in cases {
            assert_eq!(is_missing(KEY, document(first, last)).await, expected, "{first} to {last}");
        }
    }

    #[rstest]
    #[case::as_many_as_are_listed(MAX_PAGES, false)]
    #[case::one_more(MAX_PAGES + 1, true)]
    #[tokio::test]
    async fn more_batches_than_are_listed_count_for_any_hour(#[case] batches: usize, #[case] expected: bool) {
        let bucket = MemoryBucket::default();
        bucket.page_size.set(Some(1));
        for number in 0..batches {
            bucket.insert(&format!("{}-{number:04}", KEY.replace("T10.", "T08.")), "{}", HashMap::new());
        }
        assert_eq!(missing(&list(&&bucket, hour()).await.unwrap(), hour()).is_some(), expected);
    }

    #[tokio::test]
    async fn no_more_than_the_head_of_no_more_than_a_thousand_is_read() {
        let bucket = MemoryBucket::default();
        for number in 0..1_010 {
            let body = document("2026-11-21T08:10:00.000Z", "2026-11-21T08:11:00.000Z");
            bucket.insert(&format!("{KEY}-{number:04}"), body, HashMap::new());
        }
        let batches = list(&&bucket, hour()).await.unwrap();
        assert_eq!(bucket.calls_by_operation.borrow()["HEAD"], MAX_READ);
        let Some(Missing::FailedBatches { count, keys }) = missing(&batches, hour()) else { panic!("none is missing") };
        assert_eq!((count, keys.len()), (10, 10), "the ones that were not read");
    }
}
