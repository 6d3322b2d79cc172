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
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    text: String,
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
        }
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
            read(&&broken(2), Some(&watched("BrokenObjects"))).await,
            [format!("events/0001: {WORDS}"), format!("events/0000: {WORDS}")]
        );
        let many = read(&&broken(1_500), Some(&watched("BrokenObjects"))).await;
        assert_eq!(many[0], format!("events/0999: {WORDS}"));
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
