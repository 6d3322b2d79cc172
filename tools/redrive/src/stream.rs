//! A Kinesis stream behind the AWS SDK, as far as it is read here.

use std::time::Duration;

use anyhow::{Context, anyhow};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::DisplayErrorContext;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType;
use bytes::Bytes;
use kinesis_to_s3_lambda::kinesis_event::{KinesisData, Record};
use lambda_setup::sdk::{SdkConfig, with_retries};
use shared::timestamp::UnixMillis;
use tokio::time::Instant;

/// Attempts at a call, and how long each may take. Reading is safe to repeat.
const ATTEMPTS: u32 = 8;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// A shard takes five reads a second, of all its readers. Landing needs some of them.
/// <https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html>
const READ_INTERVAL: Duration = Duration::from_millis(400);

/// Shards that are worked on at once.
pub(crate) const SHARDS_AT_ONCE: usize = 16;

pub(crate) struct Stream {
    client: Client,
    name: String,
}

impl Stream {
    pub(crate) fn new(config: &SdkConfig, name: String) -> Self {
        Self { client: Client::new(&with_retries(config, ATTEMPTS, ATTEMPT_TIMEOUT)), name }
    }

    /// How long it keeps records.
    pub(crate) async fn retention(&self) -> anyhow::Result<Duration> {
        let described = self.client.describe_stream_summary().stream_name(&self.name).send().await;
        let described = described.map_err(|error| self.failure("describing", &error))?;
        let summary = described.stream_description_summary.context("the answer describes no stream")?;
        Ok(Duration::from_secs(u64::try_from(summary.retention_period_hours)? * 3600))
    }

    /// All of its shards, the closed ones too.
    pub(crate) async fn shards(&self) -> anyhow::Result<Vec<String>> {
        let (mut shards, mut token) = (Vec::new(), None);
        loop {
            let name = token.is_none().then(|| self.name.clone());
            let page = self.client.list_shards().set_stream_name(name).set_next_token(token).send().await;
            let page = page.map_err(|error| self.failure("listing the shards of", &error))?;
            shards.extend(page.shards.unwrap_or_default().into_iter().map(|shard| shard.shard_id));
            token = page.next_token;
            if token.is_none() {
                return Ok(shards);
            }
        }
    }

    /// Reads a shard from the first record that arrived at a time, or after it.
    pub(crate) async fn read(&self, shard_id: &str, from: UnixMillis) -> anyhow::Result<ShardReader<'_>> {
        let iterator = self
            .client
            .get_shard_iterator()
            .stream_name(&self.name)
            .shard_id(shard_id)
            .shard_iterator_type(ShardIteratorType::AtTimestamp)
            .timestamp(DateTime::from_millis(from.0))
            .send()
            .await
            .map_err(|error| self.failure("reading", &error))?
            .shard_iterator;
        Ok(ShardReader { stream: self, shard_id: shard_id.to_owned(), iterator, next_read: Instant::now() })
    }

    fn failure(&self, doing: &str, error: &dyn std::error::Error) -> anyhow::Error {
        anyhow!("{doing} the stream {}: {}", self.name, DisplayErrorContext(error))
    }
}

/// Reads a shard page by page.
pub(crate) struct ShardReader<'a> {
    stream: &'a Stream,
    shard_id: String,
    /// `None` at the end.
    iterator: Option<String>,
    next_read: Instant,
}

impl ShardReader<'_> {
    /// The next records; sometimes none although more follow. `None` at the shard's end, and after all that has arrived.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Vec<Record>>> {
        let Some(iterator) = self.iterator.take() else { return Ok(None) };
        tokio::time::sleep_until(self.next_read).await;
        self.next_read = Instant::now() + READ_INTERVAL;
        let page = self.stream.client.get_records().shard_iterator(iterator).send().await;
        let page = page.map_err(|error| self.stream.failure("reading", &error))?;
        let is_behind_all = page.records.is_empty() && page.millis_behind_latest == Some(0);
        self.iterator = page.next_shard_iterator.filter(|_| !is_behind_all);
        Ok(Some(page.records.into_iter().map(|record| self.record(record)).collect()))
    }

    /// As the event source mapping hands it to landing.
    fn record(&self, record: aws_sdk_kinesis::types::Record) -> Record {
        let arrival = record.approximate_arrival_timestamp.map_or(0.0, |arrival| arrival.as_secs_f64());
        Record {
            event_id: format!("{}:{}", self.shard_id, record.sequence_number),
            kinesis: KinesisData {
                sequence_number: record.sequence_number,
                partition_key: record.partition_key.unwrap_or_default(),
                data: Bytes::from(record.data.into_inner()),
                approximate_arrival_timestamp: arrival,
            },
        }
    }
}
