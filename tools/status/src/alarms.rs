//! The stack's alarms, and the only file here that knows the CloudWatch SDK.

use std::time::Duration;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_cloudwatch::types::{MetricAlarm, StateValue};
use lambda_setup::sdk::{SdkConfig, with_retries};
use serde::Serialize;
use shared::timestamp::UnixMillis;

use crate::flow;

/// Attempts at a call, and how long each may take.
const ATTEMPTS: u32 = 2;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages of a hundred alarms; the template has some fifty.
const MAX_PAGES: usize = 5;

/// How the names of those begin that can wait until morning.
pub(crate) const WARNING: &str = "warning-";

/// What is known of the alarms. That they can't be read is not that all is well.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Alarms {
    Known { alarms: Vec<Alarm> },
    NotAvailable { why: String },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Alarm {
    /// Without the stack's name.
    pub(crate) name: String,
    pub(crate) is_on: bool,
    /// It has too little data to say anything.
    pub(crate) is_unknown: bool,
    pub(crate) reason: String,
    pub(crate) since: Option<UnixMillis>,
}

impl Alarm {
    /// Whether it can wait until morning.
    pub(crate) fn is_warning(&self) -> bool {
        self.name.starts_with(WARNING)
    }
}

pub(crate) struct CloudWatchAlarms {
    client: Client,
    prefix: Option<String>,
}

impl CloudWatchAlarms {
    /// Those of the stack whose names begin with the prefix; none without one.
    pub(crate) fn new(config: &SdkConfig, prefix: Option<String>) -> Self {
        Self { client: Client::new(&with_retries(config, ATTEMPTS, ATTEMPT_TIMEOUT)), prefix }
    }

    pub(crate) async fn read(&self) -> Alarms {
        match &self.prefix {
            None => Alarms::NotAvailable { why: "not available here: no ALARM_PREFIX is set".to_owned() },
            Some(prefix) => match self.pages(prefix).await {
                Ok(alarms) if alarms.is_empty() => {
                    Alarms::NotAvailable { why: format!("there are no alarms whose names begin with {prefix}") }
                }
                Ok(alarms) => Alarms::Known { alarms },
                Err(why) => Alarms::NotAvailable { why: format!("not available here: {why}") },
            },
        }
    }

    async fn pages(&self, prefix: &str) -> Result<Vec<Alarm>, String> {
        let (mut alarms, mut token) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let page = self.client.describe_alarms().alarm_name_prefix(prefix).max_records(100).set_next_token(token);
            let page = page.send().await.map_err(|error| match error.code() {
                Some(code) => format!("{code}: {}", error.message().unwrap_or_default()),
                None => DisplayErrorContext(error).to_string(),
            })?;
            alarms.extend(page.metric_alarms().iter().filter_map(|one| alarm(one, prefix)));
            token = page.next_token;
            if token.is_none() {
                return Ok(alarms);
            }
        }
        Err(format!("there are more than {MAX_PAGES} pages of them"))
    }
}

/// `None` for another stack's whose name begins as this one's.
fn alarm(one: &MetricAlarm, prefix: &str) -> Option<Alarm> {
    let name = one.alarm_name()?.strip_prefix(prefix)?;
    flow::part_of(name)?;
    Some(Alarm {
        name: name.to_owned(),
        is_on: one.state_value() == Some(&StateValue::Alarm),
        is_unknown: !matches!(one.state_value(), Some(StateValue::Alarm | StateValue::Ok)),
        reason: one.state_reason().unwrap_or_default().to_owned(),
        since: one.state_transitioned_timestamp().and_then(|time| time.to_millis().ok()).map(UnixMillis),
    })
}
