//! Shards that are split and merged while events flow.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use serde_json::json;
use testbed::{KinesisError, Stream};
use tracing::warn;

use super::Faults;
use super::plan::Fault;
use crate::kinesis::Kinesis;

const DRAW_INTERVAL: Duration = Duration::from_secs(1);
/// The most shards that a stream is split into: each costs the stack a reader.
const MAX_OPEN_SHARDS: usize = 8;

/// Splits and merges shards of a stream until the stack ends, as the plan says.
pub async fn run(faults: Arc<Faults>, kinesis: Kinesis, stream: String) {
    loop {
        tokio::time::sleep(DRAW_INTERVAL).await;
        if !faults.is_active() {
            continue;
        }
        for resharding in [split(&faults, &kinesis, &stream), merge(&faults, &kinesis, &stream)] {
            if let Err(problem) = resharding {
                warn!(%problem, "resharding failed");
            }
        }
    }
}

fn split(faults: &Faults, kinesis: &Kinesis, name: &str) -> Result<(), KinesisError> {
    let mut streams = kinesis.streams();
    let stream = streams.stream_mut(name)?;
    let open = open_shards(stream);
    if open.len() >= MAX_OPEN_SHARDS || open.is_empty() || !faults.is_due(Fault::ShardSplit) {
        return Ok(());
    }
    let (shard, keys) = &open[faults.count_up_to(open.len()) - 1];
    let middle = keys.start() + (keys.end() - keys.start()) / 2;
    faults.count_if_done(Fault::ShardSplit, name, stream.split(lambda_setup::now().0, shard, middle))
}

fn merge(faults: &Faults, kinesis: &Kinesis, name: &str) -> Result<(), KinesisError> {
    let mut streams = kinesis.streams();
    let stream = streams.stream_mut(name)?;
    let open = open_shards(stream);
    if open.len() < 2 || !faults.is_due(Fault::ShardMerge) {
        return Ok(());
    }
    let first = faults.count_up_to(open.len() - 1) - 1;
    let merged = stream.merge(lambda_setup::now().0, &open[first].0, &open[first + 1].0);
    faults.count_if_done(Fault::ShardMerge, name, merged)
}

/// The shards that take records, with their hash keys; neighbours side by side.
fn open_shards(stream: &Stream) -> Vec<(String, RangeInclusive<u128>)> {
    let open = stream.shards().iter().filter(|shard| shard.is_open());
    let mut open: Vec<_> = open.map(|shard| (shard.id.clone(), shard.hash_keys.clone())).collect();
    open.sort_by_key(|(_, keys)| *keys.start());
    open
}

/// Other faults fire once they are drawn. These are the stream's to do, and it can refuse.
impl Faults {
    fn is_due(&self, fault: Fault) -> bool {
        let mut drawing = self.drawing.lock();
        let rate = drawing.plan.rate(fault);
        drawing.random.random_bool(rate)
    }

    fn count_if_done<E>(&self, fault: Fault, hits: &str, done: Result<(), E>) -> Result<(), E> {
        done?;
        *self.drawing.lock().fired.entry(fault).or_default() += 1;
        self.journal.write(json!({"fault": fault.name(), "hits": hits}));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resharding_that_the_stream_has_done_is_counted() {
        let folder = std::env::temp_dir().join(format!("resharding-{}", uuid::Uuid::new_v4()));
        let faults = Faults::new("shard.split=1".parse().unwrap(), &folder).unwrap();
        assert!(faults.is_due(Fault::ShardSplit) && !faults.is_due(Fault::ShardMerge));
        assert_eq!(faults.state()["fired"]["shard.split"], 0);
        assert_eq!(faults.count_if_done(Fault::ShardSplit, "s", Err("refused")), Err("refused"));
        assert_eq!(faults.state()["fired"]["shard.split"], 0);
        assert_eq!(faults.count_if_done::<&str>(Fault::ShardSplit, "s", Ok(())), Ok(()));
        assert_eq!(faults.state()["fired"]["shard.split"], 1);
        assert_eq!(std::fs::read_to_string(folder.join("faults.jsonl")).unwrap().lines().count(), 1);
    }
}
