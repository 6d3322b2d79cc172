//! HTTP request in, Kinesis records out.
//!
//! The way of a request: [`front_door`] (what AWS hands over) → [`content`] (bytes, decoded) → [`split`] (pieces) → [`event`] →
//! [`pack`] (records) → [`put`] (stored, entry by entry; what became of each) → [`answer`] and [`metrics`].
//! `lines` tells values a line from one value, `cut` finds the members of a list that is not valid JSON, [`inflate`]
//! decompresses within bounds.
//! All but `put` is pure; [`kinesis`] alone knows AWS.

pub mod answer;
pub mod cmcd;
pub mod config;
pub mod content;
mod cut;
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
pub mod split;
mod work;
