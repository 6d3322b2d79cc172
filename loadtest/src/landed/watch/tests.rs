//! Against a bucket in memory that changes while it is watched.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use bzip2::{Compression, write::BzEncoder};
use lambda_setup::bucket::{Content, Listed};
use shared::line::Kind;
use shared::timestamp::UnixMillis;

use super::*;
use crate::ledger::{Ledger, Reported, id};
use crate::run::unix_ms;

const PREFIX: &str = "lt-r-";

/// Objects and what else happens to them. Its time is tokio's, which stands still in these tests but for sleeps.
#[derive(Clone, Default)]
struct MemoryBucket {
    objects: Arc<Mutex<BTreeMap<String, (Listed, Bytes)>>>,
    listings: Arc<Mutex<u32>>,
    /// Replaced each time that they are read.
    unsettled: Arc<Mutex<Option<String>>>,
    reads: Arc<Mutex<Vec<String>>>,
}

impl MemoryBucket {
    fn put(&self, kind: &str, name: &str, lines: &str) {
        let modified = UnixMillis(i64::try_from(unix_ms()).unwrap());
        let key = format!("{kind}/{}/{name}", modified.hour().partition());
        let mut encoder = BzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(lines.as_bytes()).unwrap();
        let bytes = Bytes::from(encoder.finish().unwrap());
        let mut objects = self.objects.lock().unwrap();
        let listed = Listed { etag: lines.into(), modified, size: bytes.len() as u64, key: key.clone() };
        objects.insert(key, (listed, bytes));
    }

    fn put_events(&self, name: &str, numbers: &[u64]) {
        let line = |number: &u64| format!("{{\"id\":\"{0}\",\"event\":{{\"id\":\"{0}\"}}}}\n", id(PREFIX, *number));
        self.put("events", name, &numbers.iter().map(line).collect::<String>());
    }

    fn delete(&self, name: &str) {
        self.objects.lock().unwrap().retain(|key, _| !key.ends_with(name));
    }

    /// Does something to it so many seconds from now.
    fn after(&self, seconds: f64, action: impl FnOnce(&Self) + Send + 'static) {
        let bucket = self.clone();
        tokio::spawn(async move {
            sleep(Duration::from_secs_f64(seconds)).await;
            action(&bucket);
        });
    }
}

impl Objects for MemoryBucket {
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, LandedError> {
        *self.listings.lock().unwrap() += 1;
        let objects = self.objects.lock().unwrap();
        let under = objects.values().filter(|(listed, _)| listed.key.starts_with(prefix));
        Ok(under.map(|(listed, _)| listed.clone()).collect())
    }

    async fn get(&self, key: &str) -> Result<Option<Content>, LandedError> {
        self.reads.lock().unwrap().push(key.to_owned());
        let mut objects = self.objects.lock().unwrap();
        let Some((listed, bytes)) = objects.get_mut(key) else { return Ok(None) };
        let stored = Content { etag: listed.etag.clone(), body: bytes.clone() };
        if self.unsettled.lock().unwrap().as_deref() == Some(key) {
            listed.etag.push('+');
            return Ok(Some(Content { etag: "between two".into(), ..stored }));
        }
        Ok(Some(stored))
    }
}

fn search(ledger: &Ledger) -> Search<'_> {
    let (started_unix_ms, ended_unix_ms) = (unix_ms(), unix_ms());
    let (patience, settle) = (Duration::from_secs(30), Duration::from_secs(2));
    Search { prefix: PREFIX.into(), ledger, started_unix_ms, ended_unix_ms, patience, settle }
}

/// Events that were all said to be stored.
fn stored(count: u64) -> Ledger {
    let mut ledger = Ledger::default();
    for _ in 0..count {
        let number = ledger.add(0, Kind::Event);
        ledger.report(number, Reported::Stored);
    }
    ledger
}

struct Watched {
    listings: Vec<(u64, u64)>,
    seconds: f64,
    landed: u64,
    counts: Vec<u32>,
}

async fn watched(bucket: &MemoryBucket, ledger: &Ledger) -> Result<Watched, LandedError> {
    let (search, mut listings, began) = (search(ledger), Vec::new(), Instant::now());
    let progress = |found, expected| listings.push((found, expected));
    let inventory = watch(bucket, &search, progress).await?;
    let landed = Sightings::of(&inventory, &search).landed();
    let count = |number| {
        inventory.objects.values().flat_map(|object| &object.holdings.numbers).filter(|n| **n == number).count()
    };
    let counts = (0..ledger.entries().len() as u64).map(|number| count(number) as u32).collect();
    Ok(Watched { listings, seconds: began.elapsed().as_secs_f64(), landed, counts })
}

#[tokio::test(start_paused = true)]
async fn late_files_are_awaited_and_read_once() {
    let bucket = MemoryBucket::default();
    bucket.put_events("a.jsonl.bz2", &[0]);
    bucket.after(3.5, |bucket| bucket.put_events("b.jsonl.bz2", &[1, 2]));
    let watched = watched(&bucket, &stored(3)).await.unwrap();
    assert_eq!(watched.listings, [(1, 3), (1, 3), (1, 3), (1, 3), (3, 3)]);
    assert_eq!((watched.counts, bucket.reads.lock().unwrap().len()), (vec![1, 1, 1], 2));
    assert!((6.0..6.5).contains(&watched.seconds), "{}", watched.seconds);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_nothing_new_has_come_for_as_long_as_patience_lasts() {
    let bucket = MemoryBucket::default();
    bucket.after(29.5, |bucket| bucket.put_events("a.jsonl.bz2", &[0]));
    bucket.after(40.5, |bucket| bucket.put("events", "others.jsonl.bz2", "{}\n"));
    let watched = watched(&bucket, &stored(2)).await.unwrap();
    assert_eq!(watched.listings.last(), Some(&(1, 2)));
    assert!((62.0..62.5).contains(&watched.seconds), "{}", watched.seconds);
}

#[tokio::test(start_paused = true)]
async fn doubles_just_after_the_rest_are_seen() {
    let bucket = MemoryBucket::default();
    bucket.put_events("a.jsonl.bz2", &[0, 1]);
    bucket.after(1.5, |bucket| bucket.put_events("b.jsonl.bz2", &[1]));
    assert_eq!(watched(&bucket, &stored(2)).await.unwrap().counts, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_file_deleted_before_the_end_does_not_count() {
    let bucket = MemoryBucket::default();
    bucket.put_events("a.jsonl.bz2", &[0]);
    bucket.put_events("b.jsonl.bz2", &[1]);
    bucket.after(1.5, |bucket| bucket.delete("b.jsonl.bz2"));
    assert_eq!(watched(&bucket, &stored(2)).await.unwrap().counts, [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_file_counts_in_its_last_version() {
    let bucket = MemoryBucket::default();
    bucket.put_events("a.jsonl.bz2", &[0, 1, 2]);
    bucket.after(1.5, |bucket| bucket.put_events("a.jsonl.bz2", &[0, 1]));
    let watched = watched(&bucket, &stored(3)).await.unwrap();
    assert_eq!((watched.counts, watched.landed), (vec![1, 1, 0], 2));
}

#[tokio::test(start_paused = true)]
async fn files_with_other_names_and_from_before_the_run_are_not_read() {
    let bucket = MemoryBucket::default();
    bucket.put("events", "_MANIFEST.json", "lt-r-0000000000");
    bucket.put_events("old.jsonl.bz2", &[0]);
    let five_minutes = 5 * 60 * 1_000;
    bucket.objects.lock().unwrap().values_mut().for_each(|(listed, _)| listed.modified.0 -= five_minutes + 1);
    bucket.put_events("new.jsonl.bz2", &[0]);
    // A clock that is five minutes behind is allowed for.
    bucket.put("rejected", "odd.jsonl.bz2", "");
    bucket.objects.lock().unwrap().values_mut().for_each(|(listed, _)| {
        if listed.key.ends_with("odd.jsonl.bz2") {
            listed.modified.0 -= five_minutes - 1_000;
        }
    });
    assert_eq!(watched(&bucket, &stored(1)).await.unwrap().counts, [1]);
    let mut reads = bucket.reads.lock().unwrap().clone();
    reads.sort_unstable();
    let names: Vec<&str> = reads.iter().filter_map(|key| key.rsplit('/').next()).collect();
    assert_eq!(names, ["new.jsonl.bz2", "odd.jsonl.bz2"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_is_an_error_with_its_key() {
    let bucket = MemoryBucket::default();
    bucket.put("rejected", "bad.jsonl.bz2", "{}\n");
    let problem = watched(&bucket, &stored(1)).await.err().unwrap().to_string();
    assert!(problem.contains("bad.jsonl.bz2: line 1 is not a rejected line"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_keeps_changing_is_an_error() {
    let bucket = MemoryBucket::default();
    bucket.put_events("a.jsonl.bz2", &[0]);
    let key = bucket.objects.lock().unwrap().keys().next().unwrap().clone();
    *bucket.unsettled.lock().unwrap() = Some(key.clone());
    let ended = watched(&bucket, &stored(1)).await;
    assert!(matches!(ended.err(), Some(LandedError::Unsettled { key: unsettled }) if unsettled == key));
}

#[tokio::test(start_paused = true)]
async fn each_of_many_files_is_read() {
    let bucket = MemoryBucket::default();
    for number in 0..100 {
        bucket.put_events(&format!("{number}.jsonl.bz2"), &[number]);
    }
    // Larger than what may be read at once: it is read alone.
    bucket.objects.lock().unwrap().values_mut().take(3).for_each(|(listed, _)| listed.size = 1 << 40);
    assert_eq!(watched(&bucket, &stored(100)).await.unwrap().counts, vec![1; 100]);
}
