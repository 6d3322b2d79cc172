//! Kinesis batch in, S3 objects out.
//!
//! The way of a batch: [`kinesis_event`] (what the event source mapping hands over) → [`kpl`] and [`payload`] (a record's
//! [`lines`] by kind; `multiline` tells lines from pieces of a damaged value) → [`group`] (the lines of one kind and hour) →
//! [`encode`] (bzip2) → [`landing`] (the write protocol) → [`metrics`].
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
