//! The one-machine stack: embedded Kinesis and S3, and a host that runs the deployed binaries as Lambda would.
//!
//! [`template`] says what there is. [`kinesis`] and [`s3`] are the services, behind one port by [`aws_endpoint`].
//! [`function`] runs processes and talks to them through [`runtime_api`]. [`function_url`] and
//! [`event_source_mapping`] are what invokes functions. [`faults`] breaks what is asked for. [`stack`] puts it all together.

pub mod aws_endpoint;
pub mod claim;
pub mod config;
pub mod event_source_mapping;
pub mod failed_batches;
pub mod faults;
pub mod function;
pub mod function_url;
pub mod kinesis;
pub mod log;
pub mod runtime_api;
pub mod s3;
pub mod stack;
pub mod template;
