//! HTTP request in, Kinesis records out.
//!
//! The way of a request: [`front_door`] (what AWS hands over) → [`content`] (bytes, decoded) → [`split`] (pieces, each an
//! [`event`] or not; [`cmcd`] reads reports) → [`pack`] (records, by [`bucket`]) → [`put`] (stored, entry by entry; what became of each) →
//! [`answer`] and [`metrics`].
//! `lines` tells values a line from one value, `salvage` finds the members of a list that is not valid JSON, [`inflate`]
//! decompresses within bounds.
//! All but [`handler`] and [`put`] is pure; [`kinesis`] alone knows the SDK.

pub mod answer;
pub mod bucket;
pub mod cmcd;
pub mod config;
pub mod content;
pub mod event;
pub mod front_door;
pub mod handler;
pub mod inflate;
pub mod kinesis;
mod lines;
pub mod metrics;
pub mod origins;
pub mod pack;
pub mod put;
mod salvage;
pub mod split;
mod steps;
