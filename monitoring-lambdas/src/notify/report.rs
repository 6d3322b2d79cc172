//! What EventBridge delivers: that an alarm of another account or region changed its state, or that one, there or here, was deleted,
//! of which the alarms topic gets no notice. EventBridge itself sets `account` and `region`, and nobody but AWS can put events whose
//! source begins with `aws.`; the alarm's ARN is compared all the same.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html>

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::alarm::{About, Change, NoticeError, State, Watched, split_anchor, time};
use super::reporter::{Reporter, TrustedAccounts};

/// CloudWatch's own limits, in characters.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricAlarm.html>
const MAX_NAME_CHARACTERS: usize = 255;
const MAX_DESCRIPTION_CHARACTERS: usize = 1_024;
const MAX_REASON_CHARACTERS: usize = 1_023;
/// The most dimensions of a metric.
const MAX_DIMENSIONS: usize = 30;
const MAX_DIMENSION_CHARACTERS: usize = 1_024;

/// An alarm's change or deletion, as it was reported.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// No other event is a report.
    #[serde(rename = "detail-type")]
    kind: Kind,
    source: String,
    account: String,
    region: String,
    time: String,
    resources: Vec<String>,
    detail: Value,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Kind {
    #[serde(rename = "CloudWatch Alarm State Change")]
    StateChange,
    #[serde(rename = "CloudWatch Alarm Configuration Change")]
    ConfigurationChange,
}

/// A report that is not acted on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("an alarm of another account is reported, which TrustedAccounts does not have")]
    Untrusted,
    #[error("a report names no account and region, or is not CloudWatch's")]
    Unknown,
    #[error("a report's alarm is not of the account and region that it comes from, or has another name")]
    Contradiction,
    #[error("the {0} of a reported alarm is longer than CloudWatch's can be")]
    TooLong(&'static str),
    #[error("a report is not a CloudWatch alarm's")]
    NotAnAlarm(#[source] serde_json::Error),
    /// An alarm that is made or changed begins and ends nothing.
    #[error("a report of an alarm's configuration is not of its deletion")]
    NotDeleted,
    #[error(transparent)]
    Notice(#[from] NoticeError),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    alarm_name: String,
    state: AlarmState,
    /// Of a change of the configuration: `create`, `update` or `delete`.
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    configuration: Configuration,
}

#[derive(Debug, Deserialize)]
struct AlarmState {
    value: String,
    #[serde(default)]
    reason: String,
    timestamp: String,
}

#[derive(Debug, Default, Deserialize)]
struct Configuration {
    #[serde(default)]
    description: String,
    #[serde(default)]
    metrics: Vec<Query>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Query {
    label: Option<String>,
    metric_stat: Option<Stat>,
    #[serde(default)]
    return_data: bool,
}

#[derive(Debug, Deserialize)]
struct Stat {
    metric: MetricOf,
    period: u64,
    stat: String,
}

#[derive(Debug, Deserialize)]
struct MetricOf {
    namespace: String,
    name: String,
    #[serde(default)]
    dimensions: BTreeMap<String, String>,
}

impl Report {
    /// The changes that it reports, if it is what it says and its account is trusted; `home` is where notify runs. A deletion there is
    /// one of the alarm as the alarms topic knows it, too: an account and region has only one alarm of a name.
    pub(crate) fn changes(&self, trusted: &TrustedAccounts, home: &Reporter) -> Result<Vec<Change>, ReportError> {
        let reporter = Reporter::new(&self.account, &self.region).filter(|_| self.source == "aws.cloudwatch");
        let reporter = reporter.ok_or(ReportError::Unknown)?;
        let is_here = matches!(self.kind, Kind::ConfigurationChange) && reporter == *home;
        let is_trusted = trusted.include(&reporter);
        if !is_trusted && !is_here {
            return Err(ReportError::Untrusted);
        }
        let change = self.change(&reporter)?;
        let here = is_here.then(|| Change { reporter: None, ..change.clone() });
        let reported = is_trusted.then_some(Change { reporter: Some(reporter), ..change });
        Ok(here.into_iter().chain(reported).collect())
    }

    fn change(&self, reporter: &Reporter) -> Result<Change, ReportError> {
        let detail = Detail::deserialize(&self.detail).map_err(ReportError::NotAnAlarm)?;
        if !matches!(&self.resources[..], [arn] if is_alarm(arn, reporter, &detail.alarm_name)) {
            return Err(ReportError::Contradiction);
        }
        detail.check_lengths()?;
        let noticed_at = time(&self.time)?;
        let (name, changed_at) = (detail.alarm_name.clone(), time(&detail.state.timestamp)?);
        let (state, at) = match self.kind {
            Kind::StateChange => (State::of(&detail.state.value, &name)?, changed_at),
            // The event's time is whole seconds: an alarm that was on for less must not outlast its end.
            Kind::ConfigurationChange if detail.operation.as_deref() == Some("delete") => {
                (State::Deleted, noticed_at.max(changed_at))
            }
            Kind::ConfigurationChange => return Err(ReportError::NotDeleted),
        };
        Ok(Change { name, state, at, noticed_at, about: detail.about(), reporter: None })
    }
}

/// Whether it is the ARN of that alarm there: `arn:aws:cloudwatch:eu-west-1:111122223333:alarm:playhead-prod-lost-events`.
fn is_alarm(arn: &str, at: &Reporter, alarm: &str) -> bool {
    let parts: Vec<_> = arn.splitn(7, ':').collect();
    let [scheme, partition, service, region, account, kind, name] = parts[..] else { return false };
    let is_of_aws = partition == "aws" || partition.starts_with("aws-");
    (scheme, service, kind) == ("arn", "cloudwatch", "alarm")
        && is_of_aws
        && (account, region, name) == (&*at.account, &*at.region, alarm)
}

impl Detail {
    fn check_lengths(&self) -> Result<(), ReportError> {
        let Self { alarm_name, state, configuration, operation: _ } = self;
        let stats = || configuration.metrics.iter().filter_map(|query| query.metric_stat.as_ref());
        let is_long = |text: &str, most: usize| text.chars().count() > most;
        let has_long_dimensions = |stat: &Stat| {
            let dimensions = &stat.metric.dimensions;
            let mut texts = dimensions.iter().flat_map(|(name, value)| [name, value]);
            dimensions.len() > MAX_DIMENSIONS || texts.any(|text| is_long(text, MAX_DIMENSION_CHARACTERS))
        };
        let has_long_names = |stat: &Stat| {
            [&stat.metric.namespace, &stat.metric.name, &stat.stat].iter().any(|one| is_long(one, MAX_NAME_CHARACTERS))
        };
        let labels = configuration.metrics.iter().filter_map(|query| query.label.as_ref());
        let too_long = [
            ("name", is_long(alarm_name, MAX_NAME_CHARACTERS)),
            ("description", is_long(&configuration.description, MAX_DESCRIPTION_CHARACTERS)),
            ("reason", is_long(&state.reason, MAX_REASON_CHARACTERS)),
            ("dimensions", stats().any(has_long_dimensions)),
            ("metric", stats().any(has_long_names)),
            ("label", labels.into_iter().any(|label| is_long(label, MAX_NAME_CHARACTERS))),
        ];
        match too_long.into_iter().find(|(_, is_long)| *is_long) {
            Some((what, _)) => Err(ReportError::TooLong(what)),
            None => Ok(()),
        }
    }

    fn about(self) -> About {
        let (description, anchor) = split_anchor(&self.configuration.description);
        let watched = self.configuration.watched(&self.state.reason);
        About { description, anchor, reason: self.state.reason, watched, details: Vec::new() }
    }
}

impl Configuration {
    /// Reports don't have the alarm's condition; the reason has, in CloudWatch's words.
    fn watched(self, reason: &str) -> Option<Watched> {
        let (comparison, threshold) = condition(reason)?;
        let compared = self.metrics.iter().find(|query| query.return_data && query.metric_stat.is_none());
        let calculated = compared.and_then(|query| query.label.clone());
        let Stat { metric, period, stat } = self.metrics.into_iter().find_map(|query| query.metric_stat)?;
        Some(Watched {
            namespace: metric.namespace,
            metric: metric.name,
            dimensions: metric.dimensions.into_iter().collect(),
            statistic: stat,
            period: period.max(1),
            comparison: comparison.to_owned(),
            threshold,
            calculated,
        })
    }
}

/// How a reason states the condition that was met, or not.
const CONDITIONS: [(&str, &str); 4] = [
    ("greater than or equal to the threshold (", "GreaterThanOrEqualToThreshold"),
    ("greater than the threshold (", "GreaterThanThreshold"),
    ("less than or equal to the threshold (", "LessThanOrEqualToThreshold"),
    ("less than the threshold (", "LessThanThreshold"),
];

/// `… [3.0 (21/11/26 09:35:00)] was greater than the threshold (0.0) (…`
fn condition(reason: &str) -> Option<(&'static str, f64)> {
    CONDITIONS.iter().find_map(|(words, comparison)| {
        let (_, rest) = reason.split_once(words)?;
        let threshold: f64 = rest.split(')').next()?.parse().ok()?;
        threshold.is_finite().then_some((*comparison, threshold))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::notify::alarm::Invocation;
    use rstest::rstest;
    use serde_json::json;

    pub(crate) fn event(account: &str, region: &str, alarm: &str, state: &str, time: &str) -> Value {
        json!({
            "version": "0", "id": "c4c1c1c9", "detail-type": "CloudWatch Alarm State Change", "source": "aws.cloudwatch",
            "account": account, "time": format!("{time}Z"), "region": region,
            "resources": [format!("arn:aws:cloudwatch:{region}:{account}:alarm:{alarm}")],
            "detail": {
                "alarmName": alarm,
                "configuration": {
                    "description": "It is wrong. #it",
                    "metrics": [{"id": "m", "returnData": true, "metricStat": {
                        "metric": {"namespace": "Playhead", "name": "BrokenObjects", "dimensions": {"FunctionName": "f"}},
                        "period": 300, "stat": "Maximum"}}],
                },
                "previousState": {"value": "OK"},
                "state": {"value": state, "timestamp": format!("{time}.000+0000"),
                    "reason": "Threshold Crossed: 1 datapoint [3.0 (21/11/26 09:35:00)] was greater than the threshold (0.0)."},
            },
        })
    }

    /// Made of the event above, as CloudWatch documents it: without a reason.
    pub(crate) fn deletion(account: &str, region: &str, alarm: &str, state: &str, time: &str) -> Value {
        let mut event = event(account, region, alarm, state, time);
        event["detail-type"] = json!("CloudWatch Alarm Configuration Change");
        event["detail"]["operation"] = json!("delete");
        event["detail"]["state"] = json!({"value": state, "timestamp": "2026-11-21T09:30:00.500+0000"});
        event
    }

    const HOME: (&str, &str) = ("123456789012", "eu-central-1");

    fn sound() -> Value {
        event("111122223333", "eu-west-1", "prod-broken", "ALARM", "2026-11-21T09:40:12")
    }

    fn changes(event: &Value, trusted: &str) -> Result<Vec<Change>, ReportError> {
        let Invocation::Report(report) = serde_json::from_value(event.clone()).unwrap() else { panic!("no report") };
        report.changes(&TrustedAccounts::parse(trusted).unwrap(), &Reporter::new(HOME.0, HOME.1).unwrap())
    }

    fn change(event: &Value) -> Result<Change, ReportError> {
        let mut changes = changes(event, "111122223333")?;
        assert_eq!(changes.len(), 1);
        Ok(changes.remove(0))
    }

    #[test]
    fn a_report_says_what_a_notice_says_and_where_from() {
        let change = change(&sound()).unwrap();
        assert_eq!((&*change.name, change.state), ("prod-broken", State::Alarm));
        assert_eq!(change.reporter.unwrap().to_string(), "account 111122223333, eu-west-1");
        assert_eq!(change.about.anchor.as_deref(), Some("it"));
        let watched = change.about.watched.unwrap();
        assert_eq!((&*watched.comparison, watched.threshold, watched.period), ("GreaterThanThreshold", 0.0, 300));
        assert_eq!(watched.dimensions, [("FunctionName".to_owned(), "f".to_owned())]);
    }

    #[rstest]
    #[case("ALARM", "2026-11-21T09:40:12", "2026-11-21T09:40:12.000Z")]
    #[case("OK", "2026-11-21T09:40:12", "2026-11-21T09:40:12.000Z")]
    #[case("INSUFFICIENT_DATA", "2026-11-21T09:40:12", "2026-11-21T09:40:12.000Z")]
    #[case::within_a_second_of_its_beginning("ALARM", "2026-11-21T09:30:00", "2026-11-21T09:30:00.500Z")]
    fn a_deletion_is_an_end_at_its_own_time(#[case] state: &str, #[case] time: &str, #[case] at: &str) {
        let change = change(&deletion("111122223333", "eu-west-1", "prod-broken", state, time)).unwrap();
        assert_eq!((&*change.name, change.state, &*change.at.rfc3339()), ("prod-broken", State::Deleted, at));
        assert_eq!(change.reporter, Reporter::new("111122223333", "eu-west-1"));
    }

    #[rstest]
    #[case("create")]
    #[case("update")]
    fn another_change_of_the_configuration_is_no_end(#[case] operation: &str) {
        let mut event = deletion("111122223333", "eu-west-1", "prod-broken", "ALARM", "2026-11-21T09:40:12");
        event["detail"]["operation"] = json!(operation);
        assert!(matches!(change(&event), Err(ReportError::NotDeleted)));
        event["detail"].as_object_mut().unwrap().remove("operation");
        assert!(matches!(change(&event), Err(ReportError::NotDeleted)));
    }

    #[rstest]
    #[case::here(HOME, "", &[None])]
    #[case::here_and_trusted(HOME, HOME.0, &[None, Some(HOME)])]
    #[case::in_another_region((HOME.0, "eu-west-1"), HOME.0, &[Some((HOME.0, "eu-west-1"))])]
    fn a_deletion_where_notify_runs_is_of_its_own_alarm(
        #[case] (account, region): (&str, &str),
        #[case] trusted: &str,
        #[case] expected: &[Option<(&str, &str)>],
    ) {
        let event = deletion(account, region, "prod-broken", "ALARM", "2026-11-21T09:40:12");
        let reporters: Vec<_> = changes(&event, trusted).unwrap().into_iter().map(|change| change.reporter).collect();
        let expected: Vec<_> = expected.iter().map(|place| place.and_then(|(a, r)| Reporter::new(a, r))).collect();
        assert_eq!(reporters, expected);
    }

    #[test]
    fn nothing_but_a_deletion_is_taken_of_the_own_account_and_region_without_trust() {
        let on = event(HOME.0, HOME.1, "prod-broken", "ALARM", "2026-11-21T09:40:12");
        assert!(matches!(changes(&on, ""), Err(ReportError::Untrusted)));
        let elsewhere = deletion(HOME.0, "eu-west-1", "prod-broken", "ALARM", "2026-11-21T09:40:12");
        assert!(matches!(changes(&elsewhere, ""), Err(ReportError::Untrusted)));
    }

    #[test]
    fn an_event_of_a_schedule_is_no_report() {
        let event = json!({"detail-type": "Scheduled Event", "source": "aws.events", "account": "111122223333", "region": "eu-west-1",
            "time": "2026-11-21T09:45:00Z", "resources": ["arn:aws:events:eu-west-1:111122223333:rule/x"], "detail": {}});
        assert!(matches!(serde_json::from_value(event).unwrap(), Invocation::Tick(_)));
    }

    #[rstest]
    #[case::of_another_account("/account", json!("444455556666"), "Untrusted")]
    #[case::of_no_account("/account", json!("../../etc"), "Unknown")]
    #[case::of_no_region("/region", json!("eu-west-1/../x"), "Unknown")]
    #[case::not_of_cloudwatch("/source", json!("custom"), "Unknown")]
    #[case::of_another_region("/region", json!("us-east-1"), "Contradiction")]
    #[case::another_name("/detail/alarmName", json!("prod-other"), "Contradiction")]
    #[case::no_arn("/resources", json!([]), "Contradiction")]
    #[case::two_arns("/resources", json!(["arn:aws:cloudwatch:eu-west-1:111122223333:alarm:prod-broken", "x"]),
        "Contradiction")]
    #[case::an_arn_of_another_account("/resources/0", json!("arn:aws:cloudwatch:eu-west-1:444455556666:alarm:prod-broken"),
        "Contradiction")]
    #[case::an_arn_of_another_service("/resources/0", json!("arn:aws:sns:eu-west-1:111122223333:alarm:prod-broken"),
        "Contradiction")]
    #[case::no_detail("/detail", json!([]), "NotAnAlarm")]
    #[case::another_state("/detail/state/value", json!("INSUFFICIENT_DATA"), "Notice")]
    #[case::no_time("/detail/state/timestamp", json!("noon"), "Notice")]
    fn a_report_that_lies_or_is_not_trusted_is_refused(
        #[case] member: &str,
        #[case] value: Value,
        #[case] expected: &str,
    ) {
        let mut event = sound();
        *event.pointer_mut(member).unwrap() = value;
        let error = change(&event).unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
    }

    #[rstest]
    #[case("/detail/configuration/description", MAX_DESCRIPTION_CHARACTERS)]
    #[case("/detail/state/reason", MAX_REASON_CHARACTERS)]
    #[case("/detail/configuration/metrics/0/metricStat/stat", MAX_NAME_CHARACTERS)]
    #[case("/detail/configuration/metrics/0/metricStat/metric/name", MAX_NAME_CHARACTERS)]
    #[case("/detail/configuration/metrics/0/metricStat/metric/dimensions/FunctionName", MAX_DIMENSION_CHARACTERS)]
    fn a_report_may_be_as_long_as_cloudwatch_writes_it_and_no_longer(#[case] member: &str, #[case] most: usize) {
        let mut event = sound();
        *event.pointer_mut(member).unwrap() = json!("é".repeat(most));
        assert!(change(&event).is_ok());
        *event.pointer_mut(member).unwrap() = json!("é".repeat(most + 1));
        assert!(matches!(change(&event), Err(ReportError::TooLong(_))));
    }

    #[test]
    fn an_alarm_may_have_the_longest_name_and_no_longer() {
        let named = |length| event("111122223333", "eu-west-1", &"x".repeat(length), "OK", "2026-11-21T09:40:12");
        assert!(change(&named(MAX_NAME_CHARACTERS)).is_ok());
        assert!(matches!(change(&named(MAX_NAME_CHARACTERS + 1)), Err(ReportError::TooLong("name"))));
    }

    #[test]
    fn a_metric_may_have_thirty_dimensions() {
        let with = |count: usize| {
            let mut event = sound();
            let dimensions: BTreeMap<_, _> = (0..count).map(|number| (format!("d{number}"), "v")).collect();
            event["detail"]["configuration"]["metrics"][0]["metricStat"]["metric"]["dimensions"] = json!(dimensions);
            change(&event)
        };
        assert!(with(MAX_DIMENSIONS).is_ok());
        assert!(matches!(with(MAX_DIMENSIONS + 1), Err(ReportError::TooLong("dimensions"))));
    }

    #[rstest]
    #[case("was greater than or equal to the threshold (5.0) (…", Some(("GreaterThanOrEqualToThreshold", 5.0)))]
    #[case("were less than the threshold (1.0).", Some(("LessThanThreshold", 1.0)))]
    #[case("was less than or equal to the threshold (-2.5).", Some(("LessThanOrEqualToThreshold", -2.5)))]
    #[case("was greater than the threshold (NaN).", None)]
    #[case("no datapoints were received for 1 period", None)]
    #[case("greater than the threshold (", None)]
    fn a_reason_states_the_condition(#[case] reason: &str, #[case] expected: Option<(&str, f64)>) {
        assert_eq!(condition(reason), expected);
    }
}
