//! What a check left in the bucket about what is wrong, so that a message names it.

use serde::Deserialize;
use shared::metric::Metric;

use super::alarm::Watched;
use crate::bucket::{Bucket, BucketError, List};
use crate::manifest::BROKEN_PREFIX;

/// Objects that a message names: of the newest hours among the first thousand that are broken.
const NAMED_OBJECTS: usize = 3;

/// check-object's verdict, as far as people read it.
#[derive(Debug, Deserialize)]
struct Verdict {
    key: String,
    findings: Vec<String>,
}

/// The lines about what an alarm watches; none where no check leaves any, or they can't be read: the message goes out
/// without.
pub(super) async fn read(bucket: &impl Bucket, watched: Option<&Watched>) -> Vec<String> {
    if watched.is_none_or(|watched| watched.metric != Metric::BrokenObjects.as_str()) {
        return Vec::new();
    }
    broken_objects(bucket).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the message does not say which objects are broken");
        Vec::new()
    })
}

async fn broken_objects(bucket: &impl Bucket) -> Result<Vec<String>, BucketError> {
    let page = bucket.list(List { prefix: BROKEN_PREFIX, ..List::default() }).await?;
    let mut lines = Vec::new();
    for listed in page.objects.iter().rev().take(NAMED_OBJECTS) {
        let Some(content) = bucket.get(&listed.key).await? else { continue };
        match serde_json::from_slice::<Verdict>(&content.body) {
            Ok(Verdict { key, findings }) => lines.push(format!("{key}: {}", findings.join("; "))),
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
        }
    }

    fn broken(objects: usize) -> MemoryBucket {
        let bucket = MemoryBucket::default();
        for number in 0..objects {
            let verdict = format!("{{\"key\":\"events/{number:04}\",\"etag\":null,\"findings\":[\"a\",\"b\"]}}");
            bucket.insert(&format!("broken/events/{number:04}.json"), verdict, HashMap::new());
        }
        bucket
    }

    #[tokio::test]
    async fn the_newest_are_named_with_what_is_wrong() {
        assert_eq!(
            read(&&broken(2), Some(&watched("BrokenObjects"))).await,
            ["events/0001: a; b", "events/0000: a; b"]
        );
        let many = read(&&broken(1_500), Some(&watched("BrokenObjects"))).await;
        assert_eq!(many[0], "events/0999: a; b");
        assert_eq!(many[3], "and more than 997 more under broken/");
    }

    #[tokio::test]
    async fn what_can_t_be_read_keeps_no_message_back() {
        let bucket = broken(2);
        bucket.insert("broken/events/9.json", "no JSON", HashMap::new());
        assert_eq!(read(&&bucket, Some(&watched("BrokenObjects"))).await.len(), 2);
        bucket.fails_from.set(Some(1));
        assert_eq!(read(&&bucket, Some(&watched("BrokenObjects"))).await, [""; 0]);
        bucket.fails_from.set(None);
        assert_eq!(read(&&bucket, Some(&watched("LostEvents"))).await, [""; 0]);
        assert_eq!(read(&&bucket, None).await, [""; 0]);
    }
}
