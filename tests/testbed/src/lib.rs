//! Models of S3 and Kinesis, as far as Playhead uses them. They are pure: no HTTP, no files, no threads, and the time is an
//! argument (milliseconds since 1970). Tests use them as they are; the one-machine stack puts the services' protocols
//! around them.
//!
//! [`Bucket`] is an S3 general purpose bucket without versioning, [`Stream`] a Kinesis data stream. [`Faults`] decides
//! what goes wrong with the calls of either.

mod bucket;
mod content;
mod faults;
mod kinesis_error;
mod listing;
mod s3_error;
mod sequence_number;
mod shard;
mod stream;
mod upload;

pub use bucket::{Bucket, Condition, Object, etag_of};
pub use content::{Blob, Content};
pub use faults::{Answer, Fault, Faults};
pub use kinesis_error::KinesisError;
pub use listing::{List, MAX_KEYS, Page};
pub use s3_error::S3Error;
pub use sequence_number::SequenceNumber;
pub use shard::{Record, Shard};
pub use stream::{Batch, Entry, Limits, Placed, Position, ShardIterator, ShardRate, Stream};
pub use upload::Part;
