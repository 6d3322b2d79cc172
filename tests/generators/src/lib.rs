//! Input for the property tests of every crate: JSON that clients may send, damage to it; a strict reader of what
//! landed; and how a test is made to fail on purpose.

pub mod damage;
pub mod json;
pub mod sabotage;
pub mod strict_reader;
