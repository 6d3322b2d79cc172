//! Lines that the cluster will never take are kept in the bucket, each with the reason.
//!
//! The names depend on the object's key and the content on the lines and reasons alone: an object that is loaded again replaces
//! what was kept of it.

use base64_simd::STANDARD as BASE64;
use lambda_setup::bucket::{Bucket, BucketError, Condition};
use serde_json::value::RawValue;
use shared::json::write_string;

use super::answer::Reason;

/// The bytes from which on what is kept of an object goes on in another one: it bounds memory.
const MAX_PART_BYTES: usize = 8 * 1024 * 1024;

/// What is kept of an object.
pub(super) struct Unloadable<'b, B> {
    bucket: &'b B,
    key: &'b str,
    part: u32,
    text: Vec<u8>,
    pub(super) lines: u64,
}

impl<'b, B: Bucket> Unloadable<'b, B> {
    /// Of the object with this key.
    pub(super) fn new(bucket: &'b B, key: &'b str) -> Self {
        Self { bucket, key, part: 1, text: Vec::new(), lines: 0 }
    }

    /// Keeps a line: `{"type":…,"reason":…,"line":…}`, or `line_base64` of what is not JSON.
    pub(super) async fn add(&mut self, reason: &Reason, line: &[u8]) -> Result<(), BucketError> {
        self.lines += 1;
        self.text.extend_from_slice(b"{\"type\":");
        write_string(&mut self.text, &reason.kind);
        self.text.extend_from_slice(b",\"reason\":");
        write_string(&mut self.text, &reason.reason);
        if serde_json::from_slice::<&RawValue>(line).is_ok() {
            self.text.extend_from_slice(b",\"line\":");
            self.text.extend_from_slice(line);
        } else {
            self.text.extend_from_slice(b",\"line_base64\":\"");
            BASE64.encode_append(line, &mut self.text);
            self.text.push(b'"');
        }
        self.text.extend_from_slice(b"}\n");
        if self.text.len() >= MAX_PART_BYTES { self.write().await } else { Ok(()) }
    }

    /// Writes what is left.
    pub(super) async fn finish(&mut self) -> Result<(), BucketError> {
        if self.text.is_empty() { Ok(()) } else { self.write().await }
    }

    async fn write(&mut self) -> Result<(), BucketError> {
        let text = std::mem::take(&mut self.text);
        self.bucket.put(&unloadable_key(self.key, self.part), text.into(), Condition::Always).await?;
        self.part += 1;
        Ok(())
    }
}

/// Where lines of an object are kept: `unloadable/search/<its key>.jsonl`, then `….2.jsonl` and so on.
fn unloadable_key(key: &str, part: u32) -> String {
    if part == 1 { format!("unloadable/search/{key}.jsonl") } else { format!("unloadable/search/{key}.{part}.jsonl") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lambda_setup::memory_bucket::MemoryBucket;
    use serde_json::{Value, json};

    #[tokio::test]
    async fn lines_are_kept_with_their_reasons() {
        let bucket = MemoryBucket::default();
        let of = &&bucket;
        let mut unloadable = Unloadable::new(of, "events/a");
        let reason = Reason::new("mapper_parsing_exception", "\"x\"");
        unloadable.add(&reason, br#"{"v": 1}"#).await.unwrap();
        unloadable.add(&reason, b"{\xff").await.unwrap();
        unloadable.finish().await.unwrap();
        assert_eq!(bucket.keys(), ["unloadable/search/events/a.jsonl"]);
        let text = bucket.text("unloadable/search/events/a.jsonl").unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (kind, why) = ("mapper_parsing_exception", "\"x\"");
        let expected = [
            json!({"type": kind, "reason": why, "line": {"v": 1}}),
            json!({"type": kind, "reason": why, "line_base64": "e/8="}),
        ];
        assert_eq!((&lines[..], unloadable.lines), (&expected[..], 2));
        assert!(text.contains(r#""line":{"v": 1}"#), "the line is not what it was: {text}");
    }

    #[tokio::test]
    async fn what_is_kept_goes_on_in_another_object_at_the_bound() {
        let bucket = MemoryBucket::default();
        let of = &&bucket;
        let (reason, line) = (Reason::new("", ""), vec![b'1'; MAX_PART_BYTES / 4]);
        let mut unloadable = Unloadable::new(of, "k");
        for _ in 0..5 {
            unloadable.add(&reason, &line).await.unwrap();
        }
        unloadable.finish().await.unwrap();
        let lines = bucket.keys().iter().map(|key| bucket.text(key).unwrap().lines().count()).collect::<Vec<_>>();
        assert_eq!(bucket.keys(), ["unloadable/search/k.2.jsonl", "unloadable/search/k.jsonl"]);
        assert_eq!(lines, [1, 4]);
    }

    #[tokio::test]
    async fn nothing_is_written_of_an_object_that_is_loaded_whole() {
        let bucket = MemoryBucket::default();
        let of = &&bucket;
        Unloadable::new(of, "k").finish().await.unwrap();
        assert!(bucket.keys().is_empty());
    }
}
