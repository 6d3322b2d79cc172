//! The names of all metrics of the data path, with their units.

/// The CloudWatch namespace of all metrics.
pub const NAMESPACE: &str = "Playhead";

/// A metric of the data path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// Events that ingest answered as accepted: they are on the stream.
    AcceptedEvents,
    /// Rejected lines that ingest put on the stream, each part of a large body for itself.
    RejectedLines,
    /// Events and rejected pieces that Kinesis did not take in the time there was: the client was told so.
    NotStoredEvents,
    /// Kinesis records that one request became.
    PutRecords,
    /// Entries of `PutRecords` calls that failed and were tried again.
    RetriedEntries,
    /// Bytes of a request's body as it came.
    RequestBytes,
    /// Kinesis records in one batch that landed.
    LandedRecords,
    /// Event lines in one batch that landed.
    LandedEvents,
    /// Rejected lines in one batch that landed.
    LandedRejected,
    /// Objects that one batch became.
    LandedObjects,
    /// Bytes of one batch's lines before compression.
    UncompressedBytes,
    /// Bytes of one batch's objects.
    CompressedBytes,
    /// Objects that were found from an earlier attempt and written anew.
    ReplacedObjects,
    /// From the receipt of a batch's oldest event to its landing.
    LandingLatency,
}

/// CloudWatch's name of a metric's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
}

impl Unit {
    /// As CloudWatch spells it.
    /// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html>
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Bytes => "Bytes",
            Self::Milliseconds => "Milliseconds",
        }
    }
}

impl Metric {
    /// Every metric, in the order of their declaration.
    pub const ALL: [Self; 14] = [
        Self::AcceptedEvents,
        Self::RejectedLines,
        Self::NotStoredEvents,
        Self::PutRecords,
        Self::RetriedEntries,
        Self::RequestBytes,
        Self::LandedRecords,
        Self::LandedEvents,
        Self::LandedRejected,
        Self::LandedObjects,
        Self::UncompressedBytes,
        Self::CompressedBytes,
        Self::ReplacedObjects,
        Self::LandingLatency,
    ];

    /// The name in CloudWatch.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AcceptedEvents => "AcceptedEvents",
            Self::RejectedLines => "RejectedLines",
            Self::NotStoredEvents => "NotStoredEvents",
            Self::PutRecords => "PutRecords",
            Self::RetriedEntries => "RetriedEntries",
            Self::RequestBytes => "RequestBytes",
            Self::LandedRecords => "LandedRecords",
            Self::LandedEvents => "LandedEvents",
            Self::LandedRejected => "LandedRejected",
            Self::LandedObjects => "LandedObjects",
            Self::UncompressedBytes => "UncompressedBytes",
            Self::CompressedBytes => "CompressedBytes",
            Self::ReplacedObjects => "ReplacedObjects",
            Self::LandingLatency => "LandingLatency",
        }
    }

    /// What its values count.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::AcceptedEvents
            | Self::RejectedLines
            | Self::NotStoredEvents
            | Self::PutRecords
            | Self::RetriedEntries
            | Self::LandedRecords
            | Self::LandedEvents
            | Self::LandedRejected
            | Self::LandedObjects
            | Self::ReplacedObjects => Unit::Count,
            Self::RequestBytes | Self::UncompressedBytes | Self::CompressedBytes => Unit::Bytes,
            Self::LandingLatency => Unit::Milliseconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_listed_once_under_its_variants_name() {
        let distinct: std::collections::BTreeSet<_> = Metric::ALL.into_iter().collect();
        assert_eq!(distinct.len(), Metric::ALL.len());
        for metric in Metric::ALL {
            assert_eq!(metric.as_str(), format!("{metric:?}"));
        }
    }
}
