//! Rejected lines, read again: the events that are found in them land beside them.
//!
//! The events of `rejected/dt=…/hour=…/<shard>-<number>.jsonl.bz2` land in
//! `events/dt=…/hour=…/<shard>-<number>-redriven.jsonl.bz2`. Equal input makes equal lines, and lines that are there
//! already are kept, so that it does not matter how often, by how many and with which reasons this is run.
//!
//! Other producers can put lines into `rejected/` that are not in our form. They are counted and told, and stop nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read;

use anyhow::{Context, anyhow};
use bzip2::read::MultiBzDecoder;
use ingest_lambda::content::body_form;
use kinesis_to_s3_lambda::chunk::Chunk;
use kinesis_to_s3_lambda::group::Group;
use shared::line::{EventFormat, Kind};
use shared::object::{ObjectKey, ReceivedIn};
use shared::rejection::{Reason, ReasonCounts};

use crate::bucket::Bucket;
use crate::found::Found;
use crate::land::Lander;
use crate::rejected_line::RejectedLine;

/// Bytes at most of all bodies in parts that are held until their other parts are found.
const MAX_PARTS_BYTES: usize = 512 * 1024 * 1024;
/// Bytes of a landed object's lines at most: a batch is at most 6 MiB as an event, and base64 and lines add to it.
const MAX_OBJECT_BYTES: u64 = 256 * 1024 * 1024;
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

#[derive(Debug, Default)]
struct Counts {
    bodies: usize,
    still_rejected: usize,
    incomplete: usize,
    odd_lines: usize,
    objects_with_odd_lines: usize,
    failed_objects: usize,
}

/// The lines of one object that are to be read, and what is wrong with those that are not in our form.
#[derive(Default)]
struct Lines {
    ours: Vec<RejectedLine>,
    odd: Vec<String>,
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
    let Counts { bodies, still_rejected, incomplete, odd_lines, objects_with_odd_lines, failed_objects } = counts;
    println!(
        "{bodies} bodies were read: {still_rejected} are still rejected, {incomplete} have parts outside of {prefix}; \
         {odd_lines} lines in {objects_with_odd_lines} objects are no rejected lines of ours; {failed_objects} objects \
         failed"
    );
    Ok(failed_objects == 0 && incomplete == 0 && odd_lines == 0)
}

/// The bodies in several parts, wherever those are: the parts of one body have partition keys of their own.
async fn gather_parts(bucket: &Bucket, keys: &[String], reading: &Reading) -> anyhow::Result<Parts> {
    let (mut parts, mut bytes) = (Parts::new(), 0);
    for key in keys {
        // What can't be read is told when the object's turn comes.
        let Ok(lines) = lines(bucket, key, reading).await else { continue };
        for line in lines.ours.into_iter().filter(|line| line.parts > 1) {
            bytes += line.body.len();
            anyhow::ensure!(
                bytes <= MAX_PARTS_BYTES,
                "more than {MAX_PARTS_BYTES} bytes of bodies in parts; use a narrower --prefix"
            );
            parts.entry(line.id).or_default().insert(line.part, line.body);
        }
    }
    Ok(parts)
}

async fn lines(bucket: &Bucket, key: &str, reading: &Reading) -> anyhow::Result<Lines> {
    let compressed = bucket.get(key).await?.with_context(|| format!("{key} is gone"))?;
    let text = decompressed(&compressed).with_context(|| format!("decompressing {key}"))?;
    Ok(read_lines(&text, reading))
}

/// Each line once: one that ingest put on the stream twice, because an answer was lost, is the same to the byte.
fn read_lines(text: &[u8], reading: &Reading) -> Lines {
    let mut lines = Lines::default();
    let mut known = HashSet::new();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        match RejectedLine::parse(line) {
            Ok(parsed) if reading.reasons.contains(&parsed.reason) && known.insert(line) => lines.ours.push(parsed),
            Ok(_) => {}
            Err(problem) => lines.odd.push(format!("line {number}: {problem:#}")),
        }
    }
    lines
}

fn decompressed(compressed: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    MultiBzDecoder::new(compressed).take(MAX_OBJECT_BYTES + 1).read_to_end(&mut text)?;
    anyhow::ensure!(text.len() as u64 <= MAX_OBJECT_BYTES, "it holds more than {MAX_OBJECT_BYTES} bytes");
    Ok(text)
}

/// Lands the events in one object's rejected lines; how many were found.
async fn redrive_object(
    bucket: &Bucket,
    lander: &Lander,
    key: &str,
    parts: &Parts,
    reading: &Reading,
    counts: &mut Counts,
) -> anyhow::Result<usize> {
    let Lines { ours, odd } = lines(bucket, key, reading).await?;
    tell_odd_lines(key, &odd, counts);
    let mut found = Found::default();
    for line in ours.into_iter().filter(|line| line.part == 1) {
        counts.bodies += 1;
        match whole_body(&line, parts) {
            None => counts.incomplete += 1,
            Some(body) => {
                if found.read(&line, &body, reading).is_err() {
                    counts.still_rejected += 1;
                }
            }
        }
    }
    if found.is_empty() {
        return Ok(0);
    }
    let group = redriven_group(&ObjectKey::parse(key).with_context(|| key.to_owned())?);
    let key = group.key();
    let merge = |earlier: Option<&[u8]>| {
        let earlier = earlier.map(decompressed).transpose().with_context(|| format!("decompressing {key}"))?;
        let earlier = String::from_utf8(earlier.unwrap_or_default()).with_context(|| format!("reading {key}"))?;
        Ok(found.behind(&earlier).map(|chunk| holding(&group, chunk)))
    };
    lander.add(|| bucket.read(&key), merge).await?;
    Ok(found.len())
}

fn tell_odd_lines(key: &str, odd: &[String], counts: &mut Counts) {
    counts.odd_lines += odd.len();
    counts.objects_with_odd_lines += usize::from(!odd.is_empty());
    odd.iter().take(MAX_ODD_LINES_TOLD).for_each(|line| println!("{key}: no rejected line of ours: {line}"));
    if let Some(more @ 1..) = odd.len().checked_sub(MAX_ODD_LINES_TOLD) {
        println!("{key}: and {more} more");
    }
}

/// A body, from all of its parts; `None` when some are not here.
fn whole_body(line: &RejectedLine, parts: &Parts) -> Option<Vec<u8>> {
    if line.parts == 1 {
        return Some(line.body.clone());
    }
    let all = parts.get(&line.id).filter(|parts| parts.len() == line.parts);
    all.map(|parts| parts.values().flatten().copied().collect())
}

fn holding(group: &Group, chunk: Chunk) -> Group {
    // Ingest has not counted these lines as events of any hour.
    let received_in = ReceivedIn { elsewhere: chunk.lines, ..ReceivedIn::default() };
    Group { received_in, chunks: vec![chunk], ..group.clone() }
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
        received_in: ReceivedIn::default(),
        reasons: ReasonCounts::default(),
        chunks: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, body_base64: &str) -> String {
        format!(
            "{{\"v\":1,\"id\":\"{id}\",\"received_at\":\"2026-11-21T09:32:08.006Z\",\"request_id\":\"r\",\"client\":{{}},\
             \"rejected\":{{\"reason\":\"invalid_json\",\"detail\":\"d\",\"body_base64\":\"{body_base64}\"}}}}\n"
        )
    }

    #[test]
    fn a_line_that_is_twice_on_the_stream_is_read_once_and_equal_bodies_are_read_each() {
        let reading = Reading::new(&["invalid_json".to_owned()], None, EventFormat::Raw).unwrap();
        let text = [line("a", "e30="), line("b", "e30="), line("a", "e30=")].concat();
        let lines = read_lines(text.as_bytes(), &reading);
        assert!(lines.odd.is_empty(), "{:?}", lines.odd);
        assert_eq!(lines.ours.len(), 2);
        let mut found = Found::default();
        for line in &lines.ours {
            found.read(line, &line.body, &reading).unwrap();
        }
        assert_eq!(&found.behind("").unwrap().bytes[..], b"{}\n{}\n");
    }

    #[test]
    fn odd_lines_are_told_by_number_and_the_others_are_read() {
        let reading = Reading::new(&["invalid_json".to_owned()], None, EventFormat::Envelope).unwrap();
        let odd = "{\"v\":1,\"received_at\":\"2026-11-21T09:32:08.006Z\",\"rejected\":{\"reason\":\"x\"}}\n";
        let text = [line("a", "e30=").as_bytes(), odd.as_bytes(), b"\xff\n", line("b", "e30=").as_bytes()].concat();
        let lines = read_lines(&text, &reading);
        assert_eq!(lines.ours.iter().map(|line| line.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(lines.odd.len(), 2);
        assert!(lines.odd[0].starts_with("line 2: ") && lines.odd[1].starts_with("line 3: "), "{:?}", lines.odd);
    }
}
