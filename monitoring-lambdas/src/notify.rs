//! Turns CloudWatch alarms into messages that a person can act on: what, where, since when, expected and actual, and what
//! to do; and announces when it is over.
//!
//! [`alarm`] reads what the alarms topic delivers. Each group of [`recipient`]s has a [`ledger`] in the landing bucket, with
//! the incident that is open: the first alarm opens it and is announced at once, further ones are collected, and when the last
//! is over one message announces that. Messages are in the ledger before they are sent, so that a crash may send one twice but
//! never loses one.

mod alarm;
mod chart;
pub mod config;
mod deliver;
mod details;
mod formatting;
pub mod handler;
mod incident;
mod ledger;
mod line;
mod message;
mod outcome;
pub mod parameter;
mod payload;
mod recipient;
pub mod recipients;
mod rejected;
mod report;
pub mod reporter;
mod store;
pub mod topic;
pub mod webhook;
mod webhook_url;

pub use alarm::{About, Watched};
pub use chart::Chart;
pub use incident::{Delivery, Episode, Incident, Kind, Message};
pub use ledger::Ledger;
