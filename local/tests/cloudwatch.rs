//! The embedded CloudWatch as the Rust SDK speaks to it: what it puts it gets back, over its own protocol.

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_cloudwatch::error::ProvideErrorMetadata;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{
    Dimension, Metric, MetricDataQuery, MetricDatum, MetricStat as QueriedStat, StandardUnit, StateValue, Statistic,
    StatusCode,
};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Uri};
use local::alarms::Alarms;
use local::clock::Clock;
use local::cloudwatch::CloudWatch;
use local::metric_store::{MetricId, MetricStore};
use local::template::{Alarm, Calculation, Comparison, MetricStat, MissingData, Watched};
use tokio::net::TcpListener;

const HOUR: i64 = 3600;

/// A client of a CloudWatch of its own.
async fn client() -> Client {
    let metrics = MetricStore::new(Clock::new(None, lambda_setup::now()));
    let alarms = Alarms::new(vec![alarm()], &BTreeMap::new(), metrics.clone(), Box::new(|_| {}));
    let cloudwatch = CloudWatch::new(metrics, alarms);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer =
        async move |uri: Uri, headers: HeaderMap, body: Bytes| cloudwatch.answer(uri.path(), &headers, &body).unwrap();
    let router = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(format!("http://{address}"))
        .credentials_provider(Credentials::new("local", "local", None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// An alarm on metric math.
fn alarm() -> Alarm {
    let id = MetricId::new("Playhead", "LostEvents", &[("FunctionName", "check-completeness")]);
    let lost = MetricStat { id, statistic: "Sum".parse().ok(), statistic_name: "Sum".into(), period_seconds: 60 };
    Alarm {
        id: "LostAlarm".into(),
        name: "playhead-lost".into(),
        description: "Events are lost. #lost".into(),
        watched: Watched::Calculation(Calculation {
            id: "percent".into(),
            label: Some("Lost, percent".into()),
            text: "100 * lost".into(),
            expression: "100 * lost".parse().unwrap(),
            metrics: vec![("lost".into(), lost)],
        }),
        evaluation_periods: 5,
        datapoints_to_alarm: 3,
        threshold: 0.0,
        comparison: Comparison::GreaterThanThreshold,
        missing_data: MissingData::NotBreaching,
        alarm_actions: vec!["arn:aws:sns:us-east-1:000000000000:alarms-topic".into()],
        ok_actions: Vec::new(),
        insufficient_data_actions: Vec::new(),
    }
}

#[tokio::test]
async fn the_sdk_reads_alarms_and_sets_their_states() {
    let client = client().await;
    let set =
        client.set_alarm_state().alarm_name("playhead-lost").state_value(StateValue::Alarm).state_reason("a test");
    set.send().await.unwrap();
    let answer = client.describe_alarms().alarm_name_prefix("playhead-").send().await.unwrap();
    let [alarm] = answer.metric_alarms() else { panic!("{answer:?}") };
    assert_eq!((alarm.alarm_name(), alarm.state_value()), (Some("playhead-lost"), Some(&StateValue::Alarm)));
    assert_eq!((alarm.threshold(), alarm.datapoints_to_alarm()), (Some(0.0), Some(3)));
    assert!(alarm.state_updated_timestamp().is_some_and(|at| at.secs() > 1_700_000_000));
    assert_eq!(alarm.metrics()[0].expression(), Some("100 * lost"));
    let problem =
        client.set_alarm_state().alarm_name("x").state_value(StateValue::Ok).state_reason("a test").send().await;
    assert_eq!(problem.unwrap_err().code(), Some("ResourceNotFound"));
}

fn dimension() -> Dimension {
    Dimension::builder().name("FunctionName").value("check-size").build()
}

fn datum(value: f64, at: i64) -> MetricDatum {
    MetricDatum::builder()
        .metric_name("TotalFileSize")
        .dimensions(dimension())
        .value(value)
        .unit(StandardUnit::Bytes)
        .timestamp(DateTime::from_secs(at))
        .build()
}

fn metric() -> Metric {
    Metric::builder().namespace("Playhead").metric_name("TotalFileSize").dimensions(dimension()).build()
}

fn last_hour() -> i64 {
    lambda_setup::now().hour().plus(-1).start().0 / 1000
}

#[tokio::test]
async fn the_sdk_reads_back_what_it_puts() {
    let (client, hour) = (client().await, last_hour());
    let data = [datum(1.0, hour), datum(2.5, hour + 60), datum(4.0, hour - 1)];
    client.put_metric_data().namespace("Playhead").set_metric_data(Some(data.to_vec())).send().await.unwrap();

    let stat = QueriedStat::builder().metric(metric()).period(3600).stat("Sum").build();
    let query = MetricDataQuery::builder().id("q").metric_stat(stat).build();
    let (from, to) = (DateTime::from_secs(hour), DateTime::from_secs(hour + HOUR));
    let request = client.get_metric_data().metric_data_queries(query).start_time(from).end_time(to);
    let answer = request.send().await.unwrap();
    let result = &answer.metric_data_results()[0];
    assert_eq!((result.timestamps(), result.values()), (&[from][..], &[3.5][..]));
    assert_eq!(result.status_code(), Some(&StatusCode::Complete));

    let statistics = client.get_metric_statistics().namespace("Playhead").metric_name("TotalFileSize");
    let statistics = statistics.dimensions(dimension()).start_time(from).end_time(to).period(3600);
    let answer = statistics.statistics(Statistic::Maximum).send().await.unwrap();
    let datapoint = &answer.datapoints()[0];
    assert_eq!((datapoint.maximum(), datapoint.unit()), (Some(2.5), Some(&StandardUnit::Bytes)));

    let listed = client.list_metrics().namespace("Playhead").send().await.unwrap();
    assert_eq!(listed.metrics(), [metric()]);
}

/// The SDK compresses what is larger than 10 KiB.
#[tokio::test]
async fn large_compressed_requests_are_accepted() {
    let (client, hour) = (client().await, last_hour());
    let data: Vec<MetricDatum> = (0..1_000).map(|_| datum(1.0, hour)).collect();
    client.put_metric_data().namespace("Playhead").set_metric_data(Some(data)).send().await.unwrap();
    let listed = client.list_metrics().send().await.unwrap();
    assert_eq!(listed.metrics().len(), 1);
}

#[tokio::test]
async fn the_sdk_understands_a_refusal() {
    let client = client().await;
    let put = client.put_metric_data().namespace("AWS/Lambda").metric_data(datum(1.0, last_hour()));
    let problem = put.send().await.unwrap_err().into_service_error();
    assert!(problem.is_invalid_parameter_value_exception(), "{problem:?}");
    assert!(problem.message().unwrap_or_default().contains("AWS/"), "{problem:?}");
}
