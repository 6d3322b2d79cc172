//! Checks of what landed, one function each; and [`notify`].
//!
//! [`check_object`] verifies each object. [`seal_partition`] marks an hour as complete and lists what is in it;
//! [`check_size`], [`check_recency`] and [`check_completeness`] judge the sealed hours, and [`check_deletions`] makes sure that
//! they stay intact. [`notify`] sends the alarms to people, and [`send_digest`] what the day was like.
//! They reach CloudWatch through [`cloudwatch`], and take the time from the event that invokes them.

// The types of the SDK and of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

pub mod check_completeness;
pub mod check_deletions;
pub mod check_object;
pub mod check_recency;
pub mod check_size;
pub mod cloudwatch;
pub mod functions;
pub mod manifest;
pub mod notify;
pub mod rules;
pub mod seal_partition;
pub mod send_digest;
pub mod success;
#[cfg(test)]
pub(crate) mod tests;
