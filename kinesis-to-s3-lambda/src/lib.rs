//! Kinesis batch in, S3 objects out.
//!
//! The way of a batch: [`kinesis_event`] (what the event source mapping hands over) → [`group`] (what lands in one object;
//! [`record_lines`] judges each record, with [`kpl`] if it is an aggregate and `multiline` if a value may span lines, and
//! [`counts`] its lines) → [`landing`] (the write protocol; [`encode`] reads each record again and compresses its lines) →
//! [`metrics`].
//! All but `landing` is pure; [`s3`] alone knows the SDK.

pub mod counts;
pub mod encode;
pub mod group;
pub mod handler;
pub mod kinesis_event;
pub mod kpl;
pub mod landing;
pub mod metrics;
mod multiline;
pub mod record_lines;
pub mod s3;
