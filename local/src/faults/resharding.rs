//! Shards that are split and merged while events flow.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use serde_json::json;
use tracing::warn;

use super::Faults;
use super::plan::Fault;
use crate::kinesis::{Kinesis, KinesisError};

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

fn split(faults: &Faults, kinesis: &Kinesis, stream: &str) -> Result<(), KinesisError> {
    let open = kinesis.open_shards(stream)?;
    if open.len() >= MAX_OPEN_SHARDS || open.is_empty() || !faults.is_due(Fault::ShardSplit) {
        return Ok(());
    }
    let shard = &open[faults.count_up_to(open.len()) - 1];
    faults.count_if_done(Fault::ShardSplit, stream, kinesis.split(stream, shard))
}

fn merge(faults: &Faults, kinesis: &Kinesis, stream: &str) -> Result<(), KinesisError> {
    let open = kinesis.open_shards(stream)?;
    if open.len() < 2 || !faults.is_due(Fault::ShardMerge) {
        return Ok(());
    }
    let first = faults.count_up_to(open.len() - 1) - 1;
    faults.count_if_done(Fault::ShardMerge, stream, kinesis.merge(stream, &open[first], &open[first + 1]))
}

/// Other faults fire once they are drawn. These are the stream's to do, and it can refuse.
impl Faults {
    fn is_due(&self, fault: Fault) -> bool {
        let mut drawing = self.drawing();
        let rate = drawing.plan.rate(fault);
        drawing.random.random_bool(rate)
    }

    fn count_if_done<E>(&self, fault: Fault, hits: &str, done: Result<(), E>) -> Result<(), E> {
        done?;
        *self.drawing().fired.entry(fault).or_default() += 1;
        self.journal.write(json!({"fault": fault.name(), "hits": hits}));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_stream_has_done_is_counted() {
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
