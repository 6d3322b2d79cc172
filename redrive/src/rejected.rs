//! Rejected lines, read again: the events that are found in them land beside them.
//!
//! The events of `rejected/dt=…/hour=…/<shard>-<number>.jsonl.bz2` land in
//! `events/dt=…/hour=…/<shard>-<number>-redriven.jsonl.bz2`. Equal input makes equal lines, and lines that are there
//! already are kept, so that it does not matter how often and with which reasons this is run.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use bzip2::read::MultiBzDecoder;
use ingest_lambda::content::{BodyForm, body_form, decompress};
use ingest_lambda::split::{Event, Item, KeyFields, split};
use kinesis_to_s3_lambda::chunk::Chunk;
use kinesis_to_s3_lambda::group::Group;
use kinesis_to_s3_lambda::payload::{MAX_REJECTED_LINES, read_payload};
use serde::Deserialize;
use shared::line::{Client, Envelope, EventFormat, IdLiteral, Kind, read_head};
use shared::object::ObjectKey;
use shared::rejection::{Reason, Rejection};
use shared::timestamp::UnixMillis;

use crate::bucket::Bucket;
use crate::land::Lander;

/// Bytes of a body after decompression at most; ingest takes less.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Bytes at most of all bodies in parts that are held until their other parts are found.
const MAX_PARTS_BYTES: usize = 512 * 1024 * 1024;
/// Bytes of a landed object's lines at most: a batch is at most 6 MiB as an event, and base64 and lines add to it.
const MAX_OBJECT_BYTES: u64 = 256 * 1024 * 1024;

/// What is read, and how.
pub(crate) struct Reading {
    reasons: BTreeSet<Reason>,
    content_type: Option<String>,
    event_format: EventFormat,
}

impl Reading {
    pub(crate) fn new(
        reasons: &[String],
        content_type: Option<String>,
        event_format: EventFormat,
    ) -> anyhow::Result<Self> {
        let named = |name: &String| {
            let names = || Reason::ALL.map(Reason::as_str).join(", ");
            let found = Reason::ALL.into_iter().find(|reason| reason.as_str() == name);
            found.ok_or_else(|| anyhow!("--reasons: there is no reason {name:?}; there are {}", names()))
        };
        let reasons = reasons.iter().map(named).collect::<anyhow::Result<_>>()?;
        if let Some(content_type) = &content_type {
            body_form(Some(content_type)).map_err(|rejection| anyhow!("--content-type: {}", rejection.detail))?;
        }
        Ok(Self { reasons, content_type, event_format })
    }
}

#[derive(Deserialize)]
struct RejectedLine {
    id: String,
    received_at: String,
    request_id: String,
    #[serde(default)]
    client: LineClient,
    rejected: Rejected,
}

#[derive(Deserialize, Default)]
struct LineClient {
    user_agent: Option<String>,
    ip: Option<String>,
}

#[derive(Deserialize)]
struct Rejected {
    reason: String,
    content_type: Option<String>,
    content_encoding: Option<String>,
    #[serde(default = "one")]
    part: usize,
    #[serde(default = "one")]
    parts: usize,
    body_base64: String,
}

fn one() -> usize {
    1
}

impl RejectedLine {
    fn reason(&self) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.as_str() == self.rejected.reason)
    }

    fn body(&self) -> anyhow::Result<Vec<u8>> {
        let decoded = base64_simd::STANDARD.decode_to_vec(&self.rejected.body_base64);
        decoded.map_err(|problem| anyhow!("the body of {} is no base64: {problem}", self.id))
    }
}

/// Bodies in several parts, which may be in several objects.
type Parts = HashMap<String, BTreeMap<usize, Vec<u8>>>;

#[derive(Default)]
struct Counts {
    bodies: usize,
    still_rejected: usize,
    incomplete: usize,
    failed_objects: usize,
}

/// Redrives all rejected lines under a prefix; whether all objects could be read and landed.
pub(crate) async fn redrive(bucket: &Bucket, lander: &Lander, prefix: &str, reading: &Reading) -> anyhow::Result<bool> {
    anyhow::ensure!(prefix.starts_with("rejected/dt="), "--prefix: {prefix:?} does not begin with rejected/dt=");
    let mut keys = bucket.keys(prefix).await?;
    keys.retain(|key| ObjectKey::parse(key).is_some());
    let parts = gather_parts(bucket, &keys, reading).await?;
    let mut counts = Counts::default();
    for (number, key) in keys.iter().enumerate() {
        let outcome = match redrive_object(bucket, lander, key, &parts, reading, &mut counts).await {
            Ok(0) => "nothing to land".to_owned(),
            Ok(events) => format!("{events} events landed"),
            Err(problem) => {
                counts.failed_objects += 1;
                format!("FAILED: {problem:#}")
            }
        };
        println!("{} of {}: {key}: {outcome}", number + 1, keys.len());
    }
    let Counts { bodies, still_rejected, incomplete, failed_objects } = counts;
    println!(
        "{bodies} bodies were read: {still_rejected} are still rejected, {incomplete} have parts outside of {prefix}; \
         {failed_objects} objects failed"
    );
    Ok(failed_objects == 0 && incomplete == 0)
}

/// The bodies in several parts, wherever those are: the parts of one body have partition keys of their own.
async fn gather_parts(bucket: &Bucket, keys: &[String], reading: &Reading) -> anyhow::Result<Parts> {
    let (mut parts, mut bytes) = (Parts::new(), 0);
    for key in keys {
        for line in lines(bucket, key, reading).await?.into_iter().filter(|line| line.rejected.parts > 1) {
            let body = line.body()?;
            bytes += body.len();
            anyhow::ensure!(
                bytes <= MAX_PARTS_BYTES,
                "more than {MAX_PARTS_BYTES} bytes of bodies in parts; use a narrower --prefix"
            );
            parts.entry(line.id).or_default().insert(line.rejected.part, body);
        }
    }
    Ok(parts)
}

/// The lines of one object that are to be read.
async fn lines(bucket: &Bucket, key: &str, reading: &Reading) -> anyhow::Result<Vec<RejectedLine>> {
    let text = text(bucket, key).await?.with_context(|| format!("{key} is gone"))?;
    let parse = |line: &str| serde_json::from_str::<RejectedLine>(line).with_context(|| format!("a line of {key}"));
    let lines = text.split_terminator('\n').map(parse).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(lines.into_iter().filter(|line| line.reason().is_some_and(|reason| reading.reasons.contains(&reason))).collect())
}

async fn text(bucket: &Bucket, key: &str) -> anyhow::Result<Option<String>> {
    let Some(compressed) = bucket.get(key).await? else { return Ok(None) };
    let mut text = String::new();
    let read = MultiBzDecoder::new(&compressed[..]).take(MAX_OBJECT_BYTES + 1).read_to_string(&mut text);
    read.with_context(|| format!("decompressing {key}"))?;
    anyhow::ensure!(text.len() as u64 <= MAX_OBJECT_BYTES, "{key} holds more than {MAX_OBJECT_BYTES} bytes");
    Ok(Some(text))
}

/// Lands the events in one object's rejected lines; how many there are now.
async fn redrive_object(
    bucket: &Bucket,
    lander: &Lander,
    key: &str,
    parts: &Parts,
    reading: &Reading,
    counts: &mut Counts,
) -> anyhow::Result<u64> {
    let mut found = Found::default();
    for line in lines(bucket, key, reading).await?.into_iter().filter(|line| line.rejected.part == 1) {
        counts.bodies += 1;
        match whole_body(&line, parts)? {
            None => counts.incomplete += 1,
            Some(body) => {
                if found.read(&line, &body, reading).is_err() {
                    counts.still_rejected += 1;
                }
            }
        }
    }
    if found.lines.is_empty() {
        return Ok(0);
    }
    let mut group = redriven_group(&ObjectKey::parse(key).with_context(|| key.to_owned())?);
    if let Some(earlier) = text(bucket, &group.key()).await? {
        found.put_behind(&earlier);
    }
    let chunk = found.into_chunk();
    let events = chunk.lines;
    group.chunks = vec![chunk];
    lander.land(&group).await?;
    Ok(events)
}

/// A body, from all of its parts; `None` when some are not here.
fn whole_body(line: &RejectedLine, parts: &Parts) -> anyhow::Result<Option<Vec<u8>>> {
    if line.rejected.parts == 1 {
        return line.body().map(Some);
    }
    let all = parts.get(&line.id).filter(|parts| parts.len() == line.rejected.parts);
    Ok(all.map(|parts| parts.values().flatten().copied().collect()))
}

/// The object that takes the events of a rejected one.
fn redriven_group(rejected: &ObjectKey) -> Group {
    let number = format!("{}-redriven", rejected.first_sequence_number);
    Group {
        kind: Kind::Event,
        hour: rejected.hour,
        shard_id: rejected.shard_id.clone(),
        first_sequence_number: number,
        last_sequence_number: rejected.first_sequence_number.clone(),
        record_count: 0,
        chunks: Vec::new(),
    }
}

/// The lines of events that were found, each once, and when they were received.
#[derive(Default)]
struct Found {
    lines: Vec<String>,
    known: HashSet<String>,
    received_at: BTreeSet<UnixMillis>,
}

impl Found {
    fn add(&mut self, line: &str) {
        let line = format!("{}\n", line.trim_end_matches('\n'));
        if self.known.insert(line.clone()) {
            self.lines.push(line);
        }
    }

    /// What was landed earlier stays, and in its place.
    fn put_behind(&mut self, earlier: &str) {
        let new = std::mem::take(self);
        earlier.split_terminator('\n').for_each(|line| self.add(line));
        new.lines.iter().for_each(|line| self.add(line));
        self.received_at = new.received_at;
    }

    fn into_chunk(self) -> Chunk {
        let of_lines = self.lines.iter().filter_map(|line| read_head(line.trim_end()).ok()?.received_at);
        let received_at: BTreeSet<UnixMillis> = of_lines.chain(self.received_at).collect();
        let end = |time: Option<&UnixMillis>| time.copied().unwrap_or(UnixMillis(0));
        Chunk {
            kind: Kind::Event,
            lines: self.lines.len() as u64,
            earliest_received_at: end(received_at.first()),
            latest_received_at: end(received_at.last()),
            bytes: self.lines.concat().into(),
        }
    }

    /// Reads a body again. Events beside something that is still rejected are taken.
    fn read(&mut self, line: &RejectedLine, body: &[u8], reading: &Reading) -> Result<(), Rejection> {
        let received_at = UnixMillis::parse(&line.received_at).unwrap_or(UnixMillis(0));
        let found_before = self.lines.len();
        if line.reason() == Some(Reason::ForeignRecord) {
            self.read_foreign(&Bytes::copy_from_slice(body), received_at, &line.id);
        } else {
            self.read_body(line, body, received_at, reading)?;
        }
        if self.lines.len() == found_before {
            return Err(Rejection::new(Reason::NoEvents, "no event is in it"));
        }
        self.received_at.insert(received_at);
        Ok(())
    }

    fn read_foreign(&mut self, body: &Bytes, arrival: UnixMillis, id: &str) {
        let read = read_payload(body, arrival, id, MAX_REJECTED_LINES);
        for chunk in read.chunks.iter().filter(|chunk| chunk.kind == Kind::Event) {
            let text = String::from_utf8_lossy(&chunk.bytes);
            text.split_terminator('\n').for_each(|line| self.add(line));
        }
    }

    fn read_body(
        &mut self,
        line: &RejectedLine,
        body: &[u8],
        received_at: UnixMillis,
        reading: &Reading,
    ) -> Result<(), Rejection> {
        let decoded = decompress(body, line.rejected.content_encoding.as_deref(), MAX_BODY_BYTES)?;
        let client = Client { user_agent: line.client.user_agent.clone(), ip: line.client.ip.clone() };
        let envelope = Envelope::new(received_at, &line.request_id, &client);
        for (index, item) in split(&decoded, form(line, reading)?, &KeyFields::new(&[]))?.into_iter().enumerate() {
            if let Item::Event(event) = item {
                self.add(&event_line(&envelope, &event, &format!("{}/{index}", line.id), reading.event_format));
            }
        }
        Ok(())
    }
}

/// How a body is to be read: as its type says, or, for one line or member of a body, as what it was taken for.
fn form(line: &RejectedLine, reading: &Reading) -> Result<BodyForm, Rejection> {
    match (&line.rejected.content_type, line.reason()) {
        (None, Some(Reason::InvalidCmcd)) => Ok(BodyForm::Cmcd),
        (content_type, _) => body_form(reading.content_type.as_deref().or(content_type.as_deref())),
    }
}

/// An event's line; without an id of its own the event has one that is the same each time.
fn event_line(envelope: &Envelope, event: &Event<'_>, id: &str, format: EventFormat) -> String {
    let derived = serde_json::Value::from(id).to_string();
    match format {
        EventFormat::Raw => event.json.clone().into_owned(),
        EventFormat::Envelope => {
            let mut line = Vec::new();
            envelope.write_event(&mut line, IdLiteral::new(event.id.as_deref().unwrap_or(&derived)), &event.json);
            String::from_utf8_lossy(&line).into_owned()
        }
    }
}
