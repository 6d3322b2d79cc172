//! What a run has landed, counted under the names that landing counts by.

use std::sync::atomic::{AtomicU64, Ordering};

use kinesis_to_s3_lambda::group::Group;
use monitoring_lambdas::cloudwatch::{Datum, Metrics, MetricsError};
use shared::line::Kind;
use shared::metric::Metric;

/// The value of the dimension `FunctionName`, which tells these values from landing's own.
const NAME: &str = "redrive";

/// What has landed so far.
#[derive(Debug, Default)]
pub(crate) struct Landed {
    records: AtomicU64,
    events: AtomicU64,
    rejected: AtomicU64,
}

impl Landed {
    /// A group of a failed batch.
    pub(crate) fn add_group(&self, group: &Group) {
        let lines = match group.kind {
            Kind::Event => &self.events,
            Kind::Rejected => &self.rejected,
        };
        lines.fetch_add(group.lines(), Ordering::Relaxed);
        self.records.fetch_add(group.record_count, Ordering::Relaxed);
    }

    /// Events that were found in rejected lines.
    pub(crate) fn add_events(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    /// Tells CloudWatch, if there is anything to tell.
    pub(crate) async fn put(&self, metrics: &impl Metrics) -> Result<(), MetricsError> {
        let at = lambda_setup::now();
        let counts = [
            (Metric::LandedRecords, &self.records),
            (Metric::LandedEvents, &self.events),
            (Metric::LandedRejected, &self.rejected),
        ];
        let counts = counts.map(|(metric, count)| (metric, count.load(Ordering::Relaxed)));
        // Counts stay far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        let datum = |&(metric, count): &(Metric, u64)| Datum {
            metric,
            value: count as f64,
            at,
            dimensions: vec![("FunctionName", NAME.to_owned())],
        };
        let data: Vec<Datum> = counts.iter().filter(|(_, count)| *count > 0).map(datum).collect();
        if data.is_empty() { Ok(()) } else { metrics.put(&data).await }
    }
}
