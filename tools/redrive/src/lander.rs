//! Landing by the landing function's own write protocol, as an attempt of its own; and adding lines to an object.

use std::time::Duration;

use anyhow::{Context, anyhow};
use kinesis_to_s3_lambda::encode::Object;
use kinesis_to_s3_lambda::group::Group;
use kinesis_to_s3_lambda::landing::{self, Condition, LandingError, ObjectStore, PutError};
use kinesis_to_s3_lambda::s3::Bucket;
use lambda_setup::deadline::{Deadline, backoff_ceiling};
use lambda_setup::sdk::SdkConfig;
use shared::object::Attempt;
use shared::timestamp::UnixMillis;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::bucket::Stored;
use crate::landed_counts::LandedCounts;

/// The longest that landing one object may take, retries included.
pub(crate) const TIME: Duration = Duration::from_secs(60);
/// The longest that one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
const BACKOFF_BASE: Duration = Duration::from_millis(50);
const BACKOFF_CAP: Duration = Duration::from_secs(2);

/// The longest that Lambda lets an invocation run. An attempt with a deadline so late is certainly later than any of the
/// landing function's that began well before it.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-timeout.html>
pub(crate) const LONGEST_INVOCATION_MILLIS: i64 = 900_000;

pub(crate) struct Lander {
    bucket: Bucket,
    request_id: String,
    pub(crate) landed: LandedCounts,
}

impl Lander {
    pub(crate) fn new(config: &SdkConfig, bucket: String) -> Self {
        let bucket = Bucket::new(config, bucket);
        Self { bucket, request_id: format!("redrive-{}", Uuid::new_v4()), landed: LandedCounts::default() }
    }

    /// An attempt that begins now. What is landed by it must have been read later than this.
    pub(crate) fn attempt(&self) -> Attempt {
        let began = lambda_setup::now();
        let deadline = UnixMillis(began.0 + LONGEST_INVOCATION_MILLIS);
        Attempt { began, deadline, request_id: self.request_id.clone() }
    }

    pub(crate) async fn land(&self, group: &Group, attempt: &Attempt) -> anyhow::Result<()> {
        let landed = landing::land(&self.bucket, group, attempt, Deadline::after(TIME), rand::random::<f64>).await;
        match landed {
            Ok(_) => {
                self.landed.add_group(group);
                Ok(())
            }
            Err(error @ LandingError::Superseded { .. }) => {
                Err(anyhow!("{}: {error}; redrive again ten seconds from now", group.key()))
            }
            Err(error) => Err(error).with_context(|| group.key()),
        }
    }

    /// Makes an object what `merge` makes of it, however many do so at once. `read` gives the object, and `merge` the
    /// one to replace it with, or `None` when it holds all that it should.
    ///
    /// Each write is conditional on the object that was read. `merge` must only ever add lines: then no two versions of
    /// the object are equal, and a write that is late changes nothing.
    pub(crate) async fn add(
        &self,
        key: &str,
        read: impl AsyncFn() -> anyhow::Result<Option<Stored>>,
        mut merge: impl AsyncFnMut(Option<&Stored>) -> anyhow::Result<Option<Object>>,
    ) -> anyhow::Result<()> {
        let (mut time_left, mut retry) = (TIME, 0);
        loop {
            let found = read().await?;
            let Some(object) = merge(found.as_ref()).await.with_context(|| key.to_owned())? else { return Ok(()) };
            let condition = found.map_or(Condition::Absent, |stored| Condition::Matches(stored.etag));
            // A merge may read many objects: only the time that writing takes is bounded.
            let began = Instant::now();
            let failure = match timeout(WRITE_TIMEOUT, self.bucket.put(key, &object, &condition)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error @ PutError::Permanent(_))) => return Err(error).context(key.to_owned()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "S3 did not answer a write".to_owned(),
            };
            sleep(backoff_ceiling(retry, BACKOFF_BASE, BACKOFF_CAP).mul_f64(rand::random())).await;
            retry += 1;
            time_left = time_left
                .checked_sub(began.elapsed())
                .with_context(|| format!("{key}: no success in {TIME:?} of writing; at last: {failure}"))?;
        }
    }
}
