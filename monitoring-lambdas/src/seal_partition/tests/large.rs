//! Hours with many objects: what they cost, and that memory does not grow with them.

use allocation_counter::measure;

use super::*;
use lambda_setup::bucket::{Bucket, BucketError, Condition, Content, Head, List, Listed, Page, Part, Uploads};

#[tokio::test]
async fn three_thousand_objects_in_parts_cost_a_head_each_and_little_more() {
    let (bucket, metrics) = (MemoryBucket::default(), MemoryMetrics::default());
    for number in 0..2_900 {
        land(&bucket, Kind::Event, hour(9), 0, (10_000 + 10 * number, 10_009 + 10 * number));
    }
    for number in 0..100 {
        land(&bucket, Kind::Rejected, hour(9), 0, (10_000 + 10 * number, 10_000 + 10 * number));
    }
    catch_up(&metrics, at("2026-11-21T10:20:00.000Z"));
    let failed_batches = MemoryBucket::default();
    let handler = Handler { part_bytes: 100_000, ..Handler::new(&bucket, &failed_batches, &metrics, config()) };
    handler.run(at("2026-11-21T10:20:00.000Z"), None, &|| false, "seal-partition").await.unwrap();
    let manifest = json(&bucket, "events/dt=2026-11-21/hour=09/_MANIFEST.json");
    let objects = manifest["objects"].as_array().unwrap();
    assert_eq!((objects.len(), &manifest["totals"]["events"]), (3_000, &29_000.into()));
    assert!(objects.windows(2).all(|pair| pair[0]["key"].as_str() < pair[1]["key"].as_str()));
    let bytes = bucket.text("events/dt=2026-11-21/hour=09/_MANIFEST.json").unwrap().len();
    assert!(bytes / 3_000 < 450, "an entry has {} bytes", bytes / 3_000);
    let calls = bucket.calls_by_operation.take();
    let expected = [
        // `_SUCCESS` when the run begins and when the hour does, and the acceptance.
        ("GET", 3),
        ("HEAD", 3_002),
        ("PUT", 1),
        // Four for the first hour, `late/`, `sealing/`, two of `broken/`; three thousand-key pages of events, one of rejected.
        ("listing", 12),
        ("starting the upload", 1),
        ("uploading a part", bytes.div_ceil(100_000)),
        ("completing the upload", 1),
    ];
    let near =
        |operation: &str| calls[operation].abs_diff(expected.iter().find(|(name, _)| **name == *operation).unwrap().1);
    assert!(calls.len() == expected.len() && expected.iter().all(|(operation, _)| near(operation) <= 1), "{calls:?}");
    assert_eq!(metrics.calls.get(), 8);
}

/// A bucket with an hour of any number of objects, none of which is kept, nor what is uploaded.
struct Endless {
    objects: u64,
    metadata: HashMap<String, String>,
    uploaded: Cell<usize>,
    is_last: Cell<bool>,
}

type Result<T> = std::result::Result<T, BucketError>;

impl Endless {
    fn key(number: u64) -> String {
        let number = format!("49590338271490256608559692538361571095921575989{number:09}");
        object_key(Kind::Event, hour(9), "shardId-000000000000", &number)
    }
}

impl Bucket for &Endless {
    async fn list(&self, list: List<'_>) -> Result<Page> {
        if !list.prefix.starts_with("events/dt=2026-11-21/hour=09/") {
            return Ok(Page::default());
        }
        let after = list.start_after.map_or(0, |key| {
            let number = &key[key.len() - ".jsonl.bz2".len() - 9..][..9];
            number.parse::<u64>().unwrap() + 1
        });
        let to = (after + 1_000).min(self.objects);
        let objects = (after..to).map(|number| Listed {
            key: Endless::key(number),
            size: 40_000,
            etag: "\"0123456789abcdef0123456789abcdef\"".into(),
            modified: UnixMillis(0),
        });
        Ok(Page { objects: objects.collect(), prefixes: Vec::new(), is_truncated: to < self.objects })
    }

    async fn head(&self, key: &str) -> Result<Option<Head>> {
        let is_object = key.ends_with(".bz2");
        Ok(is_object.then(|| Head { etag: String::new(), metadata: self.metadata.clone(), modified: UnixMillis(0) }))
    }

    async fn get(&self, _: &str) -> Result<Option<Content>> {
        Ok(None)
    }

    async fn put(&self, _: &str, _: bytes::Bytes, _: Condition<'_>) -> Result<String> {
        Ok(String::new())
    }

    async fn delete(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn delete_matching(&self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }
}

impl Uploads for &Endless {
    async fn create_upload(&self, _: &str) -> Result<String> {
        Ok("u".into())
    }

    async fn upload_part(&self, _: &str, _: &str, number: i32, body: bytes::Bytes) -> Result<Part> {
        assert!(!self.is_last.replace(body.len() < PART_BYTES), "only the last part may be small");
        self.uploaded.set(self.uploaded.get() + body.len());
        Ok(Part { number, etag: "\"0123456789abcdef0123456789abcdef\"".into() })
    }

    async fn complete_upload(&self, _: &str, _: &str, _: &[Part], _: Condition<'_>) -> Result<String> {
        Ok(String::new())
    }

    async fn abort_upload(&self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }

    async fn copy(&self, _: &str, _: &str, _: &str) -> Result<()> {
        Ok(())
    }
}

#[test]
fn memory_does_not_grow_with_the_objects() {
    let seed = MemoryBucket::default();
    let key = land(&seed, Kind::Event, hour(9), 0, (1, 9));
    let mut metadata = seed.metadata(&key);
    metadata.insert("last-sequence-number".into(), "49590338271490256608559692538361571095921575989000000000".into());
    let cost = |objects| {
        let bucket = Endless { objects, metadata: metadata.clone(), uploaded: Cell::new(0), is_last: Cell::new(false) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let metrics = MemoryMetrics::default();
        let cost = measure(|| {
            catch_up(&metrics, at("2026-11-21T10:20:00.000Z"));
            let handler = Handler::new(&bucket, &seed, &metrics, config());
            runtime.block_on(handler.run(at("2026-11-21T10:20:00.000Z"), None, &|| false, "f")).unwrap();
        });
        (cost.bytes_max, bucket.uploaded.get())
    };
    let ((small, _), (large, uploaded)) = (cost(40_000), cost(100_000));
    println!("100,000 objects: {uploaded} bytes of manifest, {large} bytes of memory at most; 40,000: {small}");
    assert!(uploaded > 30_000_000);
    assert!(large < 20 * 1024 * 1024 && large < small + small / 10, "{small} {large}");
}
