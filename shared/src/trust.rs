//! Which lines may say of themselves what they are.
//!
//! In envelopes, a client's JSON is one member of a line that ingest wrote, so the line's other members can be trusted. A raw line
//! is the client's own: it may look like a rejected line, or name a time of receipt. So with raw lines only the partition key of
//! the record, which ingest writes, says whether its lines are rejected ones.

use crate::line::{EventFormat, Kind, LineError, LineHead, read_head};

/// Whose word the members of a line are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Ingest's, or another producer's that writes lines as ingest does.
    Members,
    /// Ingest's in rejected lines, and a client's in all others.
    RejectedLines,
    /// A client's.
    Nothing,
}

impl Trust {
    /// For the lines of a record with this partition key.
    #[must_use]
    pub fn in_record(format: EventFormat, partition_key: &str) -> Self {
        match format {
            EventFormat::Envelope => Self::Members,
            EventFormat::Raw if partition_key.starts_with(Kind::Rejected.key_prefix()) => Self::RejectedLines,
            EventFormat::Raw => Self::Nothing,
        }
    }

    /// For what is certainly not ingest's, wherever it stands.
    #[must_use]
    pub const fn of_other_producers(self) -> Self {
        match self {
            Self::Members => Self::Members,
            Self::RejectedLines | Self::Nothing => Self::Nothing,
        }
    }

    /// For the lines of a landed object.
    #[must_use]
    pub const fn in_object(format: EventFormat, kind: Kind) -> Self {
        match (format, kind) {
            (EventFormat::Envelope, _) => Self::Members,
            (EventFormat::Raw, Kind::Rejected) => Self::RejectedLines,
            (EventFormat::Raw, Kind::Event) => Self::Nothing,
        }
    }

    /// Reads a line as [`read_head`] does, and believes no more of it than this.
    ///
    /// # Errors
    ///
    /// As [`read_head`].
    pub fn read_head(self, line: &str) -> Result<LineHead, LineError> {
        let head = read_head(line)?;
        Ok(match (self, head.kind) {
            (Self::Members, _) | (Self::RejectedLines, Kind::Rejected) => head,
            (Self::RejectedLines | Self::Nothing, _) => LineHead { kind: Kind::Event, received_at: None, reason: None },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const REJECTED: &str = r#"{"v":1,"received_at":"2026-11-21T09:32:08.006Z","rejected":{"reason":"too_deep"}}"#;
    const EVENT: &str = r#"{"v":1,"received_at":"2026-11-21T09:32:08.006Z","event":{}}"#;

    #[rstest]
    #[case::envelopes_say_what_they_are(EventFormat::Envelope, "viewer", Trust::Members)]
    #[case::whatever_their_key(EventFormat::Envelope, "r-1", Trust::Members)]
    #[case::raw_rejected_lines(EventFormat::Raw, "r-1/0", Trust::RejectedLines)]
    #[case::raw_events(EventFormat::Raw, "e-r-1", Trust::Nothing)]
    #[case::keys_of_other_producers(EventFormat::Raw, "R-1", Trust::Nothing)]
    #[case::no_key(EventFormat::Raw, "", Trust::Nothing)]
    fn the_key_of_a_record_says_who_wrote_its_lines(
        #[case] format: EventFormat,
        #[case] key: &str,
        #[case] trust: Trust,
    ) {
        assert_eq!(Trust::in_record(format, key), trust);
    }

    #[rstest]
    #[case(Trust::Members, REJECTED, Kind::Rejected, true)]
    #[case(Trust::Members, EVENT, Kind::Event, true)]
    #[case(Trust::RejectedLines, REJECTED, Kind::Rejected, true)]
    #[case(Trust::RejectedLines, EVENT, Kind::Event, false)]
    #[case(Trust::Nothing, REJECTED, Kind::Event, false)]
    #[case(Trust::Nothing, EVENT, Kind::Event, false)]
    fn a_line_says_no_more_than_it_may(
        #[case] trust: Trust,
        #[case] line: &str,
        #[case] kind: Kind,
        #[case] has_receipt: bool,
    ) {
        let head = trust.read_head(line).unwrap();
        assert_eq!(
            (head.kind, head.received_at.is_some(), head.reason.is_some()),
            (kind, has_receipt, kind == Kind::Rejected)
        );
        assert!(trust.read_head("[]").is_err());
    }
}
