//! Turns CloudWatch alarms into messages that a person can act on: what, where, since when, expected and actual, and what
//! to do; and says when it is over.
//!
//! [`alarm`] reads what the alarms topic delivers. Each group of [`recipient`]s has a [`ledger`] in the landing bucket, with
//! the incident that is open: the first alarm opens it and is announced at once, further ones are collected, and when the last
//! is over one message says so. Messages are in the ledger before they are sent, so that a crash may send one twice and
//! loses none.

pub mod alarm;
pub mod chart;
pub mod config;
pub mod deliver;
mod details;
pub mod handler;
pub mod incident;
pub mod ledger;
mod line;
pub mod message;
pub mod outcome;
pub mod payload;
pub mod recipient;
mod rejected;
pub mod rfc3339;
pub mod store;
pub mod topic;
pub mod webhook;
pub mod webhook_url;
pub mod words;
