//! Turns CloudWatch alarms into messages that a person can act on: what, where, since when, expected and actual, and what
//! to do; and announces when it is over.
//!
//! [`alarm`] reads what the alarms topic delivers. Each group of [`recipient`]s has a [`ledger`] in the landing bucket, with
//! the incident that is open: the first alarm opens it and is announced at once, further ones are collected, and when the last
//! is over one message announces that. Messages are in the ledger before they are sent, so that a crash may send one twice but
//! never loses one.

mod alarm;
pub(crate) mod channels;
pub(crate) mod chart;
pub mod config;
mod details;
pub(crate) mod formatting;
pub mod handler;
pub(crate) mod html;
mod incident;
mod ledger;
pub(crate) mod line;
pub mod mail;
pub(crate) mod mail_address;
pub(crate) mod message;
pub(crate) mod outcome;
pub mod parameter;
mod payload;
pub(crate) mod recipient;
pub mod recipients;
mod rejected;
mod report;
pub mod reporter;
pub(crate) mod store;
pub mod topic;
pub mod webhook;
mod webhook_url;

pub use alarm::{About, Watched};
pub use channels::{ChannelStates, Channels, Delivery};
pub use chart::Chart;
pub use incident::{Episode, Incident, Kind, Message};
pub use ledger::Ledger;
pub use mail_address::MailAddress;
