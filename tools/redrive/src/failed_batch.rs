//! A batch as Lambda writes it to the on-failure destination.
//! <https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>

use std::collections::BTreeMap;

use anyhow::{Context, anyhow, ensure};
use kinesis_to_s3_lambda::kinesis_event::{KinesisEvent, Record};
use serde::Deserialize;

/// What their keys begin with.
pub(crate) const PREFIX: &str = "aws/lambda/";

#[derive(Deserialize)]
pub(crate) struct FailedBatch {
    #[serde(rename = "KinesisBatchInfo")]
    pub(crate) info: BatchInfo,
    /// The whole event, as a string of JSON.
    payload: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BatchInfo {
    pub(crate) start_sequence_number: String,
    pub(crate) end_sequence_number: Option<String>,
    batch_size: usize,
}

impl FailedBatch {
    pub(crate) fn parse(document: &[u8]) -> anyhow::Result<Self> {
        serde_json::from_slice(document).context("this is not a failed batch as Lambda writes it")
    }

    /// Its records.
    ///
    /// # Errors
    ///
    /// When it holds other records than it says.
    pub(crate) fn records(self) -> anyhow::Result<Vec<Record>> {
        let payload = self.payload.context("it lacks its records: the destination must be S3")?;
        let event: KinesisEvent = serde_json::from_str(&payload).context("its payload is not a Kinesis event")?;
        let (expected, found) = (self.info.batch_size, event.records.len());
        ensure!(found == expected, "it says that it has {expected} records and holds {found}");
        Ok(event.records)
    }
}

/// The keys of each shard in the order of time: `aws/lambda/<mapping>/<shard>/<year>/<month>/<day>/<time>-<uuid>`.
pub(crate) fn by_shard(keys: Vec<String>) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut shards: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for key in keys {
        let pieces: Vec<&str> = key.splitn(5, '/').collect();
        let [_, _, _, shard, time] = pieces[..] else {
            return Err(anyhow!("{key} is not the key of a failed batch; --prefix leaves others out"));
        };
        shards.entry(shard.to_owned()).or_default().push((time.to_owned(), key));
    }
    let in_order = |mut keys: Vec<(String, String)>| {
        keys.sort();
        keys.into_iter().map(|(_, key)| key).collect()
    };
    Ok(shards.into_iter().map(|(shard, keys)| (shard, in_order(keys))).collect())
}
