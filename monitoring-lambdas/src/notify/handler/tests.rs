use std::cell::{Cell, RefCell};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::cloudwatch::{Datum, MetricsError, Query};
use crate::notify::config::Parents;
use crate::notify::mail::Mail;
use crate::notify::mail_address::MailAddress;
use crate::notify::outcome::Outcome;
use crate::notify::recipient::Webhook;
use crate::notify::recipients::tests::MemoryParameter;
use lambda_setup::memory_bucket::MemoryBucket;

/// CloudWatch with one value, or away.
#[derive(Default)]
struct OneValue {
    is_away: bool,
}

impl Metrics for &OneValue {
    async fn put(&self, _: &[Datum]) -> Result<(), MetricsError> {
        Ok(())
    }

    async fn read(&self, query: &Query) -> Result<Vec<(UnixMillis, f64)>, MetricsError> {
        if self.is_away { Err(MetricsError::new("read", "away".into())) } else { Ok(vec![(query.from, 1.0)]) }
    }
}

/// What was sent, and what becomes of it.
struct Post {
    sent: RefCell<Vec<String>>,
    outcome: RefCell<Outcome>,
    /// How long it takes to know.
    takes: Cell<Duration>,
}

impl Default for Post {
    fn default() -> Self {
        Self { sent: RefCell::default(), outcome: RefCell::new(Outcome::Sent), takes: Cell::default() }
    }
}

impl Post {
    async fn take(&self, text: &str, deadline: Deadline) -> Outcome {
        if let Err(time_is_up) = deadline.bound(Duration::MAX, tokio::time::sleep(self.takes.get())).await {
            return Outcome::Failed(time_is_up.to_string());
        }
        let outcome = self.outcome.borrow().clone();
        if outcome == Outcome::Sent {
            self.sent.borrow_mut().push(text.to_owned());
        }
        outcome
    }

    /// The beginnings of what was sent.
    fn heads(&self) -> Vec<String> {
        let head = |text: &String| text.split([' ', ':']).next().unwrap_or_default().to_owned();
        self.sent.borrow().iter().map(head).collect()
    }
}

impl Webhooks for &Post {
    async fn post(&self, _: &Webhook, text: &str, deadline: Deadline) -> Outcome {
        self.take(text, deadline).await
    }
}

impl Topic for &Post {
    async fn publish(&self, group: &str, subject: &str, _: &str, deadline: Deadline) -> Outcome {
        self.take(&format!("{subject} @{group}"), deadline).await
    }
}

impl Mailer for &Post {
    async fn send(&self, to: &[MailAddress], mail: Mail<'_>, deadline: Deadline) -> Outcome {
        assert!(mail.html.starts_with("<!doctype html>"));
        self.take(&format!("{} to {}", mail.subject, to.len()), deadline).await
    }
}

#[derive(Default)]
struct World {
    bucket: MemoryBucket,
    metrics: OneValue,
    webhooks: Post,
    topic: Post,
    /// `TRUSTED_ACCOUNTS`
    trusted: String,
    mailer: Post,
    /// Whether `MAIL_FROM` is missing.
    has_no_sender: Cell<bool>,
    /// Minutes since ten o'clock.
    now: Cell<u32>,
}

const PLATFORM: &str = r#"[{"group":"platform","alarms":["*"],"webhook":"https://hooks.example.com/x"}]"#;

type TestHandler<'a> =
    Handler<&'a MemoryParameter, &'a MemoryBucket, &'a OneValue, &'a Post, &'a Post, Option<&'a Post>>;

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

impl World {
    async fn run(&self, recipients: &str, invocation: Value) -> Result<(), NotifyError> {
        let parameter = MemoryParameter::new(Some(recipients));
        let handler = self.handler(&parameter).await;
        handler.handle_until(serde_json::from_value(invocation).unwrap(), deadline()).await
    }

    async fn handler<'a>(&'a self, parameter: &'a MemoryParameter) -> TestHandler<'a> {
        let parents = Parents::parse(r#"{"late":"did-not-run"}"#).unwrap();
        Handler {
            recipients: Recipients::start(parameter, lambda_setup::now(), deadline()).await.unwrap(),
            rules: Rules { grouping: Duration::from_secs(60), reminder: Duration::from_secs(3_600), parents },
            trusted: TrustedAccounts::parse(&self.trusted).unwrap(),
            home: Reporter::new(HOME.0, HOME.1).unwrap(),
            stack_name: "prod".into(),
            runbook_url: "https://example.com/RUNBOOK.md".into(),
            bucket: &self.bucket,
            metrics: &self.metrics,
            channels: Channels {
                webhooks: &self.webhooks,
                topic: &self.topic,
                mailer: (!self.has_no_sender.get()).then_some(&self.mailer),
            },
        }
    }

    async fn notice(&self, alarm: &str, state: &str, minute: u32) -> Result<(), NotifyError> {
        self.run(PLATFORM, notice(alarm, state, minute)).await
    }

    async fn tick(&self, minute: u32) -> Result<(), NotifyError> {
        self.run(PLATFORM, json!({"time": format!("{}Z", time(minute))})).await
    }

    fn ledger(&self) -> Ledger {
        serde_json::from_str(&self.bucket.text("incidents/open/platform.json").unwrap()).unwrap()
    }

    fn kept(&self) -> Vec<String> {
        self.bucket.keys().into_iter().filter(|key| key.starts_with("incidents/dt=")).collect()
    }
}

fn time(minute: u32) -> String {
    format!("2026-11-21T{:02}:{:02}:00", 10 + minute / 60, minute % 60)
}

fn notice(alarm: &str, state: &str, minute: u32) -> Value {
    let message = json!({
        "AlarmName": alarm, "AlarmDescription": "It is wrong. #it", "NewStateValue": state,
        "NewStateReason": "Threshold Crossed: 1 datapoint [1.0 (21/11/26 10:00:00)] was greater",
        "StateChangeTime": format!("{}.000+0000", time(minute)),
        "Trigger": {"MetricName": "BrokenObjects", "Namespace": "Playhead", "Statistic": "MAXIMUM", "Dimensions": [],
            "Period": 60, "ComparisonOperator": "GreaterThanThreshold", "Threshold": 0.0},
    });
    json!({"Records": [{"Sns": {"Message": message.to_string(), "Timestamp": format!("{}.000Z", time(minute))}}]})
}

#[tokio::test]
async fn an_incident_from_its_first_alarm_to_its_end() {
    let world = World::default();
    world.notice("prod-broken", "ALARM", 0).await.unwrap();
    world.notice("prod-lost", "ALARM", 1).await.unwrap();
    world.notice("prod-stale", "ALARM", 1).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["ALARM"], "a storm is one message");
    world.tick(5).await.unwrap();
    world.tick(10).await.unwrap();
    assert!(world.webhooks.sent.borrow()[1].starts_with("2 alarms more in prod"));
    world.notice("prod-lost", "OK", 20).await.unwrap();
    world.tick(64).await.unwrap();
    assert_eq!(world.webhooks.sent.borrow().len(), 2, "no reminder within an hour of the last message");
    world.tick(65).await.unwrap();
    assert!(world.webhooks.sent.borrow()[2].starts_with("STILL ON after 1 h 5 min in prod: 2 alarms."));
    world.notice("prod-broken", "OK", 70).await.unwrap();
    assert_eq!(world.webhooks.sent.borrow().len(), 3);
    world.notice("prod-stale", "OK", 90).await.unwrap();
    assert!(world.webhooks.sent.borrow()[3].starts_with("RESOLVED after 1 h 30 min in prod"));
    world.tick(200).await.unwrap();
    assert_eq!(world.webhooks.sent.borrow().len(), 4);

    assert_eq!(world.kept(), ["incidents/dt=2026-11-21/20261121T100000000Z-platform.json"]);
    let kept: Value = serde_json::from_str(&world.bucket.text(&world.kept()[0]).unwrap()).unwrap();
    assert_eq!(
        (&kept["opened_at"], &kept["resolved_at"]),
        (&json!("2026-11-21T10:00:00.000Z"), &json!("2026-11-21T11:30:00.000Z"))
    );
    let sent: Vec<_> = kept["messages"].as_array().unwrap().iter().map(|message| &message["webhook"]).collect();
    assert_eq!(sent, ["sent"; 4]);
    assert!(world.ledger().open.is_none() && world.ledger().closed.is_empty());
}

const NORTH: (&str, &str) = ("111122223333", "eu-north-1");
const WEST: (&str, &str) = ("444455556666", "eu-west-1");

/// What other accounts' rules send.
fn report((account, region): (&str, &str), alarm: &str, state: &str, minute: u32) -> Value {
    crate::notify::report::tests::event(account, region, alarm, state, &time(minute))
}

fn trusting(accounts: &[&str]) -> World {
    World { trusted: accounts.join(","), ..World::default() }
}

#[tokio::test]
async fn equal_alarms_of_two_accounts_and_our_own_are_three_incidents() {
    let world = trusting(&[NORTH.0, WEST.0]);
    world.notice("prod-broken", "ALARM", 0).await.unwrap();
    world.run(PLATFORM, report(NORTH, "prod-broken", "ALARM", 1)).await.unwrap();
    world.run(PLATFORM, report(WEST, "prod-broken", "ALARM", 2)).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["ALARM"; 3]);
    // One of them is over.
    world.run(PLATFORM, report(NORTH, "prod-broken", "OK", 4)).await.unwrap();
    assert!(
        world.webhooks.sent.borrow()[3].starts_with("RESOLVED after 3 min in account 111122223333, eu-north-1: no")
    );
    world.tick(10).await.unwrap();
    assert_eq!(world.webhooks.sent.borrow().len(), 4);
    world.tick(70).await.unwrap();
    let first_line = |text: &String| text.lines().next().unwrap().to_owned();
    let reminders: Vec<_> = world.webhooks.sent.borrow()[4..].iter().map(first_line).collect();
    let west = "STILL ON after 1 h 8 min in account 444455556666, eu-west-1: 1 alarm.";
    assert_eq!(reminders, ["STILL ON after 1 h 10 min in prod: 1 alarm.", west]);
    assert_eq!(world.kept(), ["incidents/dt=2026-11-21/20261121T100100000Z-platform.111122223333.eu-north-1.json"]);
}

#[tokio::test]
async fn a_message_about_an_alarm_elsewhere_says_where_and_shows_nothing_of_ours() {
    let world = trusting(&[NORTH.0]);
    let verdict = json!({"key": "events/ours", "findings": [{"text": "ours"}]}).to_string();
    world.bucket.insert("broken/events/ours.json", verdict, std::collections::HashMap::new());
    let both = r#"[{"group":"platform","alarms":["*"],"webhook":"https://hooks.example.com/x","email":true}]"#;
    world.run(both, report(NORTH, "prod-broken", "ALARM", 0)).await.unwrap();
    let text = world.webhooks.sent.borrow()[0].clone();
    assert!(text.starts_with("ALARM in account 111122223333, eu-north-1: It is wrong.\n"), "{text}");
    assert!(text.contains("\nWhere: function f, account 111122223333, eu-north-1\n"), "{text}");
    assert!(text.contains("Expected: BrokenObjects at most 0") && text.contains("Actual: 3"), "{text}");
    assert!(!text.contains("ours") && !text.contains("Last values") && !text.contains("stack prod"), "{text}");
    assert_eq!(*world.topic.sent.borrow(), ["ALARM in 111122223333 eu-north-1: prod-broken @platform"]);
    // The same of our own has both.
    world.run(both, notice("prod-broken", "ALARM", 1)).await.unwrap();
    let text = world.webhooks.sent.borrow()[1].clone();
    assert!(text.contains("events/ours: ours") && text.contains("Last values"), "{text}");
}

#[tokio::test]
async fn reports_of_accounts_that_are_not_trusted_and_reports_that_lie_change_nothing() {
    for trusted in [&[][..], &[WEST.0]] {
        let world = trusting(trusted);
        world.run(PLATFORM, report(NORTH, "prod-broken", "ALARM", 0)).await.unwrap();
        let mut lying = report(WEST, "prod-broken", "ALARM", 0);
        lying["resources"][0] = json!("arn:aws:cloudwatch:eu-north-1:111122223333:alarm:prod-broken");
        world.run(PLATFORM, lying).await.unwrap();
        world.run(PLATFORM, report(WEST, &"x".repeat(256), "ALARM", 0)).await.unwrap();
        assert!(world.webhooks.heads().is_empty());
        assert!(world.bucket.keys().is_empty());
    }
}

const HOME: (&str, &str) = ("123456789012", "eu-central-1");

/// What rules send when an alarm is deleted.
fn deletion((account, region): (&str, &str), alarm: &str, minute: u32) -> Value {
    crate::notify::report::tests::deletion(account, region, alarm, "ALARM", &time(minute))
}

#[tokio::test]
async fn an_alarm_that_is_deleted_while_it_is_on_is_over() {
    for place in [HOME, NORTH] {
        let world = trusting(&[NORTH.0]);
        let on =
            if place == HOME { notice("prod-broken", "ALARM", 0) } else { report(place, "prod-broken", "ALARM", 0) };
        world.run(PLATFORM, on.clone()).await.unwrap();
        world.run(PLATFORM, deletion(place, "prod-broken", 20)).await.unwrap();
        assert_eq!(world.webhooks.heads(), ["ALARM", "RESOLVED"]);
        let resolved = world.webhooks.sent.borrow()[1].clone();
        let site = if place == HOME { "prod".to_owned() } else { format!("account {}, {}", place.0, place.1) };
        assert!(
            resolved.starts_with(&format!("RESOLVED after 20 min in {site}: the alarm was deleted.")),
            "{resolved}"
        );
        let line = "- prod-broken: on since 2026-11-21 10:00:00 UTC; at 2026-11-21 10:20:00 UTC the alarm was deleted";
        assert!(resolved.contains(line), "{resolved}");
        // Again, and the notice once more: nothing.
        world.run(PLATFORM, deletion(place, "prod-broken", 20)).await.unwrap();
        world.run(PLATFORM, on).await.unwrap();
        world.tick(200).await.unwrap();
        assert_eq!(world.webhooks.heads().len(), 2);
        assert_eq!(world.kept().len(), 1);
        let kept: Value = serde_json::from_str(&world.bucket.text(&world.kept()[0]).unwrap()).unwrap();
        assert_eq!(kept["alarms"]["prod-broken"]["deleted"], true);
    }
}

#[tokio::test]
async fn an_incident_goes_on_while_another_alarm_than_the_deleted_one_is_on() {
    let world = World::default();
    world.notice("prod-broken", "ALARM", 0).await.unwrap();
    world.notice("prod-stale", "ALARM", 0).await.unwrap();
    world.run(PLATFORM, deletion(HOME, "prod-broken", 5)).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["ALARM"]);
    world.notice("prod-stale", "OK", 10).await.unwrap();
    let resolved = world.webhooks.sent.borrow()[1].clone();
    assert!(resolved.starts_with("RESOLVED after 10 min in prod: no alarm is on any more."), "{resolved}");
    assert!(resolved.contains("at 2026-11-21 10:05:00 UTC the alarm was deleted"), "{resolved}");
}

#[tokio::test]
async fn the_deletion_of_an_alarm_that_is_not_on_does_nothing() {
    let world = trusting(&[NORTH.0]);
    world.run(PLATFORM, deletion(NORTH, "prod-broken", 0)).await.unwrap();
    world.notice("prod-broken", "ALARM", 1).await.unwrap();
    world.notice("prod-broken", "OK", 2).await.unwrap();
    // Of an account that is not trusted, and of an equal name elsewhere.
    world.notice("prod-broken", "ALARM", 3).await.unwrap();
    world.run(PLATFORM, deletion(HOME, "prod-other", 4)).await.unwrap();
    world.run(PLATFORM, deletion(NORTH, "prod-broken", 4)).await.unwrap();
    world.run(PLATFORM, deletion(WEST, "prod-broken", 4)).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["ALARM", "RESOLVED", "ALARM"]);
    assert!(world.ledger().open.is_some());
}

/// EventBridge and SNS may take turns: an alarm's beginning that comes after its deletion does not open an incident for ever.
#[tokio::test]
async fn an_alarm_whose_deletion_arrives_first_is_announced_as_over() {
    let world = World::default();
    world.run(PLATFORM, deletion(HOME, "prod-broken", 2)).await.unwrap();
    world.notice("prod-broken", "ALARM", 1).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["RESOLVED"]);
    // It was made anew.
    world.notice("prod-broken", "ALARM", 9).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["RESOLVED", "ALARM"]);
}

#[tokio::test]
async fn an_account_that_is_no_longer_trusted_gets_no_reminders() {
    let mut world = trusting(&[NORTH.0]);
    world.run(PLATFORM, report(NORTH, "prod-broken", "ALARM", 0)).await.unwrap();
    world.trusted = WEST.0.into();
    world.tick(70).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["ALARM"]);
    world.trusted = NORTH.0.into();
    world.tick(75).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["ALARM", "STILL"]);
}

#[tokio::test]
async fn children_of_one_account_are_not_quiet_for_a_parent_of_another() {
    let world = trusting(&[NORTH.0, WEST.0]);
    world.run(PLATFORM, report(NORTH, "prod-did-not-run", "ALARM", 0)).await.unwrap();
    world.run(PLATFORM, report(WEST, "prod-late", "ALARM", 1)).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["ALARM", "ALARM"]);
}

#[tokio::test]
async fn a_crash_at_any_call_loses_no_message_of_an_alarm_elsewhere() {
    for call in 1..=8 {
        let world = trusting(&[NORTH.0]);
        world.bucket.fails_from.set(Some(call));
        let is_done = world.run(PLATFORM, report(NORTH, "prod-broken", "ALARM", 0)).await.is_ok();
        world.bucket.fails_from.set(None);
        if !is_done {
            world.run(PLATFORM, report(NORTH, "prod-broken", "ALARM", 0)).await.unwrap();
        }
        world.tick(10).await.unwrap();
        assert!((1..=2).contains(&world.webhooks.heads().len()), "call {call}");
    }
}

#[tokio::test]
async fn an_alarm_that_a_group_no_longer_gets_is_over_for_it() {
    let world = World::default();
    world.notice("prod-broken", "ALARM", 0).await.unwrap();
    world.notice("prod-late", "ALARM", 1).await.unwrap();
    let silenced = r#"[{"group":"platform","alarms":["*","!prod-broken"],"webhook":"https://hooks.example.com/x"}]"#;
    let tick = |minute| world.run(silenced, json!({"time": format!("{}Z", time(minute))}));
    tick(5).await.unwrap();
    // The other is on, and reminded of.
    tick(70).await.unwrap();
    let reminder = world.webhooks.sent.borrow().last().unwrap().clone();
    assert!(reminder.starts_with("STILL ON") && reminder.contains("prod-late") && !reminder.contains("prod-broken"));
    world.run(silenced, notice("prod-broken", "OK", 71)).await.unwrap();
    world.run(silenced, notice("prod-late", "OK", 72)).await.unwrap();
    let resolved = world.webhooks.sent.borrow().last().unwrap().clone();
    assert!(resolved.starts_with("RESOLVED after 1 h 12 min in prod: no alarm that this group gets is on any more."));
    assert!(
        resolved.contains("- prod-broken: on since 2026-11-21 10:00:00 UTC; from 2026-11-21 10:05:00 UTC this group"),
        "{resolved}"
    );
    let sent = world.webhooks.sent.borrow().len();
    tick(200).await.unwrap();
    assert_eq!(world.webhooks.sent.borrow().len(), sent);
    assert_eq!(world.kept().len(), 1);
}

const OPS: &str = r#"[{"group":"ops","alarms":["*"],"webhook":"https://hooks.example.com/y"}]"#;

fn tick(minute: u32) -> Value {
    json!({"time": format!("{}Z", time(minute))})
}

/// Of its own alarms and of others', and in whatever state it is, even if its account is not trusted any more.
#[tokio::test]
async fn the_incidents_of_a_group_that_is_gone_are_closed_and_archived_and_nobody_gets_a_message() {
    let mut world = trusting(&[NORTH.0]);
    world.notice("prod-broken", "ALARM", 0).await.unwrap();
    world.run(PLATFORM, report(NORTH, "prod-broken", "ALARM", 1)).await.unwrap();
    world.webhooks.outcome.replace(Outcome::Failed("status 503".into()));
    world.notice("prod-lost", "ALARM", 2).await.unwrap();
    world.tick(4).await.unwrap_err();
    world.webhooks.outcome.replace(Outcome::Sent);
    world.trusted = String::new();
    let sent = world.webhooks.sent.borrow().len();
    world.run(OPS, tick(70)).await.unwrap();
    assert_eq!(world.webhooks.sent.borrow().len(), sent);
    assert!(world.ledger().open.is_none() && world.ledger().closed.is_empty());
    let kept = [
        "incidents/dt=2026-11-21/20261121T100000000Z-platform.json",
        "incidents/dt=2026-11-21/20261121T100100000Z-platform.111122223333.eu-north-1.json",
    ];
    assert_eq!(world.kept(), kept);
    for key in kept {
        let kept: Value = serde_json::from_str(&world.bucket.text(key).unwrap()).unwrap();
        assert_eq!(kept["resolved_at"], "2026-11-21T11:10:00.000Z");
        assert!(kept["alarms"].as_object().unwrap().values().all(|alarm| alarm["disowned"] == true));
        let last = kept["messages"].as_array().unwrap().last().unwrap();
        let states = ["webhook", "email", "mail"].map(|channel| last[channel].as_str().unwrap());
        assert_eq!((&last["kind"], states), (&json!("resolved"), ["none"; 3]));
        assert!(last["text"].as_str().unwrap().ends_with("the group platform is not among the recipients."));
    }
    let before = world.bucket.calls_by_operation.borrow().get("PUT").copied();
    world.run(OPS, tick(75)).await.unwrap();
    assert_eq!(world.bucket.calls_by_operation.borrow().get("PUT").copied(), before, "it is done once");
}

/// Another environment, which read the recipients later, opened its incident.
#[tokio::test]
async fn a_group_that_was_added_since_the_recipients_were_read_is_not_gone() {
    for is_usable in [true, false] {
        let world = World::default();
        world.notice("prod-broken", "ALARM", 0).await.unwrap();
        let parameter = MemoryParameter::new(Some(OPS));
        let handler = world.handler(&parameter).await;
        parameter.set(if is_usable { PLATFORM } else { "[{}]" });
        handler.handle_until(serde_json::from_value(tick(5)).unwrap(), deadline()).await.unwrap();
        assert!(world.ledger().open.is_some());
    }
}

#[tokio::test]
async fn a_tick_that_dies_at_any_call_leaves_no_incident_of_a_group_that_is_gone() {
    for call in 1..=12 {
        let world = World::default();
        world.notice("prod-broken", "ALARM", 0).await.unwrap();
        world.bucket.fails_from.set(Some(world.bucket.calls.get() + call));
        let is_done = world.run(OPS, tick(5)).await.is_ok();
        world.bucket.fails_from.set(None);
        if !is_done {
            world.run(OPS, tick(10)).await.unwrap();
        }
        assert!(world.ledger().is_settled(), "call {call}");
        assert_eq!(world.kept().len(), 1, "call {call}");
    }
}

#[tokio::test]
async fn repeated_and_stale_notices_change_nothing() {
    let world = World::default();
    for _ in 0..3 {
        world.notice("prod-broken", "ALARM", 0).await.unwrap();
    }
    for _ in 0..3 {
        world.notice("prod-broken", "OK", 2).await.unwrap();
    }
    world.notice("prod-broken", "ALARM", 0).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["ALARM", "RESOLVED"]);
    world.notice("prod-broken", "ALARM", 9).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["ALARM", "RESOLVED", "ALARM"]);
}

#[tokio::test]
async fn an_alarm_whose_end_arrives_first_is_announced_as_over() {
    let world = World::default();
    world.notice("prod-broken", "OK", 2).await.unwrap();
    assert!(world.webhooks.heads().is_empty());
    world.notice("prod-broken", "ALARM", 1).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["RESOLVED"]);
    assert!(world.webhooks.sent.borrow()[0].contains("Expected: BrokenObjects at most 0"));
}

#[tokio::test]
async fn children_are_quiet_while_their_parent_is_on() {
    let world = World::default();
    world.notice("prod-did-not-run", "ALARM", 0).await.unwrap();
    world.notice("prod-late", "ALARM", 1).await.unwrap();
    world.notice("dev-late", "ALARM", 1).await.unwrap();
    world.tick(10).await.unwrap();
    let update = world.webhooks.sent.borrow()[1].clone();
    assert!(update.contains("Alarm: dev-late") && !update.contains("Alarm: prod-late"), "{update}");
    assert!(update.ends_with("Also on, most likely because of it: prod-late"), "{update}");
    world.notice("prod-did-not-run", "OK", 11).await.unwrap();
    world.tick(15).await.unwrap();
    assert!(world.webhooks.sent.borrow()[2].contains("Alarm: prod-late"), "it stands on its own now");
}

#[tokio::test]
async fn each_group_gets_its_own_alarms_through_its_own_channels() {
    let groups = r#"[{"group":"platform","alarms":["*"],"webhook":"https://hooks.example.com/x","email":true},
                     {"group":"ads","alarms":["ads-*"],"email":true}]"#;
    let world = World::default();
    world.run(groups, notice("prod-broken", "ALARM", 0)).await.unwrap();
    world.run(groups, notice("ads-broken", "ALARM", 1)).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["ALARM"]);
    assert_eq!(*world.topic.sent.borrow(), ["ALARM: prod-broken @platform", "ALARM: ads-broken @ads"]);
    world.run(r#"[{"group":"ads","alarms":["ads-*"],"email":true}]"#, notice("other", "ALARM", 2)).await.unwrap();
    assert_eq!(world.topic.sent.borrow().len(), 2);
}

const MAIL: &str = r#"[{"group":"platform","alarms":["*"],"webhook":"https://hooks.example.com/x","email":true,
    "mail":["a@example.com","b@example.com"]}]"#;

#[tokio::test]
async fn a_mail_that_fails_is_retried_and_holds_up_no_other_channel() {
    let world = World::default();
    world.mailer.outcome.replace(Outcome::Failed("TooManyRequestsException".into()));
    assert!(world.run(MAIL, notice("prod-broken", "ALARM", 0)).await.is_err());
    assert_eq!((world.webhooks.sent.borrow().len(), world.topic.sent.borrow().len()), (1, 1));
    world.mailer.outcome.replace(Outcome::Sent);
    for minute in [2, 7] {
        world.run(MAIL, json!({"time": format!("{}Z", time(minute))})).await.unwrap();
    }
    assert_eq!(*world.mailer.sent.borrow(), ["ALARM: prod-broken to 2"]);
    assert_eq!((world.webhooks.sent.borrow().len(), world.topic.sent.borrow().len()), (1, 1));
}

/// Each try takes half of the time that an invocation has.
#[tokio::test(start_paused = true)]
async fn webhooks_that_never_answer_delay_no_email() {
    let group =
        |name: &str| json!({"group": name, "alarms": ["*"], "webhook": "https://hooks.example.com/x", "email": true});
    let groups = json!(["a", "b", "c", "d", "e"].map(group)).to_string();
    let world = World::default();
    world.webhooks.takes.set(Duration::from_secs(16));
    world.topic.takes.set(Duration::from_millis(100));
    world.webhooks.outcome.replace(Outcome::Failed("no answer within 5 s".into()));
    world.run(&groups, notice("prod-broken", "ALARM", 0)).await.unwrap_err();
    assert_eq!(world.topic.sent.borrow().len(), 5);

    // Three messages that could not be sent are due to each group.
    world.topic.outcome.replace(Outcome::Failed("away".into()));
    world.run(&groups, notice("prod-broken", "OK", 1)).await.unwrap_err();
    world.run(&groups, notice("prod-broken", "ALARM", 2)).await.unwrap_err();
    world.run(&groups, notice("prod-broken", "OK", 3)).await.unwrap_err();
    world.topic.outcome.replace(Outcome::Sent);
    world.run(&groups, json!({"time": format!("{}Z", time(10))})).await.unwrap_err();
    assert_eq!(world.topic.sent.borrow().len(), 20);
}

#[tokio::test]
async fn a_message_that_fails_is_sent_by_a_later_run() {
    let world = World::default();
    world.webhooks.outcome.replace(Outcome::Failed("status 503".into()));
    assert!(matches!(world.notice("prod-broken", "ALARM", 0).await, Err(NotifyError::Unsent(1))));
    world.notice("prod-broken", "ALARM", 0).await.unwrap();
    world.tick(1).await.unwrap();
    world.webhooks.outcome.replace(Outcome::Sent);
    world.tick(2).await.unwrap();
    world.tick(7).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["ALARM"]);
}

#[tokio::test]
async fn what_is_unsent_on_a_channel_that_the_group_no_longer_has_is_given_up() {
    let world = World::default();
    world.webhooks.outcome.replace(Outcome::Failed("status 503".into()));
    world.notice("prod-broken", "ALARM", 0).await.unwrap_err();
    let without = r#"[{"group":"platform","alarms":["*"],"email":true}]"#;
    let tick = |minute| json!({"time": format!("{}Z", time(minute))});
    world.run(without, tick(5)).await.unwrap();
    assert_eq!(world.topic.sent.borrow().len(), 0);
    world.run(without, tick(10)).await.unwrap();
    assert_eq!(world.webhooks.sent.borrow().len(), 0);
    world.notice("prod-broken", "OK", 11).await.unwrap_err();
    world.run(without, tick(16)).await.unwrap();
    assert_eq!(world.kept().len(), 1, "nothing waits for the channel");
}

/// A group that nothing but mails reach loses none while there is no sender.
#[tokio::test]
async fn mails_without_a_sender_wait_until_there_is_one() {
    let mail_only = r#"[{"group":"platform","alarms":["*"],"mail":["a@example.com"]}]"#;
    let world = World::default();
    world.has_no_sender.set(true);
    assert!(matches!(world.run(mail_only, notice("prod-broken", "ALARM", 0)).await, Err(NotifyError::Unsent(1))));
    assert!(world.run(mail_only, notice("prod-broken", "OK", 1)).await.is_err());
    assert_eq!(world.kept().len(), 0, "an incident that nobody learned of is not archived");
    world.has_no_sender.set(false);
    world.run(mail_only, json!({"time": format!("{}Z", time(5))})).await.unwrap();
    assert_eq!(world.mailer.sent.borrow().len(), 2);
    assert_eq!(world.kept().len(), 1);
}

#[tokio::test]
async fn a_message_that_is_refused_or_fails_too_often_is_given_up() {
    let world = World::default();
    world.webhooks.outcome.replace(Outcome::Refused("status 404".into()));
    assert!(world.notice("prod-broken", "ALARM", 0).await.is_err());
    world.tick(5).await.unwrap();
    world.notice("prod-broken", "OK", 6).await.unwrap_err();
    assert_eq!(world.kept().len(), 1, "nothing is left to send");

    world.webhooks.outcome.replace(Outcome::Failed("status 503".into()));
    world.notice("prod-lost", "ALARM", 10).await.unwrap_err();
    world.notice("prod-lost", "OK", 11).await.unwrap_err();
    let failures = async |from: u32, to: u32| {
        let mut failures = 0;
        for minute in (from..to).step_by(5) {
            failures += usize::from(world.tick(minute).await.is_err());
        }
        failures
    };
    assert_eq!(failures(15, 15 + 5 * 23).await, 23);
    assert_eq!(failures(130, 180).await, 0);
    assert_eq!(world.kept().len(), 2);
}

#[tokio::test]
async fn without_cloudwatch_a_message_has_no_chart() {
    let world = World { metrics: OneValue { is_away: true }, ..World::default() };
    world.notice("prod-broken", "ALARM", 0).await.unwrap();
    assert!(world.webhooks.sent.borrow()[0].contains("CloudWatch did not say"));
}

#[tokio::test]
async fn without_s3_an_alarm_is_still_announced() {
    let world = World::default();
    world.bucket.fails_from.set(Some(1));
    assert!(matches!(world.notice("prod-broken", "ALARM", 0).await, Err(NotifyError::Store { .. })));
    assert_eq!(world.webhooks.heads(), ["ALARM"]);
}

#[tokio::test]
async fn an_unreadable_ledger_is_replaced_by_a_new_one() {
    let world = World::default();
    world.bucket.insert("incidents/open/platform.json", "{", std::collections::HashMap::new());
    world.notice("prod-broken", "ALARM", 0).await.unwrap();
    assert_eq!(world.webhooks.heads(), ["ALARM"]);
    assert!(world.ledger().open.is_some());
}

/// Killed at any call to S3, everything that was due is sent, once or twice.
#[tokio::test]
async fn a_crash_may_double_a_message_but_never_loses_one() {
    for call in 1..=16 {
        let world = World::default();
        world.bucket.fails_from.set(Some(call));
        let began = world.notice("prod-broken", "ALARM", 0).await.is_ok();
        let ended = world.notice("prod-broken", "OK", 3).await.is_ok();
        world.bucket.fails_from.set(None);
        // Lambda sends again what failed; the schedule takes up what was left.
        if !began {
            world.notice("prod-broken", "ALARM", 0).await.unwrap();
        }
        if !ended {
            world.notice("prod-broken", "OK", 3).await.unwrap();
        }
        world.tick(10).await.unwrap();
        let heads = world.webhooks.heads();
        let count = |head: &str| heads.iter().filter(|one| *one == head).count();
        assert!((1..=2).contains(&count("ALARM")) && (1..=2).contains(&count("RESOLVED")), "call {call}: {heads:?}");
        assert_eq!(world.kept().len(), 1, "call {call}");
        assert!(world.ledger().open.is_none() && world.ledger().closed.is_empty(), "call {call}");
    }
}

proptest! {
    /// However often and in whichever order the notices of an alarm that came and went arrive, it is announced, and it is over.
    #[test]
    fn notices_in_any_order_end_in_the_same_state(order in prop::collection::vec(0usize..4, 1..24)) {
        let notices = [("a", "ALARM", 1), ("a", "OK", 4), ("b", "ALARM", 2), ("b", "OK", 3)];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let world = World::default();
            for at in order.into_iter().chain(0..4) {
                let (alarm, state, minute) = notices[at];
                world.notice(alarm, state, minute).await.unwrap();
            }
            world.now.set(5);
            world.tick(world.now.get()).await.unwrap();
            let all = world.webhooks.sent.borrow().join("\n");
            assert!(all.contains("Alarm: a") && all.contains("- a: on for 3 min"), "{all}");
            assert!(all.contains("- b: on for 1 min"), "{all}");
            assert!(world.ledger().open.is_none());
        });
    }
}
