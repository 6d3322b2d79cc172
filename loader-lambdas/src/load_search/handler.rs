//! One invocation from beginning to end: messages in, the documents of the objects that they name, and which messages the queue
//! is to send again.

use std::cell::Cell;
use std::convert::Infallible;
use std::time::Duration;

use lambda_runtime::Context;
use lambda_setup::bucket::{BucketError, Head, Stream, Streams};
use lambda_setup::deadline::{Deadline, TimeIsUp};
use lambda_setup::event::Created;
use shared::emf;
use shared::line::{EventFormat, Kind};
use shared::metric::Metric;
use shared::object::{LANDED_ETAG, ObjectKey, ObjectMetadata};
use shared::timestamp::UnixMillis;

use super::answer::Reason;
use super::batch::Batch;
use super::cluster::SearchCluster;
use super::deliver::{Delivered, deliver};
use super::document::Documents;
use super::index_template::{Distribution, index, index_template};
use super::lines::{Lines, ReadError};
use super::notification::{NotificationError, SqsAnswer, SqsEvent, SqsMessage, created};
use super::retry::{ClusterError, Retries};
use super::unloadable::Unloadable;
use crate::promoted::PromotedFields;

/// The time in hand to say what became of the messages.
const IN_HAND: Duration = Duration::from_secs(5);

/// The most bytes of a message that can't be read that are logged.
const MAX_LOGGED_BYTES: usize = 500;

/// Why a message is not done. The queue sends it again.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Notification(#[from] NotificationError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    TimeIsUp(#[from] TimeIsUp),
}

impl LoadError {
    /// Whether other messages would fare no better now.
    fn is_for_all(&self) -> bool {
        match self {
            Self::Cluster(error) => error.is_for_all(),
            Self::TimeIsUp(_) => true,
            Self::Notification(_) | Self::Bucket(_) | Self::Read(_) => false,
        }
    }
}

/// Loads objects, one after the other.
pub(super) struct Handler<O, C> {
    /// Opens a bucket by its name, which is in the event.
    pub(super) open: O,
    pub(super) cluster: C,
    pub(super) index_prefix: String,
    pub(super) promoted: PromotedFields,
    pub(super) clock: fn() -> UnixMillis,
    /// A number from 0 to 1.
    pub(super) jitter: fn() -> f64,
    /// Whether this environment has put the index template.
    pub(super) is_prepared: Cell<bool>,
}

/// What an invocation did.
#[derive(Debug, Default)]
struct Counts {
    loaded: u64,
    present: u64,
    unloadable: u64,
    retried: u64,
    /// Milliseconds, of the object that came latest.
    lag: Option<u64>,
}

impl Counts {
    fn line(&self, time: UnixMillis, function_name: &str) -> String {
        let mut values = vec![
            (Metric::LoadedDocuments, self.loaded),
            (Metric::PresentDocuments, self.present),
            (Metric::UnloadableDocuments, self.unloadable),
            (Metric::RetriedDocuments, self.retried),
        ];
        values.extend(self.lag.map(|lag| (Metric::LoadLag, lag)));
        emf::line(time, function_name, &values, &[])
    }
}

/// One object on its way.
struct Load<'a, B, C> {
    cluster: &'a C,
    deadline: Deadline,
    jitter: fn() -> f64,
    batch: Batch,
    unloadable: Unloadable<'a, B>,
    newest: Option<UnixMillis>,
}

impl<O, C: SearchCluster> Handler<O, C> {
    /// Loads the objects that the messages name. What fails is in the answer, not an error.
    pub(super) async fn handle<B>(&self, event: SqsEvent, context: Context) -> Result<SqsAnswer, Infallible>
    where
        O: Fn(String) -> B,
        B: Streams,
    {
        let deadline = Deadline::reserving(context.deadline, IN_HAND);
        let (mut answer, mut counts, mut goes_on) = (SqsAnswer::default(), Counts::default(), true);
        for message in event.messages {
            if !goes_on {
                answer.send_again(message.message_id);
                continue;
            }
            if let Err(error) = self.message(&message, deadline, &mut counts).await {
                report(&error, &message);
                goes_on = !error.is_for_all();
                answer.send_again(message.message_id);
            }
        }
        println!("{}", counts.line((self.clock)(), &context.env_config.function_name));
        Ok(answer)
    }

    async fn message<B>(&self, message: &SqsMessage, deadline: Deadline, counts: &mut Counts) -> Result<(), LoadError>
    where
        O: Fn(String) -> B,
        B: Streams,
    {
        for object in created(&message.body)? {
            deadline.bound(Duration::MAX, self.object(&object, deadline, counts)).await??;
        }
        Ok(())
    }

    async fn object<B>(&self, object: &Created, deadline: Deadline, counts: &mut Counts) -> Result<(), LoadError>
    where
        O: Fn(String) -> B,
        B: Streams,
    {
        let key = object.key.as_str();
        let Some(parsed) = ObjectKey::parse(key).filter(|parsed| parsed.kind == Kind::Event) else {
            tracing::warn!(key, "not an object of events: passed over");
            return Ok(());
        };
        self.prepare(deadline).await?;
        let bucket = (self.open)(object.bucket.clone());
        let Some((head, stream)) = bucket.open(key).await? else {
            tracing::warn!(key, "the object is gone: passed over");
            return Ok(());
        };
        if is_rewritten(object, &head) {
            tracing::info!(key, "rewritten by a deletion: what is left of it was loaded, or its own message comes");
            return Ok(());
        }
        let documents = Documents::new(&index(&self.index_prefix, parsed.hour), format(&parsed, &head), &self.promoted);
        let unloadable = Unloadable::new(&bucket, key);
        let (cluster, jitter) = (&self.cluster, self.jitter);
        let mut load = Load { cluster, deadline, jitter, batch: Batch::default(), unloadable, newest: None };
        load.all(stream, &documents, counts).await?;
        let lag = (self.clock)().0 - load.newest.unwrap_or(object.at).0;
        counts.lag = counts.lag.max(Some(u64::try_from(lag).unwrap_or_default()));
        Ok(())
    }

    /// Puts the index template, once in each environment.
    async fn prepare(&self, deadline: Deadline) -> Result<(), ClusterError> {
        if self.is_prepared.get() {
            return Ok(());
        }
        let mut retries = Retries::new(deadline, self.jitter);
        let root = retries.until_success(|| self.cluster.root()).await?;
        let distribution = Distribution::read(&root.body).map_err(ClusterError::Root)?;
        let template = index_template(&self.index_prefix, &self.promoted, distribution).to_string();
        let put = || self.cluster.put_index_template(&self.index_prefix, template.clone().into());
        retries.until_success(put).await?;
        self.is_prepared.set(true);
        Ok(())
    }
}

impl<B: Streams, C: SearchCluster> Load<'_, B, C> {
    async fn all(
        &mut self,
        stream: impl Stream,
        documents: &Documents<'_>,
        counts: &mut Counts,
    ) -> Result<(), LoadError> {
        let (mut lines, mut document) = (Lines::new(stream), Vec::new());
        while let Some(line) = lines.next().await? {
            document.clear();
            let received_at = match documents.write(&mut document, line) {
                Ok(received_at) => received_at,
                Err(error) => {
                    // In the order of lines: what stands before it comes first.
                    self.send(counts).await?;
                    self.unloadable.add(&Reason::new("not_an_event", &error.to_string()), line).await?;
                    continue;
                }
            };
            self.newest = self.newest.max(received_at);
            if !self.batch.has_room_for(document.len()) {
                self.send(counts).await?;
            }
            self.batch.push(&document, line);
        }
        self.send(counts).await?;
        self.unloadable.finish().await?;
        counts.unloadable += self.unloadable.lines;
        Ok(())
    }

    /// Delivers what is in the batch and keeps what is refused of it.
    async fn send(&mut self, counts: &mut Counts) -> Result<(), LoadError> {
        if self.batch.len() == 0 {
            return Ok(());
        }
        let mut retries = Retries::new(self.deadline, self.jitter);
        let Delivered { loaded, present, retried, refused } = deliver(self.cluster, &self.batch, &mut retries).await?;
        counts.loaded += loaded;
        counts.present += present;
        counts.retried += retried;
        for (number, reason) in &refused {
            self.unloadable.add(reason, self.batch.line(*number)).await?;
        }
        if let Some((_, reason)) = refused.first() {
            tracing::warn!(documents = refused.len(), %reason, "the cluster refuses documents: their lines are kept");
        }
        self.batch.clear();
        Ok(())
    }
}

/// Whether the message is of a deletion's rewriting of the object, not of its landing. Its lines would bring back the index of a day that
/// the cluster has removed since, with the events of all others.
fn is_rewritten(object: &Created, head: &Head) -> bool {
    let landed = head.metadata.get(LANDED_ETAG);
    landed.is_some_and(|landed| object.etag.as_ref().is_some_and(|etag| etag != landed))
}

/// Of the object's lines. An object without our metadata was not written by us; check-object says so.
fn format(key: &ObjectKey, head: &Head) -> EventFormat {
    ObjectMetadata::from_entries(&key.name, &head.metadata).map(|metadata| metadata.event_format).unwrap_or_default()
}

fn report(error: &LoadError, message: &SqsMessage) {
    let message_id = message.message_id.as_str();
    match error {
        // However often it is sent: a person has to look at it. Its beginning says whose it is.
        LoadError::Notification(_) => {
            tracing::error!(message_id, %error, body = &message.body[..message.body.floor_char_boundary(MAX_LOGGED_BYTES)], "the message can't be read")
        }
        LoadError::Bucket(_) | LoadError::Read(_) | LoadError::Cluster(_) | LoadError::TimeIsUp(_) => {
            tracing::warn!(message_id, %error, "not loaded whole: the queue sends the message again");
        }
    }
}
