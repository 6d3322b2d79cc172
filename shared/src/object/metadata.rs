//! What the metadata of a landed object says of its lines, and of the attempt that wrote it.

use std::collections::{BTreeMap, HashMap};

use super::key::ObjectName;
use crate::line::{EventFormat, LineHead};
use crate::rejection::Reason;
use crate::timestamp::{UnixMillis, UtcHour};

/// The invocation that wrote an object, or is about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When the function began with it, by its own clock.
    pub began: UnixMillis,
    /// When Lambda ends it.
    pub deadline: UnixMillis,
    /// Lambda's id of the invocation.
    pub request_id: String,
}

/// The longest that an invocation which was sent earlier may begin later: a cold start, which Lambda ends after 10 s.
/// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>
const LONGEST_START_MILLIS: i64 = 10_000;

impl Attempt {
    /// Whether this attempt was certainly sent after the other one. It is not certain of two that began within the time
    /// that a start can take.
    ///
    /// Both times must say so. Deadlines alone are in another order than their invocations when a deployment has
    /// changed the function's timeout between them, and the beginning alone is later than it should be when the
    /// environment stood still before it looked at its clock.
    #[must_use]
    pub fn is_certainly_later_than(&self, other: &Self) -> bool {
        let is_later = |own: UnixMillis, other: UnixMillis| own.0.saturating_sub(other.0) > LONGEST_START_MILLIS;
        is_later(self.began, other.began) && is_later(self.deadline, other.deadline)
    }

    /// One that covers both: whatever is certainly later than it is certainly later than each of them.
    #[must_use]
    pub fn later_of(&self, other: &Self) -> Self {
        let later = if self.began >= other.began { self } else { other };
        Self { began: later.began, deadline: self.deadline.max(other.deadline), request_id: later.request_id.clone() }
    }

    fn from_entries(entries: &HashMap<String, String>) -> Result<Self, MetadataError> {
        Ok(Self {
            began: time_entry(entries, name::ATTEMPT_BEGAN)?,
            deadline: time_entry(entries, name::ATTEMPT_DEADLINE)?,
            request_id: text_entry(entries, name::ATTEMPT_REQUEST_ID)?.to_owned(),
        })
    }
}

/// How far a line's own time of receipt can lie from its arrival: retries and clocks that differ. A time farther off was made
/// up by whoever wrote the line.
const MAX_RECEIPT_DISTANCE_MILLIS: u64 = 3_600_000;

/// When a line was received, as the metadata has it: what the line says, if that is at most an hour from its arrival, else its
/// arrival.
#[must_use]
pub fn receipt(said: Option<UnixMillis>, arrival: UnixMillis) -> UnixMillis {
    let is_near = |said: &UnixMillis| said.0.abs_diff(arrival.0) <= MAX_RECEIPT_DISTANCE_MILLIS;
    said.filter(is_near).unwrap_or(arrival)
}

/// Lines by the hour in which ingest received them, as seen from the hour of the object, which is the hour of arrival on
/// the stream. It lets what ingest counted be compared with what landed, hour by hour and to the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceivedIn {
    /// Received in the hour before: retries, and requests around the full hour.
    pub previous: u64,
    /// Received in the object's own hour.
    pub this: u64,
    /// Received in the hour after: clocks that differ.
    pub next: u64,
    /// All others, which ingest did not count: lines without an envelope, what landing itself
    /// rejected, and what was redriven. So what redrive made of rejected lines never counts as doubled.
    pub elsewhere: u64,
}

impl ReceivedIn {
    /// Counts a line of an object of `hour`.
    ///
    /// A line of [`Reason::ForeignRecord`] is elsewhere whatever its envelope says: ingest wrote none.
    pub fn count(&mut self, line: LineHead, hour: UtcHour) {
        let received_in = line.received_at.filter(|_| line.reason != Some(Reason::ForeignRecord)).map(UnixMillis::hour);
        let lines = match received_in {
            Some(received_in) if received_in == hour => &mut self.this,
            Some(received_in) if received_in == hour.plus(-1) => &mut self.previous,
            Some(received_in) if received_in == hour.plus(1) => &mut self.next,
            _ => &mut self.elsewhere,
        };
        *lines += 1;
    }

    /// What `delete-viewer` has taken out of an object, as its entries say: without it, the lines would count as lost.
    ///
    /// # Errors
    ///
    /// When the entry is malformed.
    pub fn deleted(entries: &HashMap<String, String>) -> Result<Self, MetadataError> {
        let counts = |text: &String| Self::parse(text).ok_or(MetadataError(name::DELETED_IN));
        entries.get(name::DELETED_IN).map_or(Ok(Self::default()), counts)
    }

    /// Counts all that another has counted.
    pub fn add_all(&mut self, other: Self) {
        let Self { previous, this, next, elsewhere } = other;
        self.previous = self.previous.saturating_add(previous);
        self.this = self.this.saturating_add(this);
        self.next = self.next.saturating_add(next);
        self.elsewhere = self.elsewhere.saturating_add(elsewhere);
    }

    /// All lines.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.previous.saturating_add(self.this).saturating_add(self.next).saturating_add(self.elsewhere)
    }

    fn text(self) -> String {
        let Self { previous, this, next, elsewhere } = self;
        format!("previous={previous},this={this},next={next},elsewhere={elsewhere}")
    }

    fn parse(text: &str) -> Option<Self> {
        let counts: BTreeMap<&str, u64> = parse_counts(text)?;
        let count = |name| counts.get(name).copied();
        let [previous, this, next, elsewhere] =
            [count("previous")?, count("this")?, count("next")?, count("elsewhere")?];
        Some(Self { previous, this, next, elsewhere })
    }
}

/// `name=number,name=number`; nothing for an empty text.
fn parse_counts(text: &str) -> Option<BTreeMap<&str, u64>> {
    let pieces = text.split(',').filter(|piece| !piece.is_empty());
    pieces.map(|piece| piece.split_once('=').and_then(|(name, count)| Some((name, count.parse().ok()?)))).collect()
}

fn reasons_text(reasons: &BTreeMap<Reason, u64>) -> String {
    let pieces: Vec<String> = reasons.iter().map(|(reason, count)| format!("{}={count}", reason.as_str())).collect();
    pieces.join(",")
}

fn parse_reasons(text: &str) -> Option<BTreeMap<Reason, u64>> {
    parse_counts(text)?.into_iter().map(|(name, count)| Some((Reason::parse(name)?, count))).collect()
}

/// What an object's S3 metadata (`x-amz-meta-…`) says of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMetadata {
    /// How its events look, and so which lines were taken for what. Objects of versions that did not say it were all read as
    /// envelopes.
    pub event_format: EventFormat,
    /// Sequence number of the last Kinesis record in the object; `None` for lines that never were on the stream, which are
    /// those of objects whose name has no [`first_record`](ObjectName::first_record).
    pub last_sequence_number: Option<String>,
    /// Kinesis records whose first line is in the object: each record is counted once, though its lines may land in two.
    /// 0 for lines that never were on the stream.
    pub record_count: u64,
    /// Lines in the object.
    pub event_count: u64,
    /// Bytes of the uncompressed lines.
    pub uncompressed_bytes: u64,
    /// SHA-256 of the uncompressed lines, as lower-case hexadecimal.
    pub uncompressed_sha256: String,
    /// Its lines by the hour of their receipt.
    pub received_in: ReceivedIn,
    /// Its rejected lines by reason; empty for events.
    pub rejected_reasons: BTreeMap<Reason, u64>,
    /// The smallest time of receipt of its lines.
    pub earliest_received_at: UnixMillis,
    /// The largest time of receipt of its lines.
    pub latest_received_at: UnixMillis,
    /// bzip2's block size in units of 100,000 bytes, 1 to 9.
    pub block_size: BlockSize,
    /// Who wrote it.
    pub attempt: Attempt,
}

/// A bzip2 block size, 1 to 9 in units of 100,000 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockSize(u8);

impl BlockSize {
    /// 900,000 bytes.
    pub const LARGEST: Self = Self(9);

    /// `None` outside 1 to 9.
    #[must_use]
    pub const fn new(units: u8) -> Option<Self> {
        match units {
            1..=9 => Some(Self(units)),
            _ => None,
        }
    }

    /// The smallest block that holds all of `bytes`, else the largest.
    ///
    /// A larger block would only cost memory and time: it compresses no better than one that the data fits in.
    #[must_use]
    pub fn fitting(bytes: usize) -> Self {
        // bzip2 takes 19 bytes less than the nominal size into a block, and its run-length stage can grow data by a
        // quarter; data that just misses makes a small second block, which is harmless.
        let units = bytes.div_ceil(100_000).clamp(1, 9);
        #[allow(clippy::cast_possible_truncation)]
        Self(units as u8)
    }

    /// Another block size: the next, and after 9 again 1. The same lines then make other bytes and another `ETag`.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 % 9 + 1)
    }

    /// 1 to 9.
    #[must_use]
    pub const fn units(self) -> u8 {
        self.0
    }

    fn from_entries(entries: &HashMap<String, String>) -> Result<Self, MetadataError> {
        let units = text_entry(entries, name::BLOCK_SIZE)?.parse().ok();
        units.and_then(Self::new).ok_or(MetadataError(name::BLOCK_SIZE))
    }
}

/// The `ETag` that an object landed with, without quotes: `delete-viewer` notes it when it rewrites one.
pub const LANDED_ETAG: &str = "landed-etag";

mod name {
    pub(super) const EVENT_FORMAT: &str = "event-format";
    pub(super) const LAST_SEQUENCE_NUMBER: &str = "last-sequence-number";
    pub(super) const RECORD_COUNT: &str = "record-count";
    pub(super) const EVENT_COUNT: &str = "event-count";
    pub(super) const UNCOMPRESSED_BYTES: &str = "uncompressed-bytes";
    pub(super) const UNCOMPRESSED_SHA256: &str = "uncompressed-sha256";
    pub(super) const RECEIVED_IN: &str = "received-in";
    pub(super) const DELETED_IN: &str = "deleted-in";
    pub(super) const REJECTED_REASONS: &str = "rejected-reasons";
    pub(super) const EARLIEST_RECEIVED_AT: &str = "earliest-received-at";
    pub(super) const LATEST_RECEIVED_AT: &str = "latest-received-at";
    pub(super) const BLOCK_SIZE: &str = "bzip2-block-size";
    pub(super) const ATTEMPT_BEGAN: &str = "attempt-began";
    pub(super) const ATTEMPT_DEADLINE: &str = "attempt-deadline";
    pub(super) const ATTEMPT_REQUEST_ID: &str = "attempt-request-id";
}

/// A metadata entry that is missing or can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the object's metadata entry {0} is missing or malformed, or does not fit its name")]
pub struct MetadataError(&'static str);

impl ObjectMetadata {
    /// As the entries of S3's user metadata, without the `x-amz-meta-` prefix.
    #[must_use]
    pub fn to_entries(&self) -> HashMap<String, String> {
        [
            (name::EVENT_FORMAT, self.event_format.as_str().to_owned()),
            (name::LAST_SEQUENCE_NUMBER, self.last_sequence_number.clone().unwrap_or_default()),
            (name::RECORD_COUNT, self.record_count.to_string()),
            (name::EVENT_COUNT, self.event_count.to_string()),
            (name::UNCOMPRESSED_BYTES, self.uncompressed_bytes.to_string()),
            (name::UNCOMPRESSED_SHA256, self.uncompressed_sha256.clone()),
            (name::RECEIVED_IN, self.received_in.text()),
            (name::REJECTED_REASONS, reasons_text(&self.rejected_reasons)),
            (name::EARLIEST_RECEIVED_AT, self.earliest_received_at.rfc3339()),
            (name::LATEST_RECEIVED_AT, self.latest_received_at.rfc3339()),
            (name::BLOCK_SIZE, self.block_size.units().to_string()),
            (name::ATTEMPT_BEGAN, self.attempt.began.rfc3339()),
            (name::ATTEMPT_DEADLINE, self.attempt.deadline.rfc3339()),
            (name::ATTEMPT_REQUEST_ID, self.attempt.request_id.clone()),
        ]
        .into_iter()
        // S3 takes no entry without a value.
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// The format of its events, as far as the entries say it: earlier versions did not.
    ///
    /// # Errors
    ///
    /// When the entry is malformed.
    pub fn event_format_entry(entries: &HashMap<String, String>) -> Result<Option<EventFormat>, MetadataError> {
        let entry = entries.get(name::EVENT_FORMAT);
        entry.map(|name| EventFormat::parse(name).ok_or(MetadataError(name::EVENT_FORMAT))).transpose()
    }

    /// The inverse of [`ObjectMetadata::to_entries`], for the object of this name.
    ///
    /// # Errors
    ///
    /// The first entry that is missing or malformed, or does not fit the name: an object that never was on the stream has no
    /// sequence number and no records.
    pub fn from_entries(object: &ObjectName, entries: &HashMap<String, String>) -> Result<Self, MetadataError> {
        let text = |name| text_entry(entries, name).map(str::to_owned);
        let number = |name| text(name)?.parse::<u64>().map_err(|_| MetadataError(name));
        let record_count = number(name::RECORD_COUNT)?;
        let last_sequence_number = match object.first_record() {
            Some(_) => Some(text(name::LAST_SEQUENCE_NUMBER)?),
            None if entries.contains_key(name::LAST_SEQUENCE_NUMBER) => {
                return Err(MetadataError(name::LAST_SEQUENCE_NUMBER));
            }
            None if record_count > 0 => return Err(MetadataError(name::RECORD_COUNT)),
            None => None,
        };
        Ok(Self {
            event_format: Self::event_format_entry(entries)?.unwrap_or_default(),
            last_sequence_number,
            record_count,
            event_count: number(name::EVENT_COUNT)?,
            uncompressed_bytes: number(name::UNCOMPRESSED_BYTES)?,
            uncompressed_sha256: text(name::UNCOMPRESSED_SHA256)?,
            received_in: ReceivedIn::parse(&text(name::RECEIVED_IN)?).ok_or(MetadataError(name::RECEIVED_IN))?,
            rejected_reasons: parse_reasons(entries.get(name::REJECTED_REASONS).map_or("", String::as_str))
                .ok_or(MetadataError(name::REJECTED_REASONS))?,
            earliest_received_at: time_entry(entries, name::EARLIEST_RECEIVED_AT)?,
            latest_received_at: time_entry(entries, name::LATEST_RECEIVED_AT)?,
            block_size: BlockSize::from_entries(entries)?,
            attempt: Attempt::from_entries(entries)?,
        })
    }
}

/// What the write protocol must know of an object that is there. Each entry counts for itself: a version of Playhead that
/// writes other entries besides must not make an object look as if nobody had landed it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Writing {
    /// Of the uncompressed lines.
    pub uncompressed_sha256: Option<String>,
    /// The block size of its compression.
    pub block_size: Option<BlockSize>,
    /// Who wrote it.
    pub attempt: Option<Attempt>,
}

impl Writing {
    /// As far as the entries of S3's user metadata say it.
    #[must_use]
    pub fn from_entries(entries: &HashMap<String, String>) -> Self {
        Self {
            uncompressed_sha256: entries.get(name::UNCOMPRESSED_SHA256).cloned(),
            block_size: BlockSize::from_entries(entries).ok(),
            attempt: Attempt::from_entries(entries).ok(),
        }
    }
}

fn text_entry<'a>(entries: &'a HashMap<String, String>, name: &'static str) -> Result<&'a str, MetadataError> {
    entries.get(name).map(String::as_str).ok_or(MetadataError(name))
}

fn time_entry(entries: &HashMap<String, String>, name: &'static str) -> Result<UnixMillis, MetadataError> {
    UnixMillis::parse(text_entry(entries, name)?).ok_or(MetadataError(name))
}

#[cfg(test)]
mod tests;
