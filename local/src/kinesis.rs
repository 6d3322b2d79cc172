//! The embedded Kinesis: the testbed's streams, in real time, as the stack's own parts use them. [`crate::kinesis_api`] serves
//! them to everybody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64_simd::STANDARD as BASE64;
use shared::timestamp::UnixMillis;
use testbed::{KinesisError as Refusal, Limits, Position};

use crate::clock::Clock;
use crate::iterator_age::IteratorAges;
use crate::metric_store::{MetricId, MetricStore};
use crate::template::Stream;

/// An in-memory Kinesis.
#[derive(Clone)]
pub struct Kinesis {
    streams: Arc<Mutex<Streams>>,
    iterator_ages: IteratorAges,
    metrics: MetricStore,
    clock: Clock,
}

/// The streams by their names.
#[derive(Default)]
pub(crate) struct Streams {
    pub(crate) by_name: BTreeMap<String, testbed::Stream>,
    /// Whether no record is taken any more.
    pub(crate) is_closed: bool,
}

/// A record of a shard.
#[derive(Debug, Clone)]
pub struct Record {
    pub sequence_number: String,
    pub partition_key: String,
    /// Base64.
    pub data: String,
    /// When it really arrived.
    pub arrival: UnixMillis,
}

/// A shard and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    pub shard_id: String,
    /// The shards that must be read to their end before this one.
    pub parents: Vec<String>,
    /// Whether it takes no more records.
    pub is_closed: bool,
    hash_keys: std::ops::RangeInclusive<u128>,
}

/// A call that the embedded Kinesis refused.
#[derive(Debug, thiserror::Error)]
#[error("the embedded Kinesis: {0}")]
pub struct KinesisError(#[from] Refusal);

const HOUR_MS: i64 = 3_600_000;

impl Kinesis {
    /// Starts with no streams. What is put and read is noted as metrics in the time of a clock.
    #[must_use]
    pub fn start(metrics: MetricStore, clock: Clock) -> Self {
        let iterator_ages = IteratorAges::new(metrics.clone(), clock);
        Self { streams: Arc::default(), iterator_ages, metrics, clock }
    }

    pub(crate) fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a stream, which takes records from then on.
    pub fn create(&self, stream: &Stream) {
        let retention_ms = i64::try_from(stream.retention_hours).unwrap_or(24).saturating_mul(HOUR_MS);
        let limits = Limits { retention_ms, ..Limits::default() };
        let shards = usize::try_from(stream.shards).unwrap_or(1);
        let created = testbed::Stream::new(lambda_setup::now().0, shards, limits);
        self.streams().by_name.insert(stream.name.clone(), created);
    }

    /// All shards of a stream, the closed ones too.
    ///
    /// # Errors
    ///
    /// When there is no such stream.
    pub fn shards(&self, stream: &str) -> Result<Vec<Shard>, KinesisError> {
        Ok(self.streams().stream(stream)?.shards().iter().map(Shard::of).collect())
    }

    /// The shards that take records, neighbours side by side.
    ///
    /// # Errors
    ///
    /// When there is no such stream.
    pub fn open_shards(&self, stream: &str) -> Result<Vec<Shard>, KinesisError> {
        let mut open = self.shards(stream)?;
        open.retain(|shard| !shard.is_closed);
        open.sort_by_key(|shard| *shard.hash_keys.start());
        Ok(open)
    }

    /// Splits a shard in the middle.
    ///
    /// # Errors
    ///
    /// When it is not open any more.
    pub fn split(&self, stream: &str, shard: &Shard) -> Result<(), KinesisError> {
        let (start, end) = (shard.hash_keys.start(), shard.hash_keys.end());
        let middle = start + (end - start) / 2;
        Ok(self.streams().stream_mut(stream)?.split(lambda_setup::now().0, &shard.shard_id, middle)?)
    }

    /// Merges two neighbours.
    ///
    /// # Errors
    ///
    /// When they are not open any more.
    pub fn merge(&self, stream: &str, one: &Shard, next: &Shard) -> Result<(), KinesisError> {
        let now = lambda_setup::now().0;
        Ok(self.streams().stream_mut(stream)?.merge(now, &one.shard_id, &next.shard_id)?)
    }

    /// From now on no record is taken: whoever puts one is told to try later.
    pub fn close(&self) {
        self.streams().is_closed = true;
    }

    /// The records of a shard after a sequence number, or from its start.
    ///
    /// # Errors
    ///
    /// When there is no such shard.
    pub fn read(
        &self,
        stream: &str,
        shard_id: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, KinesisError> {
        let read_at = lambda_setup::now();
        let records = {
            let streams = self.streams();
            let stream = streams.stream(stream)?;
            let position = after.map_or(Ok(Position::TrimHorizon), after_number)?;
            let iterator = stream.iterator(read_at.0, shard_id, position)?;
            stream.get_records(read_at.0, &iterator, limit)?.records
        };
        let records: Vec<Record> = records.iter().map(Record::of).collect();
        self.iterator_ages.note(stream, shard_id, read_at, records.first().map(|first| first.arrival));
        Ok(records)
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

fn after_number(text: &str) -> Result<Position, KinesisError> {
    let number = text.parse().map_err(|problem| Refusal::InvalidArgument(format!("{text}: {problem}")))?;
    Ok(Position::AfterSequenceNumber(number))
}

impl Streams {
    pub(crate) fn stream(&self, name: &str) -> Result<&testbed::Stream, Refusal> {
        self.by_name.get(name).ok_or_else(|| no_stream(name))
    }

    pub(crate) fn stream_mut(&mut self, name: &str) -> Result<&mut testbed::Stream, Refusal> {
        self.by_name.get_mut(name).ok_or_else(|| no_stream(name))
    }
}

fn no_stream(name: &str) -> Refusal {
    Refusal::ResourceNotFound(format!("Stream {name}"))
}

impl Shard {
    fn of(shard: &testbed::Shard) -> Self {
        Self {
            shard_id: shard.id.clone(),
            parents: shard.parents.clone(),
            is_closed: !shard.is_open(),
            hash_keys: shard.hash_keys.clone(),
        }
    }
}

impl Record {
    fn of(record: &testbed::Record) -> Self {
        Self {
            sequence_number: record.sequence_number.to_string(),
            partition_key: record.partition_key.clone(),
            data: BASE64.encode_to_string(&record.data),
            arrival: UnixMillis(record.arrived_at),
        }
    }
}
