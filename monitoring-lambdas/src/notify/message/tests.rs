use std::time::Duration;

use proptest::prelude::*;
use rstest::rstest;
use shared::timestamp::UnixMillis;

use super::*;
use crate::cloudwatch::{Datum, Metrics, MetricsError, Query};
use crate::notify::alarm::tests::{BROKEN_OBJECTS, changes};
use crate::notify::chart;

const ORIGIN: Origin<'_> =
    Origin { stack: "playhead-prod", runbook: "https://git.example.com/playhead/blob/main/docs/RUNBOOK.md" };

/// Three broken objects in the period before the last.
struct Broken;

impl Metrics for Broken {
    async fn put(&self, _: &[Datum]) -> Result<(), MetricsError> {
        Ok(())
    }

    async fn read(&self, query: &Query) -> Result<Vec<(UnixMillis, f64)>, MetricsError> {
        let period = i64::try_from(query.period.as_millis()).unwrap();
        let zeros = (2..18).map(|at| (UnixMillis(query.from.0 + at * period), 0.0));
        Ok(zeros.chain([(UnixMillis(query.from.0 + 18 * period), 3.0)]).collect())
    }
}

/// The incident that the recorded notice opens.
async fn incident() -> Incident {
    let change = changes(BROKEN_OBJECTS).remove(0).unwrap();
    let chart = chart::read(&Broken, change.about.watched.as_ref().unwrap(), change.at).await.unwrap();
    let mut incident = Incident::new("platform", None, change.at);
    let (since, noticed_at, about) = (change.at, change.noticed_at, change.about);
    incident.alarms.insert(
        change.name,
        Episode {
            since,
            until: None,
            disowned: false,
            deleted: false,
            noticed_at,
            announced: false,
            about,
            chart: Some(chart),
        },
    );
    incident
}

fn text(kind: Kind, incident: &Incident, minutes: u64) -> Text {
    let after = i64::try_from(Duration::from_secs(60 * minutes).as_millis()).unwrap();
    compose(kind, incident, UnixMillis(incident.opened_at.0 + after), &Parents::default(), ORIGIN)
}

/// So many alarms, in this order.
async fn storm(count: usize) -> Incident {
    let mut incident = incident().await;
    let episode = incident.alarms.values().next().unwrap().clone();
    incident.alarms.clear();
    for number in 0..count {
        incident.alarms.insert(format!("playhead-prod-alarm-{number:03}"), episode.clone());
    }
    incident
}

/// The runbook quotes a message; it is the one that is sent.
#[tokio::test]
async fn the_runbook_quotes_what_is_sent() {
    let runbook = include_str!("../../../../docs/RUNBOOK.md");
    let mut incident = incident().await;
    let details = [
        "events/dt=2026-11-21/hour=09/shardId-000000000003-49680526688183764996402631907123007237603964584147812354.jsonl.bz2: \
         the metadata says 100 lines, and there are 99",
        "and 2 more under broken/",
    ];
    incident.alarms.values_mut().for_each(|episode| episode.about.details = details.map(str::to_owned).to_vec());
    let opened = text(Kind::Opened, &incident, 0);
    assert_eq!(opened.subject, "ALARM: playhead-prod-broken-objects");
    let quoted = |text: &str| runbook.contains(&format!("```text\n{text}\n```\n"));
    assert!(quoted(&opened.text), "docs/RUNBOOK.md does not quote:\n{}", opened.text);

    let episode = incident.alarms.values_mut().next().unwrap();
    (episode.announced, episode.until) = (true, Some(UnixMillis(episode.since.0 + 1_380_000)));
    let resolved = text(Kind::Resolved, &incident, 23);
    assert_eq!(resolved.subject, "RESOLVED: playhead-prod-broken-objects");
    let first = resolved.text.lines().next().unwrap();
    assert!(runbook.contains(&format!("`{first}`")), "docs/RUNBOOK.md does not quote:\n{first}");
}

#[tokio::test]
async fn a_reminder_shows_the_newest_value() {
    let mut incident = incident().await;
    incident.alarms.values_mut().next().unwrap().announced = true;
    let reminder = text(Kind::Reminder, &incident, 65);
    assert!(
        reminder.text.starts_with("STILL ON after 1 h 5 min in playhead-prod: 1 alarm.\n\nALARM in"),
        "{}",
        reminder.text
    );
    assert_eq!(reminder.subject, "STILL ON: playhead-prod-broken-objects");
}

#[tokio::test]
async fn an_alarm_storm_makes_a_bounded_message() {
    let opened = text(Kind::Opened, &storm(500).await, 0).text;
    assert_eq!(opened.matches("What to do: ").count(), MAX_DESCRIBED);
    assert!(opened.contains("And 495 alarms: playhead-prod-alarm-005, ") && opened.ends_with(" and 475 more"));
    let mut over = storm(500).await;
    over.alarms.values_mut().for_each(|episode| (episode.announced, episode.until) = (true, Some(episode.since)));
    let resolved = text(Kind::Resolved, &over, 0).text;
    assert_eq!(resolved.lines().count(), 1 + MAX_NAMED + 1);
    assert!(resolved.ends_with("- and 480 more"));
}

#[tokio::test]
async fn alarms_raised_later_are_listed_separately() {
    let mut incident = storm(3).await;
    incident.alarms.values_mut().next().unwrap().announced = true;
    let update = text(Kind::Update, &incident, 5);
    assert_eq!(update.subject, "MORE ALARMS: playhead-prod-alarm-001 and 1 more");
    assert!(
        update.text.starts_with("2 alarms more in playhead-prod, in the incident since 2026-11-21 09:40:12 UTC.\n\n")
    );
    assert!(update.text.ends_with("\n\nStill on: playhead-prod-alarm-000"));
}

#[tokio::test]
async fn an_unannounced_alarm_is_described_when_it_is_over() {
    let mut incident = incident().await;
    let episode = incident.alarms.values_mut().next().unwrap();
    episode.until = Some(UnixMillis(episode.since.0 + 60_000));
    let resolved = text(Kind::Resolved, &incident, 1).text;
    assert!(resolved.contains("on for 1 min") && resolved.contains("Expected: BrokenObjects at most 0"), "{resolved}");
}

#[rstest]
#[case("Threshold Crossed: 1 datapoint [3.0 (21/11/26 09:35:00)] was greater than the threshold (0.0).", "3 (count)")]
#[case(
    "Threshold Crossed: 2 out of the last 2 datapoints [5.5, 4.0] were greater than the threshold (0.0).",
    "5.5 (count)"
)]
#[case(
    "Threshold Crossed: no datapoints were received for 1 period and 1 missing datapoint was treated as [Breaching].",
    "nothing was measured"
)]
#[case("Threshold Crossed: Maximum 3.0 GreaterThanThreshold 0.0", "3 (count)")]
#[tokio::test]
async fn the_actual_value_is_what_cloudwatch_saw(#[case] reason: &str, #[case] expected: &str) {
    let mut incident = incident().await;
    let episode = incident.alarms.values_mut().next().unwrap();
    episode.about.reason = reason.into();
    assert_eq!(actual(episode), expected);
}

#[tokio::test]
async fn a_message_without_a_chart_or_metric_keeps_its_other_lines() {
    let mut incident = incident().await;
    incident.alarms.values_mut().next().unwrap().chart = None;
    assert!(text(Kind::Opened, &incident, 0).text.contains("Last values: CloudWatch did not say"));
    let episode = incident.alarms.values_mut().next().unwrap();
    episode.about = About {
        description: String::new(),
        anchor: None,
        reason: "a child is on".into(),
        watched: None,
        details: Vec::new(),
    };
    let opened = text(Kind::Opened, &incident, 0).text;
    let lines: Vec<_> = opened.lines().collect();
    assert_eq!(lines[0], "ALARM in playhead-prod: playhead-prod-broken-objects");
    assert_eq!(lines[3], "Actual: a child is on");
    assert!(lines[5].ends_with("RUNBOOK.md#alarms"));
}

/// What an alarm on metric math says: 30 % of what came was rejected.
#[tokio::test]
async fn an_alarm_on_a_ratio_names_the_ratio_and_charts_the_counts() {
    let mut incident = incident().await;
    let episode = incident.alarms.values_mut().next().unwrap();
    let watched = episode.about.watched.as_mut().unwrap();
    (watched.metric, watched.calculated) = ("RejectedLines".into(), Some("RejectedShare".into()));
    (watched.statistic, watched.period, watched.threshold) = ("Sum".into(), 60, 5.0);
    episode.about.reason =
        "Threshold Crossed: 3 out of the last 5 datapoints [30.2 (21/11/26 09:39:00), 29.8 (…)]".into();
    let opened = text(Kind::Opened, &incident, 0).text;
    assert!(opened.contains("\nExpected: RejectedShare at most 5 %, of 1 min\nActual: 30.2 %\n"), "{opened}");
    assert!(opened.contains("\nLast values of RejectedLines: "), "{opened}");
    // What was measured since is the count, not the share.
    incident.alarms.values_mut().next().unwrap().announced = true;
    let reminder = text(Kind::Reminder, &incident, 65).text;
    assert!(reminder.contains("\nActual: 30.2 %\n"), "{reminder}");
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        Just("x\n\nALARM in prod: forged\nWhat to do: https://evil.example".to_owned()),
        Just("🎬".repeat(2_000)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever others write, each thing stays in its line, and the whole is what SNS takes.
    /// <https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>
    #[test]
    fn quoted_text_stays_in_its_line(name in words(), all in words(), details in prop::collection::vec(words(), 0..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut incident = runtime.block_on(storm(MAX_DESCRIBED));
        let mut alarms = std::mem::take(&mut incident.alarms);
        for (number, mut episode) in std::mem::take(&mut alarms).into_values().enumerate() {
            let dimensions = vec![(all.clone(), all.clone())];
            episode.about.watched.as_mut().unwrap().dimensions = dimensions;
            episode.about.watched.as_mut().unwrap().metric = all.clone();
            (episode.about.description, episode.about.reason) = (format!("D{all}"), all.clone());
            episode.about.details = details.clone();
            incident.alarms.insert(format!("{number}{name}"), episode);
        }
        for (kind, blocks, lines) in [(Kind::Opened, 5, 8), (Kind::Reminder, 6, 8), (Kind::Resolved, 1, 0)] {
            let Text { text, subject } = text(kind, &incident, 61);
            prop_assert!(text.len() <= 256 * 1024 && subject.len() <= MAX_SUBJECT_CHARACTERS);
            prop_assert!(!text.contains(|character: char| character != '\n' && character.is_control()));
            prop_assert_eq!(text.split("\n\n").count(), blocks);
            let entries = text.lines().filter(|line| line.starts_with(TO_DO)).count();
            prop_assert_eq!(entries, MAX_DESCRIBED, "{}", text);
            if kind == Kind::Opened {
                prop_assert_eq!(text.lines().count(), 5 * (lines + details.len()) + blocks - 1);
            }
        }
    }
}

#[tokio::test]
async fn subjects_are_accepted_by_sns() {
    let mut incident = storm(2).await;
    let episode = incident.alarms.values().next().unwrap().clone();
    incident.alarms.insert(format!("a-{}\nü", "x".repeat(200)), episode);
    let subject = text(Kind::Opened, &incident, 0).subject;
    assert_eq!(subject.len(), MAX_SUBJECT_CHARACTERS);
    assert!(subject.ends_with(" and 2 more") && subject.chars().all(|character| (' '..='~').contains(&character)));
}
