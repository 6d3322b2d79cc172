//! What a run has landed, counted under the names that landing counts by.

use std::cell::Cell;

use kinesis_to_s3_lambda::group::Group;
use monitoring_lambdas::cloudwatch::{Datum, Metrics, MetricsError};
use shared::line::Kind;
use shared::metric::Metric;

/// The value of the dimension `FunctionName`, which tells these values from landing's own.
const NAME: &str = "redrive";

/// What has landed so far.
#[derive(Debug, Default)]
pub(crate) struct LandedCounts {
    records: Cell<u64>,
    events: Cell<u64>,
    rejected: Cell<u64>,
}

impl LandedCounts {
    /// A group of a failed batch.
    pub(crate) fn add_group(&self, group: &Group) {
        let lines = match group.kind {
            Kind::Event => &self.events,
            Kind::Rejected => &self.rejected,
        };
        lines.update(|lines| lines + group.lines());
        self.records.update(|records| records + group.record_count);
    }

    /// Events that were found in rejected lines.
    pub(crate) fn add_events(&self, events: u64) {
        self.events.update(|landed| landed + events);
    }

    /// Tells CloudWatch, if there is anything to tell.
    pub(crate) async fn put(&self, metrics: &impl Metrics) -> Result<(), MetricsError> {
        let at = lambda_setup::now();
        let counts = [
            (Metric::LandedRecords, self.records.get()),
            (Metric::LandedEvents, self.events.get()),
            (Metric::LandedRejected, self.rejected.get()),
        ];
        let dimensions = vec![("FunctionName", NAME.to_owned())];
        // Counts stay far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        let datum = |(metric, count)| Datum { metric, value: count as f64, at, dimensions: dimensions.clone() };
        let data: Vec<Datum> = counts.into_iter().filter(|(_, count)| *count > 0).map(datum).collect();
        if data.is_empty() { Ok(()) } else { metrics.put(&data).await }
    }
}
