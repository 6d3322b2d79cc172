//! load-search: the events of each landed object as documents in OpenSearch or Elasticsearch.
//!
//! A queue names the objects. An event's document has the SHA-256 of its line as id and is only ever created: however often an
//! object is loaded, and wherever a load ended before, each event is one document. What the cluster will never take is kept
//! under `unloadable/search/`. A message is done when everything of its objects is in one of the two places.
//!
//! Memory: one request of 5 MiB or a single line, its lines, its answer of at most 16 MiB, and 8 MiB of refused lines.

mod answer;
mod batch;
mod cluster;
mod config;
mod deliver;
mod document;
mod handler;
mod http_cluster;
mod index_template;
mod lines;
mod notification;
mod retry;
#[cfg(test)]
mod tests;
mod unloadable;

use std::cell::Cell;

use lambda_setup::bucket::{self, S3Bucket};
use lambda_setup::function::{serve, start};

use config::Config;
use handler::Handler;
use http_cluster::HttpCluster;

/// Runs the function.
///
/// # Errors
///
/// When it can't start, or the Runtime API does not answer.
pub fn run() -> anyhow::Result<()> {
    start("load-search", Config::from_environment, async |config, sdk| {
        let client = bucket::client(&sdk);
        let handler = Handler {
            open: |name| S3Bucket::new(client.clone(), name),
            cluster: HttpCluster::new(&config, sdk),
            index_prefix: config.index_prefix,
            promoted: config.promoted,
            clock: lambda_setup::now,
            jitter: rand::random::<f64>,
            is_prepared: Cell::new(false),
        };
        serve(async |event, context| handler.handle(event, context).await).await
    })
}
