use super::*;
use crate::manifest::Repeated;
use proptest::prelude::*;
use rstest::rstest;

fn totals(previous: u64, this: u64, next: u64, elsewhere: u64) -> Totals {
    Totals {
        events: previous + this + next + elsewhere,
        events_received_in: Received { previous, this, next, elsewhere },
        ..Totals::default()
    }
}

fn hours<'a>(sent: &[Sent], landed: &'a [Totals]) -> Vec<Hour<'a>> {
    let first = UtcHour::parse("dt=2026-11-21/hour=00").unwrap();
    let hour = |(at, (sent, landed)): (i64, (&Sent, &'a Totals))| Hour { hour: first.plus(at), sent: *sent, landed };
    (0..).zip(sent.iter().zip(landed)).map(hour).collect()
}

/// All of it may be in flight at the full hour.
fn at_the_edges(whole: f64) -> Counted {
    Counted { whole, first: whole, last: whole }
}

fn records(counted: Counted) -> Sent {
    Sent { records: counted, ..Sent::default() }
}

fn accepted(whole: f64) -> Sent {
    Sent { accepted: at_the_edges(whole), ..Sent::default() }
}

fn landed_records(landed: &[u64]) -> Vec<Totals> {
    landed.iter().map(|records| Totals { records: *records, ..Totals::default() }).collect()
}

fn lost_records(arrived: &[Counted], landed: &[Totals]) -> Vec<f64> {
    let sent: Vec<Sent> = arrived.iter().copied().map(records).collect();
    let balances = balances(&hours(&sent, landed), EventFormat::Envelope);
    balances.into_iter().map(|balance| balance.lost_records).collect()
}

fn balance_of(sent: Sent, landed: [Totals; 3], format: EventFormat) -> Balance {
    balances(&hours(&[Sent::default(), sent, Sent::default()], &landed), format)[0]
}

fn events(lost_events: f64, doubled_events: f64) -> Balance {
    Balance { lost_events, doubled_events, ..Balance::default() }
}

#[rstest]
#[case(107.0, 0.0, 0.0)]
#[case(110.0, 3.0, 0.0)]
#[case(100.0, 0.0, 7.0)]
fn events_count_by_their_receipt(#[case] sent: f64, #[case] lost: f64, #[case] doubled: f64) {
    // Two of the hour landed in the hour before by a clock that differs, five in the hour after.
    let landed = [totals(9, 90, 2, 0), totals(8, 100, 1, 50), totals(5, 80, 0, 0)];
    assert_eq!(balance_of(accepted(sent), landed, EventFormat::Envelope), events(lost, doubled));
}

#[test]
fn rejected_lines_are_balanced_separately() {
    // A lost event is not made good by a rejected line too many.
    let this = Totals {
        rejected_received_in: Received { this: 4, elsewhere: 9, ..Received::default() },
        ..totals(0, 10, 0, 0)
    };
    let sent = Sent { rejected: at_the_edges(3.0), ..accepted(11.0) };
    let landed = [Totals::default(), this, Totals::default()];
    assert_eq!(balance_of(sent, landed, EventFormat::Envelope), events(1.0, 1.0));
}

#[rstest]
#[case::envelope(EventFormat::Envelope)]
#[case::raw(EventFormat::Raw)]
fn repeated_records_hide_no_loss(#[case] format: EventFormat) {
    // 100 were sent, 30 of them landed twice, and 20 not at all.
    let repeated = Repeated {
        records: 3,
        events: 30,
        events_received_in: Received { this: 30, ..Received::default() },
        rejected_received_in: Received { this: 2, ..Received::default() },
    };
    let this = Totals {
        records: 11,
        rejected_received_in: Received { this: 7, ..Received::default() },
        repeated,
        ..totals(0, 110, 0, 0)
    };
    let sent = Sent { rejected: at_the_edges(6.0), records: at_the_edges(10.0), ..accepted(100.0) };
    let balance = balance_of(sent, [Totals::default(), this, Totals::default()], format);
    assert_eq!(
        balance,
        Balance {
            lost_events: 21.0,
            doubled_events: 32.0,
            lost_records: 2.0,
            doubled_records: 3.0,
            unknown_events: 0.0
        }
    );
}

#[test]
fn raw_events_made_by_redrive_are_not_doubled() {
    let this = Totals { redriven_events: 7, ..totals(0, 0, 0, 107) };
    let landed = [Totals::default(), this, Totals::default()];
    assert_eq!(balance_of(accepted(100.0), landed, EventFormat::Raw), Balance::default());
}

#[rstest]
#[case([100, 100, 100], 0.0)]
#[case([100, 97, 103], 0.0)]
#[case([102, 97, 100], 1.0)]
#[case([90, 97, 90], 3.0)]
#[case([100, 104, 96], 0.0)]
fn records_around_the_full_hour_may_count_in_either_hour(#[case] landed: [u64; 3], #[case] lost: f64) {
    assert_eq!(lost_records(&[at_the_edges(100.0); 3], &landed_records(&landed)), [lost]);
}

#[rstest]
#[case::all_that_was_in_flight(85, 0.0)]
#[case::one_more(84, 1.0)]
fn a_surplus_offsets_at_most_what_was_sent_around_the_full_hour(#[case] this: u64, #[case] lost: f64) {
    let arrived = [Counted { whole: 100.0, first: 10.0, last: 5.0 }; 3];
    assert_eq!(lost_records(&arrived, &landed_records(&[200, this, 100])), [lost]);
    assert_eq!(lost_records(&arrived, &landed_records(&[100, this, 200])), [lost]);
}

#[test]
fn a_surplus_offsets_one_hour_only() {
    let arrived = [at_the_edges(100.0); 5];
    assert_eq!(lost_records(&arrived, &landed_records(&[100, 97, 103, 97, 100])), [0.0, 0.0, 3.0]);
    assert_eq!(lost_records(&arrived, &landed_records(&[100, 98, 103, 99, 100])), [0.0, 0.0, 0.0]);
    // What the first hour lacks is its other neighbour's matter.
    assert_eq!(lost_records(&arrived, &landed_records(&[97, 103, 97, 100, 100])), [0.0, 0.0, 0.0]);
}

/// Of an hour in which ingest accepted 20,003 events, and of which so many landed.
#[rstest]
#[case::all_counted(50.0, 50.0, 20_006, events(0.0, 3.0), 0.0)]
#[case::one_request_not_counted(51.0, 50.0, 30_003, events(0.0, 0.0), 10_000.0)]
#[case::one_request_not_counted_and_more_than_it_can_hold(51.0, 50.0, 30_004, events(0.0, 1.0), 10_000.0)]
#[case::one_request_not_counted_hides_no_loss(51.0, 50.0, 20_000, events(3.0, 0.0), 10_000.0)]
#[case::one_request_counted_twice(50.0, 51.0, 10_003, events(0.0, 0.0), 10_000.0)]
#[case::one_request_counted_twice_and_more_than_it_can_hold(50.0, 51.0, 10_002, events(1.0, 0.0), 10_000.0)]
#[case::two_requests_counted_twice(50.0, 52.0, 3, events(0.0, 0.0), 20_000.0)]
#[case::one_request_counted_twice_hides_no_doubles(50.0, 51.0, 20_006, events(0.0, 3.0), 10_000.0)]
fn an_uncounted_or_double_counted_request_excuses_as_many_events_as_it_can_hold(
    #[case] invocations: f64,
    #[case] requests: f64,
    #[case] landed: u64,
    #[case] expected: Balance,
    #[case] unknown_events: f64,
    #[values(EventFormat::Envelope, EventFormat::Raw)] format: EventFormat,
) {
    let counted = |whole| Counted { whole, ..Counted::default() };
    let (invocations, requests) = (counted(invocations), counted(requests));
    let sent = Sent { invocations, requests, accepted: counted(20_003.0), ..Sent::default() };
    let expected = Balance { unknown_events, ..expected };
    let landed = [Totals::default(), totals(0, landed, 0, 0), Totals::default()];
    assert_eq!(balance_of(sent, landed, format), expected);
}

/// Of an hour in which ingest accepted 20,003 events, some of them by the server, and its function counted one request too few.
#[rstest]
#[case::all_landed(20_003, events(0.0, 0.0), 10_000.0)]
#[case::more_than_one_request_can_hold(30_004, events(0.0, 0.0), 10_001.0)]
#[case::a_loss_is_seen(20_000, events(3.0, 0.0), 10_000.0)]
fn where_the_server_runs_uncounted_events_are_unknown_and_lost_ones_are_lost(
    #[case] landed: u64,
    #[case] expected: Balance,
    #[case] unknown_events: f64,
    #[values(EventFormat::Envelope, EventFormat::Raw)] format: EventFormat,
) {
    let counted = |whole| Counted { whole, ..Counted::default() };
    let server_requests = counted(1_000.0);
    let (invocations, requests) = (counted(51.0), counted(50.0));
    let sent = Sent { invocations, requests, server_requests, accepted: counted(20_003.0), ..Sent::default() };
    let landed = [Totals::default(), totals(0, landed, 0, 0), Totals::default()];
    assert_eq!(balance_of(sent, landed, format), Balance { unknown_events, ..expected });
}

#[test]
fn what_is_in_two_objects_is_doubled_where_the_server_runs_too() {
    let server_requests = Counted { whole: 50.0, ..Counted::default() };
    let sent = Sent { server_requests, ..accepted(100.0) };
    let repeated = Repeated { events_received_in: Received { this: 3, ..Received::default() }, ..Repeated::default() };
    let landed = [Totals::default(), Totals { repeated, ..totals(0, 103, 0, 0) }, Totals::default()];
    assert_eq!(balance_of(sent, landed, EventFormat::Envelope), events(0.0, 3.0));
}

#[test]
fn requests_around_the_full_hour_may_be_invocations_of_either_hour() {
    let sent = |invocations: f64, requests: f64, accepted: f64| Sent {
        invocations: at_the_edges(invocations),
        requests: at_the_edges(requests),
        accepted: at_the_edges(accepted),
        ..Sent::default()
    };
    let sent = [sent(10.0, 11.0, 100.0), sent(10.0, 9.0, 100.0), sent(10.0, 10.0, 100.0)];
    let landed = [Totals::default(), totals(0, 104, 0, 0), Totals::default()];
    assert_eq!(balances(&hours(&sent, &landed), EventFormat::Envelope), [events(0.0, 4.0)]);
    // One of the three is none of a neighbour's.
    let sent = [sent[0], Sent { requests: at_the_edges(8.0), ..sent[1] }, sent[2]];
    let unknown_events = balances(&hours(&sent, &landed), EventFormat::Envelope)[0].unknown_events;
    assert_eq!(unknown_events, 10_000.0);
}

#[rstest]
#[case::as_many([100, 100, 100], 0.0)]
#[case::from_the_next_hour([100, 103, 97], 0.0)]
#[case::too_many([100, 103, 98], 1.0)]
#[case::in_all_hours([110, 103, 110], 3.0)]
fn records_that_landed_more_often_than_they_arrived_are_doubled(#[case] landed: [u64; 3], #[case] doubled: f64) {
    let sent = [records(at_the_edges(100.0)); 3];
    let landed = landed_records(&landed);
    let balances = balances(&hours(&sent, &landed), EventFormat::Envelope);
    assert_eq!(balances, [Balance { doubled_records: doubled, ..Balance::default() }]);
}

#[test]
fn fabricated_sums_give_a_number() {
    let most = Received { previous: u64::MAX, this: u64::MAX, next: u64::MAX, elsewhere: u64::MAX };
    let totals = Totals {
        records: u64::MAX,
        events: u64::MAX,
        redriven_events: u64::MAX,
        events_received_in: most,
        rejected_received_in: most,
        repeated: Repeated { records: 1, events: u64::MAX, events_received_in: most, rejected_received_in: most },
        ..Totals::default()
    };
    for format in [EventFormat::Envelope, EventFormat::Raw] {
        let landed = [totals.clone(), totals.clone(), totals.clone()];
        let balance = balance_of(accepted(1.0), landed, format);
        assert!(balance.lost_events.is_finite() && balance.doubled_events.is_finite(), "{balance:?}");
    }
}

#[rstest]
#[case::all_landed([100, 100], [None, None], (0.0, 0.0))]
#[case::within_the_edges([86, 86], [None, None], (0.0, 14.0))]
#[case::beyond_the_edges([69, 69], [None, None], (1.0, 31.0))]
#[case::the_neighbours_have_it([86, 86], [Some(104), Some(110)], (0.0, 0.0))]
#[case::the_neighbours_lack_it_too([86, 86], [Some(100), Some(104)], (10.0, 10.0))]
#[case::objects_overlap([70, 100], [Some(100), Some(100)], (0.0, 30.0))]
fn an_hour_lacks_what_its_neighbours_cannot_hold(
    #[case] landed: [u64; 2],
    #[case] neighbours: [Option<u64>; 2],
    #[case] expected: (f64, f64),
) {
    let arrived = [Counted { whole: 100.0, first: 10.0, last: 5.0 }; 3];
    let neighbours = neighbours.map(|records| records.map(|records| Totals { records, ..Totals::default() }));
    let neighbours = [neighbours[0].as_ref(), neighbours[1].as_ref()];
    let [at_least, at_most] = landed;
    assert_eq!(super::lost_records(arrived, LandedRecords { at_least, at_most }, neighbours), expected);
}

/// The requests in a line of ingest's log by their events, and how often CloudWatch took it.
fn counted_lines(taken: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(Vec<u16>, usize)>> {
    let requests = prop::collection::vec(prop_oneof![0u16..30, 0..=MAX_EVENTS_PER_REQUEST as u16], 0..20);
    prop::collection::vec((requests, taken), 1..20)
}

/// Of an hour of which so many events landed.
fn balance_of_lines(lines: &[(Vec<u16>, usize)], landed: u64, format: EventFormat) -> Balance {
    let counted = |of: fn(&[u16]) -> u64| {
        let whole = lines.iter().map(|(requests, taken)| of(requests) * *taken as u64).sum::<u64>() as f64;
        Counted { whole, ..Counted::default() }
    };
    let invocations =
        Counted { whole: lines.iter().map(|(requests, _)| requests.len()).sum::<usize>() as f64, ..Counted::default() };
    let (accepted, requests) = (counted(events_in), counted(|requests| requests.len() as u64));
    let sent = Sent { accepted, requests, invocations, ..Sent::default() };
    balance_of(sent, [Totals::default(), totals(0, landed, 0, 0), Totals::default()], format)
}

fn events_in(requests: &[u16]) -> u64 {
    requests.iter().copied().map(u64::from).sum()
}

proptest! {
    /// Where lines are only missing, or only taken more than once.
    #[test]
    fn wrong_counts_cause_no_false_alarm_and_hide_no_more_than_their_requests_can_hold(
        lines in prop_oneof![counted_lines(0..2), counted_lines(1..4)], gone in 0u64..100_000, raw: bool,
    ) {
        let format = if raw { EventFormat::Raw } else { EventFormat::Envelope };
        let sent: u64 = lines.iter().map(|(requests, _)| events_in(requests)).sum();
        let all_landed = balance_of_lines(&lines, sent, format);
        prop_assert!(all_landed.is_even(), "{:?}", all_landed);
        let gone = gone.min(sent);
        let found = balance_of_lines(&lines, sent - gone, format);
        prop_assert_eq!(found.doubled_events, 0.0);
        prop_assert!(found.lost_events <= gone as f64);
        prop_assert!(found.lost_events + found.unknown_events >= gone as f64);
    }

    #[test]
    fn events_are_lost_and_doubled_to_the_line_wherever_they_land(
        on_time in 0u64..1_000_000, before in 0u64..1_000, after in 0u64..1_000,
        others in prop::array::uniform6(0u64..1_000_000), lost in 0u64..1_000, doubled: bool,
    ) {
        let landed = [
            totals(others[0], others[1], before, others[2]),
            totals(others[3], on_time, others[4], others[5]),
            totals(after, others[1], others[2], others[3]),
        ];
        let there = (on_time + before + after) as f64;
        let sent = if doubled { there - lost as f64 } else { there + lost as f64 };
        let expected = if doubled { events(0.0, lost as f64) } else { events(lost as f64, 0.0) };
        prop_assert_eq!(balance_of(accepted(sent), landed, EventFormat::Envelope), expected);
    }

    /// What lands in a neighbouring hour is not lost; of what is lost besides, no more is counted, and all of it where
    /// nothing else is too much.
    #[test]
    fn raw_events_that_only_change_the_hour_are_not_lost_and_others_are(
        sent in prop::array::uniform6(2_000u64..1_000_000), from in 0usize..5, shift in -900i64..900,
        lost in 0u64..100, lost_in in 1usize..5,
    ) {
        let mut landed = sent;
        landed[from] = landed[from].checked_add_signed(-shift).unwrap();
        landed[from + 1] = landed[from + 1].checked_add_signed(shift).unwrap();
        let sent: Vec<Sent> = sent.iter().map(|events| accepted(*events as f64)).collect();
        let lost_events = |landed: &[u64]| {
            let landed: Vec<Totals> = landed.iter().map(|events| totals(0, 0, 0, *events)).collect();
            let balances = balances(&hours(&sent, &landed), EventFormat::Raw);
            balances.iter().map(|balance| balance.lost_events).sum::<f64>()
        };
        prop_assert_eq!(lost_events(&landed), 0.0);
        landed[lost_in] -= lost;
        let found = lost_events(&landed);
        prop_assert!(found <= lost as f64);
        prop_assert!(shift != 0 || found == lost as f64);
    }
}
