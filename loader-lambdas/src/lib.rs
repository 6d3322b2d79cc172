//! What landed, for those who read it, one function each.
//!
//! [`compact_partition`] writes sealed hours as Parquet, [`load_search`] puts each landed object into a search cluster,
//! [`load_warehouse`] loads each of those hours into Redshift.

// The types of the SDK and of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

pub mod compact_partition;
pub mod load_search;
pub mod load_warehouse;
mod promoted;
mod sweep;
