//! Why input could not be accepted: one closed set, used in HTTP answers, in rejected lines and in metrics.

use serde::Serialize;

/// The reason of a rejection. The name in lines and answers is the variant's in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The front door said that the body is base64, and it is not.
    InvalidBase64,
    /// The body does not decompress with the encoding that its `Content-Encoding` names.
    InvalidCompression,
    /// The `Content-Encoding` is none that we decode.
    UnsupportedEncoding,
    /// The `Content-Type` is none that we read.
    UnsupportedContentType,
    /// The body, as sent or decompressed, is over the limit.
    BodyTooLarge,
    /// The body holds more events than one request may.
    TooManyEvents,
    /// The text is not UTF-8.
    InvalidUtf8,
    /// The text is not JSON.
    InvalidJson,
    /// The line is not a structured-field dictionary.
    InvalidCmcd,
    /// The text is JSON, but what should be an event is no object.
    NotAnObject,
    /// The event is nested deeper than readers of the landed files can follow.
    TooDeep,
    /// The event does not fit into one Kinesis record.
    EventTooLarge,
    /// There is no event in the body.
    NoEvents,
    /// The method is not one that the path takes.
    MethodNotAllowed,
    /// The path is none of ours.
    UnknownPath,
    /// A record that another producer wrote to the stream holds neither our lines nor JSON objects.
    ForeignRecord,
}

impl Reason {
    /// Every reason, in the order of their declaration.
    pub const ALL: [Self; 16] = [
        Self::InvalidBase64,
        Self::InvalidCompression,
        Self::UnsupportedEncoding,
        Self::UnsupportedContentType,
        Self::BodyTooLarge,
        Self::TooManyEvents,
        Self::InvalidUtf8,
        Self::InvalidJson,
        Self::InvalidCmcd,
        Self::NotAnObject,
        Self::TooDeep,
        Self::EventTooLarge,
        Self::NoEvents,
        Self::MethodNotAllowed,
        Self::UnknownPath,
        Self::ForeignRecord,
    ];

    /// The name in lines, answers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidBase64 => "invalid_base64",
            Self::InvalidCompression => "invalid_compression",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::UnsupportedContentType => "unsupported_content_type",
            Self::BodyTooLarge => "body_too_large",
            Self::TooManyEvents => "too_many_events",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidJson => "invalid_json",
            Self::InvalidCmcd => "invalid_cmcd",
            Self::NotAnObject => "not_an_object",
            Self::TooDeep => "too_deep",
            Self::EventTooLarge => "event_too_large",
            Self::NoEvents => "no_events",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnknownPath => "unknown_path",
            Self::ForeignRecord => "foreign_record",
        }
    }

    /// The inverse of [`Reason::as_str`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// The HTTP status of a request of which nothing was accepted for this reason.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidBase64
            | Self::InvalidCompression
            | Self::InvalidUtf8
            | Self::InvalidJson
            | Self::InvalidCmcd
            | Self::NotAnObject
            | Self::TooDeep
            | Self::NoEvents
            | Self::ForeignRecord => 400,
            Self::UnknownPath => 404,
            Self::MethodNotAllowed => 405,
            Self::BodyTooLarge | Self::TooManyEvents | Self::EventTooLarge => 413,
            Self::UnsupportedEncoding | Self::UnsupportedContentType => 415,
        }
    }
}

/// How many there are of each reason. It takes no allocation, and so can be kept for each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReasonCounts([u64; Reason::ALL.len()]);

impl ReasonCounts {
    /// Counts so many more of a reason.
    pub fn add(&mut self, reason: Reason, more: u64) {
        self.0[reason as usize] += more;
    }

    /// Counts all that another has counted.
    pub fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// Those of one reason.
    #[must_use]
    pub const fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons of which there is at least one, in the order of their declaration.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }
}

/// Why one piece of input was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The reason, from the closed set.
    pub reason: Reason,
    /// What was found and what to change, for a person; no more than [`MAX_DETAIL_BYTES`].
    pub detail: String,
}

/// Bytes of a [`Rejection::detail`] at most: it may quote the input.
pub const MAX_DETAIL_BYTES: usize = 512;

impl Rejection {
    /// A rejection whose detail is cut to its limit.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(MAX_DETAIL_BYTES));
        Self { reason, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_once_and_named_as_it_is_serialised() {
        let distinct: std::collections::BTreeSet<_> = Reason::ALL.into_iter().collect();
        assert_eq!(distinct.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{}\"", reason.as_str()));
            assert!((400..500).contains(&reason.status()));
        }
    }

    #[test]
    fn counts_are_kept_by_reason() {
        let mut counts = ReasonCounts::default();
        assert_eq!((counts.total(), counts.iter().count()), (0, 0));
        for reason in Reason::ALL {
            let mut more = ReasonCounts::default();
            more.add(reason, 1);
            more.add(reason, reason as u64);
            assert!(more.iter().eq([(reason, 1 + reason as u64)]));
            assert_eq!(more.of(reason), more.total());
            counts.add_all(&more);
        }
        assert!(counts.iter().eq(Reason::ALL.into_iter().zip(1..)));
        assert_eq!(counts.total(), (1..=Reason::ALL.len() as u64).sum::<u64>());
    }

    #[test]
    fn details_are_cut_at_a_character() {
        assert_eq!(Rejection::new(Reason::InvalidJson, "é".repeat(256)).detail.len(), 512);
        assert_eq!(Rejection::new(Reason::InvalidJson, format!("x{}", "é".repeat(256))).detail.len(), 511);
    }
}
