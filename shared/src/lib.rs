//! What several parts of Playhead must agree on: the lines that travel and land, the keys and metadata of landed
//! objects, the limits of the services between, the names of metrics.
//!
//! Everything here is pure: no AWS SDK, no I/O, no clock. Times and ids come in as arguments.

#![warn(missing_docs)]

pub mod emf;
pub mod frame;
pub mod json;
pub mod limits;
pub mod line;
pub mod metric;
pub mod nesting;
pub mod object;
pub mod rejection;
pub mod sequence_number;
pub mod timestamp;
pub mod trust;
