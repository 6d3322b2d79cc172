//! What CloudWatch publishes when an alarm changes its state.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html>

use serde_json::{Value, json};
use shared::timestamp::UnixMillis;

use super::Condition;
use super::evaluate::State;
use crate::metric_store::MetricId;
use crate::template::{ACCOUNT_ID, Alarm, MetricStat, Watched, alarm_arn, topic_name};

/// The region as notices name it.
const REGION_NAME: &str = "US East (N. Virginia)";

/// A message for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The topic's name.
    pub topic: String,
    /// The alarm's name.
    pub alarm: String,
    pub subject: String,
    pub text: String,
    pub at: UnixMillis,
}

/// One for each topic of the state's actions.
pub(super) fn notices(alarm: &Alarm, now: &Condition, before: State) -> Vec<Notice> {
    let topics = match now.state {
        State::Alarm => &alarm.alarm_actions,
        State::Ok => &alarm.ok_actions,
        State::InsufficientData => &alarm.insufficient_data_actions,
    };
    let text = message(alarm, now, before).to_string();
    let subject = format!("{}: \"{}\" in {REGION_NAME}", now.state.as_str(), alarm.name);
    let notice = |topic: &str| Notice {
        topic: topic.to_owned(),
        alarm: alarm.name.clone(),
        subject: subject.clone(),
        text: text.clone(),
        at: now.since,
    };
    topics.iter().filter_map(|arn| topic_name(arn)).map(notice).collect()
}

fn message(alarm: &Alarm, now: &Condition, before: State) -> Value {
    json!({
        "AlarmName": alarm.name,
        "AlarmDescription": alarm.description,
        "AWSAccountId": ACCOUNT_ID,
        "NewStateValue": now.state.as_str(),
        "NewStateReason": now.reason,
        "StateChangeTime": now.since.rfc3339().replace('Z', "+0000"),
        "Region": REGION_NAME,
        "AlarmArn": alarm_arn(&alarm.name),
        "OldStateValue": before.as_str(),
        "AlarmActions": alarm.alarm_actions,
        "OKActions": alarm.ok_actions,
        "InsufficientDataActions": alarm.insufficient_data_actions,
        "Trigger": trigger(alarm),
    })
}

fn trigger(alarm: &Alarm) -> Value {
    let comparison: &str = alarm.comparison.into();
    let missing_data: &str = alarm.missing_data.into();
    let mut trigger = json!({
        "Period": alarm.watched.period_seconds(),
        "EvaluationPeriods": alarm.evaluation_periods,
        "DatapointsToAlarm": alarm.datapoints_to_alarm,
        "ComparisonOperator": comparison,
        "Threshold": alarm.threshold,
        "TreatMissingData": missing_data,
        "EvaluateLowSampleCountPercentile": "",
    });
    match &alarm.watched {
        Watched::Metric(stat) => {
            let is_kept = stat.statistic.is_some();
            trigger["StatisticType"] = json!(if is_kept { "Statistic" } else { "ExtendedStatistic" });
            let name = if is_kept { stat.statistic_name.to_uppercase() } else { stat.statistic_name.clone() };
            trigger[if is_kept { "Statistic" } else { "ExtendedStatistic" }] = json!(name);
            trigger["Unit"] = Value::Null;
            if let (Value::Object(trigger), Value::Object(metric)) = (&mut trigger, metric(&stat.id)) {
                trigger.extend(metric);
            }
        }
        Watched::Calculation(sum) => {
            let expression = json!({"Id": sum.id, "Expression": sum.text, "Label": sum.label, "ReturnData": true});
            let queries = sum.metrics.iter().map(|(id, stat)| query(id, stat));
            trigger["Metrics"] = [expression].into_iter().chain(queries).collect();
        }
    }
    trigger
}

fn query(id: &str, stat: &MetricStat) -> Value {
    let stat = json!({"Metric": metric(&stat.id), "Period": stat.period_seconds, "Stat": stat.statistic_name});
    json!({"Id": id, "MetricStat": stat, "ReturnData": false})
}

/// Notices write a dimension's members in lower case.
fn metric(id: &MetricId) -> Value {
    let dimension = |(name, value): (&String, &String)| json!({"name": name, "value": value});
    let dimensions: Vec<Value> = id.dimensions.iter().map(dimension).collect();
    json!({"Namespace": id.namespace, "MetricName": id.name, "Dimensions": dimensions})
}
