//! The one-machine stack: embedded Kinesis, S3 and CloudWatch, and a host that runs the deployed binaries as Lambda would.
//!
//! [`template`] says what there is, [`clock`] what time it is. [`kinesis`], [`s3`] and [`cloudwatch`] are the services,
//! behind one port by [`aws_endpoint`]. [`function`] runs processes and talks to them through [`runtime_api`].
//! [`function_url`], [`event_source_mapping`], [`s3_notifications`] and [`schedules`] are what invokes functions, the last
//! two [`asynchronous`]ly, and [`lambda`] by hand. [`metric_store`] keeps the metrics of all of them. [`faults`] breaks what
//! is asked for. [`stack`] puts it all together.

pub mod asynchronous;
pub mod aws_endpoint;
pub mod claim;
pub mod clock;
pub mod cloudwatch;
pub mod config;
mod counters;
pub mod embedded_metrics;
pub mod event_source_mapping;
pub mod failed_batches;
pub mod faults;
pub mod function;
pub mod function_url;
mod gate;
mod iterator_age;
pub mod kinesis;
mod kinesis_puts;
pub mod lambda;
pub mod landed_until;
pub mod log;
pub mod metric_store;
pub mod prometheus;
pub mod runtime_api;
pub mod s3;
pub mod s3_listing;
pub mod s3_notifications;
mod s3_pages;
mod s3_store;
pub mod schedules;
mod server;
pub mod stack;
pub mod template;
mod terminal;
