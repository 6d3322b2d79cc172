use super::*;
use crate::result::tests::sample;

const MS: Duration = Duration::from_millis(1);

type Outcome = (Result<u16, &'static str>, Account);

fn accepted(events: u64) -> Outcome {
    (Ok(200), Account { accepted: events, as_expected: true, ..Account::default() })
}

fn unanswered(why: &'static str) -> Outcome {
    (Err(why), Account { unknown: 1, ..Account::default() })
}

fn post(recorder: &mut Recorder, [planned, sent_at, ended]: [u32; 3], (answer, account): Outcome) {
    recorder.record_start(MS * planned, Duration::ZERO, 1, 10).unwrap();
    recorder.record_sent(MS * sent_at);
    let times = Times { planned: MS * planned, sent_at: Some(MS * sent_at), ended: MS * ended };
    recorder.record_outcome(times, answer, account);
}

#[test]
fn latency_counts_from_the_planned_time_and_service_time_from_sending() {
    let mut recorder = Recorder::new(MS * 3_000).unwrap();
    post(&mut recorder, [100, 900, 902], accepted(1));
    let recorded = recorder.finish(sample().plan);
    assert!((801_000..=803_000).contains(&recorded.latency.max_us), "{}", recorded.latency.max_us);
    assert!((1_999..=2_002).contains(&recorded.service_time.max_us));
}

#[test]
fn every_post_and_event_is_counted_once() {
    let mut recorder = Recorder::new(MS * 3_000).unwrap();
    post(&mut recorder, [0, 0, 5], accepted(20));
    let partly = Account { accepted: 1, not_stored: 2, ..Account::default() };
    post(&mut recorder, [1, 1, 6], (Ok(503), partly));
    post(&mut recorder, [2, 2, 3], unanswered("reset"));
    post(&mut recorder, [3, 3, 2_003], unanswered(SendError::TIMEOUT));
    assert_eq!(recorder.pending(), 0);
    let recorded = recorder.finish(sample().plan);
    let posts = &recorded.posts;
    assert_eq!((posts.planned, posts.as_expected, posts.errors()), (4, 1, 3));
    assert_eq!((posts.unexpected[&503], posts.unanswered["reset"], posts.unanswered[SendError::TIMEOUT]), (1, 1, 1));
    let events = &recorded.events;
    assert_eq!((events.sent, events.accepted, events.not_stored, events.unknown), (4, 21, 2, 2));
    // What was reset at once was not fast; what timed out took at least that long.
    assert_eq!(recorded.latency.count, 3);
    assert!(recorded.latency.max_us >= 2_000_000);
}

#[test]
fn each_second_has_the_latency_of_its_posts_and_those_sent_and_answered_in_it() {
    let mut recorder = Recorder::new(MS * 3_000).unwrap();
    post(&mut recorder, [500, 1_200, 2_500], accepted(1));
    post(&mut recorder, [1_500, 1_500, 1_510], accepted(1));
    let seconds = recorder.finish(sample().plan).seconds;
    let counts: Vec<_> = seconds.iter().map(|second| [second.planned, second.sent, second.answered]).collect();
    assert_eq!(counts, [[1, 0, 0], [1, 2, 1], [0, 0, 1]]);
    assert!(seconds[0].p50_us >= 1_999_000 && (9_900..=10_100).contains(&seconds[1].p50_us));
}

#[test]
fn posts_sent_after_the_end_are_counted_and_those_just_in_time_are_not() {
    let mut recorder = Recorder::new(MS * 1_000).unwrap();
    post(&mut recorder, [999, 1_000, 1_001], accepted(1));
    assert_eq!(recorder.result.generator.sent_after_end, 0);
    post(&mut recorder, [999, 1_001, 1_001], accepted(1));
    assert_eq!(recorder.result.generator.sent_after_end, 1);
}

#[test]
fn a_snapshot_shows_the_latency_since_the_last_one() {
    let mut recorder = Recorder::new(MS * 1_000).unwrap();
    post(&mut recorder, [0, 0, 5], accepted(1));
    let live = recorder.snapshot();
    assert_eq!((live.planned, live.sent, live.answered, live.errors), (1, 1, 1, 0));
    assert!((5_000..5_010).contains(&live.p99_us));
    assert_eq!(recorder.snapshot().p99_us, 0);
}

#[test]
fn histograms_of_past_seconds_are_dropped() {
    let mut recorder = Recorder::new(MS * 1_000_000).unwrap();
    (0..1_000).for_each(|second| post(&mut recorder, [second * 1_000; 3], accepted(1)));
    assert!(recorder.open.len() <= 2);
}
