//! The metrics that the tests of all checks run against.

pub(crate) mod memory_metrics;
