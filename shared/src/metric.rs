//! The names of all metrics, with their units. docs/METRICS.md says what each means and what to do about it.

use strum::IntoStaticStr;

use crate::rejection::Reason;

/// The CloudWatch namespace of all metrics.
pub const NAMESPACE: &str = "Playhead";

/// CloudWatch's name of a metric's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Bytes.
    Bytes,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// 0 to 100.
    Percent,
    /// A ratio or a score.
    None,
}

impl Unit {
    /// As CloudWatch spells it.
    /// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html>
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Declares the metrics that have one name each, with their units, in one place.
macro_rules! metrics {
    ($($(#[$doc:meta])* $name:ident: $unit:ident,)*) => {
        /// A metric.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Metric {
            $($(#[$doc])* $name,)*
            /// Rejected lines of this reason: those that ingest put on the stream, and for [`Reason::ForeignRecord`],
            /// which ingest has no use for, those that landed.
            Rejected(Reason),
        }

        impl Metric {
            const NAMED: &[Self] = &[$(Self::$name),*];

            /// The name in CloudWatch.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::Rejected(reason) => reason.metric_name(),
                }
            }

            /// What its values count.
            #[must_use]
            pub const fn unit(self) -> Unit {
                match self {
                    $(Self::$name => Unit::$unit,)*
                    Self::Rejected(_) => Unit::Count,
                }
            }
        }
    };
}

metrics! {
    // ---- ingest-lambda, sums of a minute of receipt ----
    /// Requests that ingest answered, whatever they brought.
    Requests: Count,
    /// Those of `Requests` that bring nothing: CORS preflights and health checks.
    Preflights: Count,
    /// Those of `Requests` that named no configured key; nothing of them is stored.
    UnauthorizedRequests: Count,
    /// Those of `Requests` whose key has had its events; nothing of them is stored.
    LimitedRequests: Count,
    /// Those of `Requests` that ingest-server answered. Lambda counts invocations for all others.
    ServerRequests: Count,
    /// Events that ingest answered as accepted: they are on the stream or in S3.
    AcceptedEvents: Count,
    /// Rejected lines that ingest stored, each part of a large body for itself.
    RejectedLines: Count,
    /// Events and rejected pieces that neither Kinesis nor S3 took in the time there was: the answer says so.
    NotStoredEvents: Count,
    /// Accepted events that were written to S3 because Kinesis did not take them.
    SpilledEvents: Count,
    /// Surrogate escapes without a partner in events on the stream, which were written as `\ufffd`.
    ReplacedSurrogates: Count,
    /// Kinesis records that requests became.
    PutRecords: Count,
    /// Entries of `PutRecords` calls that failed and were tried again.
    RetriedEntries: Count,
    /// Entries of `PutRecords` calls that failed because a shard or the call was throttled.
    ThrottledEntries: Count,
    /// Bytes of requests' bodies as they came.
    RequestBytes: Bytes,
    /// Bytes of the largest body.
    LargestRequest: Bytes,
    /// Bytes of data that requests put on the stream.
    StoredBytes: Bytes,
    /// Time from a request's arrival in the function to its answer.
    HandlingTime: Microseconds,
    /// Events that break a rule of the configured JSON Schema, by the rule.
    SchemaViolations: Count,
    /// Events that were accepted unvalidated, because S3 has not given the configured JSON Schema so far.
    SchemaUnavailable: Count,

    // ---- kinesis-to-s3-lambda, one line a batch ----
    /// Kinesis records in one batch that landed.
    LandedRecords: Count,
    /// Event lines in one batch that landed.
    LandedEvents: Count,
    /// Rejected lines in one batch that landed.
    LandedRejected: Count,
    /// Objects that one batch became.
    LandedObjects: Count,
    /// Bytes of one batch's lines before compression.
    UncompressedBytes: Bytes,
    /// Bytes of one batch's objects.
    CompressedBytes: Bytes,
    /// Objects that were found from an earlier attempt and rewritten.
    ReplacedObjects: Count,
    /// Batches that did not land in the time there was, or in one attempt that no retry helps: each is sent again.
    GivenBackBatches: Count,
    /// From the receipt of a batch's oldest event to its landing.
    LandingLatency: Milliseconds,
    /// From the arrival of a batch's newest record on the stream to the start of its landing.
    BatchAge: Milliseconds,

    // ---- both ----
    /// Time that an invocation had left when it was done.
    RemainingTime: Milliseconds,
    /// The most memory that the environment has used so far.
    PeakMemory: Bytes,
    /// 1 for the first invocation of an environment.
    ColdStarts: Count,

    // ---- monitoring-lambdas ----
    /// Landed objects that are not what their metadata says: check-object says 1 of each that it finds, check-recency how
    /// many there are.
    BrokenObjects: Count,
    /// Hours and dates that were sealed.
    SealedPartitions: Count,
    /// Hours that are due and held back, because something of them is missing.
    IncompletePartitions: Count,
    /// Objects that landed in an hour after it had been sealed.
    LateObjects: Count,
    /// Objects whose sequence numbers overlap with another's of the same shard, kind and hour.
    OverlappingObjects: Count,
    /// Compressed bytes of a sealed hour or date.
    TotalFileSize: Bytes,
    /// `TotalFileSize` less that of the day before.
    TotalFileSizeDifference: Bytes,
    /// Events of a sealed hour or date.
    TotalEvents: Count,
    /// Rejected lines of a sealed hour or date, of all lines.
    RejectedShare: Percent,
    /// How far a sealed partition's size is from the usual of its hour or weekday, in robust standard deviations.
    SeasonalScore: None,
    /// Rules about size that a sealed partition breaks.
    SizeViolations: Count,
    /// Partitions that are past their time and have no `_SUCCESS`.
    MissingPartitions: Count,
    /// Partitions whose `_SUCCESS` came after its time.
    LatePartitions: Count,
    /// The age of the newest landed event.
    DataFreshness: Seconds,
    /// Events that ingest accepted in an hour and that did not land.
    LostEvents: Count,
    /// Events that landed in an hour more often than ingest accepted them.
    DoubledEvents: Count,
    /// Kinesis records that arrived in an hour and did not land.
    LostRecords: Count,
    /// Kinesis records that landed in an hour more often than they arrived.
    DoubledRecords: Count,
    /// Objects of sealed hours that were deleted or overwritten since, and are not restored.
    DeletedObjects: Count,

    // ---- compact-partition: an hour that was compacted, and each quarter of an hour ----
    /// Lines or objects that the manifest names and that did not become rows, or lines that it does not.
    CompactionDifference: Count,
    /// Hours that were sealed more than an hour ago and are not in Parquet as they are sealed.
    UncompactedHours: Count,
    // ---- loader-lambdas, one line an invocation ----
    /// Documents that are new in the search cluster.
    LoadedDocuments: Count,
    /// Documents that were in the search cluster already.
    PresentDocuments: Count,
    /// Lines that the search cluster will never take: they are kept under `unloadable/`.
    UnloadableDocuments: Count,
    /// Documents that the search cluster did not take at first, each time that they were sent again.
    RetriedDocuments: Count,
    /// From the receipt of an object's newest event to its last document.
    LoadLag: Milliseconds,
    // ---- load-warehouse, one line an invocation ----
    /// Hours that were sealed more than two hours ago, are in Parquet and are not in the warehouse as they are there.
    UnloadedHours: Count,
    /// Transactions that the warehouse did not commit: each is sent again.
    FailedLoads: Count,
}

impl Metric {
    /// Every metric.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::NAMED.iter().copied().chain(Reason::ALL.into_iter().map(Self::Rejected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Metric::all().map(Metric::as_str).collect();
        assert_eq!(names.len(), Metric::all().count());
    }

    #[test]
    fn rejections_are_named_as_their_reasons() {
        for reason in Reason::ALL {
            assert_eq!(Metric::Rejected(reason).as_str(), format!("Rejected{reason:?}"));
        }
    }
}
