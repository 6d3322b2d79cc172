//! Digests of made-up days, and their way to groups through faults.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};

use lambda_setup::memory_bucket::MemoryBucket;
use proptest::prelude::*;
use rstest::rstest;
use shared::line::EventFormat;
use shared::metric::NAMESPACE;
use shared::timestamp::UtcHour;

use super::digest::{MAX_INCIDENTS, MAX_REASONS};
use super::facts::{DayBalance, Facts, HourFact, HourState, IncidentFact, Incidents, Sizes, TurnedAway};
use super::read::MAX_INCIDENT_FILES;
use super::*;
use crate::check_size::Found;
use crate::manifest::{Accepted, Incomplete, Missing, Success, Totals};
use crate::notify::mail::Mail;
use crate::notify::outcome::Outcome;
use crate::notify::recipient::Webhook;
use crate::notify::recipients::tests::MemoryParameter;
use crate::notify::reporter::Reporter;
use crate::rules::partition::Partition;
use crate::rules::size::{self, Rule};
use crate::success::tests::seal;
use crate::tests::memory_metrics::{self, MemoryMetrics};

fn date() -> UtcDate {
    UtcDate::parse("dt=2026-11-21").unwrap()
}

fn hour(of_day: i64) -> UtcHour {
    date().hour(of_day)
}

fn minutes_after(hour: UtcHour, minutes: i64) -> UnixMillis {
    UnixMillis(hour.end().0 + minutes * 60_000)
}

fn success(of_day: i64, totals: Totals) -> Success {
    Success {
        v: 1,
        partition: hour(of_day).partition(),
        first_sealed_at: minutes_after(hour(of_day), 20),
        sealed_at: minutes_after(hour(of_day), 20),
        late_objects: 0,
        manifest: None,
        accepted: None,
        totals,
    }
}

fn events(events: u64) -> Totals {
    Totals { objects: 1, events, bytes: 10 * events, ..Totals::default() }
}

/// A day on which all was well.
fn quiet() -> Facts {
    let hours = (0..24).map(|of_day| {
        let state = HourState::Sealed(Box::new(success(of_day, events(100))));
        HourFact { hour: hour(of_day), state }
    });
    Facts {
        date: date(),
        hours: hours.collect(),
        sizes: Ok(Sizes { date: Some(Vec::new()), hours: Vec::new() }),
        balance: Ok(DayBalance { hours: 24, accepted: 2_400.0, landed: 2_400.0, ..DayBalance::default() }),
        turned_away: Ok(TurnedAway::default()),
        incidents: Ok(Incidents::default()),
        month_usd: Ok(None),
    }
}

fn compose(facts: &Facts) -> Digest {
    Digest::compose(facts, "prod", 40)
}

/// The lines that somebody should look at.
fn notable(facts: &Facts) -> Vec<String> {
    let digest = compose(facts);
    let lines = digest.sections.iter().flat_map(|section| &section.lines).filter(|line| line.is_notable);
    lines.map(|line| format!("{}: {}", line.label, line.value)).collect()
}

fn with_hour(change: impl FnOnce(&mut Success)) -> Facts {
    let mut facts = quiet();
    if let HourState::Sealed(success) = &mut facts.hours[9].state {
        change(success);
    }
    facts
}

fn with_state(state: HourState) -> Facts {
    let mut facts = quiet();
    facts.hours[9].state = state;
    facts
}

fn incident(from: i64, until: Option<i64>) -> IncidentFact {
    let at = |minute: i64| UnixMillis(hour(0).start().0 + minute * 60_000);
    IncidentFact {
        from: at(from),
        until: until.map(at),
        alarms: BTreeSet::from(["prod-errors".into()]),
        groups: BTreeSet::from(["platform".into()]),
    }
}

fn with_incidents(all: Vec<IncidentFact>) -> Facts {
    Facts { incidents: Ok(Incidents::merged(all, 0)), ..quiet() }
}

#[test]
fn a_day_on_which_all_was_well_says_so() {
    let digest = compose(&quiet());
    assert_eq!(digest.subject, "DIGEST of prod for 2026-11-21 (UTC): all well");
    let text = digest.text();
    for line in ["- Sealed: 24 of 24", "- Events: 2,400", "- Accepted: 2,400", "- Missing: 0", "- Doubled: 0"] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
    }
}

#[test]
fn a_day_with_nothing_is_a_digest_too() {
    let hours = date().hours().map(|hour| HourFact { hour, state: HourState::Unsealed }).collect();
    let facts = Facts { hours, sizes: Ok(Sizes::default()), balance: Ok(DayBalance::default()), ..quiet() };
    let lines = notable(&facts);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], "Sealed: 0 of 24");
    assert!(lines[1].ends_with(": 00:00, 01:00, 02:00, 03:00, 04:00, 05:00, 06:00, 07:00, 08:00, 09:00, 10:00, 11:00, 12:00, 13:00, 14:00, 15:00, 16:00, 17:00, 18:00, 19:00, 20:00, 21:00, 22:00, 23:00"));
}

#[test]
fn hours_that_need_not_be_sealed_are_nothing_to_look_at() {
    let mut facts = quiet();
    facts.hours[..9].iter_mut().for_each(|fact| fact.state = HourState::BeforeFirst);
    facts.hours[23].state = HourState::NotDue;
    assert_eq!(notable(&facts), [""; 0]);
    let text = compose(&facts).text();
    for line in ["- Sealed: 14 of 14", "- Before anything landed: 9 hours", "- Not due yet: 1 hour"] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
    }
    facts.hours[9].state = HourState::Unsealed;
    assert_eq!(notable(&facts), ["Sealed: 13 of 14", "Not sealed, no reason recorded: 09:00"]);
}

/// GovCloud and China have none, and an organization may deny the region that has it.
#[test]
fn a_bill_that_cannot_be_read_is_a_line_and_nothing_to_look_at() {
    let facts = Facts { month_usd: Err("CloudWatch, read: AccessDenied".into()), ..quiet() };
    assert_eq!(notable(&facts), [""; 0]);
    let digest = compose(&facts);
    assert!(digest.subject.ends_with("all well"));
    assert!(digest.text().ends_with("Cost so far this month\n- Not known: CloudWatch, read: AccessDenied"));
}

#[rstest]
#[case::unsealed(with_state(HourState::Unsealed), &["Sealed: 23 of 24", "Not sealed, no reason recorded: 09:00"])]
#[case::incomplete(
    with_state(HourState::Incomplete(Incomplete {
        v: 1, partition: hour(9).partition(), since: minutes_after(hour(9), 40),
        missing: vec![Missing::MissingRecords { arrived: 9, landed: 4 }],
    })),
    &["Sealed: 23 of 24", "Incomplete: 09:00: 9 records arrived and 4 landed"],
)]
#[case::unreadable(with_state(HourState::Unreadable("S3 is away".into())), &["Sealed: 23 of 24", "Not known: 09:00: S3 is away"])]
#[case::in_time(with_hour(|hour| hour.first_sealed_at = minutes_after(super::tests::hour(9), 40)), &[])]
#[case::late(
    with_hour(|hour| hour.first_sealed_at = UnixMillis(minutes_after(super::tests::hour(9), 40).0 + 1)),
    &["Sealed after their time: 09:00"],
)]
#[case::late_objects(with_hour(|hour| hour.late_objects = 3), &["Objects that landed late: 3, added to 09:00"])]
#[case::accepted(
    with_hour(|hour| hour.accepted = Some(Accepted { by: "kim".into(), reason: "r".into(), missing: Vec::new() })),
    &["Accepted as incomplete: 09:00"],
)]
#[case::lost(
    Facts { balance: Ok(DayBalance { hours: 24, lost_events: 3.0, ..DayBalance::default() }), ..quiet() },
    &["Missing: 3"],
)]
#[case::players_without_their_key(
    Facts { turned_away: Ok(TurnedAway { unknown: 1_200.0, limited: 101.0, requests: 10_000.0 }), ..quiet() },
    &["Requests without a known write key: 1,200", "Requests over a limit: 101"],
)]
#[case::a_scanner(
    Facts { turned_away: Ok(TurnedAway { unknown: 100.0, limited: 1.0, requests: 10_000.0 }), ..quiet() },
    &[],
)]
#[case::no_metrics(Facts { balance: Err("CloudWatch is away".into()), ..quiet() }, &["Not known: CloudWatch is away"])]
#[case::size(
    Facts {
        sizes: Ok(Sizes { date: None, hours: vec![(hour(7), Found {
            rule: Rule::Change, outcome: size::Outcome::Violation, expected: "as usual".into(), actual: "half".into(),
        })] }),
        ..quiet()
    },
    &["Hour 07:00: half; expected: as usual"],
)]
#[case::over(
    with_incidents(vec![incident(580, Some(605))]),
    &["2026-11-21 09:40:00 UTC for 25 min: prod-errors (notified: platform)"],
)]
#[case::still_on(
    with_incidents(vec![incident(1_430, None)]),
    &["2026-11-21 23:50:00 UTC, still on (10 min by the end of the day): prod-errors (notified: platform)"],
)]
fn what_is_not_as_it_should_be_is_notable(#[case] facts: Facts, #[case] expected: &[&str]) {
    assert_eq!(notable(&facts), expected);
    let count = match expected.len() {
        0 => "all well".to_owned(),
        1 => "1 line to look at".to_owned(),
        more => format!("{more} lines to look at"),
    };
    assert!(compose(&facts).subject.ends_with(&count));
}

#[test]
fn nobody_is_named() {
    let accepted = Accepted { by: "kim@example.com".into(), reason: "kim".into(), missing: Vec::new() };
    let digest = compose(&with_hour(|hour| hour.accepted = Some(accepted)));
    assert!(!digest.text().contains("kim") && !render::html(&digest).contains("kim"));
}

#[rstest]
#[case(MAX_REASONS, None)]
#[case(MAX_REASONS + 1, Some("- And: 1 more"))]
#[case(MAX_REASONS + 7, Some("- And: 7 more"))]
fn at_most_twenty_reasons_are_listed(#[case] count: usize, #[case] rest: Option<&str>) {
    let rejected_by_reason: BTreeMap<_, _> = (0..count).map(|number| (format!("r{number:03}"), 5)).collect();
    let text = compose(&with_hour(|hour| hour.totals.rejected_by_reason = rejected_by_reason)).text();
    assert_eq!(text.matches("\n- r").count(), count.min(MAX_REASONS));
    assert_eq!(text.lines().find(|line| line.starts_with("- And: ")), rest);
}

#[rstest]
#[case(MAX_INCIDENTS, None)]
#[case(MAX_INCIDENTS + 1, Some("- And: 1 more"))]
fn at_most_fifty_incidents_are_listed(#[case] count: usize, #[case] rest: Option<&str>) {
    let all = (0..count as i64).map(|number| incident(number, Some(number + 1))).collect();
    let facts = with_incidents(all);
    assert_eq!(notable(&facts).len(), count.min(MAX_INCIDENTS));
    assert_eq!(compose(&facts).text().lines().find(|line| line.starts_with("- And: ")), rest);
}

#[test]
fn an_incident_of_several_groups_is_listed_once() {
    let ads = IncidentFact { groups: BTreeSet::from(["ads".into()]), ..incident(1, None) };
    let merged = Incidents::merged([incident(1, Some(2)), ads, incident(5, Some(6))], 0);
    assert_eq!(merged.all.len(), 2);
    assert_eq!((merged.all[0].from, merged.all[1].until), (incident(5, None).from, None));
    assert_eq!(merged.all[1].groups, BTreeSet::from(["ads".into(), "platform".into()]));
}

#[test]
fn a_chart_has_the_whole_width_of_a_page() {
    let html = render::html(&compose(&quiet()));
    assert!(html.contains("colspan=\"2\"") && html.contains(&"▇".repeat(24)));
    assert_eq!(html.matches("colspan").count(), 1);
}

const HOSTILE: &str = "<script>alert('x')</script> & \"q\" \u{202e}evil\n<img src=https://evil.example>";

#[test]
fn what_others_wrote_is_escaped_and_stays_one_line() {
    let facts = Facts {
        incidents: Ok(Incidents::merged(
            [IncidentFact { alarms: BTreeSet::from([HOSTILE.into()]), ..incident(1, None) }],
            0,
        )),
        ..with_hour(|hour| hour.totals.rejected_by_reason = BTreeMap::from([(HOSTILE.into(), 1)]))
    };
    let html = render::html(&compose(&facts));
    assert!(!html.contains("<script") && !html.contains("<img") && !html.contains('\u{202e}'), "{html}");
    assert_eq!(html.matches("&lt;script&gt;").count(), 2);
    assert_eq!(compose(&facts).text().matches("evil\u{fffd}<img").count(), 2);
}

proptest! {
    /// Whatever manifests and errors say, a digest is bounded, and its page shows what its text says.
    #[test]
    fn any_texts_make_a_digest(
        reasons in prop::collection::btree_map(any::<String>(), any::<u64>(), 0..40),
        problem: String,
        counts in prop::array::uniform4(any::<u64>()),
        lost in any::<f64>(),
        stack in "[a-zA-Z][-a-zA-Z0-9]{0,127}",
    ) {
        let mut facts = with_hour(|hour| {
            hour.totals = Totals {
                rejected_by_reason: reasons, events: counts[0], rejected: counts[1], bytes: counts[2], ..Totals::default()
            };
            hour.late_objects = counts[3];
        });
        facts.hours[3].state = HourState::Unreadable(problem.clone());
        facts.sizes = Err(problem);
        facts.balance = Ok(DayBalance { hours: 1, lost_events: lost, ..DayBalance::default() });
        let digest = Digest::compose(&facts, &stack, 40);
        let lines = digest.sections.iter().map(|section| section.lines.len()).sum::<usize>();
        prop_assert!(lines < 100 && digest.subject.len() <= 100 && digest.subject.is_ascii());
        prop_assert_eq!(digest.text().lines().filter(|line| line.starts_with(['-', '!'])).count(), lines);
        let html = render::html(&digest);
        prop_assert_eq!(html.matches("<tr>").count(), lines);
        prop_assert!(html.len() <= crate::notify::html::MAX_PAGE_BYTES);
    }
}

// ---- On its way ----

/// What was sent, and what becomes of it.
struct Post {
    sent: RefCell<Vec<String>>,
    outcome: RefCell<Outcome>,
}

impl Default for Post {
    fn default() -> Self {
        Self { sent: RefCell::default(), outcome: RefCell::new(Outcome::Sent) }
    }
}

impl Post {
    fn take(&self, text: String) -> Outcome {
        let outcome = self.outcome.borrow().clone();
        if outcome == Outcome::Sent {
            self.sent.borrow_mut().push(text);
        }
        outcome
    }
}

impl Webhooks for &Post {
    async fn post(&self, _: &Webhook, text: &str, _: Deadline) -> Outcome {
        self.take(text.to_owned())
    }
}

impl Topic for &Post {
    async fn publish(&self, group: &str, subject: &str, _: &str, _: Deadline) -> Outcome {
        self.take(format!("{group} {subject}"))
    }
}

impl Mailer for &Post {
    async fn send(&self, to: &[MailAddress], mail: Mail<'_>, _: Deadline) -> Outcome {
        assert!(mail.html.contains("<table"));
        self.take(format!("{} to {}", mail.subject, to.len()))
    }
}

const GROUPS: &str = r#"[{"group":"platform","alarms":["*"],"webhook":"https://hooks.example.com/x","email":true},
    {"group":"bosses","alarms":[],"mail":["a@example.com","b@example.com"],"digest":true},
    {"group":"ads","alarms":["ads-*"],"webhook":"https://hooks.example.com/y","email":true,"digest":true}]"#;

#[derive(Default)]
struct World {
    bucket: MemoryBucket,
    metrics: MemoryMetrics,
    webhooks: Post,
    topic: Post,
    mailer: Post,
    /// Seconds since the event.
    now: Cell<u64>,
}

impl World {
    /// The hours of a day and of its neighbours, sealed.
    fn with_a_day() -> Self {
        let world = Self::default();
        for of_day in -24..26 {
            seal(&world.bucket, Partition::Hour(hour(of_day)), hour(of_day).end(), events(100));
        }
        world
    }

    async fn run(&self, request_id: &str) -> Result<(), SendDigestError> {
        self.run_for(GROUPS, request_id).await
    }

    async fn run_for(&self, groups: &str, request_id: &str) -> Result<(), SendDigestError> {
        self.run_at("2026-11-22T06:45:00.000Z", groups, request_id).await
    }

    async fn run_at(&self, time: &str, groups: &str, request_id: &str) -> Result<(), SendDigestError> {
        let deadline = Deadline::after(Duration::from_secs(30));
        let parameter = MemoryParameter::new(Some(groups));
        let at = UnixMillis::parse(time).unwrap();
        let handler = Handler {
            recipients: Recipients::start(&parameter, at, deadline).await.unwrap(),
            bucket: &self.bucket,
            metrics: &self.metrics,
            billing: &self.metrics,
            channels: Channels { webhooks: &self.webhooks, topic: &self.topic, mailer: &self.mailer },
            completeness: check_completeness::Config {
                bucket_name: "landing".into(),
                stream_name: "events".into(),
                ingest_function_name: "ingest".into(),
                event_format: EventFormat::Envelope,
            },
            settings: Settings { stack_name: "prod".into(), due_minutes: 40, limits: Limits::SHIPPED },
        };
        let run = Run { request_id: request_id.into(), ends_at: 1_000 * (self.now.get() + TIMEOUT.as_secs()) };
        handler.send(at, run, deadline).await
    }

    /// How often each channel was sent something.
    fn sent(&self) -> [usize; 3] {
        [&self.webhooks, &self.topic, &self.mailer].map(|post| post.sent.borrow().len())
    }

    fn state(&self) -> State {
        serde_json::from_str(&self.bucket.text("digests/dt=2026-11-21.json").unwrap()).unwrap()
    }
}

#[tokio::test]
async fn requests_that_were_turned_away_on_the_day_are_counted() {
    let world = World::with_a_day();
    let at = |of_day: i64, name, value| memory_metrics::Value {
        namespace: NAMESPACE,
        name,
        dimensions: vec![("FunctionName".into(), "ingest".into())],
        at: hour(of_day).start(),
        value,
    };
    let counts = [(-1, 1.0), (0, 2.0), (23, 4.0), (24, 8.0)];
    world.metrics.values.borrow_mut().extend(counts.map(|(of_day, value)| at(of_day, "UnauthorizedRequests", value)));
    world.metrics.values.borrow_mut().push(at(9, "Requests", 599.0));
    world.run("a").await.unwrap();
    let text = world.webhooks.sent.borrow()[0].clone();
    assert!(text.contains("! Requests without a known write key: 6\n") && !text.contains("over a limit"), "{text}");
}

#[tokio::test]
async fn each_group_that_asks_for_it_gets_the_day_before_once() {
    let world = World::with_a_day();
    world.run("a").await.unwrap();
    assert_eq!(world.sent(), [1, 1, 1], "platform did not ask for it");
    let text = world.webhooks.sent.borrow()[0].clone();
    assert!(text.contains("- Sealed: 24 of 24\n") && text.contains("- Events: 2,400\n"), "{text}");
    assert!(text.contains("- Balanced: 24 of 24 hours\n"), "{text}");
    assert!(world.topic.sent.borrow()[0].starts_with("ads DIGEST of prod for 2026-11-21 (UTC): "));
    for request_id in ["a", "b"] {
        world.run(request_id).await.unwrap();
    }
    assert_eq!(world.sent(), [1, 1, 1]);
}

#[rstest]
#[case::estimated(&[(3, 100.0), (21, 123.456), (24, 130.0)], "- The whole account, as AWS estimates it: 123.46 USD")]
#[case::not_published(&[], "- Not known: AWS publishes no estimate")]
#[tokio::test]
async fn the_last_estimate_of_the_day_is_what_the_month_has_cost(#[case] estimates: &[(i64, f64)], #[case] line: &str) {
    let world = World::with_a_day();
    let estimate = |&(of_day, value): &(i64, f64)| memory_metrics::Value {
        namespace: "AWS/Billing",
        name: "EstimatedCharges",
        dimensions: vec![("Currency".into(), "USD".into())],
        at: hour(of_day).start(),
        value,
    };
    world.metrics.values.borrow_mut().extend(estimates.iter().map(estimate));
    world.run("a").await.unwrap();
    let text = world.webhooks.sent.borrow()[0].clone();
    let (_, cost) = text.split_once("\nCost so far this month\n").unwrap();
    assert!(cost.starts_with(line), "{cost}");
}

#[tokio::test]
async fn a_digest_for_nobody_fails_and_keeps_nothing() {
    let world = World::with_a_day();
    let error = world.run_for(r#"[{"group":"a","alarms":["*"],"email":true}]"#, "a").await.unwrap_err();
    assert!(matches!(error, SendDigestError::NoGroup));
    world.run("b").await.unwrap();
    assert_eq!(world.sent(), [1, 1, 1]);
}

#[tokio::test]
async fn a_retry_sends_only_what_was_not_sent() {
    for outcome in [Outcome::Failed("status 503".into()), Outcome::Refused("status 404".into())] {
        let world = World::with_a_day();
        world.webhooks.outcome.replace(outcome);
        assert!(matches!(world.run("a").await, Err(SendDigestError::Unsent { groups: 1, .. })));
        assert!(world.run("a").await.is_err());
        world.webhooks.outcome.replace(Outcome::Sent);
        world.run("a").await.unwrap();
        world.run("a").await.unwrap();
        assert_eq!(world.sent(), [1, 1, 1]);
    }
}

#[tokio::test]
async fn another_run_takes_over_only_when_the_first_can_send_no_more() {
    let world = World::with_a_day();
    world.webhooks.outcome.replace(Outcome::Failed("away".into()));
    world.run("a").await.unwrap_err();
    world.webhooks.outcome.replace(Outcome::Sent);
    world.now.set(TIMEOUT.as_secs() - 1);
    assert!(matches!(world.run("b").await, Err(SendDigestError::Taken(_))));
    assert_eq!(world.sent(), [0, 1, 1]);
    world.now.set(TIMEOUT.as_secs());
    world.run("b").await.unwrap();
    assert_eq!(world.sent(), [1, 1, 1]);
}

/// Of two runs at once, at whatever calls their turns change, one sends.
#[tokio::test]
async fn two_runs_at_once_send_one_digest() {
    for turns in [0b1, 0b1010, 0b1100_1100, u64::MAX, 0x5555_0000_ffff_1234] {
        let world = World::with_a_day();
        world.bucket.turns.set(turns);
        let (one, other) = tokio::join!(world.run("a"), world.run("b"));
        assert_eq!(world.sent(), [1, 1, 1], "{turns:b}");
        assert!(one.is_ok() || other.is_ok());
    }
}

/// Killed at any call to S3 that is not a fact's, all of it is sent, once or twice.
#[tokio::test]
async fn a_crash_may_double_a_digest_but_never_loses_one() {
    let whole = World::with_a_day();
    whole.run("a").await.unwrap();
    let calls = whole.bucket.calls.get();
    for call in [1, 2, 100, calls - 1, calls] {
        let world = World::with_a_day();
        world.bucket.fails_from.set(Some(call));
        world.run("a").await.unwrap_err();
        world.bucket.fails_from.set(None);
        world.run("a").await.unwrap();
        assert!(world.sent().iter().all(|count| (1..=2).contains(count)), "call {call}: {:?}", world.sent());
        assert!(world.state().groups.values().all(|states| states.are_done()));
    }
}

#[tokio::test]
async fn facts_that_cannot_be_read_are_lines_of_a_digest_that_is_sent() {
    let world = World::with_a_day();
    world.metrics.fails_from.set(Some(1));
    let key = "events/dt=2026-11-21/hour=09/_SUCCESS";
    world.bucket.insert(key, "{", HashMap::new());
    world.bucket.insert("incidents/open/platform.json", "{", HashMap::new());
    world.bucket.insert("incidents/dt=2026-11-21/20261121T094012345Z-platform.json", "{", HashMap::new());
    world.run("a").await.unwrap();
    let text = world.webhooks.sent.borrow()[0].clone();
    for line in ["! Sealed: 23 of 24", "! Not known: 09:00: ", "! Not known: CloudWatch, ", "! Not read: 1 file"] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn the_size_is_judged_as_check_size_judges_it() {
    let world = World::with_a_day();
    seal(&world.bucket, Partition::Hour(hour(9)), hour(9).end(), events(10));
    for days in [1, 7] {
        seal(&world.bucket, Partition::Hour(hour(9 - 24 * days)), hour(9).end(), events(100));
    }
    world.run("a").await.unwrap();
    let text = world.webhooks.sent.borrow()[0].clone();
    assert!(text.contains("! Hour 09:00: 100 bytes: -90.0 % against 1000 bytes the day before"), "{text}");
    assert!(text.contains("! At least: "), "a date's floor: {text}");
}

/// A stack that was made at half past nine, and one that seals no more.
#[rstest]
#[case::a_new_stack(9..26, "2026-11-22T06:45:00.000Z", &["- Sealed: 15 of 15", "- Before anything landed: 9 hours"])]
#[case::newer_than_the_day(24..26, "2026-11-22T06:45:00.000Z", &["- Sealed: 0 of 0", "- Before anything landed: 24 hours"])]
#[case::the_last_run_in_time_may_go_on(-24..23, "2026-11-22T00:50:00.000Z", &["- Sealed: 23 of 23", "- Not due yet: 1 hour"])]
#[case::it_is_over(
    -24..23, "2026-11-22T00:50:00.001Z", &["! Sealed: 23 of 24", "! Not sealed, no reason recorded: 23:00"],
)]
#[tokio::test]
async fn hours_before_the_first_and_hours_that_are_not_due_are_not_missing(
    #[case] sealed: std::ops::Range<i64>,
    #[case] time: &str,
    #[case] expected: &[&str],
) {
    let world = World::default();
    for of_day in sealed {
        seal(&world.bucket, Partition::Hour(hour(of_day)), hour(of_day).end(), events(100));
    }
    world.run_at(time, GROUPS, "a").await.unwrap();
    let text = world.webhooks.sent.borrow()[0].clone();
    let (_, lines) = text.split_once("\nHours\n").unwrap();
    assert_eq!(lines.lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn without_the_first_hour_an_hour_that_is_not_sealed_is_not_known() {
    let world = World::default();
    seal(&world.bucket, Partition::Hour(hour(9)), hour(9).end(), events(100));
    world.bucket.refuses.set(Some(("listing", "events/dt=")));
    world.run("a").await.unwrap();
    let text = world.webhooks.sent.borrow()[0].clone();
    assert!(
        text.contains("\n! Sealed: 1 of 24\n") && text.contains("\n! Not known: 08:00: listing of events/dt="),
        "{text}"
    );
}

/// Written when it was over, as notify does.
fn kept_at(world: &World, opened_at: UnixMillis, until: UnixMillis, written_at: UnixMillis) {
    kept(world, opened_at, until, "platform");
    let mut objects = world.bucket.objects.borrow_mut();
    let key =
        objects.objects().map(|(key, _)| key.to_owned()).filter(|key| key.starts_with("incidents/dt=")).last().unwrap();
    let content = objects.get(&key).unwrap().content.clone();
    objects.put(written_at.0, &key, content, testbed::Condition::None).unwrap();
}

#[rstest]
#[case::eight_days(8, 0, true)]
#[case::as_long_as_it_is_kept(400, 0, true)]
#[case::longer(401, 0, false)]
#[case::over_before_the_day(8, -1, false)]
#[tokio::test]
async fn a_long_incident_that_ended_on_the_day_is_found(
    #[case] days: i64,
    #[case] millis: i64,
    #[case] is_found: bool,
) {
    let world = World::with_a_day();
    let until = UnixMillis(hour(0).start().0 + millis);
    kept_at(&world, hour(9 - 24 * days).start(), until, UnixMillis(until.0));
    world.run("a").await.unwrap();
    let text = world.webhooks.sent.borrow()[0].clone();
    assert_eq!(text.contains(": prod-it (notified: platform)"), is_found, "{text}");
    assert_eq!(text.contains("\n- None: no alarm was on\n"), !is_found, "{text}");
}

/// They need no GETs, and take no other's place among the files that are read.
#[tokio::test]
async fn incidents_that_were_over_before_the_day_are_not_read() {
    let world = World::with_a_day();
    for number in 0..2 * MAX_INCIDENT_FILES as i64 {
        let at = UnixMillis(hour(9 - 24 * (8 + number % 50)).start().0 + number);
        kept(&world, at, minutes_after(hour(-100), 0), "platform");
    }
    world.run("a").await.unwrap();
    let gets = world.bucket.calls_by_operation.borrow()["GET"];
    let without = World::with_a_day();
    without.run("a").await.unwrap();
    assert_eq!(gets, without.bucket.calls_by_operation.borrow()["GET"]);
    assert!(world.webhooks.sent.borrow()[0].contains("\n- None: no alarm was on\n"));
}

fn kept(world: &World, opened_at: UnixMillis, until: UnixMillis, group: &str) {
    kept_of(world, opened_at, until, group, None);
}

fn kept_of(world: &World, opened_at: UnixMillis, until: UnixMillis, group: &str, reporter: Option<Reporter>) {
    let alarm = serde_json::json!({
        "since": opened_at, "until": until, "noticed_at": opened_at, "told": true, "chart": null,
        "about": {"description": "It is wrong.", "anchor": "it", "reason": "r", "watched": null},
    });
    let incident = serde_json::json!({
        "group": group, "reporter": reporter, "opened_at": opened_at, "resolved_at": until, "alarms": {"prod-it": alarm}, "messages": [], "message_count": 0,
    });
    let incident: crate::notify::Incident = serde_json::from_value(incident).unwrap();
    world.bucket.insert(&incident.key(), serde_json::to_vec(&incident).unwrap(), HashMap::new());
}

#[tokio::test]
async fn incidents_that_touched_the_day_are_found() {
    let world = World::with_a_day();
    let start = hour(0).start();
    for group in ["platform", "ads"] {
        kept(&world, minutes_after(hour(9), 0), minutes_after(hour(9), 5), group);
    }
    kept(&world, minutes_after(hour(-30), 0), start, "platform");
    kept(&world, minutes_after(hour(-30), 1), UnixMillis(start.0 - 1), "platform");
    kept(&world, minutes_after(hour(30), 0), minutes_after(hour(31), 0), "platform");
    let elsewhere = Reporter::new("111122223333", "eu-north-1");
    kept_of(&world, minutes_after(hour(9), 1), minutes_after(hour(9), 6), "platform", elsewhere);
    world.run("a").await.unwrap();
    let text = world.webhooks.sent.borrow()[0].clone();
    let (_, found) = text.split_once("\nIncidents\n").unwrap();
    let found: Vec<_> = found.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(
        found,
        [
            "! 2026-11-21 10:00:00 UTC for 5 min: prod-it (notified: ads, platform)",
            "! 2026-11-19 19:00:00 UTC for 1 d 5 h: prod-it (notified: platform)",
        ]
    );
}

#[rstest]
#[case(MAX_INCIDENT_FILES, false)]
#[case(MAX_INCIDENT_FILES + 1, true)]
#[tokio::test]
async fn at_most_two_hundred_files_are_read(#[case] files: usize, #[case] is_said: bool) {
    let world = World::with_a_day();
    for number in 0..files as i64 {
        let at = UnixMillis(hour(9).start().0 + number);
        kept(&world, at, minutes_after(hour(9), 5), "platform");
    }
    world.run("a").await.unwrap();
    let text = world.webhooks.sent.borrow()[0].clone();
    assert_eq!(text.contains("! Not read: 1 file under incidents/"), is_said, "{text}");
}
