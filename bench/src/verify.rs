//! Whether the references do the same job: each gets what the functions get, and must answer and store the same.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::function_process::FunctionProcess;
use crate::functions::{Function, Places, Subject};
use crate::job::{decompress, lines_of};
use crate::payloads;
use crate::stand_ins::{Received, StandIns, StoredObject};

/// Metadata that each function's objects have.
const METADATA: [&str; 7] = [
    "last-sequence-number",
    "record-count",
    "event-count",
    "uncompressed-bytes",
    "uncompressed-sha256",
    "earliest-received-at",
    "latest-received-at",
];

/// An input, by a name for people.
struct Case {
    name: &'static str,
    function: Function,
    payload: Bytes,
}

/// All that counts of what a function made of an input.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    answer: Value,
    /// The events' lines by partition key, in the order of the stream, without what differs from run to run.
    on_the_stream: BTreeMap<String, Vec<Value>>,
    /// Objects by key.
    in_the_bucket: BTreeMap<String, ReadObject>,
}

#[derive(Debug, Clone, PartialEq)]
struct ReadObject {
    lines: String,
    metadata: BTreeMap<&'static str, String>,
}

/// Prints a line for each input and reference. The first subject is what the others are compared with.
///
/// # Errors
///
/// At the first difference.
pub(crate) fn verify(runtime: &Runtime, places: &Places, references: &[Subject]) -> anyhow::Result<()> {
    for case in cases() {
        let expected = runtime.block_on(outcome(places, Subject::Rust, &case)).context(case.name)?;
        let stored = expected.on_the_stream.len() + expected.in_the_bucket.len();
        for reference in references {
            let found = runtime.block_on(outcome(places, *reference, &case));
            let found = found.with_context(|| format!("{}, {reference}", case.name))?;
            if found != expected {
                bail!("{}: {reference} differs\nRust: {expected:#?}\n{reference}: {found:#?}", case.name);
            }
            println!("{}: {reference} as Rust, with {stored} keys", case.name);
        }
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let post = |name, body: String| Case { name, function: Function::Ingest, payload: payloads::post(&body).into() };
    let events = |count, sessions| payloads::body(&payloads::events(count, sessions));
    let lines: Vec<String> = (0..100).map(payloads::line).collect();
    let rejected = "{\"v\":1,\"received_at\":\"2026-11-21T09:32:01.000Z\",\"rejected\":{\"reason\":\"too_deep\"}}\n";
    let mixed = [lines[..3].concat(), rejected.into(), lines[3].clone()];
    let batch =
        |name, lines: &[String]| Case { name, function: Function::Landing, payload: payloads::batch(lines).into() };
    vec![
        post("1 event", events(1, 1)),
        post("20 events of one key", events(20, 1)),
        post("20 events of 20 keys", events(20, 20)),
        post("events in a frame", json!({"sent": 1, "events": payloads::events(2, 2)}).to_string()),
        post("more records than a call takes", events(1_001, 501)),
        post("more bytes than a record holds", events(3_000, 1)),
        post("an event without an id or a key", r#"{"type":"play","title":"é パン"}"#.into()),
        post("what is no event between events", format!("[7,{},null]", payloads::event_of(100))),
        batch("100 records", &lines),
        batch("several lines a record, and rejected ones", &mixed),
    ]
}

async fn outcome(places: &Places, subject: Subject, case: &Case) -> anyhow::Result<Outcome> {
    let stand_ins = StandIns::start().await?;
    stand_ins.keep();
    let mut process = FunctionProcess::start(places, subject, case.function, stand_ins).await?;
    let answer = match process.invoke(&case.payload).await? {
        Ok(answer) => comparable_answer(&answer)?,
        Err(problem) => bail!("the function failed: {problem}"),
    };
    let received = process.stand_ins.take();
    Ok(Outcome { answer, on_the_stream: on_the_stream(&received)?, in_the_bucket: in_the_bucket(&received)? })
}

/// Status and body of a response, or an acknowledgement as it is.
fn comparable_answer(answer: &[u8]) -> anyhow::Result<Value> {
    let answer: Value = serde_json::from_slice(answer)?;
    match answer["body"].as_str() {
        Some(body) => Ok(json!([answer["statusCode"], serde_json::from_str::<Value>(body)?])),
        None => Ok(answer),
    }
}

/// Ids that a function makes are compared by their being there, and so is a key that is the request's. What is rejected
/// the references name in the answer alone.
fn on_the_stream(received: &Received) -> anyhow::Result<BTreeMap<String, Vec<Value>>> {
    let mut by_key: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for record in &received.kept_records {
        for line in lines_of(std::slice::from_ref(record)) {
            let mut line = line?;
            if line.get("event").is_none() {
                continue;
            }
            if line["event"].get("id").is_none() {
                ensure!(line["id"].is_string(), "a line has no id");
                line["id"] = "made by the function".into();
            }
            by_key.entry(record.partition_key.clone()).or_default().push(line);
        }
    }
    Ok(by_key)
}

fn in_the_bucket(received: &Received) -> anyhow::Result<BTreeMap<String, ReadObject>> {
    let read = |object: &StoredObject| {
        let entries = METADATA.iter().filter_map(|name| Some((*name, object.metadata.get(*name)?.clone())));
        let metadata: BTreeMap<_, _> = entries.collect();
        ensure!(metadata.len() == METADATA.len(), "{} has not all metadata", object.key);
        Ok((object.key.clone(), ReadObject { lines: decompress(object)?, metadata }))
    };
    received.kept_objects.iter().map(read).collect()
}
