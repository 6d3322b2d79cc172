//! What the bucket says about what is wrong, so that a message names it.

use std::time::Duration;

use lambda_setup::deadline::Deadline;
use serde::Deserialize;
use shared::metric::Metric;
use shared::timestamp::UnixMillis;

use super::alarm::Watched;
use super::rejected;
use crate::bucket::{Bucket, BucketError, List, Streams};
use crate::manifest::BROKEN_PREFIX;

/// Objects that a message names: of the newest hours among the first thousand that are broken.
const NAMED_OBJECTS: usize = 3;

/// check-object's verdict, as far as people read it.
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
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// The lines about what an alarm watches, as of a time; none where there are none, or they can't be read in time: the
/// message goes out without.
pub(super) async fn read<B: Bucket + Streams>(
    bucket: &B,
    watched: Option<&Watched>,
    at: UnixMillis,
    deadline: Deadline,
) -> Vec<String> {
    let Some(watched) = watched else { return Vec::new() };
    let lines = deadline.bound(TIME_LIMIT, async {
        if watched.is(Metric::BrokenObjects) {
            broken_objects(bucket).await
        } else if watched.is(Metric::RejectedShare) {
            rejected::most_frequent(bucket, at).await
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

async fn broken_objects(bucket: &impl Bucket) -> Result<Vec<String>, BucketError> {
    let page = bucket.list(List { prefix: BROKEN_PREFIX, ..List::default() }).await?;
    let mut lines = Vec::new();
    for listed in page.objects.iter().rev().take(NAMED_OBJECTS) {
        let Some(content) = bucket.get(&listed.key).await? else { continue };
        match serde_json::from_slice::<Verdict>(&content.body) {
            Ok(Verdict { key, findings }) => {
                let texts: Vec<_> = findings.into_iter().map(|finding| finding.text).collect();
                lines.push(format!("{key}: {}", texts.join("; ")));
            }
            Err(error) => tracing::warn!(key = listed.key, %error, "a verdict can't be read"),
        }
    }
    let more = page.objects.len().saturating_sub(NAMED_OBJECTS);
    let more_than = if page.is_truncated { "more than " } else { "" };
    lines.extend((more > 0).then(|| format!("and {more_than}{more} more under {BROKEN_PREFIX}")));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check_object;
    use crate::memory_bucket::MemoryBucket;
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

    const WORDS: &str = "the object is gone; the key is none that landing writes";

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
    async fn what_can_t_be_read_keeps_no_message_back() {
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
