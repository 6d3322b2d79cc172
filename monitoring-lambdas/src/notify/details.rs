//! Details from the bucket about what is wrong, for the messages.

use std::time::Duration;

use lambda_setup::deadline::Deadline;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use shared::metric::Metric;
use shared::timestamp::UnixMillis;

use super::alarm::Watched;
use super::rejected;
use crate::check_deletions::Report;
use crate::manifest::{BROKEN_PREFIX, DELETED_PREFIX};
use lambda_setup::bucket::{Bucket, BucketError, List, Streams};

/// The most objects that a message names, from the newest hours among the first thousand broken ones.
const MAX_OBJECTS: usize = 3;
/// The most hours (the newest) and keys per hour that a message names as deleted.
const MAX_HOURS: usize = 3;
const MAX_KEYS: usize = 2;

/// The parts of check-object's verdict that people read.
#[derive(Debug, Deserialize)]
struct Verdict {
    key: String,
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    text: String,
}

/// How long reading may take: the message must go out.
const MAX_READING_TIME: Duration = Duration::from_secs(15);

/// The lines about what an alarm watches, as of a time; none if they can't be read in time: the message is sent without them.
pub(super) async fn read<B: Streams>(
    bucket: &B,
    watched: Option<&Watched>,
    at: UnixMillis,
    deadline: Deadline,
) -> Vec<String> {
    let Some(watched) = watched else { return Vec::new() };
    let lines = deadline.bound(MAX_READING_TIME, async {
        if watched.is(Metric::BrokenObjects) {
            broken_objects(bucket).await
        } else if watched.is(Metric::DeletedObjects) {
            deleted_objects(bucket).await
        } else if watched.is(Metric::RejectedShare) || watched.is(Metric::SizeViolations) {
            rejected::most_frequent(bucket, at, watched.app()).await
        } else {
            Ok(Vec::new())
        }
    });
    let problem = match lines.await {
        Ok(Ok(lines)) => return lines,
        Ok(Err(error)) => error.to_string(),
        Err(time_is_up) => time_is_up.to_string(),
    };
    tracing::warn!(problem, metric = watched.name(), "the message goes out without details");
    Vec::new()
}

async fn deleted_objects(bucket: &impl Bucket) -> Result<Vec<String>, BucketError> {
    let line = |Report { partition, missing_objects, missing, .. }: Report| {
        let keys: Vec<_> = missing.iter().take(MAX_KEYS).map(|missing| missing.key.as_str()).collect();
        let first = if keys.is_empty() { "their keys are not known".into() } else { keys.join(", ") };
        format!("{partition}: {missing_objects} deleted or overwritten: {first}")
    };
    let (mut lines, more) = newest(bucket, &format!("{DELETED_PREFIX}dt="), MAX_HOURS, line).await?;
    lines.extend(more.map(|more| format!("and {more} more hours under {DELETED_PREFIX}")));
    Ok(lines)
}

async fn broken_objects(bucket: &impl Bucket) -> Result<Vec<String>, BucketError> {
    let line = |Verdict { key, findings }: Verdict| {
        let texts: Vec<_> = findings.into_iter().map(|finding| finding.text).collect();
        format!("{key}: {}", texts.join("; "))
    };
    let (mut lines, more) = newest(bucket, BROKEN_PREFIX, MAX_OBJECTS, line).await?;
    lines.extend(more.map(|more| format!("and {more} more under {BROKEN_PREFIX}")));
    Ok(lines)
}

/// A line for each of the last JSON objects of a listing's first page, and how many others there are, if any.
async fn newest<T: DeserializeOwned>(
    bucket: &impl Bucket,
    prefix: &str,
    limit: usize,
    line: impl Fn(T) -> String,
) -> Result<(Vec<String>, Option<String>), BucketError> {
    let page = bucket.list(List { prefix, ..List::default() }).await?;
    let mut lines = Vec::new();
    for listed in page.objects.iter().rev().take(limit) {
        let Some(content) = bucket.get(&listed.key).await? else { continue };
        match serde_json::from_slice(&content.body) {
            Ok(read) => lines.push(line(read)),
            Err(error) => tracing::warn!(key = listed.key, %error, "left out of the message: it can't be read"),
        }
    }
    let more = page.objects.len().saturating_sub(limit);
    let more_than = if page.is_truncated { "more than " } else { "" };
    Ok((lines, (more > 0).then(|| format!("{more_than}{more}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check_object;
    use lambda_setup::memory_bucket::MemoryBucket;
    use std::collections::HashMap;

    fn watched(metric: &str) -> Watched {
        Watched {
            namespace: "Playhead".into(),
            metric: metric.into(),
            dimensions: Vec::new(),
            statistic: "Sum".into(),
            period: 300,
            comparison: "GreaterThanThreshold".into(),
            threshold: 0.0,
            calculated: None,
        }
    }

    async fn read(bucket: &MemoryBucket, watched: Option<&Watched>) -> Vec<String> {
        super::read(&bucket, watched, UnixMillis(0), Deadline::after(Duration::from_secs(30))).await
    }

    const WORDS: &str = "the object is gone; landing writes no such key";

    /// What check-object leaves.
    fn broken(objects: usize) -> MemoryBucket {
        let bucket = MemoryBucket::default();
        for number in 0..objects {
            let findings = [check_object::Finding::Gone, check_object::Finding::Key];
            let key = format!("events/{number:04}");
            let verdict = serde_json::to_string(&check_object::Broken::new(&key, None, &findings)).unwrap();
            bucket.insert(&format!("broken/events/{number:04}.json"), verdict, HashMap::new());
        }
        bucket
    }

    #[tokio::test]
    async fn the_newest_are_named_with_what_is_wrong() {
        assert_eq!(
            read(&broken(2), Some(&watched("BrokenObjects"))).await,
            [format!("events/0001: {WORDS}"), format!("events/0000: {WORDS}")]
        );
        let many = read(&broken(1_500), Some(&watched("BrokenObjects"))).await;
        assert_eq!(many[0], format!("events/0999: {WORDS}"));
        assert_eq!(many[3], "and more than 997 more under broken/");
    }

    #[tokio::test]
    async fn the_newest_hours_are_named_with_their_first_deleted_keys() {
        let bucket = MemoryBucket::default();
        bucket.insert("deleted/_state.json", "{}", HashMap::new());
        for hour in 0..5_u64 {
            let partition = format!("dt=2026-11-21/hour=0{hour}");
            let key = |number| serde_json::json!({"key": format!("events/{partition}/{number}"), "what": "deleted"});
            let report = serde_json::json!({
                "v": 1, "partition": partition, "found_at": "2026-11-21T12:40:00.000Z", "missing_objects": hour + 1,
                "missing": (0..hour).map(key).collect::<Vec<_>>(),
            });
            bucket.insert(&crate::manifest::deleted_key(&partition), report.to_string(), HashMap::new());
        }
        let lines = read(&bucket, Some(&watched("DeletedObjects"))).await;
        let first = "events/dt=2026-11-21/hour=04/0, events/dt=2026-11-21/hour=04/1";
        assert_eq!(lines[0], format!("dt=2026-11-21/hour=04: 5 deleted or overwritten: {first}"));
        assert_eq!((lines.len(), lines[3].as_str()), (4, "and 2 more hours under deleted/"));
        bucket.insert("deleted/dt=2026-11-21/hour=09.json", "no JSON", HashMap::new());
        assert_eq!(read(&bucket, Some(&watched("DeletedObjects"))).await.len(), 3);
    }

    #[tokio::test]
    async fn unreadable_details_delay_no_message() {
        let bucket = broken(2);
        bucket.insert("broken/events/9.json", "no JSON", HashMap::new());
        assert_eq!(read(&bucket, Some(&watched("BrokenObjects"))).await.len(), 2);
        bucket.fails_from.set(Some(1));
        assert_eq!(read(&bucket, Some(&watched("BrokenObjects"))).await, [""; 0]);
        bucket.fails_from.set(None);
        assert_eq!(read(&bucket, Some(&watched("LostEvents"))).await, [""; 0]);
        assert_eq!(read(&bucket, None).await, [""; 0]);
    }
}
