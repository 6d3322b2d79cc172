//! Work on several shards at once.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Shards that are worked on at once.
const SHARDS_AT_ONCE: usize = 16;

/// Does a piece of work for each shard; what became of each, in no order.
///
/// # Errors
///
/// When a piece panicked.
pub(crate) async fn for_each<S, W>(
    shards: impl IntoIterator<Item = S>,
    work: impl Fn(S) -> W,
) -> anyhow::Result<Vec<W::Output>>
where
    W: Future + Send + 'static,
    W::Output: Send + 'static,
{
    let places = Arc::new(Semaphore::new(SHARDS_AT_ONCE));
    let mut tasks = JoinSet::new();
    for shard in shards {
        let (work, places) = (work(shard), places.clone());
        tasks.spawn(async move {
            let _place = places.acquire().await?;
            anyhow::Ok(work.await)
        });
    }
    let mut outcomes = Vec::with_capacity(tasks.len());
    while let Some(ended) = tasks.join_next().await {
        outcomes.push(ended??);
    }
    Ok(outcomes)
}
