//! check-object: is each landed object what its metadata says, and did it land in time?
//!
//! A good object costs one GET and nothing else. The verdict on a broken one goes to `broken/<key>.json`, the same for every S3
//! event of the object, with an error in the log and a metric. It is deleted when landing replaces the object with a good one,
//! which shows in the block size: landing always changes it. A person reviews and deletes the others.
//!
//! Memory: bzip2's tables (under 4 MB), one line of at most some 6 MiB, and 64 KiB.

mod finding;
mod inspection;
mod lines;
#[cfg(test)]
mod tests;
mod times;

use lambda_runtime::Context;
use lambda_setup::environment::EnvironmentError;
use shared::emf;
use shared::metric::Metric;
use shared::object::{BlockSize, ObjectKey, ObjectMetadata};
use shared::timestamp::{MILLIS_PER_MINUTE, UnixMillis};

use crate::manifest::{broken_key, late_key};
use crate::rules::recency::closes_at;
use crate::seal_partition::grace_minutes;
pub(crate) use finding::Broken;
pub use finding::{Finding, LineProblem};
use inspection::Inspection;
use lambda_setup::bucket::{BucketError, Condition, Head, Stream, Streams};
use lambda_setup::event::{Created, EventError, S3Event};

/// What the environment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// `SEAL_GRACE_MINUTES`: from the end of an hour to when nothing more is expected of it.
    pub grace_minutes: i64,
}

impl Config {
    /// # Errors
    ///
    /// A variable that has no value in its range.
    pub fn from_environment() -> Result<Self, EnvironmentError> {
        Ok(Self { grace_minutes: grace_minutes()? })
    }
}

/// Why an object was not checked; Lambda tries again. A broken object is a verdict, not an error.
#[derive(Debug, thiserror::Error)]
pub enum CheckObjectError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("the verdict has no JSON form: {0}")]
    Encode(#[from] serde_json::Error),
}

/// The result of checking an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Broken {
        /// Never empty.
        findings: Vec<Finding>,
    },
}

/// Checks objects, one after the other.
pub struct Handler<O> {
    /// Opens a bucket by its name, which is in the event.
    open: O,
    grace_millis: i64,
}

/// How often a broken object is checked when it keeps changing.
const MAX_ATTEMPTS: u32 = 3;

impl<O> Handler<O> {
    pub fn new(open: O, grace_minutes: i64) -> Self {
        Self { open, grace_millis: grace_minutes * MILLIS_PER_MINUTE }
    }

    /// Checks the objects that an event names.
    ///
    /// # Errors
    ///
    /// When S3 does not answer, or the event can't be read.
    pub async fn handle<B>(&self, event: S3Event, context: Context) -> Result<Vec<Verdict>, CheckObjectError>
    where
        O: Fn(String) -> B,
        B: Streams,
    {
        let mut verdicts = Vec::new();
        for Created { bucket, key, at, .. } in event.created()? {
            let bucket = (self.open)(bucket);
            if let Some(parsed) = ObjectKey::parse(&key)
                && closes_at(parsed.hour, self.grace_millis) <= at
            {
                // Always the same key: one marker for any number of late objects.
                let late = late_key(&parsed.hour.partition());
                bucket.put(&late, bytes::Bytes::new(), Condition::Always).await?;
            }
            let verdict = check(&bucket, &key).await?;
            if let Verdict::Broken { findings } = &verdict {
                report(&key, findings, at, &context.env_config.function_name);
            }
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }
}

fn report(key: &str, findings: &[Finding], at: UnixMillis, function_name: &str) {
    let problem = finding::text(findings);
    tracing::error!(key, problem, "the landed object is broken");
    println!("{}", emf::line(at, function_name, &[(Metric::BrokenObjects, 1)], &[("key", key)]));
}

/// Checks an object and stores the verdict in the bucket.
async fn check<B: Streams>(bucket: &B, key: &str) -> Result<Verdict, CheckObjectError> {
    let mut attempts = 1;
    loop {
        let (etag, replaced, findings) = inspect(bucket, key).await?;
        if findings.is_empty() {
            if replaced {
                bucket.delete(&broken_key(key)).await?;
            }
            return Ok(Verdict::Good);
        }
        // The object's next version may have been checked already: its verdict must not be overwritten.
        let now = bucket.head(key).await?.map(|head| head.etag);
        if now != etag && attempts < MAX_ATTEMPTS {
            attempts += 1;
            continue;
        }
        let broken = serde_json::to_vec(&Broken::new(key, etag.as_deref(), &findings))?;
        bucket.put(&broken_key(key), broken.into(), Condition::Always).await?;
        return Ok(Verdict::Broken { findings });
    }
}

/// The version that was checked, whether it has replaced another one, and what is wrong with it.
async fn inspect<B: Streams>(bucket: &B, key: &str) -> Result<(Option<String>, bool, Vec<Finding>), BucketError> {
    let Some((Head { etag, metadata, .. }, stream)) = bucket.open(key).await? else {
        return Ok((None, false, vec![Finding::Gone]));
    };
    let Some(parsed) = ObjectKey::parse(key) else { return Ok((Some(etag), false, vec![Finding::Key])) };
    let metadata = match ObjectMetadata::from_entries(&parsed.name, &metadata) {
        Ok(metadata) => metadata,
        Err(error) => return Ok((Some(etag), false, vec![Finding::Metadata(error)])),
    };
    let findings = read_through(stream, Inspection::new(&parsed, &metadata)).await?;
    let bytes = usize::try_from(metadata.uncompressed_bytes).unwrap_or(usize::MAX);
    let replaced = metadata.block_size != BlockSize::fitting(bytes);
    Ok((Some(etag), replaced, findings))
}

async fn read_through(mut stream: impl Stream, mut inspection: Inspection<'_>) -> Result<Vec<Finding>, BucketError> {
    while let Some(piece) = stream.next().await? {
        if !inspection.feed(&piece) {
            break;
        }
    }
    Ok(inspection.finish())
}
