//! The mapping, its attempts and S3, taken through a history.

use kinesis_to_s3_lambda::kinesis_event::BatchAnswer;
use kinesis_to_s3_lambda::landing::{Found, HeadError, PutError};
use shared::timestamp::UnixMillis;

use crate::Rules;
use crate::attempt::{Attempt, TIMEOUT};
use crate::history::{Failure, History, LONGEST_START_S, Step};
use crate::promise::{Violation, check, check_description};
use crate::s3::{Reply, Request, S3, Write};
use crate::seen::{Happening, Seen};
use crate::stream::Stream;

/// Takes a new world through a history and then lands what is left, with every late write done at last.
pub(crate) fn run(history: &History, rules: Rules) -> Result<Seen, Violation> {
    let mut world = World::new(history, rules);
    for step in &history.steps {
        world.take(*step)?;
    }
    world.end()?;
    Ok(world.seen)
}

struct World {
    rules: Rules,
    /// The time now.
    now: UnixMillis,
    stream: Stream,
    s3: S3,
    /// Where the next batch starts: the mapping's own memory.
    checkpoint: usize,
    /// How many records were ever acknowledged.
    acknowledged: usize,
    /// Where the last batch from this checkpoint ended, if there was one.
    sent_before: Option<usize>,
    running: Vec<Attempt>,
    /// The attempt whose answer the mapping takes.
    current: Option<u64>,
    started: u64,
    late: Vec<Write>,
    seen: Seen,
}

impl World {
    fn new(history: &History, rules: Rules) -> Self {
        Self {
            rules,
            now: lambda_setup::now(),
            stream: Stream::new(&history.arrivals),
            s3: S3::new(rules),
            checkpoint: 0,
            acknowledged: 0,
            sent_before: None,
            running: Vec::new(),
            current: None,
            started: 0,
            late: Vec::new(),
            seen: Seen::default(),
        }
    }

    fn take(&mut self, step: Step) -> Result<(), Violation> {
        match step {
            Step::Send { records, later_s, start_s } => self.send(records, later_s, start_s),
            Step::Serve { attempt, requests } => self.running(attempt).map_or(Ok(()), |at| self.serve(at, requests)),
            Step::Fail { attempt, failure } => self.running(attempt).map_or(Ok(()), |at| self.fail(at, failure)),
            Step::Crash { attempt } => {
                if let Some(at) = self.running(attempt) {
                    self.crash(at);
                }
                Ok(())
            }
            Step::LoseAnswer => {
                self.current = None;
                Ok(())
            }
            Step::LateWrite { write } if !self.late.is_empty() => {
                self.late_write(self.late.len() - 1 - write % self.late.len())
            }
            Step::LateWrite { .. } => Ok(()),
        }
    }

    fn running(&self, attempt: usize) -> Option<usize> {
        attempt.checked_rem(self.running.len())
    }

    /// Sends the next batch, if there are records.
    fn send(&mut self, records: usize, later_s: u64, start_s: u64) -> Result<(), Violation> {
        if self.rules == Rules::AnotherFirstRecord && self.sent_before.is_none() {
            self.checkpoint = self.checkpoint.saturating_sub(1);
        }
        let batch = self.checkpoint..self.stream.len().min(self.checkpoint + records);
        if batch.is_empty() {
            return Ok(());
        }
        if !self.running.is_empty() {
            self.seen.note(Happening::TwoAtOnce);
        }
        match self.sent_before.replace(batch.end) {
            Some(before) if batch.end < before => self.seen.note(Happening::SentAgainShorter),
            Some(before) if batch.end > before => self.seen.note(Happening::SentAgainLonger),
            _ => {}
        }
        self.started += 1;
        self.current = Some(self.started);
        let began = self.begins(later_s, start_s);
        self.running.push(Attempt::start(self.started, batch.clone(), self.stream.batch(batch), began));
        self.go_on(self.running.len() - 1)
    }

    /// When a batch that is sent that much later begins.
    fn begins(&mut self, later_s: u64, start_s: u64) -> UnixMillis {
        self.now.0 += i64::try_from(later_s * 1_000).unwrap();
        let start_s = if self.rules == Rules::StartsOfAnyLength { 4 * start_s } else { start_s };
        UnixMillis(self.now.0 + i64::try_from(start_s * 1_000).unwrap())
    }

    fn serve(&mut self, at: usize, requests: usize) -> Result<(), Violation> {
        let number = self.running[at].number;
        for _ in 0..requests {
            if self.running.get(at).is_none_or(|attempt| attempt.number != number) {
                break;
            }
            match self.running[at].take_request() {
                Some(Request::Put(write, reply)) => answer(&reply, self.put(*write)?),
                Some(Request::Head(key, reply)) => answer(&reply, Ok(self.s3.head(&key))),
                None => {}
            }
            self.go_on(at)?;
        }
        Ok(())
    }

    fn fail(&mut self, at: usize, failure: Failure) -> Result<(), Violation> {
        match self.running[at].take_request() {
            Some(Request::Put(write, reply)) => self.fail_put(*write, &reply, failure)?,
            Some(Request::Head(_, reply)) => fail_head(&reply, failure),
            None => {}
        }
        if failure == Failure::LateAndTimeIsUp {
            self.running[at].time_out();
        }
        self.go_on(at)
    }

    fn fail_put(
        &mut self,
        write: Write,
        reply: &Reply<Result<(), PutError>>,
        failure: Failure,
    ) -> Result<(), Violation> {
        match failure {
            Failure::DoneButError => {
                self.put(write)?.ok();
                answer(reply, Err(PutError::Uncertain("500 InternalError".into())));
            }
            Failure::DoneButSilent => {
                self.put(write)?.ok();
            }
            Failure::Refused => answer(reply, Err(PutError::Uncertain("503 SlowDown".into()))),
            Failure::Conflict => answer(reply, Err(PutError::Conflict)),
            Failure::Lost => {}
            Failure::Late | Failure::LateAndTimeIsUp => self.late.push(write),
        }
        Ok(())
    }

    /// Does a write and looks whether the promise still holds.
    fn put(&mut self, write: Write) -> Result<Result<(), PutError>, Violation> {
        let key = write.key.clone();
        let done = self.s3.put(write, &mut self.seen);
        if done.is_ok() {
            check_description(&self.stream, &key, &self.s3.bucket.get(&key).unwrap().content)?;
        }
        self.check()?;
        Ok(done)
    }

    fn check(&self) -> Result<(), Violation> {
        check(&self.stream, self.acknowledged, &self.s3.bucket)
    }

    fn go_on(&mut self, at: usize) -> Result<(), Violation> {
        let Some(batch_answer) = self.running[at].run() else { return Ok(()) };
        let attempt = self.running.remove(at);
        self.end_of(attempt, &batch_answer);
        self.check()
    }

    fn end_of(&mut self, mut attempt: Attempt, answer: &BatchAnswer) {
        let last_key = attempt.key.clone();
        self.abandon_request(&mut attempt);
        let heard = self.current == Some(attempt.number);
        if heard {
            self.current = None;
        }
        if !answer.batch_item_failures.is_empty() {
            self.seen.note(Happening::GaveUp);
            assert_eq!(answer.batch_item_failures[0].item_identifier, self.stream.number(attempt.batch.start));
            if heard && self.rules == Rules::PartialAcknowledgement {
                self.acknowledge(self.stream.first_record(&last_key));
            }
        } else if heard {
            self.seen.note(Happening::Acknowledged);
            self.acknowledge(attempt.batch.end);
        } else {
            self.seen.note(Happening::AnswerLost);
        }
    }

    fn acknowledge(&mut self, end: usize) {
        if end > self.checkpoint {
            self.checkpoint = end;
            self.sent_before = None;
        }
        self.acknowledged = self.acknowledged.max(end);
    }

    fn crash(&mut self, at: usize) {
        let mut attempt = self.running.remove(at);
        self.abandon_request(&mut attempt);
        if self.current == Some(attempt.number) {
            self.current = None;
        }
        self.seen.note(Happening::Crashed);
    }

    fn abandon_request(&mut self, attempt: &mut Attempt) {
        if let Some(Request::Put(write, _)) = attempt.take_request() {
            self.late.push(*write);
        }
    }

    fn late_write(&mut self, which: usize) -> Result<(), Violation> {
        let write = self.late.remove(which);
        match self.put(write)? {
            Ok(()) => self.seen.note(Happening::LateWriteDone),
            Err(PutError::ConditionFailed) => self.seen.note(Happening::LateWriteRefused),
            Err(_) => {}
        }
        Ok(())
    }

    /// All attempts are over, the rest of the stream lands without trouble, and then every late write is done.
    fn end(&mut self) -> Result<(), Violation> {
        (0..self.running.len()).rev().for_each(|at| self.crash(at));
        self.s3.allow_last_writes();
        while self.acknowledged < self.stream.len() {
            // Late enough to be certain of the order, whichever timeout the attempts had.
            self.send(self.stream.len(), TIMEOUT.as_secs() + 2 * LONGEST_START_S + 1, 0)?;
            // Each group takes a write that fails, a look and a write; each record is at most two groups' first.
            self.serve(0, 6 * self.stream.len())?;
            assert!(self.running.is_empty(), "a batch does not land with all well");
        }
        while !self.late.is_empty() {
            self.late_write(0)?;
        }
        Ok(())
    }
}

fn fail_head(reply: &Reply<Result<Option<Found>, HeadError>>, failure: Failure) {
    match failure {
        Failure::DoneButError | Failure::Refused | Failure::Conflict => {
            answer(reply, Err(HeadError::Transient("503 SlowDown".into())));
        }
        Failure::DoneButSilent | Failure::Lost | Failure::Late | Failure::LateAndTimeIsUp => {}
    }
}

fn answer<T>(reply: &Reply<T>, answer: T) {
    *reply.borrow_mut() = Some(answer);
}
