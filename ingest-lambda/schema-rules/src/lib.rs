//! Which rules of a JSON Schema an event breaks: [`rules`] judges within the bounds that `overlap` proves of the schema. A crate of
//! its own because the validator is generic: its code becomes part of whoever calls it, and is as large as that one's profile makes it.

mod overlap;
mod rules;

pub use rules::{MAX_SCHEMA_BYTES, MAX_STEPS_A_REQUEST, OTHER, Rules, SchemaError, Violation};
