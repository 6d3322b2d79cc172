//! Shards that are split and merged while events flow.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::Faults;
use super::plan::Fault;
use crate::kinesis::Kinesis;

const DRAW_INTERVAL: Duration = Duration::from_secs(1);
/// A stream is not split beyond this: each shard costs the stack a reader.
const MAX_OPEN_SHARDS: usize = 8;

/// Splits and merges shards of a stream until the stack ends, as the plan says.
pub async fn run(faults: Arc<Faults>, kinesis: Kinesis, stream: String) {
    loop {
        tokio::time::sleep(DRAW_INTERVAL).await;
        if !faults.is_active() {
            continue;
        }
        let done = async {
            let open = kinesis.open_shards(&stream).await?;
            if open.len() < MAX_OPEN_SHARDS && faults.draw(&[Fault::ShardSplit], &stream).is_some() {
                let shard = &open[faults.count_up_to(open.len()) - 1];
                kinesis.split(&stream, shard).await?;
            }
            let open = kinesis.open_shards(&stream).await?;
            if open.len() > 1 && faults.draw(&[Fault::ShardMerge], &stream).is_some() {
                let first = faults.count_up_to(open.len() - 1) - 1;
                kinesis.merge(&stream, &open[first], &open[first + 1]).await?;
            }
            Ok::<(), crate::kinesis::KinesisError>(())
        };
        if let Err(problem) = done.await {
            warn!(%problem, "resharding failed");
        }
    }
}
