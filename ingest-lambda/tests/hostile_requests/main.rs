//! Hostile requests, from the front door's JSON to the records on the stream: nothing panics, and every piece of every body
//! ends in exactly one outcome.

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

mod cmcd;
mod expected;
mod kept;
mod memory_stream;
mod sent;

use std::collections::BTreeMap;

use cmcd::{cmcd_report, hostile_cmcd};
use expected::{blurred, decoded, event_of, pieces, sent_bytes};
use generators::damage::damaged;
use generators::sabotage::{asked_for, shrink_steps};
use generators::strict_reader::read_line;
use ingest_lambda::cmcd::report_to_json;
use ingest_lambda::front_door::Request;
use kept::{Kept, read_stream};
use memory_stream::{Keeps, MAX_RECORD_BYTES, MemoryStream, answer};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sent::{front_door_payload, function_url_request};
use serde_json::{Value, json};

/// More than what a line holds beside its event, with its record's key.
const LONGEST_ENVELOPE_BYTES: usize = 4096;

type Checked = Result<(), TestCaseError>;

/// Sends the request, if the payload is one, and accounts for its body.
fn check(payload: &[u8], stream: &MemoryStream) -> Checked {
    let parse = || serde_json::from_slice::<Request>(payload);
    let Ok(request) = parse() else { return Ok(()) };
    let (status, body) = answer(parse()?, stream);
    let kept = read_stream(stream)?;
    let path = format!("/{}", request.path.trim_matches('/'));
    if request.method == "OPTIONS" || path == "/health" && matches!(request.method.as_str(), "GET" | "HEAD") {
        prop_assert!((200..300).contains(&status) && kept.events.is_empty() && kept.rejected.is_empty());
        return Ok(());
    }
    let body: Value = serde_json::from_str(&body).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let numbers = numbers(&body)?;
    prop_assert_eq!(kept.events.len(), numbers.accepted, "{}", body);
    let named: Vec<usize> =
        numbers.rejected.iter().map(|(index, _)| *index).chain(numbers.not_stored.clone()).collect();
    prop_assert_eq!(counted(&named).len(), named.len(), "an index twice in {}", body);
    match (numbers.accepted, numbers.not_stored.len()) {
        (0, 0) => {
            prop_assert!((400..500).contains(&status), "{}", status);
            check_refused(&request, &body, &numbers, &kept)
        }
        // Nothing tells whether the body was to be kept whole.
        (0, _) => {
            prop_assert_eq!(status, 503);
            Ok(())
        }
        (_, not_stored) => {
            prop_assert_eq!(status, if not_stored == 0 { 200 } else { 503 });
            check_pieces(&request, &numbers, &kept)
        }
    }
}

/// Nothing was accepted: the body is on the stream in one piece, as it was sent, for the reason that was answered.
fn check_refused(request: &Request, answer: &Value, numbers: &Numbers, kept: &Kept) -> Checked {
    let sent = sent_bytes(request);
    let code = answer["error"]["code"].as_str().unwrap_or_default();
    if sent.is_empty() && matches!(code, "unknown_path" | "method_not_allowed") {
        prop_assert!(kept.rejected.is_empty());
        return Ok(());
    }
    let reason = numbers.rejected.first().map_or(code, |(_, reason)| reason);
    prop_assert_eq!(&kept.rejected, &[(reason.to_owned(), sent)]);
    prop_assert!(numbers.rejected.iter().map(|(index, _)| *index).eq(0..numbers.rejected.len()));
    Ok(())
}

/// Something was accepted: each piece of the body is there once, as an event or as a rejected body, if it is not named as not
/// stored.
fn check_pieces(request: &Request, numbers: &Numbers, kept: &Kept) -> Checked {
    let content_type = request.headers.content_type.as_deref();
    let body = decoded(&sent_bytes(request), request.headers.content_encoding.as_deref());
    let body = body.ok_or_else(|| TestCaseError::fail("accepted from a body that does not decompress whole"))?;
    let Some(pieces) = pieces(&body, content_type) else { return check_cut(&body, numbers, kept) };
    prop_assert_eq!(pieces.len(), numbers.accepted + numbers.rejected.len() + numbers.not_stored.len());
    let reasons: BTreeMap<usize, &String> = numbers.rejected.iter().map(|(index, reason)| (*index, reason)).collect();
    let (mut events, mut rejected) = (Vec::new(), Vec::new());
    for (index, piece) in pieces.into_iter().enumerate() {
        let event = event_of(piece, content_type);
        match (reasons.get(&index), event) {
            _ if numbers.not_stored.contains(&index) => {}
            (None, Some(event)) => events.push(event),
            (None, None) => prop_assert!(false, "accepted what is no event: {}", index),
            (Some(reason), event) => {
                let fits = event.is_some_and(|event| event.len() + LONGEST_ENVELOPE_BYTES <= MAX_RECORD_BYTES);
                prop_assert!(!fits, "rejected an event as {}", reason);
                rejected.push(((*reason).clone(), piece.to_vec()));
            }
        }
    }
    prop_assert_eq!(counted(&kept.events), counted(&events));
    prop_assert_eq!(counted(&kept.rejected), counted(&rejected));
    Ok(())
}

/// The body holds a list that is not JSON: what is on the stream was cut from it, each byte at most once. That nothing is left
/// out and no good member is lost is shown where the cutting is.
fn check_cut(body: &[u8], numbers: &Numbers, kept: &Kept) -> Checked {
    let (body, mut bytes) = (blurred(body), 0);
    let rejected = kept.rejected.iter().map(|(_, piece)| piece.as_slice());
    for piece in kept.events.iter().map(String::as_bytes).chain(rejected) {
        bytes += piece.len();
        let piece = blurred(piece);
        let is_in_body = piece.is_empty() || body.windows(piece.len()).any(|window| window == piece);
        prop_assert!(is_in_body, "{}", String::from_utf8_lossy(&piece));
    }
    prop_assert!(bytes <= body.len());
    for event in &kept.events {
        prop_assert_eq!(event_of(event.as_bytes(), None), Some(event.clone()));
    }
    if numbers.not_stored.is_empty() {
        prop_assert_eq!(kept.rejected.len(), numbers.rejected.len());
    }
    Ok(())
}

/// An answer's numbers.
struct Numbers {
    accepted: usize,
    rejected: Vec<(usize, String)>,
    not_stored: Vec<usize>,
}

fn numbers(answer: &Value) -> Result<Numbers, TestCaseError> {
    let index = |value: &Value| value.as_u64().and_then(|index| usize::try_from(index).ok());
    let rejected = answer["rejected"].as_array().cloned().unwrap_or_default();
    let rejected = rejected.iter().map(|item| Some((index(&item["index"])?, item["reason"].as_str()?.to_owned())));
    let not_stored = answer["not_stored"].as_array().cloned().unwrap_or_default();
    let malformed = || TestCaseError::fail(format!("malformed: {answer}"));
    Ok(Numbers {
        accepted: answer.get("accepted").map_or(Some(0), index).ok_or_else(malformed)?,
        rejected: rejected.collect::<Option<_>>().ok_or_else(malformed)?,
        not_stored: not_stored.iter().map(index).collect::<Option<_>>().ok_or_else(malformed)?,
    })
}

/// How often each is there.
fn counted<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    items.into_iter().fold(BTreeMap::new(), |mut counts, item| {
        *counts.entry(item).or_default() += 1;
        counts
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, max_shrink_iters: shrink_steps(500), ..ProptestConfig::default() })]

    /// Whatever bytes a request or a record holds, every event in them ends in one outcome, and a function that panics loses one
    /// invocation and no batch.
    ///
    /// Of a request: and the answer's numbers are what is on the stream.
    #[test]
    fn every_piece_of_a_body_is_accepted_or_rejected(payload in function_url_request()) {
        serde_json::from_str::<Request>(&payload)?;
        let keeps = asked_for([Keeps::Never, Keeps::Twice]).unwrap_or_default();
        check(payload.as_bytes(), &MemoryStream::keeping(keeps))?;
    }

    /// The same, where Kinesis takes no record whose length divides by three: each piece is accepted, rejected or named as
    /// not stored.
    #[test]
    fn every_piece_of_a_body_is_accepted_rejected_or_not_stored(payload in function_url_request()) {
        check(payload.as_bytes(), &MemoryStream::refusing(3))?;
    }

    /// Whatever form the front door's JSON has, it is no request or one that is answered and accounted for.
    #[test]
    fn every_front_door_payload_is_no_request_or_answered(payload in front_door_payload()) {
        check(&payload, &MemoryStream::default())?;
    }

    /// A report becomes the object that its parts say, whatever is nested in it, the last of equal keys counting.
    #[test]
    fn a_cmcd_report_is_the_object_that_it_was_made_from((text, expected) in cmcd_report()) {
        let json = report_to_json(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(serde_json::from_str::<Value>(&json)?, expected, "{}", text);
    }

    /// Damaged reports are objects that any reader can read, or errors.
    #[test]
    fn a_damaged_cmcd_report_is_readable_json_or_an_error(
        line in damaged(cmcd_report().prop_map(|(text, _)| text.into_bytes()), hostile_cmcd()),
    ) {
        if let Some(json) = std::str::from_utf8(&line).ok().and_then(|line| report_to_json(line).ok()) {
            read_line(json.as_bytes()).map_err(TestCaseError::fail)?;
        }
    }
}

/// The property can fail: where the stream loses or doubles what it says that it stored, few requests go unnoticed, which are
/// those that store nothing.
#[test]
fn a_stream_that_loses_or_doubles_is_noticed() {
    let mut runner = TestRunner::deterministic();
    let payloads: Vec<_> = (0..200).map(|_| function_url_request().new_tree(&mut runner).unwrap().current()).collect();
    for keeps in [Keeps::Never, Keeps::Twice] {
        let unnoticed = |payload: &&String| check(payload.as_bytes(), &MemoryStream::keeping(keeps)).is_ok();
        let unnoticed = payloads.iter().filter(unnoticed).count();
        assert!(unnoticed <= 20, "{keeps:?}: {unnoticed} of {} unnoticed", payloads.len());
    }
}

/// The properties are worth little if what is sent never gets far, or is never stopped.
#[test]
fn what_is_sent_ends_in_many_ways() {
    let mut runner = TestRunner::deterministic();
    let mut ways: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..1000 {
        let payload = function_url_request().new_tree(&mut runner).unwrap().current();
        let (status, body) = answer(serde_json::from_str(&payload).unwrap(), &MemoryStream::default());
        let body: Value = serde_json::from_str(&body).unwrap();
        let accepted = if body["rejected"] == json!([]) { "all" } else { "some" };
        let way = if status == 200 { accepted } else { body["error"]["code"].as_str().unwrap() };
        *ways.entry(way.to_owned()).or_default() += 1;
    }
    let often =
        ["all", "some", "invalid_cmcd", "invalid_compression", "invalid_json", "invalid_utf8", "body_too_large"];
    for way in often {
        assert!(ways.get(way).is_some_and(|count| *count >= 10), "{way} in {ways:?}");
    }
}
