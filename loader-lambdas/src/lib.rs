//! What landed, for those who read it, one function each.
//!
//! [`compact_partition`] writes sealed hours as Parquet.

// The types of the SDK and of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

pub mod compact_partition;
pub mod functions;
pub mod load_search;
mod promoted;
