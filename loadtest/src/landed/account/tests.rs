use std::collections::BTreeMap;

use rstest::rstest;

use super::*;
use crate::landed::content::Holdings;
use crate::landed::scan::Scanner;
use crate::ledger::Ledger;

const PREFIX: &str = "lt-r-";
const STARTED: u64 = 1_795_219_200_000;

fn search(ledger: &Ledger) -> Search<'_> {
    let (started_unix_ms, ended_unix_ms) = (STARTED, STARTED + 2_001);
    let (patience, settle) = (Duration::ZERO, Duration::ZERO);
    Search { prefix: PREFIX.into(), ledger, started_unix_ms, ended_unix_ms, patience, settle }
}

fn ledger(entries: &[(u32, Kind, Reported)]) -> Ledger {
    let mut ledger = Ledger::default();
    for (planned_ms, kind, reported) in entries {
        let number = ledger.add(*planned_ms, *kind);
        ledger.report(number, *reported);
    }
    ledger
}

fn object(kind: Kind, after_ms: i64, numbers: &[u64]) -> LandedObject {
    let holdings = Holdings { numbers: numbers.to_vec(), uncompressed_bytes: 100, ..Holdings::default() };
    let modified_ms = STARTED.checked_add_signed(after_ms).unwrap();
    LandedObject { kind, etag: String::new(), modified_ms, compressed_bytes: 10, holdings }
}

fn account(objects: Vec<LandedObject>, ledger: &Ledger) -> Truth {
    let objects: BTreeMap<_, _> =
        objects.into_iter().enumerate().map(|(place, one)| (place.to_string(), one)).collect();
    let inventory = Inventory { scanner: Scanner::new(PREFIX), objects };
    truth(&inventory, &search(ledger), Duration::from_secs(7)).unwrap()
}

#[test]
fn each_event_is_accounted_for_by_its_answer_and_its_place() {
    use Kind::{Event, Rejected as Bad};
    use Reported::*;
    let ledger = ledger(&[
        (0, Event, Stored),    // 0: there
        (0, Event, Stored),    // 1: missing
        (0, Event, Stored),    // 2: doubled, in two files
        (0, Bad, Stored),      // 3: there
        (0, Bad, Stored),      // 4: as an event
        (0, Event, Stored),    // 5: under rejected/
        (0, Event, Nothing),   // 6: landed anyway
        (0, Event, Nothing),   // 7: not there, and need not be
        (0, Event, NotStored), // 8: landed anyway
    ]);
    let events = object(Kind::Event, 500, &[0, 2, 4, 6, 8]);
    let truth = account(vec![events, object(Kind::Event, 700, &[2]), object(Kind::Rejected, 900, &[3, 5])], &ledger);
    assert_eq!((truth.expected, truth.landed, truth.missing, truth.doubled), (6, 7, 1, 1));
    assert_eq!((truth.landed_unknown, truth.misplaced), (2, 2));
    assert_eq!(
        truth.examples,
        [
            "missing lt-r-0000000001",
            "doubled lt-r-0000000002 (2 times)",
            "misplaced lt-r-0000000004",
            "misplaced lt-r-0000000005",
        ]
    );
    assert_eq!((truth.files, truth.compressed_bytes, truth.uncompressed_bytes), (3, 30, 300));
    assert_eq!((truth.waited_seconds, truth.end_to_end.count), (7.0, 7));
}

#[test]
fn an_event_that_was_never_sent_is_misplaced_and_not_landed() {
    let truth = account(vec![object(Kind::Event, 0, &[0, 1])], &ledger(&[(0, Kind::Event, Reported::Stored)]));
    assert_eq!((truth.landed, truth.misplaced, truth.missing), (1, 1, 0));
    assert_eq!(truth.examples, ["never sent lt-r-0000000001"]);
}

#[test]
fn events_that_share_a_line_are_misplaced() {
    let mut shared = object(Kind::Event, 0, &[0, 1]);
    shared.holdings.mixed = vec![0, 1];
    let truth = account(vec![shared], &ledger(&[(0, Kind::Event, Reported::Stored); 2]));
    assert_eq!((truth.landed, truth.misplaced, truth.doubled), (2, 2, 0));
}

#[test]
fn examples_are_twenty_and_of_each_kind() {
    let ledger = ledger(&[(0, Kind::Event, Reported::Stored); 200]);
    let doubled: Vec<u64> = (100..200).chain(100..200).collect();
    let truth = account(vec![object(Kind::Event, 0, &doubled)], &ledger);
    assert_eq!((truth.missing, truth.doubled, truth.examples.len()), (100, 100, 20));
    assert_eq!(truth.examples.iter().filter(|example| example.starts_with("missing")).count(), 10);
}

#[rstest]
#[case::later(700, 500, 200_000)]
#[case::at_once(500, 500, 0)]
#[case::a_clock_behind_ours(499, 500, 0)]
#[case::before_the_start(-1, 0, 0)]
fn end_to_end_is_from_the_planned_time(#[case] stored_ms: i64, #[case] planned_ms: u32, #[case] expected_us: u64) {
    let truth =
        account(vec![object(Kind::Event, stored_ms, &[0])], &ledger(&[(planned_ms, Kind::Event, Reported::Stored)]));
    let found = truth.end_to_end.max_us;
    assert!((expected_us..=expected_us + expected_us / 500).contains(&found), "{found}");
    assert_eq!(truth.end_to_end.count, 1);
}

#[test]
fn the_first_time_of_a_doubled_event_counts() {
    let objects = vec![object(Kind::Event, 900, &[0]), object(Kind::Event, 300, &[0])];
    let found = account(objects, &ledger(&[(0, Kind::Event, Reported::Stored)])).end_to_end.max_us;
    assert!((300_000..301_000).contains(&found), "{found}");
}

#[rstest]
#[case::whole_seconds(&[1_000, 3_000], 1_000)]
#[case::one_with_a_fraction(&[1_000, 3_001], 1)]
fn the_resolution_is_that_of_the_times(#[case] stored: &[i64], #[case] expected: u64) {
    let objects = stored.iter().map(|after_ms| object(Kind::Event, *after_ms, &[0])).collect();
    assert_eq!(account(objects, &ledger(&[(0, Kind::Event, Reported::Stored)])).resolution_ms, expected);
}

#[test]
fn landed_events_grow_by_the_second_without_what_was_bad() {
    let ledger = ledger(&[
        (0, Kind::Event, Reported::Stored),
        (0, Kind::Event, Reported::Stored),
        (0, Kind::Rejected, Reported::Stored),
    ]);
    let files = |second: i64| {
        vec![object(Kind::Event, 999, &[0]), object(Kind::Event, second, &[1]), object(Kind::Rejected, 0, &[2])]
    };
    // A run of just over two seconds has three, however early all had landed.
    assert_eq!(account(files(1_000), &ledger).landed_by_second, [1, 2, 2]);
    assert_eq!(account(files(999), &ledger).landed_by_second, [2, 2, 2]);
    assert_eq!(account(files(4_000), &ledger).landed_by_second, [1, 1, 1, 1, 2]);
    assert_eq!(account(Vec::new(), &ledger).landed_by_second, [0, 0, 0]);
}
