//! Why input could not be accepted: one closed set, used in HTTP answers, in rejected lines and in metrics.

use serde::Serialize;
use strum::{EnumCount, EnumString, IntoStaticStr};

/// Declares each reason once, with the HTTP status of a request of which nothing was accepted for it.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $status:literal,)*) => {
        /// The reason of a rejection. Its name in lines, answers and metadata is the variant's in snake case.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, EnumCount, EnumString, IntoStaticStr)]
        #[serde(rename_all = "snake_case")]
        #[strum(serialize_all = "snake_case")]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason, in the order of their declaration.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$name),*];

            /// The HTTP status of a request of which nothing was accepted for this reason.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                }
            }

            /// The name of the metric that counts rejections for this reason.
            pub(crate) const fn metric_name(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("Rejected", stringify!($name)),)*
                }
            }
        }
    };
}

reasons! {
    /// The front door said that the body is base64, and it is not.
    InvalidBase64 => 400,
    /// The body does not decompress with the encoding that its `Content-Encoding` names.
    InvalidCompression => 400,
    /// The `Content-Encoding` is none that we decode.
    UnsupportedEncoding => 415,
    /// The `Content-Type` is none that we read.
    UnsupportedContentType => 415,
    /// The body, as sent or decompressed, is over the limit.
    BodyTooLarge => 413,
    /// The body holds more events than one request may.
    TooManyEvents => 413,
    /// The text is not UTF-8.
    InvalidUtf8 => 400,
    /// The text is not JSON.
    InvalidJson => 400,
    /// The line is not a structured-field dictionary.
    InvalidCmcd => 400,
    /// The text is JSON, but what should be an event is not an object.
    NotAnObject => 400,
    /// The event is nested deeper than readers of the landed files can follow.
    TooDeep => 400,
    /// The event does not fit into one Kinesis record.
    EventTooLarge => 413,
    /// There is no event in the body.
    NoEvents => 400,
    /// The method is not one that the path takes.
    MethodNotAllowed => 405,
    /// The path is none of ours.
    UnknownPath => 404,
    /// The event breaks a rule of the configured JSON Schema.
    SchemaViolation => 400,
    /// A record that another producer wrote to the stream holds neither our lines nor JSON objects.
    ForeignRecord => 400,
}

impl Reason {
    /// The name in lines, answers and metadata.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The inverse of [`Reason::as_str`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        name.parse().ok()
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
pub(crate) const MAX_DETAIL_BYTES: usize = 512;

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
    fn every_reason_is_named_as_it_is_serialised() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{}\"", reason.as_str()));
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
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
