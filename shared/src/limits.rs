//! Limits of the AWS services between a player and a landed file, and our own bounds inside them.

use crate::frame::MAX_LINES_BYTES;

/// The most records in one `PutRecords` call.
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html>
pub const MAX_PUT_RECORDS: usize = 500;

/// The most bytes of data and partition keys that we put into one `PutRecords` call: 5 MiB. The service takes up to 10 MiB now;
/// 5 MiB is what every emulator and every older account takes.
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html>
pub const MAX_PUT_RECORDS_BYTES: usize = 5 * 1024 * 1024;

/// The most bytes of a record, its data and its partition key, unless configured: 1 MiB, a stream's default.
/// <https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html>
pub const DEFAULT_MAX_RECORD_BYTES: usize = 1024 * 1024;

/// The most that [`DEFAULT_MAX_RECORD_BYTES`] can be raised to: 4 MiB. A stream can take 10 MiB, but a record reaches the
/// landing function as base64 in an invocation of at most [`MAX_LAMBDA_PAYLOAD_BYTES`].
/// <https://docs.aws.amazon.com/streams/latest/dev/large-records.html>
pub const MAX_CONFIGURED_RECORD_BYTES: usize = 4 * 1024 * 1024;

/// The most bytes in the payload of a synchronous invocation: 6 MB, counted by Lambda as 6 MiB.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
pub const MAX_LAMBDA_PAYLOAD_BYTES: usize = 6 * 1024 * 1024;

/// The most records in a batch: the template's largest `BatchSize`.
pub const MAX_BATCH_RECORDS: usize = 200;

/// The most bytes of lines that landing makes of one frame: when it rejects them, base64 makes four bytes of three, and the
/// envelopes of up to 101 rejected lines take up to a quarter of a MiB.
pub(crate) const MAX_LANDED_FRAME_BYTES: usize = MAX_LINES_BYTES.div_ceil(3) * 4 + 256 * 1024;

/// The most bytes of lines in an object: what landing makes of a whole batch. Plain records are base64 in its payload already.
pub const MAX_OBJECT_BYTES: u64 = (MAX_BATCH_RECORDS * MAX_LANDED_FRAME_BYTES + MAX_LAMBDA_PAYLOAD_BYTES) as u64;

/// The most bytes in a line of an object. A record reaches landing as base64 in a payload of up to [`MAX_LAMBDA_PAYLOAD_BYTES`], and
/// one that is rejected whole is base64 again in its line, with an envelope around it.
pub const MAX_OBJECT_LINE_BYTES: usize = MAX_LAMBDA_PAYLOAD_BYTES + 16 * 1024;

/// The most bytes of a request body after decoding, unless configured: 4 MiB. A body that Lambda hands over as base64 cannot be
/// larger than 4.5 MiB.
pub const DEFAULT_MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// The most events in a request. It bounds the memory that a body of many tiny events can take: each becomes a line of
/// 200 to 500 bytes, whatever its own size.
pub const MAX_EVENTS_PER_REQUEST: usize = 10_000;

/// The most levels of arrays and objects in an event. Common readers stop at 128 (`serde_json`) or 1,000 (Jackson in
/// Spark; Python's `json` at its recursion limit), and the envelope adds one: a deeper event would be a line that
/// they can't read.
pub const MAX_EVENT_DEPTH: usize = 100;

/// The most bytes of a client's `id` that goes into the envelope; a longer one stays in the event alone.
pub const MAX_EVENT_ID_BYTES: usize = 256;

/// The most bytes of the user agent that are kept: every line repeats it.
pub const MAX_USER_AGENT_BYTES: usize = 256;

/// The most bytes of a request's path that rejected lines keep.
pub const MAX_PATH_BYTES: usize = 256;

/// The most bytes of the `Origin` header that rejected lines keep: `https://`, a host name of 253 bytes and a port.
pub const MAX_ORIGIN_BYTES: usize = 267;

/// The most bytes of the page's path that are kept: every line repeats it. A longer one is left out.
pub const MAX_PAGE_BYTES: usize = 1024;

/// The most bytes of other request headers that are kept or echoed.
pub const MAX_HEADER_BYTES: usize = 1024;

/// The most bytes of a CMCD report. One has some 300; parsed, one can take a hundred times its size in memory.
pub const MAX_CMCD_REPORT_BYTES: usize = 64 * 1024;
