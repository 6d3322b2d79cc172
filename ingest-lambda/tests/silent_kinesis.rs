//! A Kinesis and an S3 that take connections and never answer.

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_sdk_kinesis::config::{Credentials, Region};
use ingest_lambda::bucket::Buckets;
use ingest_lambda::client_context::ClientContext;
use ingest_lambda::config::{ClientIp, Config, RecordCompression};
use ingest_lambda::front_door::Request;
use ingest_lambda::handler::Handler;
use ingest_lambda::kinesis::KinesisStream;
use ingest_lambda::origins::AllowedOrigins;
use ingest_lambda::s3::Bucket;
use ingest_lambda::write_keys::WriteKeys;
use lambda_runtime::Context;
use lambda_setup::sdk::SdkConfig;
use serde_json::{Value, json};
use shared::line::EventFormat;
use tokio::net::TcpListener;

fn config() -> Config {
    Config {
        stream_name: "stream".into(),
        bucket_name: "bucket".into(),
        kinesis_retry: Duration::from_secs(1),
        event_format: EventFormat::Envelope,
        client_ip: ClientIp::Off,
        client_context: ClientContext::default(),
        partition_key_fields: Vec::new(),
        key_buckets: Buckets::default(),
        record_compression: RecordCompression::Off,
        allowed_origins: AllowedOrigins::Any,
        write_keys: WriteKeys::default(),
        key_events_per_second: None,
        event_schema: None,
        max_body_bytes: 1000,
        max_record_bytes: 20_000,
    }
}

#[tokio::test]
async fn all_events_are_named_within_three_seconds_when_neither_kinesis_nor_s3_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let mut connections = Vec::new();
        loop {
            connections.push(listener.accept().await.unwrap());
        }
    });
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
    let loader = lambda_setup::sdk::loader().region(Region::new("eu-central-1")).credentials_provider(credentials);
    let sdk_config = loader.endpoint_url(endpoint).load().await;
    // It takes 2.7 s of them: a machine that stands still for the rest is tried again.
    let mut time = time_to_name_all_events(&sdk_config).await;
    for _ in 0..2 {
        if time >= Duration::from_secs(3) {
            time = time_to_name_all_events(&sdk_config).await;
        }
    }
    assert!(time < Duration::from_secs(3), "{time:?}");
    assert!(!server.is_finished());
    server.abort();
}

async fn time_to_name_all_events(sdk_config: &SdkConfig) -> Duration {
    let handler = Handler::new(
        config(),
        KinesisStream::new(sdk_config, "stream".into()),
        Bucket::new(sdk_config, "bucket".into()),
    );
    let started = Instant::now();
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(10);
    let mut context = Context::default();
    context.deadline = u64::try_from(end.as_millis()).unwrap();
    let request = Request { method: "POST".into(), path: "/".into(), body: "[{},7,{}]".into(), ..Request::default() };
    let response = handler.handle(request, context).await.unwrap();
    let time = started.elapsed();
    assert_eq!(response.status_code, 503);
    let body: Value = serde_json::from_str(&response.body).unwrap();
    assert_eq!((&body["accepted"], &body["not_stored"]), (&json!(0), &json!([0, 1, 2])));
    time
}
