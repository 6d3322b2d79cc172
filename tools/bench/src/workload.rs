//! The workloads: what an invocation is given, and what it must store.

use std::io::Read;

use anyhow::{Context, bail, ensure};
use axum::body::Bytes;
use bzip2::read::MultiBzDecoder;
use local::runtime_api::Reply;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::frame::{FrameReader, is_frame};

use crate::implementation::Function;
use crate::payloads;
use crate::services::{Object, Record, Stored};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Workload {
    IngestOne,
    IngestTwenty,
    LandingSmall,
    LandingLarge,
    LandingSmallFrames,
    LandingFrames,
}

impl Workload {
    pub(crate) const ALL: [Self; 6] = [
        Self::IngestOne,
        Self::IngestTwenty,
        Self::LandingSmall,
        Self::LandingLarge,
        Self::LandingSmallFrames,
        Self::LandingFrames,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::IngestOne => "ingest, 1 event",
            Self::IngestTwenty => "ingest, 20 events",
            Self::LandingSmall => "landing, 100 records of 1 event",
            Self::LandingLarge => "landing, 100 records of 20 events",
            Self::LandingSmallFrames => "landing, 100 frames of 1 event",
            Self::LandingFrames => "landing, 100 frames of 20 events",
        }
    }

    pub(crate) fn job(self) -> Job {
        match self {
            Self::IngestOne => Job::post(payloads::events(1)),
            Self::IngestTwenty => Job::post(payloads::events(20)),
            Self::LandingSmall => Job::batch(&payloads::records(100, 1)),
            Self::LandingLarge => Job::batch(&payloads::records(100, 20)),
            Self::LandingSmallFrames => Job::batch_of_frames(&payloads::records(100, 1)),
            Self::LandingFrames => Job::batch_of_frames(&payloads::records(100, 20)),
        }
    }

    /// Divides the invocations: heavier work needs fewer.
    pub(crate) fn weight(self) -> u32 {
        match self {
            Self::LandingLarge | Self::LandingFrames => 20,
            _ => 1,
        }
    }
}

/// The invocation of a workload.
pub(crate) struct Job {
    pub(crate) function: Function,
    pub(crate) payload: Bytes,
    pub(crate) events: usize,
    /// Bytes of the POST's body, or of the batch's lines.
    pub(crate) input_bytes: usize,
    expected: Expected,
}

enum Expected {
    /// These events, in one record: they are of one session.
    OnTheStream { events: Vec<Value> },
    /// These lines, in one object.
    InTheBucket { lines: String },
}

impl Job {
    fn post(events: Vec<Value>) -> Self {
        let body = Value::from(events.clone()).to_string();
        Self {
            function: Function::Ingest,
            payload: payloads::post(&body).into(),
            events: events.len(),
            input_bytes: body.len(),
            expected: Expected::OnTheStream { events },
        }
    }

    /// A batch of records, each of which holds these lines.
    fn batch(records: &[String]) -> Self {
        Self::landing(records, payloads::batch(records))
    }

    /// The same, each compressed as ingest does it.
    fn batch_of_frames(records: &[String]) -> Self {
        Self::landing(records, payloads::batch(&payloads::frames(records)))
    }

    fn landing(records: &[String], payload: String) -> Self {
        let lines = records.concat();
        Self {
            function: Function::Landing,
            payload: payload.into(),
            events: lines.lines().count(),
            input_bytes: lines.len(),
            expected: Expected::InTheBucket { lines },
        }
    }

    /// The lines that are compressed, if any are.
    pub(crate) fn lines(&self) -> Option<&str> {
        match &self.expected {
            Expected::InTheBucket { lines } => Some(lines),
            Expected::OnTheStream { .. } => None,
        }
    }

    /// Errors unless the answer says that everything was stored.
    pub(crate) fn check_answer(&self, reply: &Reply) -> anyhow::Result<()> {
        let answer = match reply {
            Ok(answer) => answer,
            Err(error) => bail!("the function failed: {error}"),
        };
        let parsed: Value = serde_json::from_slice(answer).context("the answer is not JSON")?;
        let is_success = match self.function {
            Function::Ingest => parsed["statusCode"] == 200,
            Function::Landing => parsed["batchItemFailures"].as_array().is_some_and(Vec::is_empty),
        };
        ensure!(is_success, "the function answered {}", String::from_utf8_lossy(answer));
        Ok(())
    }

    /// Errors unless exactly what so many invocations must store was stored.
    pub(crate) fn check_stored(&self, stored: &Stored, invocations: usize) -> anyhow::Result<()> {
        match &self.expected {
            Expected::OnTheStream { events } => {
                let found = stored.records.len();
                ensure!(found == invocations, "{found} records on the stream in {invocations} invocations");
                stored.records.iter().try_for_each(|record| check_record(record, events))
            }
            Expected::InTheBucket { lines } => {
                let found = stored.objects.len();
                ensure!(found == invocations, "{found} objects in the bucket in {invocations} invocations");
                check_objects(&stored.objects, lines)
            }
        }
    }
}

fn check_record(record: &Record, expected: &[Value]) -> anyhow::Result<()> {
    let mut events = Vec::new();
    for line in lines(&record.data)? {
        for member in [&line["id"], &line["received_at"], &line["request_id"], &line["client"]["user_agent"]] {
            ensure!(member.is_string(), "a line on the stream has no complete envelope: {line}");
        }
        events.push(line["event"].clone());
    }
    ensure!(events == expected, "the events on the stream are not those that were posted");
    Ok(())
}

/// The lines of a record, compressed or not.
pub(crate) fn lines(record: &[u8]) -> anyhow::Result<Vec<Value>> {
    let mut reader = FrameReader::default();
    let lines = if is_frame(record) { reader.lines(record)? } else { record };
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).context("a line on the stream is not JSON")).collect()
}

/// All bodies are the same; so one is decompressed.
fn check_objects(objects: &[Object], expected: &str) -> anyhow::Result<()> {
    let first = objects.first().context("no object was stored")?;
    ensure!(objects.iter().all(|object| object.body == first.body), "the same batch became different objects");
    let counted = expected.lines().count().to_string();
    ensure!(first.metadata.get("event-count") == Some(&counted), "{}: wrong metadata event-count", first.key);
    let mut lines = String::new();
    MultiBzDecoder::new(&first.body[..]).read_to_string(&mut lines).with_context(|| first.key.clone())?;
    ensure!(lines == expected, "{} does not hold the lines of the batch", first.key);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn record(events: &[usize]) -> Record {
        let posted = payloads::events(3);
        let line = |index: &usize| {
            let event = &posted[*index];
            json!({"id": "", "received_at": "", "request_id": "", "client": {"user_agent": ""}, "event": event})
        };
        let data = events.iter().map(|index| format!("{}\n", line(index))).collect::<String>().into_bytes();
        Record { partition_key: "k".into(), data }
    }

    #[rstest]
    #[case::both_each_time(vec![vec![0, 1], vec![0, 1]], true)]
    #[case::a_record_too_few(vec![vec![0, 1]], false)]
    #[case::a_record_too_many(vec![vec![0, 1], vec![0, 1], vec![0, 1]], false)]
    #[case::an_event_is_missing(vec![vec![0, 1], vec![0]], false)]
    #[case::an_event_is_doubled(vec![vec![0, 1], vec![0, 1, 1]], false)]
    #[case::another_event_instead(vec![vec![0, 1], vec![0, 2]], false)]
    #[case::in_another_order(vec![vec![0, 1], vec![1, 0]], false)]
    #[case::nothing(vec![], false)]
    fn two_invocations_must_store_their_two_events_each(#[case] found: Vec<Vec<usize>>, #[case] is_right: bool) {
        let stored = Stored { records: found.iter().map(|events| record(events)).collect(), ..Stored::default() };
        assert_eq!(Job::post(payloads::events(2)).check_stored(&stored, 2).is_ok(), is_right);
    }

    #[rstest]
    #[case(Workload::LandingSmall, r#"{"batchItemFailures":[]}"#, true)]
    #[case(Workload::LandingSmall, r#"{"batchItemFailures":[{"itemIdentifier":"1"}]}"#, false)]
    #[case(Workload::LandingSmall, "{}", false)]
    #[case(Workload::IngestOne, r#"{"statusCode":200}"#, true)]
    #[case(Workload::IngestOne, r#"{"statusCode":503}"#, false)]
    #[case(Workload::IngestOne, "nothing", false)]
    fn answers_that_are_no_success_are_errors(
        #[case] workload: Workload,
        #[case] answer: &str,
        #[case] is_right: bool,
    ) {
        assert_eq!(workload.job().check_answer(&Ok(Bytes::copy_from_slice(answer.as_bytes()))).is_ok(), is_right);
    }
}
