//! Input for the property tests of every crate: JSON that clients may send, damage to it; and a strict reader of what landed.

pub mod damage;
pub mod json;
pub mod strict_reader;
