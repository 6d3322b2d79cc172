//! The one-machine stack: embedded Kinesis, S3 and CloudWatch, and a host that runs the deployed binaries as Lambda would.
//!
//! [`template`] says what there is, [`clock`] what time it is. [`kinesis`], [`s3`] and [`cloudwatch`] are the services,
//! behind one address by [`aws_endpoint`]; [`server`] and [`gate`] are in front of every port. [`function`] runs processes
//! and talks to them through [`runtime_api`] and [`extensions`]. [`function_url`], [`event_source_mapping`],
//! [`s3_notifications`] and [`schedules`] invoke functions, the last two [`asynchronous`]ly, and [`lambda`] by hand.
//! [`metric_store`] keeps the metrics of all of them. [`faults`] breaks what it is asked to break. [`stack`] puts it all
//! together.

pub mod asynchronous;
pub mod aws_endpoint;
mod body;
mod cbor;
mod claim;
pub mod clock;
pub mod cloudwatch;
pub mod config;
mod connection_progress;
mod counters;
pub mod embedded_metrics;
mod event_source_mapping;
mod extensions;
mod failed_batches;
pub mod faults;
pub mod function;
mod function_url;
mod gate;
mod kinesis;
mod kinesis_api;
pub mod lambda;
pub mod log;
pub mod metric_store;
mod mutex;
mod open_files;
mod prometheus;
mod read_progress;
pub mod runtime_api;
mod s3;
mod s3_body;
mod s3_folder;
mod s3_notifications;
mod s3_operations;
mod s3_store;
mod schedules;
mod server;
pub mod stack;
pub mod template;
mod terminal;
