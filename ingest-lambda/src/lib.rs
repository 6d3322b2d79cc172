//! HTTP request in, Kinesis records out.
//!
//! The way of a request: [`front_door`] (what AWS hands over) → [`content`] (bytes, decoded) → [`split`] (events) →
//! [`pack`] (records) → [`put`] (stored, entry by entry) → [`storing`] (what became of all) → [`answer`] and [`metrics`].
//! `cut` finds the members of a list that is not valid JSON, [`inflate`] decompresses within bounds.
//! All but `put` is pure; [`kinesis`] alone knows AWS.

pub mod answer;
pub mod cmcd;
pub mod config;
pub mod content;
mod cut;
pub mod front_door;
pub mod handler;
pub mod inflate;
pub mod kinesis;
pub mod metrics;
pub mod origins;
pub mod pack;
pub mod put;
pub mod split;
pub mod storing;
mod work;
