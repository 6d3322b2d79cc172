//! What a template describes, as far as it is played, and how its resources are named here.

use std::collections::BTreeMap;
use std::time::Duration;

use heck::ToKebabCase;

use super::schedule::Expression;

/// The account that local ARNs name.
pub(crate) const ACCOUNT_ID: &str = "000000000000";
/// The region in local ARNs and in the functions' environment.
pub(crate) const REGION: &str = "us-east-1";

/// The deployed system, as far as it is played; resources in the order of their logical ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stack {
    pub functions: Vec<Function>,
    pub streams: Vec<Stream>,
    pub buckets: Vec<String>,
    pub topics: Vec<String>,
    pub queues: Vec<Queue>,
    pub mappings: Vec<Mapping>,
    pub queue_mappings: Vec<QueueMapping>,
    pub notifications: Vec<Notification>,
    pub subscriptions: Vec<Subscription>,
    pub schedules: Vec<Schedule>,
    /// The binary of the function that has a Function URL.
    pub front_door: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// The logical id in the template.
    pub id: String,
    /// The name of the cargo binary: the local name of the function too.
    pub binary: String,
    pub timeout: Duration,
    pub memory_mb: u64,
    pub environment: BTreeMap<String, String>,
    /// How often a failed asynchronous event is retried.
    pub event_retries: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    pub name: String,
    pub shards: u64,
    pub retention_hours: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Mapping {
    /// The logical id of the function.
    pub function: String,
    pub stream: String,
    pub batch_size: usize,
    pub window: Duration,
    /// `None` is for ever.
    pub maximum_retries: Option<u64>,
    /// `None` is for ever.
    pub maximum_record_age: Option<Duration>,
    /// The bucket for batches that are given up.
    pub on_failure_bucket: Option<String>,
}

/// Objects whose creation is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub target: Target,
    pub bucket: String,
    /// `s3:ObjectCreated:*`, `s3:ObjectCreated:Put` and the like; any of them.
    pub kinds: Vec<String>,
    pub prefix: String,
    pub suffix: String,
}

/// What S3 notifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By its logical id.
    Function(String),
    /// By its name.
    Topic(String),
}

/// What gets the messages of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The logical id, for a function's `Events` that which SAM gives it.
    pub id: String,
    pub topic: String,
    pub endpoint: Endpoint,
    /// Only what S3 says of objects whose keys begin with it; empty for all.
    pub key_prefix: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// By its logical id.
    Function(String),
    Queue {
        name: String,
        /// Whether it gets the message alone, without SNS's envelope.
        is_raw: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    pub name: String,
    pub visibility_timeout: Duration,
    pub redrive: Option<Redrive>,
}

/// Where messages go that are received again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    pub dead_letter_queue: String,
    /// From 1 to 1,000.
    pub max_receive_count: u64,
}

/// A queue whose messages invoke a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueMapping {
    /// The logical id of the function.
    pub function: String,
    pub queue: String,
    pub batch_size: usize,
    pub window: Duration,
    /// The most invocations at once.
    pub maximum_concurrency: Option<usize>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The logical id of the function.
    pub function: String,
    /// The logical id that SAM gives the schedule.
    pub name: String,
    pub expression: Expression,
}

/// A template that can't be played; the message names the place in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct TemplateError {
    pub(super) place: String,
    pub(super) problem: String,
}

pub(super) type Result<T> = std::result::Result<T, TemplateError>;

pub(super) fn error<T>(place: impl Into<String>, problem: impl Into<String>) -> Result<T> {
    Err(TemplateError { place: place.into(), problem: problem.into() })
}

pub(crate) fn stream_arn(name: &str) -> String {
    format!("arn:aws:kinesis:{REGION}:{ACCOUNT_ID}:stream/{name}")
}

pub(crate) fn function_arn(binary: &str) -> String {
    format!("arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{binary}")
}

pub(crate) fn topic_arn(name: &str) -> String {
    format!("arn:aws:sns:{REGION}:{ACCOUNT_ID}:{name}")
}

/// The name in a topic's ARN.
pub(crate) fn topic_name(arn: &str) -> Option<&str> {
    arn.strip_prefix(&topic_arn(""))
}

pub(crate) fn alarm_arn(name: &str) -> String {
    format!("arn:aws:cloudwatch:{REGION}:{ACCOUNT_ID}:alarm:{name}")
}

pub(crate) fn queue_arn(name: &str) -> String {
    format!("arn:aws:sqs:{REGION}:{ACCOUNT_ID}:{name}")
}

/// Nothing answers there: no function speaks to SQS itself.
pub(super) fn queue_url(name: &str) -> String {
    format!("https://sqs.{REGION}.amazonaws.com/{ACCOUNT_ID}/{name}")
}

/// `EventStream` is `event-stream`: what CloudFormation would name it, less the stack and the random part.
pub(super) fn local_name(logical_id: &str) -> String {
    logical_id.to_kebab_case()
}
