//! Viewers that post in turn, at the times of a rate.

use std::rc::Rc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use shared::line::Kind;

use super::catalog::CATALOG;
use super::random::Random;
use super::viewer::Viewer;
use super::{Bad, Pieces, Post, whole_ms};
use crate::cli::{EventsPerPost, PlayersArgs};
use crate::ledger::{self, Ledger};
use crate::rate::Schedule;

/// Bytes of a truncated event after its id: enough to see that one has begun, and fewer than any event has.
const BYTES_AFTER_ID: usize = 16;
/// The place of a device that sends arrays.
const SENDS_ARRAYS: usize = 0;
/// Around the padding of an event.
const PAD_MEMBER: &str = ",\"pad\":\"";
const PAD_END: &str = "\"}";

#[derive(Debug)]
pub(crate) struct Players {
    args: PlayersArgs,
    /// Of POSTs.
    schedule: Schedule,
    prefix: String,
    random: Random,
    viewers: Vec<Seat>,
    /// In which viewers post, round after round.
    order: Vec<u32>,
    /// POSTs so far.
    posted: u64,
    /// By device.
    headers: Vec<Rc<HeaderMap>>,
    wrong_headers: Rc<HeaderMap>,
    path: Rc<str>,
}

/// A viewer and when it posted last.
#[derive(Debug)]
struct Seat {
    viewer: Viewer,
    last_ms: u32,
}

impl Players {
    pub(crate) fn new(args: PlayersArgs, schedule: Schedule, run_id: &str) -> Self {
        let mut random = Random::new(args.seed);
        let viewers = (0..args.viewers).map(|_| Seat { viewer: Viewer::new(&mut random), last_ms: 0 }).collect();
        let devices = &CATALOG.devices;
        Self {
            prefix: ledger::id_prefix(run_id),
            order: random.order(args.viewers),
            random,
            viewers,
            posted: 0,
            headers: devices.iter().map(|device| headers(&device.user_agent, device.form.content_type())).collect(),
            wrong_headers: headers(&devices[0].user_agent, "application/xml"),
            path: Rc::from(""),
            args,
            schedule,
        }
    }

    pub(super) fn next(&mut self, ledger: &mut Ledger) -> Option<Post> {
        let planned = self.schedule.time_of(self.posted)?;
        let viewer = self.order[(self.posted % self.order.len() as u64) as usize] as usize;
        self.posted += 1;
        if !self.random.is_one_of_a_million(self.args.bad) {
            return Some(self.events(planned, viewer, false, ledger));
        }
        // Bad on purpose, in one of four ways seen in the field.
        Some(match self.random.below(4) {
            0 => self.events(planned, viewer, true, ledger),
            way => self.bad(planned, viewer, way, ledger),
        })
    }

    /// Events of one viewer and session, with something among them that is not an object if one is to be bad.
    fn events(&mut self, planned: Duration, viewer: usize, one_is_bad: bool, ledger: &mut Ledger) -> Post {
        let EventsPerPost { fewest, most } = self.args.events_per_post;
        let count = self.random.between(fewest, most);
        let bad_at = one_is_bad.then(|| self.random.between(0, count));
        let (now, first) = (whole_ms(planned), ledger.entries().len() as u64);
        let since = std::mem::replace(&mut self.viewers[viewer].last_ms, now);
        let mut items = Vec::with_capacity(count as usize + 1);
        for place in 0..=count {
            if bad_at == Some(place) {
                items.push(format!("\"{}\"", ledger::id(&self.prefix, ledger.add(now, Kind::Rejected))));
            }
            if place < count {
                let id = ledger::id(&self.prefix, ledger.add(now, Kind::Event));
                // Evenly between the viewer's last POST and this one.
                let at = u64::from(since) + u64::from(now - since) * u64::from(place + 1) / u64::from(count);
                items.push(self.event(viewer, &id, at, place + 1 == count));
            }
        }
        let bad = bad_at.map_or(Bad::Nothing, |place| Bad::Piece(place.into()));
        let device = if one_is_bad { SENDS_ARRAYS } else { self.viewers[viewer].viewer.device };
        let body = CATALOG.devices[device].form.pack(&items);
        let pieces = Pieces { first, count: items.len() as u64, bad };
        self.post(planned, self.headers[device].clone(), body, pieces)
    }

    /// A body that is refused as a whole: a single piece.
    fn bad(&mut self, planned: Duration, viewer: usize, way: u32, ledger: &mut Ledger) -> Post {
        let first = ledger.add(whole_ms(planned), Kind::Rejected);
        let id = ledger::id(&self.prefix, first);
        let as_json = self.headers[SENDS_ARRAYS].clone();
        let (body, headers, status) = match way {
            1 => (format!("type=heartbeat&id={id}&position_ms=NaN"), as_json, 400),
            2 => (format!("<event id=\"{id}\" type=\"heartbeat\"/>"), self.wrong_headers.clone(), 415),
            _ => {
                let mut event = self.event(viewer, &id, whole_ms(planned).into(), true);
                event.truncate("{\"id\":\"\"".len() + id.len() + BYTES_AFTER_ID);
                (format!("[{event}"), as_json, 400)
            }
        };
        self.post(planned, headers, body, Pieces { first, count: 1, bad: Bad::Whole(status) })
    }

    /// An event with its id first, so that a truncated one can still be identified; padded if there is room for a letter.
    fn event(&mut self, viewer: usize, id: &str, run_ms: u64, may_end: bool) -> String {
        let members = self.viewers[viewer].viewer.next(may_end, &mut self.random);
        let event = format!("{{\"id\":\"{id}\",\"run_ms\":{run_ms},{members}");
        match (self.args.event_bytes as usize).saturating_sub(event.len() + PAD_MEMBER.len() + PAD_END.len()) {
            0 => event + "}",
            letters => event + PAD_MEMBER + &self.random.letters(letters) + PAD_END,
        }
    }

    fn post(&self, planned: Duration, headers: Rc<HeaderMap>, body: String, pieces: Pieces) -> Post {
        Post { planned, path: self.path.clone(), headers, body: body.into(), pieces }
    }
}

fn headers(user_agent: &'static str, content_type: &'static str) -> Rc<HeaderMap> {
    let pairs = [(USER_AGENT, user_agent), (CONTENT_TYPE, content_type)];
    Rc::new(pairs.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect())
}
