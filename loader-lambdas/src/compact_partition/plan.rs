//! Which objects of an hour go into which part: decided once for each manifest, written down before the first part is, and never
//! changed. So every run makes the same parts, whichever manifest it was called for and however often it was stopped.

use std::collections::HashMap;

use monitoring_lambdas::manifest::{Entry, Success};
use serde::{Deserialize, Serialize};
use shared::timestamp::UnixMillis;

use super::columnar::VERSION;

/// The most bytes of lines in a part, unless one object has more: a file of some 60 MB for players' events, which engines read in one
/// go or split by row group, and which fits into memory even if nothing of it can be compressed.
pub(super) const PART_BYTES: u64 = 512 * 1024 * 1024;

/// What an object is taken for whose metadata can't be read: ten times its compressed bytes.
const USUAL_RATIO: u64 = 10;

/// Parts for the objects of one manifest that no earlier plan has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) head: Head,
    /// In the order of the manifest.
    pub(super) parts: Vec<Vec<Planned>>,
}

/// The first line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// [`VERSION`]
    pub(super) v: u8,
    /// The manifest's `ETag`.
    pub(super) manifest: String,
    pub(super) sealed_at: UnixMillis,
    /// `PROMOTED_FIELDS` as it was: all runs make the same columns.
    pub(super) promoted_fields: String,
    /// Lines that follow.
    pub(super) objects: usize,
}

/// An object of a plan, and one of its lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Planned {
    /// From 0 in each plan.
    part: usize,
    pub(super) key: String,
    /// Compressed.
    pub(super) bytes: u64,
    /// Absent where the object's metadata can't be read.
    pub(super) lines: Option<u64>,
    /// As the metadata says, or as is usual.
    pub(super) uncompressed_bytes: u64,
}

/// Why a plan can't be read.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Nobody but this function writes plans.
    #[error("{key} can't be read: {source}")]
    Malformed {
        /// The plan's.
        key: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A part of it is missing, or a later release wrote it.
    #[error("{key} has version {version} and {found} of {objects} objects; this release knows version {VERSION}")]
    Unknown {
        /// The plan's.
        key: String,
        /// What it says.
        version: u8,
        /// What it says.
        objects: usize,
        /// What it has.
        found: usize,
    },
}

/// The objects that earlier plans have.
#[derive(Debug, Default)]
pub(super) struct Covered<'a> {
    objects: HashMap<&'a str, (u64, Option<u64>)>,
}

impl<'a> Covered<'a> {
    /// What plans have, less the parts, by their numbers in all plans, that did not find all of theirs.
    pub(super) fn by(plans: &'a [Plan], is_incomplete: impl Fn(usize) -> bool) -> Self {
        let parts = plans.iter().flat_map(|plan| &plan.parts).enumerate();
        let planned = parts.filter(|(number, _)| !is_incomplete(*number)).flat_map(|(_, part)| part);
        Self { objects: planned.map(|object| (&*object.key, (object.bytes, object.lines))).collect() }
    }

    /// Whether an object was planned as it is now. One that landing replaced since has more lines: it is read again, and the lines that
    /// are rows already are dropped as doubles.
    fn has(&self, entry: &Entry) -> bool {
        self.objects.get(&*entry.key) == Some(&(entry.bytes, lines(entry)))
    }
}

impl Plan {
    /// Whether it is of this seal or a later one.
    pub(super) fn covers(&self, sealed: &Success) -> bool {
        let is_same = Some(&self.head.manifest) == sealed.manifest.as_ref() && self.head.sealed_at == sealed.sealed_at;
        is_same || self.head.sealed_at > sealed.sealed_at
    }

    /// The parts for those of a manifest's entries that are events and not covered.
    pub(super) fn new(head: Head, entries: &[Entry], covered: &Covered<'_>, part_bytes: u64) -> Self {
        let mut parts: Vec<Vec<Planned>> = Vec::new();
        let mut filled = 0u64;
        for entry in entries.iter().filter(|entry| entry.key.starts_with("events/") && !covered.has(entry)) {
            let bytes = uncompressed_bytes(entry);
            filled = filled.saturating_add(bytes);
            if parts.is_empty() || filled > part_bytes {
                parts.push(Vec::new());
                filled = bytes;
            }
            let part = parts.len() - 1;
            let object = Planned {
                part,
                key: entry.key.clone(),
                bytes: entry.bytes,
                lines: lines(entry),
                uncompressed_bytes: bytes,
            };
            parts[part].push(object);
        }
        let objects = parts.iter().map(Vec::len).sum();
        Self { head: Head { objects, ..head }, parts }
    }

    /// The text of its file.
    pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = serde_json::to_vec(&self.head)?;
        text.push(b'\n');
        for object in self.parts.iter().flatten() {
            serde_json::to_writer(&mut text, object)?;
            text.push(b'\n');
        }
        Ok(text)
    }

    /// The inverse of [`Plan::encode`].
    pub(super) fn decode(key: &str, text: &[u8]) -> Result<Self, PlanError> {
        let malformed = |source| PlanError::Malformed { key: key.to_owned(), source };
        let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let head: Head = serde_json::from_slice(lines.next().unwrap_or_default()).map_err(malformed)?;
        let mut parts: Vec<Vec<Planned>> = Vec::new();
        let mut found = 0;
        for line in lines {
            let object: Planned = serde_json::from_slice(line).map_err(malformed)?;
            if object.part == parts.len() {
                parts.push(Vec::new());
            }
            found += usize::from(object.part + 1 == parts.len());
            if let Some(part) = parts.last_mut() {
                part.push(object);
            }
        }
        match head {
            Head { v: VERSION, objects, .. } if objects == found => Ok(Self { head, parts }),
            Head { v, objects, .. } => Err(PlanError::Unknown { key: key.to_owned(), version: v, objects, found }),
        }
    }
}

/// Lines that a part's objects say they have.
pub(super) fn said_lines(part: &[Planned]) -> u64 {
    part.iter().fold(0, |sum, object| sum.saturating_add(object.lines.unwrap_or(0)))
}

/// The first part of each window: rows are compared with those of their window alone, which has at most `limit` lines unless one part
/// has more.
pub(super) fn windows(lines_of_parts: impl IntoIterator<Item = u64>, limit: u64) -> Vec<usize> {
    let (mut starts, mut filled) = (Vec::new(), 0u64);
    for (number, lines) in lines_of_parts.into_iter().enumerate() {
        filled = filled.saturating_add(lines);
        if starts.is_empty() || filled > limit {
            starts.push(number);
            filled = lines;
        }
    }
    starts
}

fn lines(entry: &Entry) -> Option<u64> {
    entry.content.as_ref().map(|content| content.lines)
}

fn uncompressed_bytes(entry: &Entry) -> u64 {
    let said = entry.content.as_ref().map(|content| content.uncompressed_bytes);
    said.unwrap_or_else(|| entry.bytes.saturating_mul(USUAL_RATIO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use monitoring_lambdas::manifest::EntryContent;
    use proptest::prelude::*;
    use rstest::rstest;

    fn entry(key: &str, lines: u64, uncompressed_bytes: u64) -> Entry {
        let content = EntryContent {
            records: 1,
            lines,
            uncompressed_bytes,
            first_sequence_number: None,
            last_sequence_number: None,
            earliest_received_at: UnixMillis(0),
            latest_received_at: UnixMillis(0),
        };
        Entry { key: format!("events/{key}"), bytes: uncompressed_bytes / 10, content: Some(content) }
    }

    fn head(manifest: &str) -> Head {
        let promoted_fields = "type:type".to_owned();
        Head { v: VERSION, manifest: manifest.into(), sealed_at: UnixMillis(7), promoted_fields, objects: 0 }
    }

    fn keys(plan: &Plan) -> Vec<Vec<&str>> {
        plan.parts.iter().map(|part| part.iter().map(|object| &object.key["events/".len()..]).collect()).collect()
    }

    #[test]
    fn parts_are_runs_of_the_manifest() {
        let rejected = Entry { key: "rejected/r".into(), ..entry("", 1, 1) };
        let unreadable = Entry { content: None, ..entry("u", 0, 30) };
        let entries =
            [entry("a", 1, 60), entry("b", 2, 40), entry("c", 3, 101), entry("d", 4, 100), rejected, unreadable];
        let plan = Plan::new(head("m"), &entries, &Covered::default(), 100);
        assert_eq!(keys(&plan), [vec!["a", "b"], vec!["c"], vec!["d"], vec!["u"]]);
        assert_eq!((plan.head.objects, plan.parts[3][0].uncompressed_bytes), (5, 30));
    }

    #[test]
    fn a_later_manifest_adds_what_is_new_or_has_changed() {
        let first = Plan::new(head("m"), &[entry("a", 1, 60), entry("c", 3, 60)], &Covered::default(), 100);
        let plans = [first];
        let entries = [entry("a", 1, 60), entry("b", 1, 60), entry("c", 4, 60)];
        let second = Plan::new(head("n"), &entries, &Covered::by(&plans, |_| false), 1_000);
        assert_eq!(keys(&second), [["b", "c"]]);
        let plans = [plans[0].clone(), second];
        assert_eq!(keys(&Plan::new(head("o"), &entries, &Covered::by(&plans, |_| false), 1_000)), [[""; 0]; 0]);
    }

    #[test]
    fn what_a_part_did_not_find_is_planned_again() {
        let entries = [entry("a", 1, 60), entry("b", 1, 60)];
        let plans = [Plan::new(head("m"), &entries, &Covered::default(), 100)];
        let again = Plan::new(head("n"), &entries, &Covered::by(&plans, |part| part == 1), 100);
        assert_eq!(keys(&again), [["b"]]);
    }

    #[rstest]
    #[case(&[], &[])]
    #[case(&[5, 5, 1, 9, 1, 11, 0], &[0, 2, 4, 5, 6])]
    #[case(&[u64::MAX, u64::MAX], &[0, 1])]
    fn windows_begin_where_the_limit_is_passed(#[case] lines: &[u64], #[case] starts: &[usize]) {
        assert_eq!(windows(lines.iter().copied(), 10), starts);
    }

    #[test]
    fn a_plan_that_was_cut_off_is_refused() {
        let plan = Plan::new(head("m"), &[entry("a", 1, 60), entry("b", 1, 60)], &Covered::default(), 100);
        let text = plan.encode().unwrap();
        let lines: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').collect();
        assert!(matches!(
            Plan::decode("k", &lines[..2].concat()),
            Err(PlanError::Unknown { found: 1, objects: 2, .. })
        ));
        assert!(matches!(Plan::decode("k", &text[..text.len() - 9]), Err(PlanError::Malformed { .. })));
        assert!(matches!(Plan::decode("k", b""), Err(PlanError::Malformed { .. })));
        let later = String::from_utf8(text).unwrap().replacen("\"v\":1", "\"v\":2", 1);
        assert!(matches!(Plan::decode("k", later.as_bytes()), Err(PlanError::Unknown { version: 2, .. })));
    }

    proptest! {
        #[test]
        fn plans_are_read_as_they_were_written(
            sizes in prop::collection::vec((any::<u64>(), any::<bool>()), 0..20), part_bytes in 0u64..1_000,
        ) {
            let entry = |(number, (size, readable)): (usize, &(u64, bool))| Entry {
                content: if *readable { entry("", number as u64, *size).content } else { None },
                key: format!("events/{number}"),
                bytes: *size,
            };
            let entries: Vec<_> = sizes.iter().enumerate().map(entry).collect();
            let plan = Plan::new(head("m"), &entries, &Covered::default(), part_bytes);
            prop_assert_eq!(plan.parts.concat().len(), entries.len());
            prop_assert_eq!(Plan::decode("k", &plan.encode().unwrap()).unwrap(), plan);
        }
    }
}
