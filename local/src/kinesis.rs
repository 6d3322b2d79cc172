//! The embedded Kinesis: the testbed's streams, in real time, as the stack's own parts use them. `kinesis_api.rs` serves
//! them to everybody else.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};

use shared::timestamp::{MILLIS_PER_HOUR, UnixMillis};
use testbed::{KinesisError, Limits, Position, Record, SequenceNumber};

use crate::clock::Clock;
use crate::metric_store::{MetricId, MetricStore};
use crate::mutex::Mutex;
use crate::read_progress::ReadProgress;
use crate::template::Stream;

#[derive(Clone)]
pub struct Kinesis {
    streams: Arc<Mutex<Streams>>,
    pub(crate) progress: ReadProgress,
    metrics: MetricStore,
    clock: Clock,
}

#[derive(Default)]
pub(crate) struct Streams {
    pub(crate) by_name: BTreeMap<String, testbed::Stream>,
    /// Whether no record is taken any more.
    pub(crate) is_closed: bool,
}

impl Kinesis {
    /// Starts with no streams. What is put and read is noted as metrics in the time of a clock.
    pub fn start(metrics: MetricStore, clock: Clock) -> Self {
        Self { streams: Arc::default(), progress: ReadProgress::new(metrics.clone(), clock), metrics, clock }
    }

    pub(crate) fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock()
    }

    /// Creates a stream, which takes records from then on.
    pub fn create(&self, stream: &Stream) {
        let retention_ms = i64::try_from(stream.retention_hours).unwrap_or(24).saturating_mul(MILLIS_PER_HOUR);
        let limits = Limits { retention_ms, ..Limits::default() };
        let shards = usize::try_from(stream.shards).unwrap_or(1);
        let created = testbed::Stream::new(lambda_setup::now().0, shards, limits);
        self.streams().by_name.insert(stream.name.clone(), created);
    }

    /// The ids of a stream's shards, the closed ones too, each with its parents'.
    pub(crate) fn shards(&self, stream: &str) -> Result<Vec<(String, Vec<String>)>, KinesisError> {
        let streams = self.streams();
        Ok(streams.stream(stream)?.shards().iter().map(|shard| (shard.id.clone(), shard.parents.clone())).collect())
    }

    /// From now on puts are refused with a request to try later.
    pub fn close(&self) {
        self.streams().is_closed = true;
    }

    /// The records of a shard after a sequence number, or from its start; and whether none can follow them.
    pub(crate) fn read(
        &self,
        stream: &str,
        shard_id: &str,
        after: Option<SequenceNumber>,
        limit: usize,
    ) -> Result<(Vec<Record>, bool), KinesisError> {
        let read_at = lambda_setup::now();
        let batch = {
            let streams = self.streams();
            let stream = streams.stream(stream)?;
            let position = after.map_or(Position::TrimHorizon, Position::AfterSequenceNumber);
            stream.get_records(read_at.0, &stream.iterator(read_at.0, shard_id, position)?, limit)?
        };
        let first_arrival = batch.records.first().map(|first| UnixMillis(first.arrived_at));
        self.progress.note(stream, shard_id, read_at, first_arrival);
        Ok((batch.records, batch.next.is_none()))
    }

    /// <https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html>
    pub(crate) fn note_put(&self, stream: &str, at: UnixMillis, stored: &[usize], throttled: usize) {
        let note = |name: &str, unit: &str, value: usize| {
            let id = MetricId::new("AWS/Kinesis", name, &[("StreamName", stream)]);
            #[allow(clippy::cast_precision_loss)]
            self.metrics.note(&id, unit, self.clock.at(at), value as f64);
        };
        if !stored.is_empty() {
            note("IncomingRecords", "Count", stored.len());
            note("IncomingBytes", "Bytes", stored.iter().sum());
        }
        note("WriteProvisionedThroughputExceeded", "Count", throttled);
    }
}

impl Streams {
    pub(crate) fn stream(&self, name: &str) -> Result<&testbed::Stream, KinesisError> {
        self.by_name.get(name).ok_or_else(|| no_stream(name))
    }

    pub(crate) fn stream_mut(&mut self, name: &str) -> Result<&mut testbed::Stream, KinesisError> {
        self.by_name.get_mut(name).ok_or_else(|| no_stream(name))
    }
}

fn no_stream(name: &str) -> KinesisError {
    KinesisError::ResourceNotFound(format!("Stream {name}"))
}
