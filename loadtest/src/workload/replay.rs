//! Copies of a recorded session: each starts at its time in a schedule and plays at a multiple of the recorded speed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use shared::line::Kind;

use super::recording::Recording;
use super::{Bad, Pieces, Post, whole_ms};
use crate::ledger::{self, Ledger};
use crate::rate::Schedule;

#[derive(Debug)]
pub(crate) struct Replay {
    recording: Recording,
    /// Of sessions.
    schedule: Schedule,
    /// More than 0; 1 is as recorded.
    speed: f64,
    run_id: String,
    begun: u64,
    /// The next request of each session that is on: its time, the session's number and its place in the recording.
    next: BinaryHeap<Reverse<(Duration, u64, usize)>>,
}

impl Replay {
    pub(crate) fn new(recording: Recording, schedule: Schedule, speed: f64, run_id: &str) -> Self {
        Self { recording, schedule, speed, run_id: run_id.to_owned(), begun: 0, next: BinaryHeap::new() }
    }

    pub(super) fn next(&mut self, ledger: &mut Ledger) -> Option<Post> {
        self.begin_sessions();
        let Reverse((planned, session, place)) = self.next.pop()?;
        // What would be sent after the end is not.
        if planned >= self.schedule.duration {
            return None;
        }
        if let Some(following) = self.recording.requests.get(place + 1) {
            let begun = self.schedule.time_of(session)?;
            self.next.push(Reverse((begun + following.after.div_f64(self.speed), session, place + 1)));
        }
        let (request, first) = (&self.recording.requests[place], ledger.entries().len() as u64);
        let prefix = ledger::id_prefix(&self.run_id);
        let copy = format!("{}-{session}", self.run_id);
        let next_id = || ledger::id(&prefix, ledger.add(whole_ms(planned), Kind::Event));
        let body = request.body(&copy, next_id).into();
        let pieces = Pieces { first, count: request.events, bad: Bad::Nothing };
        Some(Post { planned, path: request.path.clone(), headers: request.headers.clone(), body, pieces })
    }

    /// Starts the sessions that are due before the next known request.
    fn begin_sessions(&mut self) {
        while let Some(time) = self.schedule.time_of(self.begun) {
            if self.next.peek().is_some_and(|Reverse((next, ..))| *next < time) {
                return;
            }
            self.next.push(Reverse((time, self.begun, 0)));
            self.begun += 1;
        }
    }
}
