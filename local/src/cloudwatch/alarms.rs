//! `DescribeAlarms` and `SetAlarmState`.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html>

use serde::Deserialize;
use serde_json::{Value, json};
use shared::timestamp::UnixMillis;

use super::request::{CloudWatchError, Result, position};
use crate::alarms::evaluate::State;
use crate::alarms::{Alarms, Condition};
use crate::metric_store::MetricId;
use crate::template::{Alarm, MetricStat, Watched, alarm_arn};

/// Alarms on a page, as in CloudWatch.
const PAGE: usize = 50;
const MAX_PAGE: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DescribeInput {
    alarm_names: Option<Vec<String>>,
    alarm_name_prefix: Option<String>,
    alarm_types: Option<Vec<String>>,
    state_value: Option<String>,
    action_prefix: Option<String>,
    children_of_alarm_name: Option<String>,
    parents_of_alarm_name: Option<String>,
    max_records: Option<usize>,
    next_token: Option<String>,
}

impl DescribeInput {
    fn wants(&self, alarm: &Alarm, state: State) -> bool {
        let has_prefix = |prefix: &String| {
            let actions = [&alarm.alarm_actions, &alarm.ok_actions, &alarm.insufficient_data_actions];
            actions.into_iter().flatten().any(|action| action.starts_with(prefix.as_str()))
        };
        // Without types CloudWatch gives metric alarms alone.
        self.alarm_types.as_ref().is_none_or(|types| types.iter().any(|one| one == "MetricAlarm"))
            && self.alarm_names.as_ref().is_none_or(|names| names.contains(&alarm.name))
            && self.alarm_name_prefix.as_ref().is_none_or(|prefix| alarm.name.starts_with(prefix.as_str()))
            && self.state_value.as_ref().is_none_or(|value| value == state.as_str())
            && self.action_prefix.as_ref().is_none_or(has_prefix)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SetInput {
    alarm_name: String,
    state_value: String,
    state_reason: String,
}

pub(super) fn describe_alarms(alarms: &Alarms, input: DescribeInput) -> Result<Value> {
    if input.children_of_alarm_name.is_some() || input.parents_of_alarm_name.is_some() {
        return Err(CloudWatchError::Value("there are no composite alarms locally".into()));
    }
    if let Some(value) = &input.state_value {
        state(value)?;
    }
    let page = input.max_records.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&page) {
        return Err(CloudWatchError::Value(format!("MaxRecords is {page}; 1 to {MAX_PAGE} is possible")));
    }
    let from = position(input.next_token.as_deref())?;
    let all = alarms.list();
    let found: Vec<_> = all.iter().filter(|(alarm, condition)| input.wants(alarm, condition.state)).collect();
    let shown = found.iter().skip(from).take(page);
    let shown: Vec<Value> = shown.map(|(alarm, condition)| described(alarm, condition, alarms.started())).collect();
    let mut output = json!({"MetricAlarms": shown, "CompositeAlarms": []});
    if from.saturating_add(page) < found.len() {
        output["NextToken"] = json!((from + page).to_string());
    }
    Ok(output)
}

/// Puts an alarm into a state until it is evaluated again, and does what the state's actions say.
pub(super) fn set_alarm_state(alarms: &Alarms, input: &SetInput) -> Result<()> {
    let SetInput { alarm_name, state_value, state_reason } = input;
    Ok(alarms.set(alarm_name, state(state_value)?, state_reason)?)
}

fn state(value: &str) -> Result<State> {
    let states = "OK, ALARM and INSUFFICIENT_DATA are";
    value.parse().map_err(|_| CloudWatchError::Value(format!("{value:?} is no state; {states}")))
}

fn described(alarm: &Alarm, condition: &Condition, created: UnixMillis) -> Value {
    let comparison: &str = alarm.comparison.into();
    let missing_data: &str = alarm.missing_data.into();
    let mut described = json!({
        "AlarmName": alarm.name,
        "AlarmArn": alarm_arn(&alarm.name),
        "AlarmDescription": alarm.description,
        "AlarmConfigurationUpdatedTimestamp": seconds(created),
        "ActionsEnabled": true,
        "OKActions": alarm.ok_actions,
        "AlarmActions": alarm.alarm_actions,
        "InsufficientDataActions": alarm.insufficient_data_actions,
        "StateValue": condition.state.as_str(),
        "StateReason": condition.reason,
        "StateUpdatedTimestamp": seconds(condition.since),
        "StateTransitionedTimestamp": seconds(condition.since),
        "EvaluationPeriods": alarm.evaluation_periods,
        "DatapointsToAlarm": alarm.datapoints_to_alarm,
        "Threshold": alarm.threshold,
        "ComparisonOperator": comparison,
        "TreatMissingData": missing_data,
    });
    match &alarm.watched {
        Watched::Metric(stat) => {
            let name = if stat.statistic.is_some() { "Statistic" } else { "ExtendedStatistic" };
            described[name] = json!(stat.statistic_name);
            described["Period"] = json!(stat.period_seconds);
            if let (Value::Object(described), Value::Object(metric)) = (&mut described, metric(&stat.id)) {
                described.extend(metric);
            }
        }
        Watched::Calculation(sum) => {
            let mut expression = json!({"Id": sum.id, "Expression": sum.text, "ReturnData": true});
            if let Some(label) = &sum.label {
                expression["Label"] = json!(label);
            }
            let queries = sum.metrics.iter().map(|(id, stat)| query(id, stat));
            described["Metrics"] = [expression].into_iter().chain(queries).collect();
        }
    }
    described
}

fn query(id: &str, stat: &MetricStat) -> Value {
    let stat = json!({"Metric": metric(&stat.id), "Period": stat.period_seconds, "Stat": stat.statistic_name});
    json!({"Id": id, "MetricStat": stat, "ReturnData": false})
}

fn metric(id: &MetricId) -> Value {
    let dimension = |(name, value): (&String, &String)| json!({"Name": name, "Value": value});
    let dimensions: Vec<Value> = id.dimensions.iter().map(dimension).collect();
    json!({"Namespace": id.namespace, "MetricName": id.name, "Dimensions": dimensions})
}

#[allow(clippy::cast_precision_loss)]
fn seconds(time: UnixMillis) -> f64 {
    time.0 as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::super::request::{read, with_values};
    use super::*;
    use crate::alarms::deployed;
    use rstest::rstest;

    fn alarms() -> Alarms {
        let (metrics, _) = with_values(&[]);
        Alarms::new(deployed(), &Default::default(), metrics, Box::new(|_| {}))
    }

    fn described(input: Value) -> Result<Value> {
        describe_alarms(&alarms(), read(input).unwrap())
    }

    fn names(answer: &Value) -> Vec<&str> {
        let alarms = answer["MetricAlarms"].as_array().unwrap().iter();
        alarms.map(|alarm| alarm["AlarmName"].as_str().unwrap()).collect()
    }

    #[rstest]
    #[case(json!({"AlarmNames": ["playhead-stale-data", "playhead-no-such-alarm"]}), 1)]
    #[case(json!({"AlarmNamePrefix": "playhead-lost-"}), 2)]
    #[case(json!({"AlarmNamePrefix": "playhead-lost-", "StateValue": "ALARM"}), 0)]
    #[case(json!({"AlarmNamePrefix": "playhead-lost-", "StateValue": "INSUFFICIENT_DATA"}), 2)]
    #[case(json!({"AlarmTypes": ["CompositeAlarm"]}), 0)]
    #[case(json!({"ActionPrefix": "arn:aws:sns:us-east-1:000000000000:last-resort-topic"}), 2)]
    fn alarms_are_found_by_what_is_asked(#[case] input: Value, #[case] count: usize) {
        assert_eq!(names(&described(input).unwrap()).len(), count);
    }

    #[test]
    fn pages_hold_all_alarms_and_none_twice() {
        let (mut found, mut token) = (Vec::new(), Value::Null);
        loop {
            let answer = described(json!({"MaxRecords": 20, "NextToken": token})).unwrap();
            found.extend(names(&answer).into_iter().map(str::to_owned));
            token = answer.get("NextToken").cloned().unwrap_or_default();
            if token.is_null() {
                break;
            }
        }
        let expected: Vec<_> = deployed().into_iter().map(|alarm| alarm.name).collect();
        assert_eq!(found, expected);
        assert!(found.len() > PAGE, "{}", found.len());
        assert_eq!(names(&described(json!({})).unwrap()).len(), PAGE);
    }

    #[rstest]
    #[case(json!({"MaxRecords": 0}), "InvalidParameterValue")]
    #[case(json!({"MaxRecords": 101}), "InvalidParameterValue")]
    #[case(json!({"StateValue": "FINE"}), "InvalidParameterValue")]
    #[case(json!({"NextToken": "x"}), "InvalidNextToken")]
    #[case(json!({"ParentsOfAlarmName": "x"}), "InvalidParameterValue")]
    fn what_is_not_possible_is_refused(#[case] input: Value, #[case] code: &str) {
        assert_eq!(described(input).unwrap_err().code(), code);
    }

    #[test]
    fn a_state_can_be_set_and_a_name_that_is_not_there_cannot() {
        let alarms = alarms();
        let set = |name: &str, value: &str| {
            let input = json!({"AlarmName": name, "StateValue": value, "StateReason": "to see a notice"});
            set_alarm_state(&alarms, &read(input).unwrap()).map_err(|problem| problem.code())
        };
        assert_eq!(set("playhead-lost-events", "ALARM"), Ok(()));
        let answer = describe_alarms(&alarms, read(json!({"StateValue": "ALARM"})).unwrap()).unwrap();
        assert_eq!(names(&answer), ["playhead-lost-events"]);
        assert_eq!(set("no-such-alarm", "ALARM"), Err("ResourceNotFound"));
        assert_eq!(set("playhead-lost-events", "ON"), Err("InvalidParameterValue"));
    }
}
