//! Kinesis batch in, S3 objects out.
//!
//! The way of a batch: [`kinesis_event`] (what the event source mapping hands over) → [`group`] (the lines of one kind and
//! hour; [`payload`] takes a record apart into [`lines`], with [`kpl`] if it is an aggregate and `multiline` if a value may span lines)
//! → [`landing`] (the write protocol; [`encode`] compresses) → [`metrics`].
//! All but `landing` is pure; [`s3`] alone knows the SDK.

pub mod encode;
pub mod group;
pub mod handler;
pub mod kinesis_event;
pub mod kpl;
pub mod landing;
pub mod lines;
pub mod metrics;
mod multiline;
pub mod payload;
pub mod s3;
