//! A function's log line as a person reads it on the terminal. The whole line is in the function's log file.

use std::io::{self, Write};

use serde::Deserialize;
use serde_json::{Map, Value};

/// The most characters of a line on the terminal.
const MAX_CHARACTERS: usize = 400;

/// A line in the format that `lambda-setup` gives the functions.
#[derive(Deserialize)]
struct Line {
    timestamp: Option<String>,
    level: Level,
    fields: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// What the terminal shows of a line: warnings, errors, and sealed hours and dates. Text that is not a log line, such as a panic, is
/// shown unchanged.
pub(crate) fn format(function: &str, line: &[u8]) -> Option<String> {
    let Ok(line) = serde_json::from_slice::<Line>(line) else {
        let text = String::from_utf8_lossy(line);
        return (!text.trim().is_empty()).then(|| cut(format!("[{function}] {text}")));
    };
    let (level, text) = match line.level {
        Level::Trace | Level::Debug => return None,
        Level::Info => ("INFO", sealed(&line.fields)?),
        Level::Warn => ("WARN", text_of(line.fields)),
        Level::Error => ("ERROR", text_of(line.fields)),
    };
    let time = line.timestamp.unwrap_or_else(|| lambda_setup::now().rfc3339());
    Some(cut(format!("{time} {level:>5} [{function}] {text}")))
}

/// `sealed 2026-11-18 13:00: 781 events, 46 files, complete`
fn sealed(fields: &Map<String, Value>) -> Option<String> {
    if fields.get("message")?.as_str()? != "sealed" {
        return None;
    }
    let partition = fields.get("partition")?.as_str()?.strip_prefix("dt=")?;
    let (name, whole) = match partition.split_once("/hour=") {
        Some((date, hour)) => (format!("{date} {hour}:00"), "complete"),
        // An hour that was accepted as it is may be among them.
        None => (partition.to_owned(), "all hours sealed"),
    };
    let count = |name: &str| fields.get(name).and_then(Value::as_u64).unwrap_or(0);
    let rejected = match count("rejected") {
        0 => String::new(),
        rejected => format!("{rejected} rejected, "),
    };
    let state = match count("unreadable") {
        _ if fields.get("accepted") == Some(&Value::Bool(true)) => "accepted as it is".to_owned(),
        0 => whole.to_owned(),
        unreadable => format!("{unreadable} unreadable"),
    };
    Some(format!("sealed {name}: {} events, {rejected}{} files, {state}", count("events"), count("objects")))
}

/// Shows a line of the stack's own, if anyone still reads.
pub(crate) fn say(line: &str) {
    if let Err(problem) = writeln!(io::stderr(), "{}", cut(line.to_owned())) {
        tracing::debug!(%problem, "nobody reads standard error");
    }
}

/// The message, then what it is about, the longest last, where it can be cut: `the landed object is broken: key=…, problem=…`
fn text_of(mut fields: Map<String, Value>) -> String {
    let message = fields.remove("message").map(|message| text(&message)).unwrap_or_default();
    let mut rest: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
    rest.sort_by_key(String::len);
    if rest.is_empty() { message } else { format!("{message}: {}", rest.join(", ")) }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// One line of limited length, without control characters, which could do anything to a terminal.
fn cut(line: String) -> String {
    let clean = |character: char| if character.is_control() { ' ' } else { character };
    let mut shown: String = line.chars().take(MAX_CHARACTERS).map(clean).collect();
    if line.chars().nth(MAX_CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    fn line(level: &str, fields: Value) -> Option<String> {
        let line = json!({"timestamp": "2026-11-21T09:32:08.006Z", "level": level, "fields": fields});
        format("check", line.to_string().as_bytes())
    }

    #[rstest]
    #[case::hour("dt=2026-11-18/hour=13", json!({}), "sealed 2026-11-18 13:00: 781 events, 46 files, complete")]
    #[case::date("dt=2026-11-18", json!({}), "sealed 2026-11-18: 781 events, 46 files, all hours sealed")]
    #[case::rejected(
        "dt=2026-11-18/hour=13", json!({"rejected": 3}), "sealed 2026-11-18 13:00: 781 events, 3 rejected, 46 files, complete"
    )]
    #[case::unreadable("dt=2026-11-18", json!({"unreadable": 2}), "sealed 2026-11-18: 781 events, 46 files, 2 unreadable")]
    #[case::accepted(
        "dt=2026-11-18/hour=13", json!({"accepted": true, "unreadable": 2}),
        "sealed 2026-11-18 13:00: 781 events, 46 files, accepted as it is"
    )]
    fn a_seal_is_one_short_line(#[case] partition: &str, #[case] more: Value, #[case] expected: &str) {
        let mut fields = json!({"message": "sealed", "partition": partition, "objects": 46, "events": 781,
            "rejected": 0, "bytes": 1, "unreadable": 0, "accepted": false});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(line("INFO", fields).unwrap(), format!("2026-11-21T09:32:08.006Z  INFO [check] {expected}"));
    }

    #[rstest]
    #[case::info("INFO", json!({"message": "complete", "hour": "dt=2026-11-18/hour=13"}), None)]
    #[case::seal_without_its_members("INFO", json!({"message": "sealed"}), None)]
    #[case::debug("DEBUG", json!({"message": "sealed", "partition": "dt=2026-11-18"}), None)]
    #[case::warning("WARN", json!({"message": "slow"}), Some("2026-11-21T09:32:08.006Z  WARN [check] slow"))]
    #[case::members(
        "ERROR", json!({"message": "it is broken", "key": "a/b", "lost": 3}),
        Some("2026-11-21T09:32:08.006Z ERROR [check] it is broken: lost=3, key=a/b")
    )]
    fn lines_that_matter_to_a_person_are_shown_with_their_time(
        #[case] level: &str,
        #[case] fields: Value,
        #[case] expected: Option<&str>,
    ) {
        assert_eq!(line(level, fields).as_deref(), expected);
    }

    #[test]
    fn a_cut_costs_only_the_longest_value() {
        let missing = format!("2 failed batches: {}, {}", "aws/lambda/".repeat(20), "k".repeat(200));
        let fields = json!({"message": "due, and not whole", "missing": missing, "partition": "dt=2026-11-18/hour=13"});
        let shown = line("ERROR", fields).unwrap();
        assert!(shown.contains("partition=dt=2026-11-18/hour=13, missing=2 failed batches: aws/lambda/"), "{shown}");
        assert!(shown.ends_with('…'), "{shown}");
    }

    #[test]
    fn text_that_is_not_a_log_line_is_shown_unchanged() {
        assert_eq!(format("check", b"thread 'main' panicked").unwrap(), "[check] thread 'main' panicked");
        assert_eq!(format("check", b" "), None);
        assert_eq!(format("check", b"\x1b[2J{").unwrap(), "[check]  [2J{");
    }

    #[test]
    fn a_line_is_cut_only_past_the_limit() {
        let prefix = "[check] ".len();
        let fits = format("check", "é".repeat(MAX_CHARACTERS - prefix).as_bytes()).unwrap();
        assert!(!fits.contains('…'));
        let cut = format("check", "é".repeat(MAX_CHARACTERS - prefix + 1).as_bytes()).unwrap();
        assert_eq!(cut, format!("{fits}…"));
    }

    proptest! {
        #[test]
        fn any_output_is_shown_as_one_line_at_most(line in prop::collection::vec(any::<u8>(), 0..600)) {
            let shown = format("check", &line).unwrap_or_default();
            prop_assert!(!shown.contains(char::is_control) && shown.chars().count() <= MAX_CHARACTERS + 1);
        }
    }
}
