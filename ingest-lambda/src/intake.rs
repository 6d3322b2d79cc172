//! What both front ends share: from a request to the lines that are to be stored, and from what became of them to the answer.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::limits::{MAX_HEADER_BYTES, MAX_ORIGIN_BYTES, MAX_PATH_BYTES, MAX_USER_AGENT_BYTES};
use shared::line::{Client, Envelope, Rejected};
use shared::rejection::{Reason, Rejection};
use shared::timestamp::UnixMillis;
use uuid::Uuid;

use crate::answer::{Answer, MAX_VIOLATIONS, Refusal, RejectedItem, TurnedAway};
use crate::client_context;
use crate::config::{ClientIp, Config};
use crate::content::{body_form, decompress};
use crate::event::{Event, KeyFields};
use crate::pack::{Packer, Packing, Record};
use crate::put::PutReport;
use crate::rate_limit::{Allowance, Charge, Exhausted};
use crate::schema::{self, EventSchema, Judge, Violation};
use crate::split::{Item, split};
use crate::write_keys::{NamedKey, WriteKey};

/// Method, path and headers of a request.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: &'a Headers,
}

/// The headers that ingest reads, and the keys that it reads from some of them or from the query.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Headers {
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub origin: Option<String>,
    pub user_agent: Option<String>,
    pub forwarded_for: Option<String>,
    pub requested_headers: Option<String>,
    pub referer: Option<String>,
    pub viewer_country: Option<String>,
    /// By `X-Playhead-Key` or the query.
    pub key: NamedKey,
    /// By the user name of Basic authorization.
    pub basic_key: NamedKey,
}

/// A header that is read for what is off unless configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionalHeader {
    Key,
    Authorization,
    Referer,
    ViewerCountry,
}

impl OptionalHeader {
    /// The one of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let named = [
            ("x-playhead-key", Self::Key),
            ("authorization", Self::Authorization),
            ("referer", Self::Referer),
            ("cloudfront-viewer-country", Self::ViewerCountry),
        ];
        named.into_iter().find(|(wanted, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, header)| header)
    }
}

impl Headers {
    /// Bytes of all values.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        let Self { content_type, content_encoding, origin, user_agent, forwarded_for, requested_headers, .. } = self;
        let values = [content_type, content_encoding, origin, user_agent, forwarded_for, requested_headers];
        let values = values.into_iter().chain([&self.referer, &self.viewer_country]);
        values.flatten().map(String::len).sum::<usize>() + self.key.bytes() + self.basic_key.bytes()
    }

    /// Takes a value of such a header; of a repeated one that is not about keys, the last.
    pub(crate) fn add_optional(&mut self, header: OptionalHeader, value: Cow<'_, str>) {
        match header {
            OptionalHeader::Key => self.key.add_header(&value),
            OptionalHeader::Authorization => self.basic_key.add_authorization(&value),
            OptionalHeader::Referer => self.referer = Some(value.into_owned()),
            OptionalHeader::ViewerCountry => self.viewer_country = Some(value.into_owned()),
        }
    }

    /// The key that the request names. Browsers add a viewer's Basic credentials for the page's own site by themselves, so those
    /// count only where nothing else names a key.
    pub(crate) fn named_key(&self) -> &NamedKey {
        if self.key == NamedKey::None { &self.basic_key } else { &self.key }
    }

    /// Where the value of a header is kept; `None` for those that nobody reads.
    pub(crate) fn wanted(&mut self, name: &str) -> Option<&mut Option<String>> {
        let slots = [
            ("content-type", &mut self.content_type),
            ("content-encoding", &mut self.content_encoding),
            ("origin", &mut self.origin),
            ("user-agent", &mut self.user_agent),
            ("x-forwarded-for", &mut self.forwarded_for),
            ("access-control-request-headers", &mut self.requested_headers),
        ];
        slots.into_iter().find(|(wanted, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, slot)| slot)
    }
}

/// A request as a front end hands it over. Its time and id alone distinguish its lines from those of an equal one.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    pub head: Head<'a>,
    /// As the client sent it.
    pub body: &'a [u8],
    /// Why `body` is not what the client sent.
    pub damage: Option<&'a Rejection>,
    pub client: Option<IpAddr>,
    pub at: UnixMillis,
    pub request_id: &'a str,
}

/// What is to be stored before a request is answered.
#[derive(Debug)]
pub struct Draft {
    /// Not compressed. Without any there is nothing to wait for.
    pub records: Vec<Record>,
    pending: Pending,
    /// With a limit for each key.
    paid: Option<Paid>,
}

/// What a request was charged, until it is known what is stored of it.
#[derive(Debug)]
struct Paid {
    allowances: Arc<[Mutex<Allowance>]>,
    key_number: usize,
    charge: Charge,
}

impl Paid {
    fn settle(self, answer: &Answer) {
        if let (Answer::NotStored { not_stored, .. }, Some(allowance)) = (answer, self.allowances.get(self.key_number))
        {
            locked(allowance).give_back(self.charge, not_stored.len());
        }
    }
}

/// The answer, but for what becomes of the records.
#[derive(Debug)]
enum Pending {
    Healthy,
    Preflight,
    /// Nothing of it is kept.
    TurnedAway(TurnedAway),
    /// What the request brought is kept as one rejected body, if it brought anything.
    Refused(Refusal),
    /// Of so many items at least one is an event.
    Events {
        count: usize,
        rejected: Vec<RejectedItem>,
    },
}

impl Pending {
    /// The pieces that a request brought. One that could not be taken apart is one.
    fn items(&self) -> usize {
        match self {
            Self::Healthy | Self::Preflight | Self::TurnedAway(_) => 0,
            Self::Refused(refusal) => refusal.items.len().max(1),
            Self::Events { count, .. } => *count,
        }
    }
}

impl Draft {
    fn without_records(pending: Pending) -> Self {
        Self { records: Vec::new(), pending, paid: None }
    }

    /// Splits off the records, which leaves what makes an answer of their outcome.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Record>, Conclusion) {
        (self.records, Conclusion { pending: self.pending, paid: self.paid })
    }
}

/// Makes the answer when it is known what became of the records.
#[derive(Debug)]
pub struct Conclusion {
    pending: Pending,
    paid: Option<Paid>,
}

impl Conclusion {
    /// The answer. The report is of the draft's records.
    #[must_use]
    pub fn answer(self, report: &PutReport) -> Answer {
        let answer = self.pending.answer(report);
        if let Some(paid) = self.paid {
            paid.settle(&answer);
        }
        answer
    }
}

impl Pending {
    fn answer(self, report: &PutReport) -> Answer {
        match self {
            Self::Healthy => Answer::Healthy,
            Self::Preflight => Answer::Preflight,
            Self::TurnedAway(why) => Answer::TurnedAway(why),
            Self::Events { count, rejected } => conclude(count, rejected, report),
            Self::Refused(refusal) if report.is_stored() => Answer::Refused(refusal),
            Self::Refused(refusal) => {
                let not_stored = (0..refusal.items.len().max(1)).collect();
                Answer::NotStored { accepted: 0, not_stored, rejected: Vec::new() }
            }
        }
    }
}

/// Reads requests.
#[derive(Debug, Clone)]
pub struct Intake {
    config: Config,
    key_fields: KeyFields,
    /// By a write key's number; empty without a limit.
    allowances: Arc<[Mutex<Allowance>]>,
    schema: Option<EventSchema>,
}

impl Intake {
    #[must_use]
    pub fn new(config: Config) -> Self {
        let allowances = config.key_events_per_second.into_iter().flat_map(|limit| {
            let new = move |_| Mutex::new(Allowance::new(limit));
            (0..config.write_keys.len()).map(new)
        });
        let key_fields = KeyFields::new(&config.partition_key_fields);
        Self { allowances: allowances.collect(), key_fields, schema: None, config }
    }

    /// Validates events by a schema, if there is one.
    #[must_use]
    pub fn with_schema(self, schema: Option<EventSchema>) -> Self {
        Self { schema, ..self }
    }

    #[must_use]
    pub(crate) const fn schema(&self) -> Option<&EventSchema> {
        self.schema.as_ref()
    }

    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Whatever a request holds, there is an answer to it.
    #[must_use]
    pub fn read(&self, arrival: &Arrival<'_>) -> Draft {
        let (route, key) = match self.enter(arrival.head, arrival.at) {
            Ok(entered) => entered,
            Err(pending) => return Draft::without_records(pending),
        };
        let envelope = self.envelope(arrival, key);
        let draft = match (route, arrival.damage) {
            (Route::Nowhere(rejection), _) => Err(rejection.into()),
            (_, Some(rejection)) => Err(rejection.clone().into()),
            (_, None) => self.events(arrival, &envelope),
        };
        let draft = draft.unwrap_or_else(|refusal| self.refuse(arrival, &envelope, refusal));
        let paid = key.and_then(|key| self.charge(key, draft.pending.items()));
        Draft { paid, ..draft }
    }

    /// The answer to a request whose body nobody needs. A front end that reads bodies itself asks for it before it does: what knows no
    /// key must not take the room for bodies.
    #[must_use]
    pub(crate) fn answer_to_head(&self, head: Head<'_>, at: UnixMillis) -> Option<Answer> {
        self.enter(head, at).err().map(|pending| pending.answer(&PutReport::default()))
    }

    /// Where a request goes, and whose key it names; else what becomes of it without its body.
    fn enter(&self, head: Head<'_>, at: UnixMillis) -> Result<(Route, Option<WriteKey<'_>>), Pending> {
        match route(head) {
            Route::Health => Err(Pending::Healthy),
            Route::Preflight => Err(Pending::Preflight),
            route => self.admit(head.headers, at).map(|key| (route, key)).map_err(Pending::TurnedAway),
        }
    }

    /// The key that a request names; `None` where none is needed. The body of a request that is turned away is not parsed.
    fn admit(&self, headers: &Headers, at: UnixMillis) -> Result<Option<WriteKey<'_>>, TurnedAway> {
        if self.config.write_keys.is_empty() {
            return Ok(None);
        }
        let key = self.config.write_keys.find(headers.named_key()).ok_or(TurnedAway::UnknownKey)?;
        let admitted = self.allowances.get(key.number).map_or(Ok(()), |allowance| locked(allowance).admit(at));
        match admitted {
            Ok(()) => Ok(Some(key)),
            Err(Exhausted { seconds }) => Err(TurnedAway::RateLimited { seconds }),
        }
    }

    /// The app whose key a request names.
    #[must_use]
    pub(crate) fn app(&self, headers: &Headers) -> Option<&str> {
        self.config.write_keys.find(headers.named_key()).map(|key| key.app)
    }

    /// `None` without a limit.
    fn charge(&self, key: WriteKey<'_>, items: usize) -> Option<Paid> {
        let charge = locked(self.allowances.get(key.number)?).charge(items);
        Some(Paid { allowances: self.allowances.clone(), key_number: key.number, charge })
    }

    /// The events of a body and, beside them, what is bad. Without a single event, the body is refused.
    fn events(&self, arrival: &Arrival<'_>, envelope: &Envelope) -> Result<Draft, Refusal> {
        let headers = arrival.head.headers;
        let decoded = decompress(arrival.body, headers.content_encoding.as_deref(), self.config.max_body_bytes)?;
        let form = body_form(headers.content_type.as_deref())?;
        let items = split(&decoded, form, &self.key_fields)?;
        let mut packer = Packer::new(self.packing(), envelope, Uuid::now_v7);
        let mut judge = self.schema.as_ref().map(|schema| schema.judge(arrival.at));
        let (count, mut bad, mut rejected) = (items.len(), Vec::new(), Vec::new());
        let mut violations_left = MAX_VIOLATIONS;
        for (index, Item { source, event }) in items.into_iter().enumerate() {
            let violation = event.as_ref().ok().and_then(|event| self.violation(judge.as_mut()?, event));
            let event = violation.as_ref().map_or(event, |violation| Err(schema::rejection(violation)));
            if let Err(rejection) = event.and_then(|event| packer.event(index, &event)) {
                let violation = violation.filter(|_| take_one(&mut violations_left));
                rejected.push(RejectedItem { index, reason: rejection.reason, violation });
                bad.push((rejection, source));
            }
        }
        if rejected.len() == count {
            let (rejection, _) = bad.swap_remove(0);
            return Err(Refusal { rejection, items: rejected });
        }
        for (item, (rejection, body)) in rejected.iter().zip(&bad) {
            packer.rejected(
                item.index,
                &Rejected { rejection, content_type: None, content_encoding: None, part: None, body },
            );
        }
        Ok(Draft { records: packer.into_records(arrival.at), pending: Pending::Events { count, rejected }, paid: None })
    }

    /// What is too large to be packed need not be judged.
    fn violation(&self, judge: &mut Judge<'_>, event: &Event<'_>) -> Option<Violation> {
        if event.json.len() > self.packing().max_line_bytes() {
            return None;
        }
        judge.check(&event.json).err()
    }

    /// Keeps what the request brought as one rejected body. With nothing brought there is nothing to keep,
    /// unless the body should have been there.
    fn refuse(&self, arrival: &Arrival<'_>, envelope: &Envelope, refusal: Refusal) -> Draft {
        let expects_body = !matches!(refusal.rejection.reason, Reason::MethodNotAllowed | Reason::UnknownPath);
        if arrival.body.is_empty() && !expects_body {
            return Draft::without_records(Pending::Refused(refusal));
        }
        let mut packer = Packer::new(self.packing(), envelope, Uuid::now_v7);
        let headers = arrival.head.headers;
        let rejected = Rejected {
            rejection: &refusal.rejection,
            content_type: headers.content_type.as_deref().map(|header| cut(header, MAX_HEADER_BYTES)),
            content_encoding: headers.content_encoding.as_deref().map(|header| cut(header, MAX_HEADER_BYTES)),
            part: None,
            body: arrival.body,
        };
        packer.rejected(0, &rejected);
        Draft { records: packer.into_records(arrival.at), pending: Pending::Refused(refusal), paid: None }
    }

    fn envelope(&self, arrival: &Arrival<'_>, key: Option<WriteKey<'_>>) -> Envelope {
        let client = client(arrival, &self.config, key);
        let origin = arrival.head.headers.origin.as_deref().map(|origin| cut(origin, MAX_ORIGIN_BYTES));
        let origin = origin.filter(|_| client.origin.is_none());
        Envelope::new(arrival.at, arrival.request_id, &client)
            .with_request(cut(arrival.head.path, MAX_PATH_BYTES), origin)
    }

    pub(crate) const fn packing(&self) -> Packing {
        let Config { event_format: format, key_buckets: buckets, max_record_bytes, .. } = self.config;
        Packing { format, buckets, max_record_bytes }
    }
}

fn take_one(left: &mut usize) -> bool {
    let taken = left.checked_sub(1);
    *left = taken.unwrap_or_default();
    taken.is_some()
}

/// Nothing that is done to it can panic half way.
fn locked(allowance: &Mutex<Allowance>) -> MutexGuard<'_, Allowance> {
    allowance.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answer to a request with `count` items, of which at least one is an event.
fn conclude(count: usize, mut rejected: Vec<RejectedItem>, report: &PutReport) -> Answer {
    let not_stored = report.not_stored();
    rejected.retain(|item| not_stored.binary_search(&item.index).is_err());
    let accepted = count - not_stored.len() - rejected.len();
    if not_stored.is_empty() {
        Answer::Stored { accepted, rejected }
    } else {
        Answer::NotStored { accepted, not_stored, rejected }
    }
}

enum Route {
    Health,
    Preflight,
    Events,
    Nowhere(Rejection),
}

/// Players append what they like to the path, and some post to the root; a base address that ends in a slash doubles it.
fn route(head: Head<'_>) -> Route {
    let mut segments = head.path.split('/').filter(|segment| !segment.is_empty());
    let (first, is_health) = (segments.next(), segments.next().is_none());
    let is_health = is_health && first == Some("health");
    match (head.method, first) {
        ("GET" | "HEAD", _) if is_health => Route::Health,
        ("OPTIONS", _) => Route::Preflight,
        ("POST", Some("events") | None) => Route::Events,
        (method, _) if is_health => Route::Nowhere(Rejection::new(
            Reason::MethodNotAllowed,
            format!("/health takes GET, not {method}; send events with POST /events"),
        )),
        (method, Some("events") | None) => {
            Route::Nowhere(Rejection::new(Reason::MethodNotAllowed, format!("events are sent with POST, not {method}")))
        }
        (_, _) => Route::Nowhere(Rejection::new(
            Reason::UnknownPath,
            "there is nothing at this path; send events with POST /events",
        )),
    }
}

fn client(arrival: &Arrival<'_>, config: &Config, key: Option<WriteKey<'_>>) -> Client {
    let ip = match config.client_ip {
        ClientIp::Off => None,
        ClientIp::Truncated => arrival.client.map(truncated),
        ClientIp::Full => arrival.client,
    };
    let headers = arrival.head.headers;
    let kept = |is_kept: bool, header: &Option<String>, part: fn(&str) -> Option<&str>| {
        header.as_deref().filter(|_| is_kept).and_then(part).map(str::to_owned)
    };
    let context = config.client_context;
    Client {
        user_agent: headers.user_agent.as_deref().map(|agent| cut(agent, MAX_USER_AGENT_BYTES).to_owned()),
        ip: ip.map(|ip| ip.to_string()),
        origin: kept(context.origin, &headers.origin, client_context::origin),
        page: kept(context.page, &headers.referer, client_context::page),
        country: kept(context.country, &headers.viewer_country, client_context::country),
        app: key.map(|key| key.app.to_owned()),
    }
}

/// 24 bits of an IPv4 address, 48 of an IPv6 address: a network, not a household.
fn truncated(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) & 0xffff_ff00).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & (u128::MAX << 80)).into()),
    }
}

fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::small_config;
    use rstest::rstest;

    #[rstest]
    #[case(ClientIp::Off, "203.0.113.77", None)]
    #[case(ClientIp::Truncated, "203.0.113.77", Some("203.0.113.0"))]
    #[case(ClientIp::Truncated, "2001:db8:1:2:3::4", Some("2001:db8:1::"))]
    #[case(ClientIp::Full, "203.0.113.77", Some("203.0.113.77"))]
    fn addresses_are_kept_as_configured(#[case] mode: ClientIp, #[case] ip: &str, #[case] kept: Option<&str>) {
        let head = Head { method: "POST", path: "/events", headers: &Headers::default() };
        let (client_ip, at) = (Some(ip.parse().unwrap()), UnixMillis(0));
        let arrival = Arrival { head, body: b"", damage: None, client: client_ip, at, request_id: "r" };
        let config = Config { client_ip: mode, ..small_config() };
        assert_eq!(client(&arrival, &config, None).ip.as_deref(), kept);
    }
}
