use std::path::Path;

use http::header::CONTENT_TYPE;
use ingest_lambda::content::{BodyForm, body_form};
use ingest_lambda::event::KeyFields;
use ingest_lambda::split::split;
use proptest::prelude::*;
use rstest::rstest;
use shared::line::Kind;

use super::*;
use crate::cli::{EventsPerPost, PlayersArgs};
use crate::rate::{Rate, Schedule};

const SECONDS: u64 = 4;

fn schedule(rate: f64) -> Schedule {
    Schedule::new(&Rate::constant(rate), Duration::from_secs(SECONDS)).unwrap()
}

fn plan(seed: u64) -> PlayersArgs {
    PlayersArgs { seed, events_per_post: events(1, 20), event_bytes: 0, bad: 200_000, viewers: 30 }
}

fn events(fewest: u32, most: u32) -> EventsPerPost {
    EventsPerPost { fewest, most }
}

fn all(mut workload: Workload) -> (Vec<Post>, Ledger) {
    let mut ledger = Ledger::default();
    let posts = std::iter::from_fn(|| workload.next(&mut ledger)).collect();
    (posts, ledger)
}

fn players(plan: PlayersArgs) -> (Vec<Post>, Ledger) {
    all(Workload::Players(Players::new(plan, schedule(100.0), "test")))
}

fn form(post: &Post) -> Option<BodyForm> {
    body_form(post.headers[CONTENT_TYPE].to_str().ok()).ok()
}

fn key_fields() -> KeyFields {
    KeyFields::new(&["session_id".into(), "xid".into(), "sid".into()])
}

/// What the real splitter makes of a body, against what the POST says will be made of it.
fn check(post: &Post, prefix: &str) {
    let Some(form) = form(post) else {
        assert_eq!(post.pieces.bad, Bad::Whole(415));
        return;
    };
    let items = match (split(&post.body, form, &key_fields()), post.pieces.bad) {
        // Broken off in its only event.
        (Ok(items), Bad::Whole(400)) => {
            return assert!(items.iter().all(|item| item.event.is_err()), "{items:?}");
        }
        (Ok(_), Bad::Whole(status)) => panic!("taken apart instead of refused with {status}"),
        (Ok(items), _) => items,
        (Err(rejection), bad) => return assert_eq!(bad, Bad::Whole(rejection.reason.status()), "{rejection:?}"),
    };
    assert_eq!(items.len() as u64, post.pieces.count);
    let mut keys = std::collections::BTreeSet::new();
    for (place, item) in (0..).zip(items) {
        let id = ledger::id(prefix, post.pieces.first + place);
        match item.event {
            Ok(event) => {
                assert!(post.pieces.bad != Bad::Piece(place) && event.json.contains(&id), "{}", event.json);
                keys.insert(event.key.unwrap());
            }
            Err(_) => {
                assert_eq!(post.pieces.bad, Bad::Piece(place));
                assert_eq!(item.source, format!("\"{id}\"").as_bytes());
            }
        }
    }
    assert!(keys.len() <= 1, "events of a POST are of one session: {keys:?}");
}

use crate::ledger;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_splitter_takes_what_is_good_and_rejects_what_is_bad(
        seed: u64, most in 1u32..30, event_bytes in prop_oneof![Just(0u32), 200u32..2_000], viewers in 1u32..50,
    ) {
        let (posts, ledger) = players(PlayersArgs { events_per_post: events(1, most), event_bytes, viewers, ..plan(seed) });
        prop_assert_eq!(posts.len(), 400);
        posts.iter().for_each(|post| check(post, "lt-test-"));
        let pieces: u64 = posts.iter().map(|post| post.pieces.count).sum();
        prop_assert_eq!(pieces, ledger.entries().len() as u64);
        let bad = posts.iter().filter(|post| post.pieces.bad != Bad::Nothing).count();
        prop_assert!((40..130).contains(&bad), "{} of 400 are bad", bad);
        prop_assert_eq!(ledger.entries().iter().filter(|entry| entry.kind == Kind::Rejected).count(), bad);
    }
}

fn bytes(posts: &[Post]) -> Vec<(Duration, &[u8], u64)> {
    posts.iter().map(|post| (post.planned, &post.body[..], post.pieces.first)).collect()
}

#[test]
fn a_seed_determines_the_posts() {
    let (once, again, other) = (players(plan(7)).0, players(plan(7)).0, players(plan(8)).0);
    assert_eq!(bytes(&once), bytes(&again));
    assert_ne!(bytes(&once), bytes(&other));
}

#[test]
fn each_piece_carries_its_own_id_however_bad_it_is() {
    let (posts, _) = players(plan(3));
    for post in &posts {
        let text = String::from_utf8(post.body.to_vec()).unwrap();
        for number in post.pieces.first..post.pieces.first + post.pieces.count {
            assert_eq!(text.matches(&ledger::id("lt-test-", number)).count(), 1, "{text}");
        }
        assert_eq!(text.matches("lt-test-").count() as u64, post.pieces.count);
    }
}

#[test]
fn counts_and_sizes_are_as_configured() {
    let fixed = PlayersArgs { events_per_post: events(20, 20), event_bytes: 700, bad: 0, ..plan(1) };
    let (posts, _) = players(fixed);
    for post in &posts {
        assert_eq!((post.pieces.count, post.pieces.bad), (20, Bad::Nothing));
        assert!((14_000..15_500).contains(&post.body.len()), "{}", post.body.len());
    }
}

#[test]
fn viewers_post_in_turn() {
    let (posts, _) = players(PlayersArgs { bad: 0, ..plan(5) });
    let viewer = |post: &Post| {
        let text = String::from_utf8(post.body.to_vec()).unwrap();
        text.split("\"viewer_id\":\"").nth(1).unwrap()[..36].to_owned()
    };
    let viewers: Vec<String> = posts.iter().map(viewer).collect();
    let different: std::collections::BTreeSet<&String> = viewers[..30].iter().collect();
    assert_eq!(different.len(), 30);
    assert_eq!(viewers[..30], viewers[30..60]);
}

fn replay(file: &str, rate: f64, speed: f64) -> (Vec<Post>, Ledger) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(file);
    let recording = Recording::read(&path).unwrap();
    all(Workload::Replay(Replay::new(recording, schedule(rate), speed, "test")))
}

#[rstest]
#[case("mux-embed-session.jsonl", 4, 21)]
#[case("dashjs-cmcd-v2-session.jsonl", 38, 38)]
#[case("made-up-session.jsonl", 6, 10)]
fn a_replayed_session_is_complete_and_its_copies_are_distinct(
    #[case] file: &str,
    #[case] requests: usize,
    #[case] events: usize,
) {
    let (posts, ledger) = replay(file, 0.5, 1_000.0);
    assert_eq!((posts.len(), ledger.entries().len()), (2 * requests, 2 * events));
    assert!(posts.iter().is_sorted_by_key(|post| post.planned));
    posts.iter().for_each(|post| check(post, "lt-test-"));
    let mut sessions = std::collections::BTreeMap::new();
    for post in &posts {
        for item in split(&post.body, form(post).unwrap(), &key_fields()).unwrap() {
            *sessions.entry(item.event.unwrap().key.unwrap()).or_insert(0) += 1;
        }
    }
    assert!(sessions.values().all(|count| *count == events) && sessions.len() == 2, "{sessions:?}");
}

#[test]
fn a_replay_keeps_its_times_at_a_multiple_of_the_speed_and_ends_with_the_run() {
    // The recorded session's requests come 0, 9.995, 19.997 and 21.022 seconds after its start.
    let times = |speed| replay("mux-embed-session.jsonl", 0.25, speed).0.into_iter().map(|post| post.planned);
    let ms = |times: &[u64]| times.iter().map(|time| Duration::from_millis(*time)).collect::<Vec<_>>();
    assert!(times(10.0).map(|time| Duration::from_millis(u64::from(whole_ms(time)))).eq(ms(&[2_000, 2_999, 3_999])));
    assert_eq!(times(1.0).count(), 1);
}
