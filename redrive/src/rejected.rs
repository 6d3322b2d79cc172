//! Rejected lines, read again: the events that are found in them land beside them.
//!
//! The events of `rejected/dt=…/hour=…/<shard>-<number>.jsonl.bz2` land in
//! `events/dt=…/hour=…/<shard>-<number>-redriven.jsonl.bz2`. Equal input makes equal lines, and lines that are there
//! already are kept, so that it does not matter how often, by how many and with which reasons this is run.
//!
//! Other producers can put lines into `rejected/` that are not in our form. They are counted and told, and stop nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::{Context, anyhow};
use ingest_lambda::content::{body_form, decompress};
use kinesis_to_s3_lambda::encode::Object;
use shared::line::EventFormat;
use shared::object::{Attempt, ObjectKey};
use shared::rejection::Reason;

use crate::bucket::Bucket;
use crate::found::for_each_event;
use crate::land::Lander;
use crate::object_lines::{fingerprint, for_each_line};
use crate::redriven::{Redriven, redriven_key};
use crate::rejected_line::RejectedLine;

/// Bytes at most of all bodies in parts that are held until their other parts are found.
const MAX_PARTS_BYTES: usize = 512 * 1024 * 1024;
/// Bytes of a body after decompression at most: four times what ingest takes unless configured.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of all bodies of an object after decompression at most. What it bounds is work: one body is held at a time.
const MAX_BODIES_BYTES: usize = 256 * 1024 * 1024;
/// Lines of an object that are told one by one at most, of those that are not in our form.
const MAX_ODD_LINES_TOLD: usize = 10;

/// What is read, and how.
pub(crate) struct Reading {
    reasons: BTreeSet<Reason>,
    pub(crate) content_type: Option<String>,
    pub(crate) event_format: EventFormat,
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

/// Bodies in several parts, which may be in several objects.
type Parts = HashMap<String, BTreeMap<usize, Vec<u8>>>;

/// What became of the lines of one object, or of several.
#[derive(Debug, Default)]
struct Outcomes {
    /// Events that were found, landed before or not.
    events: u64,
    /// Events that landed now.
    added: u64,
    bodies: usize,
    still_rejected: usize,
    incomplete: usize,
    /// Bodies that were not read, because those before them were so large.
    unread: usize,
    /// Events that did not fit into the object.
    left_out: u64,
    odd_lines: usize,
    /// What is wrong with the first of the odd lines.
    told: Vec<String>,
}

#[derive(Debug, Default)]
struct Counts {
    all: Outcomes,
    objects_with_odd_lines: usize,
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
        let outcome = match redrive_object(bucket, lander, key, &Bodies { parts: &parts, reading }).await {
            Ok(outcomes) => counts.add(key, outcomes),
            Err(problem) => {
                counts.failed_objects += 1;
                format!("FAILED: {problem:#}")
            }
        };
        println!("{} of {}: {key}: {outcome}", number + 1, keys.len());
    }
    Ok(counts.report(prefix))
}

impl Counts {
    /// Counts an object's outcomes, and says what landed of it.
    fn add(&mut self, key: &str, one: Outcomes) -> String {
        one.told.iter().for_each(|line| println!("{key}: no rejected line of ours: {line}"));
        if let Some(more @ 1..) = one.odd_lines.checked_sub(one.told.len()) {
            println!("{key}: and {more} more");
        }
        let all = &mut self.all;
        all.bodies += one.bodies;
        all.still_rejected += one.still_rejected;
        all.incomplete += one.incomplete;
        all.unread += one.unread;
        all.left_out += one.left_out;
        all.odd_lines += one.odd_lines;
        self.objects_with_odd_lines += usize::from(one.odd_lines > 0);
        match one {
            Outcomes { unread: 0, left_out: 0, events: 0, .. } => "nothing to land".to_owned(),
            Outcomes { unread: 0, left_out: 0, events, .. } => format!("{events} events landed"),
            Outcomes { unread, left_out, events, .. } => format!(
                "{events} events landed; LEFT: {left_out} events that don't fit into one object, and {unread} bodies that \
                 were not read because those before them hold {MAX_BODIES_BYTES} bytes"
            ),
        }
    }

    /// Whether all was done.
    fn report(&self, prefix: &str) -> bool {
        let Self { all, objects_with_odd_lines, failed_objects } = self;
        let Outcomes { bodies, still_rejected, incomplete, unread, left_out, odd_lines, .. } = all;
        println!(
            "{bodies} bodies were read: {still_rejected} are still rejected, {incomplete} have parts outside of {prefix}; \
             {odd_lines} lines in {objects_with_odd_lines} objects are no rejected lines of ours; {failed_objects} objects \
             failed; {left_out} events and {unread} bodies are left"
        );
        [*failed_objects, *incomplete, *odd_lines, *unread].iter().all(|count| *count == 0) && *left_out == 0
    }
}

/// The bodies in several parts, wherever those are: the parts of one body have partition keys of their own.
async fn gather_parts(bucket: &Bucket, keys: &[String], reading: &Reading) -> anyhow::Result<Parts> {
    let (mut parts, mut bytes) = (Parts::new(), 0);
    for key in keys {
        let Ok(Some(compressed)) = bucket.get(key).await else { continue };
        let mut outcomes = Outcomes::default();
        let read = for_each_rejected(&compressed, reading, &mut outcomes, |line| {
            if line.parts > 1 && bytes <= MAX_PARTS_BYTES {
                bytes += line.body.len();
                parts.entry(line.id).or_default().insert(line.part, line.body);
            }
            Ok(())
        });
        if read.is_err() {
            // It is told when the object's turn comes.
            continue;
        }
        anyhow::ensure!(
            bytes <= MAX_PARTS_BYTES,
            "more than {MAX_PARTS_BYTES} bytes of bodies in parts; use a narrower --prefix"
        );
    }
    Ok(parts)
}

/// Hands on the lines that are to be read, each once: one that ingest put on the stream twice, because an answer was lost, is
/// the same to the byte. Those that are not in our form are counted.
fn for_each_rejected(
    compressed: &[u8],
    reading: &Reading,
    outcomes: &mut Outcomes,
    mut see: impl FnMut(RejectedLine) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut known = HashSet::new();
    for_each_line(compressed, |number, line| match RejectedLine::parse(line) {
        Ok(parsed) if reading.reasons.contains(&parsed.reason) && known.insert(fingerprint(line)) => see(parsed),
        Ok(_) => Ok(()),
        Err(problem) => {
            outcomes.odd_lines += 1;
            if outcomes.told.len() < MAX_ODD_LINES_TOLD {
                outcomes.told.push(format!("line {number}: {problem:#}"));
            }
            Ok(())
        }
    })
}

/// Lands the events in one object's rejected lines.
async fn redrive_object(bucket: &Bucket, lander: &Lander, key: &str, bodies: &Bodies<'_>) -> anyhow::Result<Outcomes> {
    let compressed = bucket.get(key).await?.with_context(|| format!("{key} is gone"))?;
    let rejected = ObjectKey::parse(key).with_context(|| key.to_owned())?;
    let (target, attempt) = (redriven_key(&rejected), lander.attempt());
    let mut outcomes = Outcomes::default();
    let merge = |earlier: Option<&[u8]>| {
        let (object, seen) = bodies.merge(&compressed, earlier, &rejected, &attempt)?;
        outcomes = seen;
        Ok(object)
    };
    lander.add(&target, || bucket.read(&target), merge).await?;
    lander.landed.add_events(outcomes.added);
    Ok(outcomes)
}

/// The bodies of rejected lines, and how they are read.
struct Bodies<'a> {
    parts: &'a Parts,
    reading: &'a Reading,
}

impl Bodies<'_> {
    /// The object that holds the events of a rejected one behind those of earlier runs, if there are new ones. One body is
    /// held at a time, however many there are and however large they get.
    fn merge(
        &self,
        compressed: &[u8],
        earlier: Option<&[u8]>,
        rejected: &ObjectKey,
        attempt: &Attempt,
    ) -> anyhow::Result<(Option<Object>, Outcomes)> {
        let mut redriven = Redriven::behind(earlier, self.reading.event_format)
            .with_context(|| format!("reading {}", redriven_key(rejected)))?;
        let (mut odd, mut seen, mut bytes) = (Outcomes::default(), Outcomes::default(), 0);
        for_each_rejected(compressed, self.reading, &mut odd, |line| {
            if line.part > 1 {
                return Ok(());
            }
            seen.bodies += 1;
            match self.whole_body(&line) {
                _ if bytes > MAX_BODIES_BYTES => seen.unread += 1,
                None => seen.incomplete += 1,
                Some(body) => bytes += self.read(&line, &body, &mut redriven, &mut seen)?,
            }
            Ok(())
        })?;
        (seen.added, seen.left_out) = (redriven.added, redriven.left_out);
        let outcomes = Outcomes { odd_lines: odd.odd_lines, told: odd.told, ..seen };
        Ok((redriven.finish(rejected, attempt.clone())?, outcomes))
    }

    /// Adds a body's events; how many bytes that took.
    fn read(
        &self,
        line: &RejectedLine,
        body: &[u8],
        redriven: &mut Redriven,
        seen: &mut Outcomes,
    ) -> anyhow::Result<usize> {
        let decoded = match decompress(body, line.content_encoding.as_deref(), MAX_BODY_BYTES) {
            Ok(decoded) => decoded,
            Err(rejection) => {
                seen.still_rejected += 1;
                return Ok(if rejection.reason == Reason::BodyTooLarge { MAX_BODY_BYTES } else { body.len() });
            }
        };
        let mut added = Ok(());
        let found = for_each_event(line, &decoded, self.reading, |event| {
            seen.events += 1;
            if added.is_ok() {
                added = redriven.add(event);
            }
        });
        match found {
            Ok(()) => redriven.include(line.received_at),
            Err(_) => seen.still_rejected += 1,
        }
        added.map(|()| decoded.len())
    }

    /// A body, from all of its parts; `None` when some are not here.
    fn whole_body<'l>(&self, line: &'l RejectedLine) -> Option<Cow<'l, [u8]>> {
        if line.parts == 1 {
            return Some(Cow::Borrowed(&line.body));
        }
        let all = self.parts.get(&line.id).filter(|parts| parts.len() == line.parts);
        all.map(|parts| parts.values().flatten().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use allocation_counter::measure;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use kinesis_to_s3_lambda::encode::LineWriter;
    use rstest::rstest;
    use shared::object::BlockSize;
    use shared::timestamp::UnixMillis;
    use std::io::{Read, Write};

    fn line(id: &str, content_encoding: &str, body: &[u8]) -> String {
        let body = base64_simd::STANDARD.encode_to_string(body);
        format!(
            "{{\"v\":1,\"id\":\"{id}\",\"received_at\":\"2026-11-21T09:32:08.006Z\",\"request_id\":\"r\",\"client\":{{}},\
             \"rejected\":{{\"reason\":\"invalid_json\",\"detail\":\"d\",\"content_type\":\"application/x-ndjson\",\
             \"content_encoding\":\"{content_encoding}\",\"body_base64\":\"{body}\"}}}}\n"
        )
    }

    fn compressed(text: &[u8]) -> Vec<u8> {
        let mut writer = LineWriter::new(BlockSize::fitting(text.len()));
        writer.write(text).unwrap();
        writer.finish().unwrap().body.to_vec()
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn merge(rejected: &[u8], earlier: Option<&Object>, event_format: EventFormat) -> (Option<Object>, Outcomes) {
        let reading = Reading::new(&["invalid_json".to_owned()], None, event_format).unwrap();
        let key = ObjectKey::parse("rejected/dt=2026-11-21/hour=09/shardId-000000000000-1.jsonl.bz2").unwrap();
        let attempt = Attempt { began: UnixMillis(0), deadline: UnixMillis(1), request_id: "r".into() };
        let bodies = Bodies { parts: &Parts::new(), reading: &reading };
        bodies.merge(rejected, earlier.map(|object| &object.body[..]), &key, &attempt).unwrap()
    }

    fn text(object: &Object) -> String {
        let mut text = String::new();
        bzip2::read::BzDecoder::new(&object.body[..]).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_line_that_is_twice_on_the_stream_is_read_once_and_equal_bodies_are_read_each() {
        let rejected = [line("a", "", b"{}"), line("b", "", b"{}"), line("a", "", b"{}")].concat();
        let (object, outcomes) = merge(&compressed(rejected.as_bytes()), None, EventFormat::Raw);
        assert_eq!((outcomes.bodies, outcomes.events, outcomes.odd_lines), (2, 2, 0));
        assert_eq!(text(&object.unwrap()), "{}\n{}\n");
    }

    #[test]
    fn odd_lines_are_told_by_number_and_the_others_are_read() {
        let odd = "{\"v\":1,\"received_at\":\"2026-11-21T09:32:08.006Z\",\"rejected\":{\"reason\":\"x\"}}\n";
        let (first, last) = (line("a", "", b"{}"), line("b", "", b"{}"));
        let rejected = [first.as_bytes(), odd.as_bytes(), b"\xff\n", last.as_bytes()].concat();
        let (object, outcomes) = merge(&compressed(&rejected), None, EventFormat::Envelope);
        assert_eq!((outcomes.bodies, outcomes.odd_lines, object.unwrap().metadata.event_count), (2, 2, 2));
        assert!(outcomes.told[0].starts_with("line 2: ") && outcomes.told[1].starts_with("line 3: "), "{outcomes:?}");
    }

    #[test]
    fn raw_events_may_look_like_ours_and_say_nothing_of_their_receipt() {
        let forged = b"{\"v\":1,\"received_at\":\"2027-01-01T00:00:00.000Z\",\"rejected\":{\"reason\":\"too_deep\"}}";
        let rejected = compressed(line("a", "", forged).as_bytes());
        let (object, _) = merge(&rejected, None, EventFormat::Raw);
        let object = object.unwrap();
        assert_eq!(text(&object).trim_end().as_bytes(), forged);
        assert_eq!(object.metadata.event_format, EventFormat::Raw);
        assert_eq!(object.metadata.latest_received_at.rfc3339(), "2026-11-21T09:32:08.006Z");
        assert!(merge(&rejected, Some(&object), EventFormat::Raw).0.is_none());
    }

    /// Fifty bodies of 16 MiB each, from an object of some hundred kilobytes: what is held is one of them and what is landed.
    #[rstest]
    #[case::events_as_many_as_may_be(format!("{{\"a\":\"{}\"}}\n", "x".repeat(1_660)).repeat(10_000))]
    #[case::long_events(format!("{{\"a\":\"{}\"}}\n", "x".repeat(4_000_000)).repeat(4))]
    #[case::no_events("[".repeat(MAX_BODY_BYTES))]
    #[case::too_large("{}\n".repeat(MAX_BODY_BYTES / 3 + 1))]
    fn fifty_bombs_are_read_in_bounded_memory(#[case] body: String) {
        const MOST_BYTES: u64 = 96 * 1024 * 1024;
        let body = gzip(body.as_bytes());
        let lines: String = (0..50).map(|number| line(&number.to_string(), "gzip", &body)).collect();
        let rejected = compressed(lines.as_bytes());
        let mut outcomes = Outcomes::default();
        let cost = measure(|| outcomes = merge(&rejected, None, EventFormat::Envelope).1);
        println!("{} bytes at most: {outcomes:?}", cost.bytes_max);
        assert!(cost.bytes_max < MOST_BYTES, "{}", cost.bytes_max);
        assert_eq!(outcomes.bodies, 50);
        // Each body ends in an outcome, and those past the bound are not read.
        assert!(outcomes.unread >= 50 - MAX_BODIES_BYTES / MAX_BODY_BYTES - 2, "{outcomes:?}");
        assert_eq!(outcomes.events == 0, outcomes.still_rejected + outcomes.unread == 50);
    }
}
