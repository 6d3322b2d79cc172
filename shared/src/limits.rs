//! Limits of the AWS services between a player and a landed file, and our own bounds inside them.

use crate::frame::MAX_LINES_BYTES;

/// Records that one `PutRecords` call takes at most.
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html>
pub const PUT_RECORDS_MAX_RECORDS: usize = 500;

/// Bytes of data and partition keys that we put into one `PutRecords` call at most: 5 MiB. The service takes up to
/// 10 MiB now; 5 MiB is what every emulator and every older account takes.
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html>
pub const PUT_RECORDS_MAX_BYTES: usize = 5 * 1024 * 1024;

/// Bytes of one record, its data and its partition key, at most, unless configured: 1 MiB, a stream's default.
/// <https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html>
pub const DEFAULT_MAX_RECORD_BYTES: usize = 1024 * 1024;

/// The most that [`DEFAULT_MAX_RECORD_BYTES`] can be raised to: 4 MiB. A stream can take 10 MiB, but a record reaches the
/// landing function as base64 in an invocation of at most [`LAMBDA_PAYLOAD_MAX_BYTES`].
/// <https://docs.aws.amazon.com/streams/latest/dev/large-records.html>
pub const LARGEST_MAX_RECORD_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of one synchronous invocation's payload at most: 6 MB, counted by Lambda as 6 MiB.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
pub const LAMBDA_PAYLOAD_MAX_BYTES: usize = 6 * 1024 * 1024;

/// Records that landing takes at once, at most: the template's largest `BatchSize`.
pub const MAX_BATCH_RECORDS: usize = 200;

/// Bytes of lines that landing makes of one frame, at most: when it rejects them, base64 makes four bytes of three, and the
/// envelopes of at most 101 rejected lines take up to a quarter of a MiB.
pub const MAX_LANDED_FRAME_BYTES: usize = MAX_LINES_BYTES.div_ceil(3) * 4 + 256 * 1024;

/// Bytes of an object's lines at most: what landing makes of a whole batch. Plain records are base64 in its payload already.
pub const MAX_OBJECT_BYTES: u64 = (MAX_BATCH_RECORDS * MAX_LANDED_FRAME_BYTES + LAMBDA_PAYLOAD_MAX_BYTES) as u64;

/// Bytes of an object's line at most. A record reaches landing as base64 in a payload of at most [`LAMBDA_PAYLOAD_MAX_BYTES`], and
/// one that is rejected whole is base64 again in its line, with an envelope around it.
pub const MAX_OBJECT_LINE_BYTES: usize = LAMBDA_PAYLOAD_MAX_BYTES + 16 * 1024;

/// Bytes of a request body after decoding, at most, unless configured: 4 MiB. A body that Lambda hands over as base64
/// cannot be larger than 4.5 MiB.
pub const DEFAULT_MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Events in one request at most. It bounds the memory that a body of many tiny events can take: each becomes a line of
/// 200 to 500 bytes, whatever its own size.
pub const MAX_EVENTS_PER_REQUEST: usize = 10_000;

/// Levels of arrays and objects in an event at most. Common readers stop at 128 (`serde_json`) or 1,000 (Jackson in
/// Spark; Python's `json` at its recursion limit), and the envelope adds one: a deeper event would be a line that
/// they can't read.
pub const MAX_EVENT_DEPTH: usize = 100;

/// Bytes of a client's `id` that goes into the envelope at most; a longer one stays in the event alone.
pub const MAX_EVENT_ID_BYTES: usize = 256;

/// Bytes of the user agent that are kept at most: it stands in every line.
pub const MAX_USER_AGENT_BYTES: usize = 256;

/// Bytes of a request's path that rejected lines keep at most.
pub const MAX_PATH_BYTES: usize = 256;

/// Bytes of the `Origin` header that rejected lines keep at most: `https://`, a host name of 253 bytes and a port.
pub const MAX_ORIGIN_BYTES: usize = 267;

/// Bytes of other request headers that are kept or echoed at most.
pub const MAX_HEADER_BYTES: usize = 1024;

/// Bytes of one CMCD report at most. A report has some 300; parsed, one can take a hundred times its size in memory.
pub const MAX_CMCD_REPORT_BYTES: usize = 64 * 1024;
