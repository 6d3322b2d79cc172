//! The rules that judge what landed. They are pure, so that the backtest tries the very ones that are deployed.

pub mod completeness;
pub mod partition;
pub mod recency;
pub mod rejected;
pub mod robust;
pub mod size;
