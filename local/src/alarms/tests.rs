use super::*;
use crate::clock::Clock;
use crate::metric_store::{MetricId, Sample};
use rstest::rstest;
use serde_json::{Value, json};

/// The minute 1,000, in which the stack starts.
const FIRST: i64 = 1_000;

struct Played {
    alarms: Alarms,
    metrics: MetricStore,
    notices: Arc<Mutex<Vec<Notice>>>,
}

impl Played {
    /// The deployed alarms, at this pace, with these parameters given.
    fn new(pace: &str, parameters: &[&str]) -> Self {
        let origin = format!("1970-01-01T16:40:00.000Z {pace}").parse().unwrap();
        let metrics = MetricStore::new(Clock::new(Some(origin), lambda_setup::now()));
        let notices: Arc<Mutex<Vec<Notice>>> = Arc::default();
        let sent = notices.clone();
        let parameters = parameters.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
        let publish = Box::new(move |notice: &Notice| sent.lock().push(notice.clone()));
        let alarms = Alarms::new(deployed(), &parameters, metrics.clone(), publish);
        Self { alarms, metrics, notices }
    }

    fn put(&self, namespace: &str, name: &str, function: &str, minute: i64, value: f64) {
        let id = MetricId::new(namespace, name, &[("FunctionName", function)]);
        self.metrics.record(&id, None, UnixMillis(minute * MILLIS_PER_MINUTE), Sample::of(value)).unwrap();
    }

    fn evaluate(&self, minutes: std::ops::RangeInclusive<i64>) {
        minutes.for_each(|minute| self.alarms.evaluate(minute));
    }

    fn state(&self, name: &str) -> &'static str {
        let all = self.alarms.list();
        let found = all.iter().find(|(alarm, _)| alarm.name == format!("playhead-{name}"));
        found.unwrap().1.state.as_str()
    }

    /// The alarms in ALARM.
    fn on(&self) -> Vec<String> {
        let all = self.alarms.list();
        let on = all.iter().filter(|(_, condition)| condition.state == State::Alarm);
        on.map(|(alarm, _)| alarm.name.replace("playhead-", "")).collect()
    }

    fn subjects(&self) -> Vec<String> {
        self.notices.lock().iter().map(|notice| notice.subject.clone()).collect()
    }
}

#[test]
fn an_alarm_goes_on_and_off_and_its_topic_gets_what_cloudwatch_sends() {
    let played = Played::new("x1", &[]);
    for minute in [FIRST, FIRST + 1] {
        played.put("Playhead", "AcceptedEvents", "ingest-lambda", minute, 40.0);
        played.put("Playhead", "SpilledEvents", "ingest-lambda", minute, 10.0);
    }
    played.evaluate(FIRST + 1..=FIRST + 1);
    assert_eq!(played.state("warning-spilled-events"), "OK");
    played.put("AWS/Lambda", "Invocations", "check-recency", FIRST + 2, 1.0);
    played.evaluate(FIRST + 2..=FIRST + 5);
    assert_eq!(played.on(), ["warning-spilled-events"]);
    played.evaluate(FIRST + 6..=FIRST + 6);
    assert_eq!(played.on(), [] as [String; 0]);
    let name = "playhead-warning-spilled-events";
    let region = "US East (N. Virginia)";
    assert_eq!(played.subjects(), [format!("ALARM: \"{name}\" in {region}"), format!("OK: \"{name}\" in {region}")]);
    let notice = played.notices.lock()[0].clone();
    assert_eq!(notice.topic, "alarms-topic");
    let mut message: Value = serde_json::from_str(&notice.text).unwrap();
    assert!(message["StateChangeTime"].take().as_str().unwrap().ends_with("+0000"));
    let topic = "arn:aws:sns:us-east-1:000000000000:alarms-topic";
    let metric = |name: &str| {
        let dimensions = [json!({"name": "FunctionName", "value": "ingest-lambda"})];
        let metric = json!({"Namespace": "Playhead", "MetricName": name, "Dimensions": dimensions});
        json!({"Metric": metric, "Period": 60, "Stat": "Sum"})
    };
    let expected = json!({
        "AlarmName": name,
        "AlarmDescription": "Kinesis does not take events in time; they go to S3 (percent of accepted events). #spilled-events",
        "AWSAccountId": "000000000000",
        "NewStateValue": "ALARM",
        "NewStateReason":
            "Threshold Crossed: 2 out of the last 5 datapoints [25, 25] greater than the threshold (0.1).",
        "StateChangeTime": null,
        "Region": region,
        "AlarmArn": format!("arn:aws:cloudwatch:us-east-1:000000000000:alarm:{name}"),
        "OldStateValue": "OK",
        "AlarmActions": [topic],
        "OKActions": [topic],
        "InsufficientDataActions": [],
        "Trigger": {
            "Period": 60, "EvaluationPeriods": 5, "DatapointsToAlarm": 2, "ComparisonOperator": "GreaterThanThreshold",
            "Threshold": 0.1, "TreatMissingData": "notBreaching", "EvaluateLowSampleCountPercentile": "",
            "Metrics": [
                {"Id": "percent", "Expression": "100 * spilled / accepted", "ReturnData": true,
                    "Label": "SpilledEvents, percent of accepted events"},
                {"Id": "spilled", "MetricStat": metric("SpilledEvents"), "ReturnData": false},
                {"Id": "accepted", "MetricStat": metric("AcceptedEvents"), "ReturnData": false},
            ],
        },
    });
    assert_eq!(message, expected);
}

#[test]
fn a_stack_without_a_value_has_no_alarm_before_its_checks_could_have_run() {
    let played = Played::new("x1", &[]);
    played.evaluate(FIRST + 1..=FIRST + 4);
    assert_eq!((played.on(), played.subjects()), (Vec::new(), Vec::new()));
    assert_eq!(played.state("check-recency-did-not-run"), "INSUFFICIENT_DATA");
    assert_eq!(played.state("lost-events"), "OK");
    // Five minutes are its period: from then on it should have run.
    played.evaluate(FIRST + 5..=FIRST + 5);
    assert_eq!(played.on(), ["check-recency-did-not-run"]);
}

#[test]
fn on_a_fast_clock_a_check_has_fifteen_real_seconds_to_run() {
    let played = Played::new("x60", &[]);
    played.put("AWS/Lambda", "Invocations", "check-recency", FIRST + 1, 1.0);
    played.evaluate(FIRST + 2..=FIRST + 16);
    assert_eq!(played.state("check-recency-did-not-run"), "OK");
    played.evaluate(FIRST + 17..=FIRST + 17);
    assert_eq!(played.state("check-recency-did-not-run"), "ALARM");
}

#[rstest]
#[case::nobody_gave_the_number(&[], "INSUFFICIENT_DATA")]
#[case::it_was_given(&["MaximumDataAgeSeconds"], "ALARM")]
fn an_alarm_on_a_number_of_the_deployment_needs_the_number(#[case] parameters: &[&str], #[case] expected: &str) {
    let played = Played::new("x1", parameters);
    played.put("Playhead", "DataFreshness", "check-recency", FIRST, 1e9);
    played.evaluate(FIRST + 1..=FIRST + 1);
    assert_eq!(played.state("stale-data"), expected);
}

#[test]
fn hours_of_before_the_start_are_no_alarm_until_the_stack_has_caught_up() {
    let played = Played::new("x1", &[]);
    let last = FIRST + CATCHING_UP - 1;
    played.put("Playhead", "LatePartitions", "check-recency", FIRST, 1.0);
    played.evaluate(FIRST + 1..=FIRST + 1);
    assert_eq!(played.state("warning-late-partitions"), "INSUFFICIENT_DATA");
    played.evaluate(last..=last);
    assert_eq!(played.state("warning-late-partitions"), "INSUFFICIENT_DATA");
    played.evaluate(last + 1..=last + 1);
    assert_eq!(played.state("warning-late-partitions"), "OK");
}

#[test]
fn those_alarms_are_there() {
    let deployed = deployed();
    for id in NEEDS.into_iter().map(|(id, _)| id).chain(OF_HOURS_BEFORE) {
        assert!(deployed.iter().any(|alarm| alarm.id == id), "{id}");
    }
}

#[test]
fn a_percentile_of_which_no_values_are_kept_is_missing() {
    let played = Played::new("x1", &[]);
    played.put("AWS/Lambda", "Duration", "ingest-lambda", FIRST, 1e9);
    played.evaluate(FIRST + 1..=FIRST + 1);
    assert_eq!(played.state("warning-ingest-slow"), "OK");
}

#[test]
fn an_alarm_that_ignores_missing_data_stays_on() {
    let played = Played::new("x1", &[]);
    played.put("Playhead", "BrokenObjects", "check-recency", FIRST, 1.0);
    played.evaluate(FIRST + 1..=FIRST + 60);
    assert_eq!(played.state("broken-objects"), "ALARM");
    let of_it = played.subjects().into_iter().filter(|subject| subject.contains("broken-objects"));
    assert_eq!(of_it.count(), 1);
}

#[test]
fn a_stack_that_starts_again_sends_the_ok_that_is_owed() {
    let file = std::env::temp_dir().join(format!("alarms-{}.json", uuid::Uuid::new_v4()));
    let mut first = Played::new("x1", &[]);
    first.alarms = first.alarms.kept_in(&file).unwrap();
    first.put("Playhead", "LostEvents", "check-completeness", FIRST, 7.0);
    first.evaluate(FIRST + 1..=FIRST + 1);
    let mut second = Played::new("x1", &[]);
    second.alarms = second.alarms.kept_in(&file).unwrap();
    assert_eq!(second.on(), ["lost-events"]);
    second.evaluate(FIRST + 1..=FIRST + 1);
    assert_eq!(second.subjects(), ["OK: \"playhead-lost-events\" in US East (N. Virginia)"]);
    std::fs::write(&file, "{").unwrap();
    assert!(Played::new("x1", &[]).alarms.kept_in(&file).is_err());
}
