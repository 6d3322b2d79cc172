//! Exactly once: a reference model of the stream, of the event source mapping and of S3, in which histories of attempts,
//! faults and crashes run through the real handler. After each write and each answer every acknowledged record must be in
//! exactly one object, and every other record in at most one.
//!
//! That the model can see the promise break is shown by taking away, one at a time, what the write protocol rests on.

// Unlike in a module of tests, clippy does not see by itself that all of this is one.
#![allow(clippy::unwrap_used)]

mod attempt;
mod history;
mod promise;
mod s3;
mod seen;
mod stream;
mod world;

use std::cell::{Cell, RefCell};

use generators::sabotage::asked_for;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use rstest::rstest;
use strum::IntoEnumIterator;

use crate::history::{Failure, History, LONGEST_START_S, Step, histories};
use crate::promise::Violation;
use crate::s3::DISTINCT_WRITES;
use crate::seen::{Happening, Seen};
use crate::stream::{Arrival, Content};
use crate::world::run;

/// What the world around the handler is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// What the protocol rests on: S3's conditions and `ETag`s are as documented; batches are acknowledged whole, start where
    /// the last acknowledged one ended, and begin within ten seconds of being sent.
    Kept,
    /// S3 ignores conditions.
    PlainOverwriting,
    /// The same lines have the same `ETag`, however they are compressed.
    EtagOfTheLines,
    /// The records before the group that failed are acknowledged.
    PartialAcknowledgement,
    /// A batch starts with the last record of the one before, as if that had been cut elsewhere.
    AnotherFirstRecord,
    /// A batch may begin long after a later attempt at it.
    StartsOfAnyLength,
    /// Objects are written more often than there are block sizes.
    AnyNumberOfWrites,
}

fn failure(violation: Violation) -> TestCaseError {
    TestCaseError::fail(violation.to_string())
}

/// A record that is on the stream lands in exactly one object, whatever crashes, times out, is sent again or arrives late.
#[test]
fn each_record_is_in_exactly_one_object_whatever_happens() {
    let rules =
        asked_for([Rules::PlainOverwriting, Rules::EtagOfTheLines, Rules::AnotherFirstRecord]).unwrap_or(Rules::Kept);
    let seen = RefCell::new(Seen::default());
    let config = if rules == Rules::Kept { Config::with_source_file(file!()) } else { Config::default() };
    let cases = config.cases.max(3_000);
    let result = TestRunner::new(Config { cases, ..config }).run(&histories(), |history| {
        seen.borrow_mut().add(&run(&history, rules).map_err(failure)?);
        Ok(())
    });
    if let Err(TestError::Fail(reason, history)) = result {
        panic!("{reason}\n{}", history.shortest(|shorter| run(shorter, rules).is_err()));
    }
    result.unwrap();
    println!("{cases} cases: {seen:?}");
    for happening in Happening::iter() {
        assert!(seen.borrow().times(happening) > 0, "no history saw this happen: {happening:?}");
    }
}

/// One test for each rule that the protocol rests on: without it the model finds that the promise breaks.
#[rstest]
#[case(Rules::PlainOverwriting)]
#[case(Rules::EtagOfTheLines)]
#[case(Rules::PartialAcknowledgement)]
#[case(Rules::AnotherFirstRecord)]
#[case(Rules::StartsOfAnyLength)]
fn without_this_rule_records_are_lost_or_doubled(#[case] rules: Rules) {
    let (cases, history) = counterexample(rules);
    let violation = run(&history, rules).unwrap_err();
    println!("{rules:?}: case {cases}, {} steps: {violation}\n{history}", history.steps.len());
    assert!(violation.is_not_exactly_once(), "{violation}");
    run(&history, Rules::Kept).unwrap();
}

/// The first of many histories, always the same ones, that breaks the promise, and its number.
fn counterexample(rules: Rules) -> (u32, History) {
    let cases = Cell::new(0);
    let found = Cell::new(false);
    let config = Config { cases: 5_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&histories(), |history| {
        cases.set(cases.get() + u32::from(!found.get()));
        run(&history, rules).inspect_err(|_| found.set(true)).map_err(failure)?;
        Ok(())
    });
    match result {
        Err(TestError::Fail(_, history)) => (cases.get(), history.shortest(|shorter| run(shorter, rules).is_err())),
        other => panic!("{rules:?}: no history breaks the promise: {other:?}"),
    }
}

/// The bound of the protocol: a write that is under way while its object is written again as often as there are block sizes.
#[test]
fn a_write_is_fenced_off_until_block_sizes_come_round_again() {
    run(&one_write_under_way(DISTINCT_WRITES - 1), Rules::AnyNumberOfWrites).unwrap();
    let violation = run(&one_write_under_way(DISTINCT_WRITES), Rules::AnyNumberOfWrites).unwrap_err();
    assert!(violation.is_not_exactly_once(), "{violation}");
}

/// Record 0 lands; a write of records 0 and 1 is held up; record 0 lands again that many times, and last the held-up write.
fn one_write_under_way(replacements: usize) -> History {
    let mut steps = vec![
        send(1),
        Step::LoseAnswer,
        Step::Serve { attempt: 0, requests: 1 },
        send(2),
        Step::Serve { attempt: 0, requests: 2 },
        Step::Fail { attempt: 0, failure: Failure::LateAndTimeIsUp },
    ];
    for replacement in 1..=replacements {
        steps.push(send(1));
        if replacement < replacements {
            steps.push(Step::LoseAnswer);
        }
        steps.push(Step::Serve { attempt: 0, requests: 3 });
    }
    steps.push(Step::LateWrite { write: 0 });
    History { arrivals: vec![Arrival { content: Content::Event, framed: false, next_hour: false }; 2], steps }
}

/// A batch that is sent when it is certain that it is later than the one before.
fn send(records: usize) -> Step {
    Step::Send { records, later_s: LONGEST_START_S + 1, start_s: 0 }
}
