//! The counters that exist from the start, at 0. One that appeared with its first value would have no rate for it, and until
//! then would look like a misspelt name.

use shared::metric::{Metric, NAMESPACE, Unit};
use shared::rejection::Reason;

use crate::metric_store::{MetricId, MetricStore};
use crate::template;

/// What ingest counts, besides the reasons of rejection.
const INGEST: [Metric; 14] = [
    Metric::Requests,
    Metric::Preflights,
    Metric::HandlingTime,
    Metric::SpilledEvents,
    Metric::AcceptedEvents,
    Metric::RejectedLines,
    Metric::NotStoredEvents,
    Metric::PutRecords,
    Metric::RetriedEntries,
    Metric::ThrottledEntries,
    Metric::RequestBytes,
    Metric::StoredBytes,
    Metric::ReplacedSurrogates,
    Metric::ColdStarts,
];
const LANDING: [Metric; 11] = [
    Metric::LandedRecords,
    Metric::LandedEvents,
    Metric::LandedRejected,
    Metric::LandedObjects,
    Metric::UncompressedBytes,
    Metric::CompressedBytes,
    Metric::ReplacedObjects,
    Metric::GivenBackBatches,
    Metric::Rejected(Reason::ForeignRecord),
    Metric::ReplacedSurrogates,
    Metric::ColdStarts,
];

/// What `redrive` counts, which is not a function of the template.
const REDRIVE: [Metric; 3] = [Metric::LandedRecords, Metric::LandedEvents, Metric::LandedRejected];

/// Declares the counters of the data path and of what AWS counts of it.
pub(crate) fn declare(store: &MetricStore, template: &template::Stack) {
    if let Some(ingest) = &template.front_door {
        let reasons = Reason::ALL.into_iter().filter(|reason| *reason != Reason::ForeignRecord).map(Metric::Rejected);
        INGEST.into_iter().chain(reasons).for_each(|metric| ours(store, metric, ingest));
    }
    let lands =
        |function: &&template::Function| template.mappings.iter().any(|mapping| mapping.function == function.id);
    for landing in template.functions.iter().filter(lands) {
        LANDING.into_iter().for_each(|metric| ours(store, metric, &landing.binary));
    }
    REDRIVE.into_iter().for_each(|metric| ours(store, metric, "redrive"));
    for function in &template.functions {
        for name in ["Invocations", "Errors", "Throttles"] {
            count(store, "AWS/Lambda", name, ("FunctionName", &function.binary));
        }
    }
    for stream in &template.streams {
        for name in ["IncomingRecords", "WriteProvisionedThroughputExceeded"] {
            count(store, "AWS/Kinesis", name, ("StreamName", &stream.name));
        }
        let id = MetricId::new("AWS/Kinesis", "IncomingBytes", &[("StreamName", &stream.name)]);
        store.declare(id, Unit::Bytes.as_str());
    }
}

fn ours(store: &MetricStore, metric: Metric, function: &str) {
    let id = MetricId::new(NAMESPACE, metric.as_str(), &[("FunctionName", function)]);
    store.declare(id, metric.unit().as_str());
}

fn count(store: &MetricStore, namespace: &str, name: &str, dimension: (&str, &str)) {
    store.declare(MetricId::new(namespace, name, &[dimension]), Unit::Count.as_str());
}
