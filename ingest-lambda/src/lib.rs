//! HTTP request in, Kinesis records out.
//!
//! The way of a request: [`front_door`] (what AWS hands over) → [`intake`] ([`content`] (bytes, decoded) → [`split`] (pieces,
//! each an [`event`] or not; [`cmcd`] reads reports) → [`schema`], if there is one → [`pack`] (records, by [`bucket`])) →
//! [`store`] ([`put`] on the stream, entry by entry, unless the [`breaker`] is open; else [`spill`] to S3; what became of each) →
//! [`answer`] and [`metrics`], which [`counts`] sums up. With [`write_keys`] a request needs a key, which may have a [`rate_limit`];
//! [`client_context`] says more of where it came from.
//! In the server: [`server`] → [`intake`] → [`committer`], which does what [`commit`] decides → [`answer`] and [`tally`].
//! `lines` tells values a line from one value, `salvage` finds the members of a list that is not valid JSON, [`inflate`]
//! decompresses within bounds.
//! All but [`handler`], [`server`], [`committer`], [`store`], [`put`] and [`spill`] is pure; [`kinesis`] and [`s3`] alone know the SDK.

pub mod answer;
pub mod breaker;
pub mod bucket;
pub mod client_context;
pub mod cmcd;
pub mod commit;
pub mod committer;
pub mod config;
pub mod content;
pub mod counts;
pub mod event;
pub mod front_door;
pub mod handler;
pub mod inflate;
pub mod intake;
pub mod kinesis;
mod lines;
pub mod metrics;
pub mod origins;
pub mod pack;
pub mod put;
pub mod rate_limit;
pub mod s3;
mod salvage;
pub mod schema;
pub mod server;
pub mod spill;
pub mod split;
mod steps;
pub mod store;
pub mod tally;
pub mod write_keys;
