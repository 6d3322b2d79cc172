//! A piece of work that a function is given again and again, and what it must have done.

use std::io::Read;

use anyhow::{Context, ensure};
use axum::body::Bytes;
use bzip2::read::MultiBzDecoder;
use local::runtime_api::Reply;
use serde_json::Value;

use crate::functions::Function;
use crate::payloads;
use crate::stand_ins::{Received, StoredObject, StreamRecord};

pub(crate) struct Job {
    pub(crate) function: Function,
    pub(crate) payload: Bytes,
    /// Events in one invocation.
    pub(crate) events: u64,
    expected: Expected,
}

enum Expected {
    /// These events on the stream, in so many records, if that is known.
    OnTheStream { events: Vec<Value>, records: Option<u64> },
    /// These lines in one object.
    InTheBucket { lines: String },
}

impl Job {
    /// A POST of these events, which go into so many records: `None` where that depends on how they fill them.
    pub(crate) fn post(events: Vec<Value>, records: Option<u64>) -> Self {
        Self {
            function: Function::Ingest,
            payload: payloads::post(&payloads::body(&events)).into(),
            events: events.len() as u64,
            expected: Expected::OnTheStream { events, records },
        }
    }

    /// A batch of records that hold a line each.
    pub(crate) fn batch(lines: &[String]) -> Self {
        Self {
            function: Function::Landing,
            payload: payloads::batch(lines).into(),
            events: lines.len() as u64,
            expected: Expected::InTheBucket { lines: lines.concat() },
        }
    }

    /// What is compressed, if it lands.
    pub(crate) fn lines(&self) -> Option<&str> {
        match &self.expected {
            Expected::InTheBucket { lines } => Some(lines),
            Expected::OnTheStream { .. } => None,
        }
    }

    /// Whether an answer says that all is stored. What is wrong must not be measured.
    pub(crate) fn check_answer(&self, reply: &Reply) -> anyhow::Result<()> {
        let answer = match reply {
            Ok(answer) => answer,
            Err(problem) => anyhow::bail!("the function failed: {problem}"),
        };
        let parsed: Value = serde_json::from_slice(answer).context("the answer is no JSON")?;
        let good = match self.function {
            Function::Ingest => parsed["statusCode"] == 200,
            Function::Landing => parsed["batchItemFailures"].as_array().is_some_and(Vec::is_empty),
        };
        ensure!(good, "the function answered {}", String::from_utf8_lossy(answer));
        Ok(())
    }

    /// Whether the services got what so many invocations have to store, and in the one that was kept every event.
    pub(crate) fn check_received(&self, received: &Received, invocations: u64) -> anyhow::Result<()> {
        match &self.expected {
            Expected::OnTheStream { events, records } => {
                let (found, expected) = (received.records, records.map(|records| records * invocations));
                ensure!(
                    expected.is_none_or(|expected| found == expected),
                    "{found} records on the stream in {invocations} invocations"
                );
                check_events(&received.kept_records, events)
            }
            Expected::InTheBucket { lines } => {
                let found = received.objects;
                ensure!(found == invocations, "{found} objects in the bucket instead of {invocations}");
                let object = received.kept_objects.last().context("no object was kept")?;
                ensure!(decompress(object)? == *lines, "{} holds other lines than were handed over", object.key);
                Ok(())
            }
        }
    }
}

/// The records must hold the events, in whatever order: each key has records of its own.
fn check_events(records: &[StreamRecord], events: &[Value]) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for line in lines_of(records) {
        let line = line?;
        for member in ["id", "received_at", "request_id"] {
            ensure!(line[member].is_string(), "a line on the stream has no {member}");
        }
        ensure!(line["client"]["user_agent"].is_string(), "a line on the stream has no user agent");
        found.push(line["event"].to_string());
    }
    let mut expected: Vec<String> = events.iter().map(Value::to_string).collect();
    found.sort_unstable();
    expected.sort_unstable();
    ensure!(found == expected, "other events on the stream than were posted");
    Ok(())
}

/// All lines of records, parsed.
pub(crate) fn lines_of(records: &[StreamRecord]) -> impl Iterator<Item = anyhow::Result<Value>> {
    let lines = records.iter().flat_map(|record| record.data.split(|byte| *byte == b'\n'));
    lines
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).context("a line on the stream is no JSON"))
}

pub(crate) fn decompress(object: &StoredObject) -> anyhow::Result<String> {
    let mut lines = String::new();
    MultiBzDecoder::new(&object.body[..]).read_to_string(&mut lines).with_context(|| object.key.clone())?;
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn job() -> Job {
        Job::post(payloads::events(2, 1), Some(1))
    }

    fn received(records: u64, events: &[Value]) -> Received {
        let line = |event| json!({"id": "", "received_at": "", "request_id": "", "client": {"user_agent": ""}, "event": event});
        let data = events.iter().map(|event| format!("{}\n", line(event))).collect::<String>().into_bytes();
        let kept_records = vec![StreamRecord { partition_key: "k".into(), data }];
        Received { records, kept_records, ..Received::default() }
    }

    #[rstest]
    #[case::all(3, &[0, 1], true)]
    #[case::in_another_order(3, &[1, 0], true)]
    #[case::a_record_too_few(2, &[0, 1], false)]
    #[case::a_record_too_many(4, &[0, 1], false)]
    #[case::an_event_is_missing(3, &[0], false)]
    #[case::an_event_is_doubled(3, &[0, 1, 1], false)]
    #[case::no_events(3, &[], false)]
    fn what_is_on_the_stream_is_compared(#[case] records: u64, #[case] events: &[usize], #[case] good: bool) {
        let posted = payloads::events(2, 1);
        let found: Vec<Value> = events.iter().map(|index| posted[*index].clone()).collect();
        assert_eq!(job().check_received(&received(records, &found), 3).is_ok(), good);
    }

    #[rstest]
    #[case(Job::batch(&[]), r#"{"batchItemFailures":[]}"#, true)]
    #[case(Job::batch(&[]), r#"{"batchItemFailures":[{"itemIdentifier":"1"}]}"#, false)]
    #[case(Job::batch(&[]), "{}", false)]
    #[case(job(), r#"{"statusCode":200}"#, true)]
    #[case(job(), r#"{"statusCode":503}"#, false)]
    #[case(job(), "nothing", false)]
    fn answers_that_are_no_success_are_errors(#[case] job: Job, #[case] answer: &str, #[case] good: bool) {
        assert_eq!(job.check_answer(&Ok(Bytes::copy_from_slice(answer.as_bytes()))).is_ok(), good);
    }
}
