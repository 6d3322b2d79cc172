//! What the alarms topic delivers: CloudWatch's notice that an alarm changed its state, in an SNS event.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html>
//!
//! `aws_lambda_events` would refuse a composite alarm and one without a description, and with it the event's other notices.

use lambda_setup::event::{ScheduledEvent, SnsEvent, SnsMessage};
use serde::{Deserialize, Serialize};
use shared::emf::APP;
use shared::metric::{Metric, NAMESPACE};
use shared::timestamp::UnixMillis;

use super::report::Report;
use super::reporter::Reporter;

/// An event of the alarms topic, of the bus that other accounts and regions report to, of a deleted alarm, or of the schedule.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Invocation {
    Report(Report),
    Notices(SnsEvent),
    Tick(ScheduledEvent),
}

/// The states that are acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Alarm,
    Ok,
    /// There is no alarm any more: whatever its state was, nothing will end it.
    Deleted,
}

/// An alarm that changed its state, or was deleted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    /// The alarm's name.
    pub(crate) name: String,
    pub(crate) state: State,
    /// When CloudWatch changed or deleted it: notices come late, twice and out of order.
    pub(crate) at: UnixMillis,
    /// When SNS got the notice.
    pub(crate) noticed_at: UnixMillis,
    pub(crate) about: About,
    /// Where it is; `None` for an alarm of notify's own stack.
    pub(crate) reporter: Option<Reporter>,
}

/// What an alarm says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The alarm's description without the runbook's entry.
    pub description: String,
    /// The runbook's entry: what follows the last `#` of the description.
    pub anchor: Option<String>,
    /// CloudWatch's reason.
    pub reason: String,
    /// `None` when it is not an alarm on a metric.
    pub watched: Option<Watched>,
    /// Details that the check left in the bucket, one per line.
    #[serde(default)]
    pub details: Vec<String>,
}

/// The metric that an alarm watches, or the first one in its expression, and the alarm's condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    pub namespace: String,
    pub metric: String,
    pub dimensions: Vec<(String, String)>,
    /// As GetMetricData names it: `Sum`, `Maximum`, `p99` …
    pub statistic: String,
    /// Seconds.
    pub period: u64,
    /// `GreaterThanThreshold` …
    pub comparison: String,
    pub threshold: f64,
    /// The name of the expression; `None` for an alarm on the metric itself.
    #[serde(default)]
    pub calculated: Option<String>,
}

impl Watched {
    /// The name of what is compared with the threshold.
    pub(crate) fn name(&self) -> &str {
        self.calculated.as_deref().unwrap_or(&self.metric)
    }

    /// The app whose metric it is.
    pub(crate) fn app(&self) -> Option<&str> {
        self.dimensions.iter().find(|(name, _)| name == APP).map(|(_, app)| app.as_str())
    }

    /// Whether it is this metric of ours.
    pub(crate) fn is(&self, metric: Metric) -> bool {
        self.namespace == NAMESPACE && self.name() == metric.as_str()
    }
}

/// A notice that is not acted on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoticeError {
    #[error("a notice is not a CloudWatch alarm")]
    NotAnAlarm(#[source] serde_json::Error),
    /// `INSUFFICIENT_DATA` means neither that it is on nor that it is over.
    #[error("alarm {name} is in state {state}, which is neither on nor over")]
    State { name: String, state: String },
    #[error("{0:?} is not an RFC 3339 time")]
    Time(String),
    /// Other accounts and regions report to the bus, which says where from.
    #[error("a notice's alarm is not of the alarms topic's account and region")]
    Elsewhere,
}

impl Change {
    /// The change that a notice reports.
    pub(crate) fn of(notice: &SnsMessage) -> Result<Self, NoticeError> {
        let noticed_at = time(&notice.timestamp)?;
        let alarm: Alarm = serde_json::from_str(&notice.message).map_err(NoticeError::NotAnAlarm)?;
        let is_ours = |topic: &str, arn: &str| account_and_region(arn) == account_and_region(topic);
        if let (Some(topic), Some(arn)) = (&notice.topic_arn, &alarm.alarm_arn)
            && !is_ours(topic, arn)
        {
            return Err(NoticeError::Elsewhere);
        }
        let state = State::of(&alarm.new_state_value, &alarm.alarm_name)?;
        let (description, anchor) = split_anchor(&alarm.alarm_description.unwrap_or_default());
        let watched = alarm.trigger.and_then(Trigger::watched);
        let about = About { description, anchor, reason: alarm.new_state_reason, watched, details: Vec::new() };
        let at = time(&alarm.state_change_time)?;
        Ok(Self { name: alarm.alarm_name, state, at, noticed_at, about, reporter: None })
    }
}

/// Of an ARN: `arn:aws:sns:eu-central-1:123456789012:…`
fn account_and_region(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.split(':').skip(3);
    parts.next().zip(parts.next())
}

impl State {
    pub(super) fn of(value: &str, alarm: &str) -> Result<Self, NoticeError> {
        match value {
            "ALARM" => Ok(Self::Alarm),
            "OK" => Ok(Self::Ok),
            _ => Err(NoticeError::State { name: alarm.to_owned(), state: value.to_owned() }),
        }
    }
}

pub(super) fn time(text: &str) -> Result<UnixMillis, NoticeError> {
    UnixMillis::parse_aws(text).ok_or_else(|| NoticeError::Time(text.to_owned()))
}

/// `Something is wrong. #some-entry` in two.
pub(super) fn split_anchor(description: &str) -> (String, Option<String>) {
    match description.rsplit_once('#') {
        Some((text, anchor)) if !anchor.is_empty() && !anchor.contains(char::is_whitespace) => {
            (text.trim_end().to_owned(), Some(anchor.to_owned()))
        }
        _ => (description.trim_end().to_owned(), None),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Alarm {
    alarm_name: String,
    alarm_arn: Option<String>,
    alarm_description: Option<String>,
    new_state_value: String,
    new_state_reason: String,
    state_change_time: String,
    trigger: Option<Trigger>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Trigger {
    #[serde(flatten)]
    metric: MetricOf,
    statistic: Option<String>,
    extended_statistic: Option<String>,
    period: Option<u64>,
    comparison_operator: Option<String>,
    threshold: Option<f64>,
    /// Of an alarm on an expression.
    #[serde(default)]
    metrics: Vec<Query>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetricOf {
    metric_name: Option<String>,
    namespace: Option<String>,
    #[serde(default)]
    dimensions: Vec<Dimension>,
}

#[derive(Debug, Deserialize)]
struct Dimension {
    #[serde(alias = "Name")]
    name: String,
    #[serde(alias = "Value")]
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Query {
    label: Option<String>,
    metric_stat: Option<Stat>,
    #[serde(default)]
    return_data: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stat {
    metric: MetricOf,
    period: u64,
    stat: String,
}

impl Trigger {
    fn watched(self) -> Option<Watched> {
        let compared = self.metrics.iter().find(|query| query.return_data && query.metric_stat.is_none());
        let calculated = compared.and_then(|query| query.label.clone());
        let first = self.metrics.into_iter().find_map(|query| query.metric_stat);
        let statistic = self.extended_statistic.or(self.statistic).unwrap_or_default();
        let (metric, statistic, period) = match first {
            Some(stat) => (stat.metric, stat.stat, stat.period),
            None => (self.metric, statistic, self.period?),
        };
        let dimensions = metric.dimensions.into_iter().map(|dimension| (dimension.name, dimension.value)).collect();
        Some(Watched {
            namespace: metric.namespace?,
            metric: metric.metric_name?,
            dimensions,
            statistic: statistic_name(&statistic),
            period: period.max(1),
            comparison: self.comparison_operator?,
            threshold: self.threshold?,
            calculated,
        })
    }
}

/// Notices write `MAXIMUM` where GetMetricData writes `Maximum`.
fn statistic_name(text: &str) -> String {
    match &*text.to_ascii_uppercase() {
        "SUM" => "Sum".into(),
        "AVERAGE" => "Average".into(),
        "MAXIMUM" => "Maximum".into(),
        "MINIMUM" => "Minimum".into(),
        "SAMPLECOUNT" => "SampleCount".into(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rstest::rstest;

    /// In the shape that CloudWatch documents; names and numbers are ours.
    pub(crate) const BROKEN_OBJECTS: &str = include_str!("fixtures/broken_objects.json");
    const EXPRESSION: &str = include_str!("fixtures/expression.json");

    pub(crate) fn changes(event: &str) -> Vec<Result<Change, NoticeError>> {
        let Invocation::Notices(event) = serde_json::from_str(event).unwrap() else { panic!("no SNS event") };
        event.messages().map(|notice| Change::of(&notice)).collect()
    }

    #[test]
    fn a_cloudwatch_notice_is_parsed() {
        let change = changes(BROKEN_OBJECTS).remove(0).unwrap();
        assert_eq!((&*change.name, change.state), ("playhead-prod-broken-objects", State::Alarm));
        assert_eq!(change.at.rfc3339(), "2026-11-21T09:40:12.345Z");
        assert_eq!(change.about.description, "Landed objects are not what their metadata says (count).");
        assert_eq!(change.about.anchor.as_deref(), Some("broken-objects"));
        let watched = change.about.watched.unwrap();
        assert_eq!(
            (&*watched.namespace, &*watched.metric, &*watched.statistic),
            ("Playhead", "BrokenObjects", "Maximum")
        );
        assert_eq!(
            watched.dimensions,
            [("FunctionName".to_owned(), "playhead-prod-CheckRecencyFunction-1A2B".to_owned())]
        );
        assert_eq!((watched.period, watched.threshold), (300, 0.0));
    }

    #[test]
    fn an_alarm_on_an_expression_has_its_name_and_its_first_metric() {
        let watched = changes(EXPRESSION).remove(0).unwrap().about.watched.unwrap();
        assert_eq!((&*watched.metric, &*watched.statistic, watched.period), ("NetworkOut", "Average", 60));
        assert_eq!(watched.name(), "Expression1");
    }

    #[test]
    fn unusable_notices_name_their_problem() {
        let event = |message: &str| {
            let record = serde_json::json!({"Sns": {"Message": message, "Timestamp": "2026-11-21T09:40:12.345Z"}});
            changes(&serde_json::json!({"Records": [record]}).to_string()).remove(0)
        };
        assert!(matches!(event("hello"), Err(NoticeError::NotAnAlarm(_))));
        let insufficient =
            r#"{"AlarmName":"a","NewStateValue":"INSUFFICIENT_DATA","NewStateReason":"","StateChangeTime":""}"#;
        assert!(matches!(event(insufficient), Err(NoticeError::State { .. })));
        let no_time = r#"{"AlarmName":"a","NewStateValue":"OK","NewStateReason":"","StateChangeTime":"noon"}"#;
        assert!(matches!(event(no_time), Err(NoticeError::Time(_))));
    }

    #[rstest]
    #[case("eu-central-1:123456789012", true)]
    #[case("eu-west-1:123456789012", false)]
    #[case("eu-central-1:444455556666", false)]
    fn a_notice_of_an_alarm_elsewhere_is_refused(#[case] place: &str, #[case] is_taken: bool) {
        let arn = format!("arn:aws:cloudwatch:{place}:alarm:playhead-prod-broken-objects");
        let event = BROKEN_OBJECTS
            .replace("arn:aws:cloudwatch:eu-central-1:123456789012:alarm:playhead-prod-broken-objects", &arn);
        let change = changes(&event).remove(0);
        assert_eq!(change.is_ok(), is_taken);
        assert!(is_taken || matches!(change, Err(NoticeError::Elsewhere)));
    }

    #[test]
    fn the_schedule_is_distinguished() {
        let tick = serde_json::from_str(r#"{"time":"2026-11-21T09:45:00Z","source":"aws.events"}"#).unwrap();
        assert!(matches!(tick, Invocation::Tick(_)));
    }

    #[rstest]
    #[case("Wrong. #entry", "Wrong.", Some("entry"))]
    #[case("Wrong.", "Wrong.", None)]
    #[case("Number # 1 of two", "Number # 1 of two", None)]
    #[case("", "", None)]
    fn a_description_ends_with_its_entry_in_the_runbook(
        #[case] all: &str,
        #[case] text: &str,
        #[case] anchor: Option<&str>,
    ) {
        assert_eq!(split_anchor(all), (text.to_owned(), anchor.map(str::to_owned)));
    }
}
