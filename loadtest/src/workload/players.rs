//! Viewers that post in turn, at the times of a rate.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};

use super::bad::{self, Sort};
use super::body::Body;
use super::catalog::{DEVICES, Form};
use super::event::{self, Event};
use super::random::Random;
use super::viewer::Viewer;
use super::{Bad, Pieces, Post, whole_ms};
use crate::ledger::{self, Ledger};
use crate::rate::Schedule;

/// Bytes of an event, about, when it is not padded.
const USUAL_EVENT_BYTES: usize = 320;

/// What the players are to do.
#[derive(Debug, Clone)]
pub(crate) struct PlayersPlan {
    pub(crate) run_id: String,
    pub(crate) seed: u64,
    /// POSTs.
    pub(crate) schedule: Schedule,
    /// At least 1.
    pub(crate) viewers: u32,
    /// Fewest and most; good ones, at least 1.
    pub(crate) events_per_post: (u32, u32),
    /// Of each event, about; 0 is as it comes.
    pub(crate) event_bytes: usize,
    /// Of a million POSTs, how many are bad.
    pub(crate) bad_of_a_million: u32,
}

#[derive(Debug)]
pub(crate) struct Players {
    plan: PlayersPlan,
    prefix: String,
    random: Random,
    viewers: Vec<Seat>,
    /// In which viewers post, again and again.
    order: Vec<u32>,
    /// POSTs so far.
    posted: u64,
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
    pub(crate) fn new(plan: PlayersPlan) -> Self {
        let mut random = Random::new(plan.seed);
        let seat = |random: &mut Random| Seat { viewer: Viewer::new(random), last_ms: 0 };
        let viewers: Vec<Seat> = (0..plan.viewers).map(|_| seat(&mut random)).collect();
        Self {
            prefix: ledger::id_prefix(&plan.run_id),
            order: random.order(plan.viewers),
            random,
            viewers,
            posted: 0,
            headers: DEVICES.iter().map(|device| headers(device.user_agent, device.form.content_type())).collect(),
            wrong_headers: headers(DEVICES[0].user_agent, bad::WRONG_CONTENT_TYPE),
            path: Rc::from(""),
            plan,
        }
    }

    pub(super) fn next(&mut self, ledger: &mut Ledger) -> Option<Post> {
        let planned = self.plan.schedule.time_of(self.posted)?;
        let turn = usize::try_from(self.posted % self.order.len() as u64).unwrap_or_default();
        let viewer = self.order[turn] as usize;
        self.posted += 1;
        if self.random.is_one_of_a_million(self.plan.bad_of_a_million) {
            return Some(self.bad(planned, viewer, ledger));
        }
        let (fewest, most) = self.plan.events_per_post;
        let count = self.random.between(fewest, most);
        let form = self.viewers[viewer].viewer.device().form;
        let (body, first) = self.events(planned, viewer, form, count, None, ledger);
        let pieces = Pieces { first, count: count.into(), bad: Bad::Nothing };
        Some(self.post(planned, self.headers_of(viewer), body.finish(), pieces))
    }

    fn bad(&mut self, planned: Duration, viewer: usize, ledger: &mut Ledger) -> Post {
        let sort = Sort::pick(&mut self.random);
        match sort {
            Sort::NotJson | Sort::WrongContentType => {
                let first = ledger.add(whole_ms(planned), ledger::Sort::Bad);
                let id = ledger::id(&self.prefix, first);
                let pieces = Pieces { first, count: 1, bad: sort.answer(0) };
                if sort == Sort::NotJson {
                    return self.post(planned, self.headers_in(Form::Array), bad::not_json(&id), pieces);
                }
                self.post(planned, self.wrong_headers.clone(), bad::xml(&id), pieces)
            }
            Sort::NoObject => {
                let (fewest, most) = self.plan.events_per_post;
                let count = self.random.between(fewest, most);
                let place = self.random.between(0, count);
                let (body, first) = self.events(planned, viewer, Form::Array, count, Some(place), ledger);
                let pieces = Pieces { first, count: u64::from(count) + 1, bad: sort.answer(place.into()) };
                self.post(planned, self.headers_in(Form::Array), body.finish(), pieces)
            }
            Sort::Truncated => self.truncated(planned, viewer, ledger),
        }
    }

    /// The whole is one piece: what is kept of it is one body, whatever events it was going to hold.
    fn truncated(&mut self, planned: Duration, viewer: usize, ledger: &mut Ledger) -> Post {
        let first = ledger.add(whole_ms(planned), ledger::Sort::Bad);
        let mut body = Body::new(Form::Array, 2, USUAL_EVENT_BYTES);
        self.add_event(&mut body, viewer, first, whole_ms(planned), true);
        let id_bytes = "{\"id\":\"\"".len() + ledger::id(&self.prefix, first).len();
        let pieces = Pieces { first, count: 1, bad: Sort::Truncated.answer(0) };
        self.post(planned, self.headers_in(Form::Array), body.cut(id_bytes + bad::BYTES_AFTER_ID), pieces)
    }

    /// So many events of one viewer and session, and what is no object at the place that is asked for.
    fn events(
        &mut self,
        planned: Duration,
        viewer: usize,
        form: Form,
        count: u32,
        no_object_at: Option<u32>,
        ledger: &mut Ledger,
    ) -> (Body, u64) {
        let now = whole_ms(planned);
        let first = ledger.entries().len() as u64;
        let items = u64::from(count) + u64::from(no_object_at.is_some());
        let mut body = Body::new(form, items, self.capacity(items));
        let since = self.viewers[viewer].last_ms;
        for number in 0..count {
            if no_object_at == Some(number) {
                self.add_no_object(&mut body, now, ledger);
            }
            let id = ledger.add(now, ledger::Sort::Event);
            // Evenly between the viewer's last POST and this one.
            let at = u64::from(since) + u64::from(now - since) * u64::from(number + 1) / u64::from(count);
            self.add_event(&mut body, viewer, id, u32::try_from(at).unwrap_or(now), number + 1 == count);
        }
        if no_object_at == Some(count) {
            self.add_no_object(&mut body, now, ledger);
        }
        self.viewers[viewer].last_ms = now;
        (body, first)
    }

    fn add_no_object(&mut self, body: &mut Body, now: u32, ledger: &mut Ledger) {
        let id = ledger::id(&self.prefix, ledger.add(now, ledger::Sort::Bad));
        body.add(|bytes| bytes.extend_from_slice(format!("\"{id}\"").as_bytes()));
    }

    fn add_event(&mut self, body: &mut Body, viewer: usize, number: u64, run_ms: u32, is_last: bool) {
        let viewer = &mut self.viewers[viewer].viewer;
        viewer.begins_session(&mut self.random);
        let sequence = viewer.sequence;
        let details = viewer.next(is_last, &mut self.random);
        let id = ledger::id(&self.prefix, number);
        let event = Event { id: &id, session_id: &viewer.session_id, viewer_id: &viewer.id, sequence, run_ms, details };
        body.add(|bytes| event::write(bytes, &event, self.plan.event_bytes, &mut self.random));
    }

    fn capacity(&self, items: u64) -> usize {
        usize::try_from(items).unwrap_or_default() * self.plan.event_bytes.max(USUAL_EVENT_BYTES) + 64
    }

    fn headers_of(&self, viewer: usize) -> Rc<HeaderMap> {
        self.headers[self.viewers[viewer].viewer.device].clone()
    }

    /// Those of the first device with the form.
    fn headers_in(&self, form: Form) -> Rc<HeaderMap> {
        let device = DEVICES.iter().position(|device| device.form == form).unwrap_or_default();
        self.headers[device].clone()
    }

    fn post(&self, planned: Duration, headers: Rc<HeaderMap>, body: Vec<u8>, pieces: Pieces) -> Post {
        Post { planned, path: self.path.clone(), headers, body: Bytes::from(body), pieces }
    }
}

fn headers(user_agent: &'static str, content_type: &'static str) -> Rc<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(USER_AGENT, HeaderValue::from_static(user_agent));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Rc::new(headers)
}
