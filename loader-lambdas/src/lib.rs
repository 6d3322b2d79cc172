//! What landed, for those who read it, one function each.

// The types of the SDK and of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

pub mod load_search;
mod promoted;
