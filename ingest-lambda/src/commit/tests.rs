use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;
use shared::timestamp::UnixMillis;

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);
const LIMITS: Limits = Limits {
    interval: Duration::from_millis(200),
    kinesis_retry: Duration::from_millis(1_500),
    max_bytes: 64 * 1024,
    max_lane_bytes: 16 * 1024,
    max_record_bytes: 2_000,
    max_spill_bytes: 5_000,
};

/// Bytes of a line, which may be more than lines share a record with.
const LONGEST_LINE: usize = 3_000;

/// A record of one line of that many bytes, which is its number.
fn record(kind: Kind, bucket: u8, number: usize, bytes: usize) -> Record {
    let bucket = Bucket { number: bucket, first_hash_key: u128::from(bucket) };
    let data = format!("{}{number:0>6}\n", "0".repeat(bytes - 7)).into_bytes();
    Record { data, items: vec![0], receipts: vec![(UnixMillis(0), 1)], ..Record::new(kind, bucket, 0) }
}

fn submit(commits: &mut Commits<usize>, now: Instant, mut records: Vec<Record>) -> Result<bool, Full> {
    commits.submit(&mut records, now, |index| index)
}

fn event(number: usize) -> Vec<Record> {
    vec![record(Kind::Event, 0, number, 10)]
}

fn numbers(batches: &[Batch<usize>]) -> Vec<usize> {
    let text = |batch: &Batch<usize>| String::from_utf8(batch.record.data.clone()).unwrap();
    batches.iter().flat_map(|batch| text(batch).lines().map(|line| line.parse().unwrap()).collect::<Vec<_>>()).collect()
}

fn put(step: Step<usize>) -> Vec<Batch<usize>> {
    match step {
        Step::Put(batches, _) => batches,
        other => panic!("{other:?}"),
    }
}

fn spill(step: Step<usize>) -> Vec<Batch<usize>> {
    match step {
        Step::Spill(_, batches) => batches,
        other => panic!("{other:?}"),
    }
}

fn all(batches: Vec<Batch<usize>>, stored: bool) -> Vec<(Batch<usize>, bool)> {
    batches.into_iter().map(|batch| (batch, stored)).collect()
}

fn waits_until(commits: &mut Commits<usize>, now: Instant) -> Option<Instant> {
    match commits.next(now) {
        Step::Wait(until) => until,
        other => panic!("{other:?}"),
    }
}

#[test]
fn lines_wait_for_others_until_the_first_is_as_old_as_the_interval() {
    let (mut commits, began) = (Commits::new(LIMITS), Instant::now());
    assert_eq!(submit(&mut commits, began, event(1)), Ok(true));
    assert_eq!(waits_until(&mut commits, began), Some(began + LIMITS.interval));
    assert_eq!(submit(&mut commits, began + 199 * MILLISECOND, event(2)), Ok(false));
    assert_eq!(waits_until(&mut commits, began + 199 * MILLISECOND), Some(began + LIMITS.interval));
    assert_eq!(numbers(&put(commits.next(began + LIMITS.interval))), [1, 2]);
}

#[test]
fn while_a_record_is_in_flight_its_lane_waits_and_another_does_not() {
    let (mut commits, began) = (Commits::new(LIMITS), Instant::now());
    assert_eq!(submit(&mut commits, began, event(1)), Ok(true));
    let later = began + LIMITS.interval;
    let in_flight = put(commits.next(later));
    assert_eq!(waits_until(&mut commits, later), None);
    assert_eq!(submit(&mut commits, later, event(2)), Ok(false));
    assert_eq!(submit(&mut commits, later, vec![record(Kind::Event, 1, 3, 10)]), Ok(true));
    let later = later + LIMITS.interval;
    assert_eq!(numbers(&put(commits.next(later))), [3]);
    assert_eq!(waits_until(&mut commits, later), None);
    assert_eq!(numbers(&commits.put(all(in_flight, true), Tried::All, later, || 0.5)), [1]);
    assert_eq!(numbers(&put(commits.next(later))), [2]);
}

#[test]
fn what_is_enough_for_a_record_does_not_wait() {
    let limits = Limits { max_record_bytes: 1 << 20, max_bytes: 8 << 20, max_lane_bytes: 2 << 20, ..LIMITS };
    let (mut commits, now) = (Commits::new(limits), Instant::now());
    assert_eq!(submit(&mut commits, now, vec![record(Kind::Event, 0, 1, ENOUGH_BYTES - 10)]), Ok(true));
    assert_eq!(waits_until(&mut commits, now), Some(now + LIMITS.interval));
    assert_eq!(submit(&mut commits, now, event(2)), Ok(true));
    assert_eq!(numbers(&put(commits.next(now))), [1, 2]);
}

#[test]
fn a_throttled_record_is_put_again_before_newer_lines_and_spilled_when_its_time_is_over() {
    let (mut commits, mut now) = (Commits::new(LIMITS), Instant::now());
    assert_eq!(submit(&mut commits, now, event(1)), Ok(true));
    now += LIMITS.interval;
    let (first_try, mut batches) = (now, put(commits.next(now)));
    let mut tries = 1;
    assert_eq!(submit(&mut commits, now, event(2)), Ok(false));
    let spilled = loop {
        assert_eq!(numbers(&batches), [1]);
        assert!(commits.put(all(batches, false), Tried::Partly, now, || 1.0).is_empty());
        batches = match commits.next(now) {
            Step::Wait(Some(until)) => {
                now = until;
                tries += 1;
                put(commits.next(now))
            }
            // Its lane is free for what is newer, which has one try: nothing waits for a throttled shard.
            Step::Put(newer, _) => {
                assert_eq!(numbers(&newer), [2]);
                assert!(commits.put(all(newer, false), Tried::Partly, now, || 1.0).is_empty());
                break spill(commits.next(now));
            }
            other => panic!("{other:?}"),
        };
    };
    assert_eq!((numbers(&spilled), tries), (vec![1, 2], 6));
    assert!(now - first_try <= LIMITS.kinesis_retry - LEAST_RETRY_TIME);
}

#[test]
fn after_a_failed_call_lines_go_to_s3_at_once_and_one_record_probes() {
    let (mut commits, mut now) = (Commits::new(LIMITS), Instant::now());
    let two_lanes = || vec![record(Kind::Event, 0, 1, 10), record(Kind::Event, 1, 2, 10)];
    assert_eq!(submit(&mut commits, now, two_lanes()), Ok(true));
    now += LIMITS.interval;
    let batches = put(commits.next(now));
    assert!(commits.put(all(batches, false), Tried::Failed, now, || 1.0).is_empty());
    let spilled = spill(commits.next(now));
    assert_eq!(numbers(&spilled), [1, 2]);
    commits.spilled(Kind::Event, spilled.iter(), None, now);
    assert_eq!(waits_until(&mut commits, now), None);
    assert_eq!(submit(&mut commits, now, two_lanes()), Ok(true));
    now += LIMITS.interval;
    let spilled = spill(commits.next(now));
    assert_eq!(numbers(&spilled), [1, 2]);
    commits.spilled(Kind::Event, spilled.iter(), None, now);
    assert_eq!(waits_until(&mut commits, now), None);
    now += crate::breaker::INTERVAL;
    assert_eq!(submit(&mut commits, now, two_lanes()), Ok(true));
    now += LIMITS.interval;
    match commits.next(now) {
        Step::Put(probe, time_limit) => assert_eq!((numbers(&probe), time_limit), (vec![1], LEAST_RETRY_TIME)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lane_takes_its_share_and_not_a_byte_more() {
    let (mut commits, now) = (Commits::new(LIMITS), Instant::now());
    let fitting = LIMITS.max_lane_bytes - REQUEST_BYTES - LINE_BYTES;
    assert_eq!(submit(&mut commits, now, vec![record(Kind::Event, 0, 1, fitting + 1)]), Err(Full));
    assert_eq!(submit(&mut commits, now, vec![record(Kind::Event, 0, 1, fitting)]), Ok(true));
    assert_eq!(submit(&mut commits, now, event(2)), Err(Full));
    // Of a request that does not fit, nothing is taken.
    let other_lane = |number| record(Kind::Event, 1, number, 10);
    assert_eq!(submit(&mut commits, now, vec![other_lane(2), record(Kind::Event, 0, 3, 10)]), Err(Full));
    assert_eq!(commits.bytes(), LIMITS.max_lane_bytes);
    assert!(submit(&mut commits, now, vec![other_lane(2)]).is_ok());
}

#[test]
fn four_full_objects_of_a_kind_are_written_at_once_and_less_than_one_waits() {
    let limits = Limits { max_lane_bytes: LIMITS.max_bytes, max_record_bytes: LIMITS.max_spill_bytes, ..LIMITS };
    let (mut commits, now) = (Commits::new(limits), Instant::now());
    commits.breaker.note(Tried::Failed, now);
    let lines = |number, bytes| vec![record(Kind::Event, 0, number, bytes)];
    for number in 1..=5 {
        assert!(submit(&mut commits, now, lines(number, LIMITS.max_spill_bytes)).is_ok());
    }
    assert!(submit(&mut commits, now, lines(6, 10)).is_ok());
    let now = now + LIMITS.interval;
    let mut objects: VecDeque<_> = (0..MAX_SPILLS).map(|_| spill(commits.next(now))).collect();
    assert!(waits_until(&mut commits, now).is_some());
    commits.spilled(Kind::Event, objects.pop_front().unwrap().iter(), None, now);
    objects.push_back(spill(commits.next(now)));
    for (number, object) in (2..).zip(objects) {
        assert_eq!(numbers(&object), [number]);
        assert!(waits_until(&mut commits, now).is_some());
        commits.spilled(Kind::Event, object.iter(), None, now);
    }
    assert_eq!(numbers(&spill(commits.next(now))), [6]);
}

#[test]
fn once_closed_nothing_is_held_back_and_the_end_comes_when_all_is_settled() {
    let (mut commits, now) = (Commits::new(LIMITS), Instant::now());
    assert_eq!(submit(&mut commits, now, event(1)), Ok(true));
    commits.close();
    let batches = put(commits.next(now));
    assert_eq!(waits_until(&mut commits, now), None);
    assert_eq!(commits.put(all(batches, true), Tried::All, now, || 0.0).len(), 1);
    assert!(matches!(commits.next(now), Step::Done));
}

/// What happens to the machine, and how its calls go.
#[derive(Debug, Clone)]
enum Event {
    /// Lines of such lanes and sizes.
    Submit(Vec<(bool, u8, usize)>),
    Pass(u64),
    /// The oldest call is answered: entries whose position divides by this are throttled; 0 is all; `None` fails.
    Answer(Option<usize>),
    /// The oldest object is written, or not, and then Kinesis was tried once more.
    S3(Option<Tried>),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let lines = prop::collection::vec((any::<bool>(), 0u8..4, 10..=LONGEST_LINE), 1..5);
    let event = prop_oneof![
        4 => lines.prop_map(Event::Submit),
        3 => (0u64..400).prop_map(Event::Pass),
        3 => prop_oneof![
            3 => Just(Some(usize::MAX)), 2 => (0usize..4).prop_map(Some), 1 => Just(None),
        ].prop_map(Event::Answer),
        1 => prop::option::of(select(vec![Tried::All, Tried::Partly, Tried::Failed])).prop_map(Event::S3),
    ];
    prop::collection::vec(event, 0..120)
}

#[derive(Default)]
struct Model {
    submitted: BTreeMap<usize, (Kind, u8, usize, Option<Instant>)>,
    on_stream: BTreeMap<(Kind, u8), Vec<usize>>,
    settled: BTreeSet<usize>,
    first_tries: BTreeMap<usize, Instant>,
    calls: VecDeque<Vec<Batch<usize>>>,
    objects: VecDeque<(Kind, Vec<Batch<usize>>)>,
}

impl Model {
    fn submit(&mut self, commits: &mut Commits<usize>, now: Instant, lines: &[(bool, u8, usize)]) {
        let first = self.submitted.len();
        let kind = |rejected| if rejected { Kind::Rejected } else { Kind::Event };
        let lines = lines.iter().enumerate();
        let lines: Vec<_> =
            lines.map(|(index, &(rejected, lane, bytes))| (first + index, kind(rejected), lane, bytes)).collect();
        let records = lines.iter().map(|&(number, kind, lane, bytes)| record(kind, lane, number, bytes)).collect();
        let is_taken = submit(commits, now, records).is_ok();
        for (number, kind, lane, bytes) in lines {
            self.submitted.insert(number, (kind, lane, bytes, is_taken.then_some(now)));
        }
        let held = |lane: Option<(Kind, u8)>| -> usize {
            let is_held = |number: &usize| !self.settled.contains(number);
            let held = self.submitted.iter().filter(|(number, (.., at))| at.is_some() && is_held(number));
            let of_lane = held.filter(|(_, (kind, bucket, ..))| lane.is_none_or(|lane| lane == (*kind, *bucket)));
            of_lane.map(|(_, (_, _, bytes, _))| bytes + LINE_BYTES + REQUEST_BYTES).sum()
        };
        assert_eq!(held(None), commits.bytes());
        assert!(held(None) <= LIMITS.max_bytes);
        for lane in self.submitted.values().map(|(kind, lane, ..)| (*kind, *lane)).collect::<BTreeSet<_>>() {
            assert!(held(Some(lane)) <= LIMITS.max_lane_bytes);
        }
    }

    fn settle(&mut self, batches: &[Batch<usize>]) {
        numbers(batches).into_iter().for_each(|number| assert!(self.settled.insert(number), "{number} settled twice"));
    }

    fn lanes_in_flight(&self) -> Vec<(Kind, Bucket)> {
        self.calls.iter().flatten().map(Batch::lane).collect()
    }

    /// Lets time pass, and does what the machine says whenever it asked to be called.
    fn pass(&mut self, commits: &mut Commits<usize>, now: &mut Instant, time: Duration) {
        let end = *now + time;
        while let Some(due) = self.run(commits, *now).filter(|due| *due <= end) {
            *now = due.max(*now);
        }
        *now = end;
    }

    /// Does what the machine says, until it says to wait. Gives until when, as far as that is known.
    fn run(&mut self, commits: &mut Commits<usize>, now: Instant) -> Option<Instant> {
        loop {
            match commits.next(now) {
                Step::Put(batches, _) => {
                    for batch in &batches {
                        assert!(!self.lanes_in_flight().contains(&batch.lane()), "two records of a lane are in flight");
                        let numbers = numbers(std::slice::from_ref(batch));
                        let first_try = *self.first_tries.entry(numbers[0]).or_insert(now);
                        assert!(now - first_try <= LIMITS.kinesis_retry);
                        assert!(numbers.len() == 1 || batch.record.data.len() <= LIMITS.max_record_bytes);
                        assert_eq!(batch.tickets.len(), numbers.len());
                    }
                    self.calls.push_back(batches);
                }
                Step::Spill(kind, batches) => {
                    let in_flight = self.objects.iter().filter(|(other, _)| *other == kind).count();
                    let bytes: usize = batches.iter().map(|batch| batch.record.lines_len()).sum();
                    let is_full = bytes + LONGEST_LINE > LIMITS.max_spill_bytes;
                    assert!(in_flight == 0 || in_flight < MAX_SPILLS && is_full, "{in_flight} objects, {bytes} bytes");
                    assert!(batches.iter().all(|batch| batch.record.kind == kind));
                    self.objects.push_back((kind, batches));
                }
                Step::GiveUp(batches) => {
                    assert!(batches.iter().all(|batch| now - batch.oldest >= MAX_WAIT));
                    self.settle(&batches);
                }
                Step::Wait(until) => {
                    self.check_nobody_waits_in_vain(commits, now, until);
                    return until;
                }
                Step::Done => return None,
            }
        }
    }

    /// A lane without a record in flight and without a failed one has no line that is as old as the interval.
    fn check_nobody_waits_in_vain(&self, commits: &Commits<usize>, now: Instant, until: Option<Instant>) {
        for (key, lane) in &commits.lanes {
            let Some(first) = lane.waiting.front() else { continue };
            if !self.lanes_in_flight().contains(key) && lane.retry.is_none() {
                assert!(now < first.oldest + LIMITS.interval);
                assert!(until.is_some_and(|until| until <= first.oldest + LIMITS.interval));
            }
        }
    }

    fn answer(&mut self, commits: &mut Commits<usize>, now: Instant, throttled: Option<usize>) {
        let Some(call) = self.calls.pop_front() else { return };
        let is_stored = |position: usize| throttled.is_some_and(|nth| nth > 0 && !(position + 1).is_multiple_of(nth));
        let outcomes: Vec<_> = call.into_iter().enumerate().map(|(at, batch)| (batch, is_stored(at))).collect();
        let tried = match throttled {
            None => Tried::Failed,
            Some(_) if outcomes.iter().all(|(_, stored)| *stored) => Tried::All,
            Some(_) => Tried::Partly,
        };
        let stored = commits.put(outcomes, tried, now, || 0.7);
        for batch in &stored {
            let (kind, bucket) = batch.lane();
            let numbers = numbers(std::slice::from_ref(batch));
            self.on_stream.entry((kind, bucket.number)).or_default().extend(numbers);
        }
        self.settle(&stored);
    }

    fn answer_of_s3(&mut self, commits: &mut Commits<usize>, now: Instant, tried: Option<Tried>) {
        let Some((kind, batches)) = self.objects.pop_front() else { return };
        self.settle(&batches);
        commits.spilled(kind, batches.iter(), tried, now);
    }
}

proptest! {
    /// Whatever Kinesis and S3 do: each line that was taken has one outcome, and lines of a lane are on the stream in order.
    #[test]
    fn each_line_has_one_outcome_in_time_and_in_order_and_no_lane_waits_for_another(events in events()) {
        let (mut commits, mut model, mut now) = (Commits::new(LIMITS), Model::default(), Instant::now());
        for event in events {
            match event {
                Event::Submit(lines) => model.submit(&mut commits, now, &lines),
                Event::Pass(millis) => model.pass(&mut commits, &mut now, Duration::from_millis(millis)),
                Event::Answer(throttled) => model.answer(&mut commits, now, throttled),
                Event::S3(tried) => model.answer_of_s3(&mut commits, now, tried),
            }
            model.run(&mut commits, now);
        }
        commits.close();
        let mut rounds = 0;
        while commits.bytes() > 0 {
            model.pass(&mut commits, &mut now, 100 * MILLISECOND);
            model.answer(&mut commits, now, Some(usize::MAX));
            model.answer_of_s3(&mut commits, now, None);
            rounds += 1;
            prop_assert!(rounds < 1_000);
        }
        let taken: BTreeSet<_> = model.submitted.iter().filter(|(_, (.., at))| at.is_some()).map(|(number, _)| *number).collect();
        prop_assert_eq!(&model.settled, &taken);
        prop_assert!(matches!(commits.next(now), Step::Done));
        for numbers in model.on_stream.values() {
            prop_assert!(numbers.is_sorted(), "{:?}", numbers);
        }
    }
}
