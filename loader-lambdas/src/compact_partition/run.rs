//! The compaction of one hour: plan, build what is missing, and say so in `_SUCCESS`.
//!
//! What may be stopped at any moment, run twice at once, or run for an older manifest than another run, rests on three rules. A plan is
//! written before its parts and never changed. A part is a function of the plans up to its own and of the objects: it is created,
//! never replaced. `_SUCCESS` is written last, and only over the one that was read, by a run that knows all plans of that one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use lambda_setup::bucket::{BucketError, Condition, Listed, Streams};
use lambda_setup::deadline::Deadline;
use monitoring_lambdas::manifest::{Entry, Success};
use monitoring_lambdas::rules::partition::Partition;
use monitoring_lambdas::success;
use serde::Deserialize;
use shared::object::manifest_key;
use shared::timestamp::UtcHour;

use super::columnar::{Compacted, Keys, Part, Totals, VERSION};
use super::distinct::{Distinct, Seen};
use super::objects::{Found, Objects};
use super::parquet_file::{PartReader, PartWriter};
use super::plan::{Covered, Head, Plan, Planned, said_lines, windows};
use super::row::Row;
use super::{CompactError, Limits};
use crate::promoted::PromotedFields;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The hour has no `_SUCCESS`.
    NotSealed,
    /// Its manifest is being replaced: the `_SUCCESS` that follows asks again.
    Resealing,
    /// Nothing was to be done.
    Unchanged,
    /// All that the newest manifest names is in Parquet; what this run added to it.
    Compacted(Totals),
    /// The time is over, and parts are missing.
    Unfinished,
}

/// How often a run looks again because another one wrote first.
const ATTEMPTS: usize = 4;

/// One hour in one bucket.
pub(super) struct Compaction<'a, B> {
    bucket: &'a B,
    hour: UtcHour,
    limits: &'a Limits,
    deadline: Deadline,
    keys: Keys,
}

/// What is there of an hour.
struct State {
    /// With its `ETag`.
    committed: Option<(Compacted, String)>,
    plans: Vec<Plan>,
    /// By their keys.
    made: BTreeMap<String, Part>,
}

impl<'a, B: Streams> Compaction<'a, B> {
    pub(super) fn new(bucket: &'a B, hour: UtcHour, limits: &'a Limits, deadline: Deadline) -> Self {
        Self { bucket, hour, limits, deadline, keys: Keys::of(hour) }
    }

    /// `report` gets what is added before it is committed: a run that is killed between the two would leave it unsaid for good.
    pub(super) async fn run(&self, report: &impl Fn(&Totals)) -> Result<Outcome, CompactError> {
        let Some(sealed) = success::read(self.bucket, Partition::Hour(self.hour)).await? else {
            return Ok(Outcome::NotSealed);
        };
        for _ in 0..ATTEMPTS {
            match self.attempt(&sealed, report).await {
                Err(CompactError::Bucket(BucketError::ConditionFailed { key })) => {
                    tracing::info!(key, "another run wrote first: looking again");
                }
                done => return done,
            }
        }
        Err(CompactError::Contended { partition: self.hour.partition() })
    }

    /// The hour's seal, if not all that its manifest names is in Parquet.
    pub(super) async fn is_due(&self) -> Result<Option<Success>, CompactError> {
        let sealed = success::read(self.bucket, Partition::Hour(self.hour)).await?;
        // Releases before the first compaction named no manifest.
        let Some(sealed) = sealed.filter(|sealed| sealed.manifest.is_some()) else { return Ok(None) };
        let committed = self.committed().await?;
        let is_done = committed.is_some_and(|(committed, _)| committed.sealed_at >= sealed.sealed_at);
        Ok((!is_done).then_some(sealed))
    }

    async fn attempt(&self, sealed: &Success, report: &impl Fn(&Totals)) -> Result<Outcome, CompactError> {
        let mut state = self.state().await?;
        if !state.plans.last().is_some_and(|plan| plan.covers(sealed)) {
            let Some(plan) = self.plan(sealed, &state).await? else { return Ok(Outcome::Resealing) };
            state.plans.push(plan);
        }
        if state.committed.as_ref().is_some_and(|(committed, _)| committed.plans >= state.plans.len()) {
            return Ok(Outcome::Unchanged);
        }
        let Some(parts) = self.parts(&state).await? else { return Ok(Outcome::Unfinished) };
        let known = state.committed.as_ref().map_or(0, |(committed, _)| committed.parts.len());
        let mut added = Totals::default();
        parts.iter().skip(known).for_each(|part| added.add(&part.totals));
        report(&added);
        self.commit(&state, parts).await?;
        Ok(Outcome::Compacted(added))
    }

    async fn committed(&self) -> Result<Option<(Compacted, String)>, CompactError> {
        let key = self.keys.success();
        let Some(content) = self.bucket.get(&key).await? else { return Ok(None) };
        match serde_json::from_slice::<Compacted>(&content.body) {
            Ok(compacted) if compacted.v == VERSION => Ok(Some((compacted, content.etag))),
            Ok(compacted) => Err(CompactError::Version { key, version: compacted.v }),
            Err(source) => Err(CompactError::Malformed { key, source }),
        }
    }

    /// `_SUCCESS` is read first: what it names was written before it, and is in what is read next.
    async fn state(&self) -> Result<State, CompactError> {
        let committed = self.committed().await?;
        let mut plans = Vec::new();
        loop {
            let key = self.keys.plan(plans.len());
            let Some(content) = self.bucket.get(&key).await? else { break };
            plans.push(Plan::decode(&key, &content.body)?);
        }
        let mut made = BTreeMap::new();
        let known = committed.as_ref().map_or(&[][..], |(committed, _)| &committed.parts);
        for listed in self.bucket.list_all(&self.keys.parts()).await? {
            let known = known.iter().find(|part| part.key == listed.key && part.etag == listed.etag);
            let part = match known {
                Some(known) => known.clone(),
                None => self.made_before(listed).await?,
            };
            made.insert(part.key.clone(), part);
        }
        Ok(State { committed, plans, made })
    }

    /// A part that no `_SUCCESS` names yet: its footer has its totals.
    async fn made_before(&self, listed: Listed) -> Result<Part, CompactError> {
        let Listed { key, size, etag, .. } = listed;
        let totals = self.read_part(&key).await?.totals();
        let totals = totals.map_err(|source| CompactError::Part { key: key.clone(), source })?;
        Ok(Part { key, etag, bytes: size, totals })
    }

    /// Plans what the newest manifest has that no plan has. `None` while the manifest is not the one that `_SUCCESS` names.
    async fn plan(&self, sealed: &Success, state: &State) -> Result<Option<Plan>, CompactError> {
        let key = manifest_key(&self.hour.partition());
        let content = self.bucket.get(&key).await?;
        let Some(content) = content.filter(|content| Some(&content.etag) == sealed.manifest.as_ref()) else {
            return Ok(None);
        };
        let manifest = serde_json::from_slice::<Manifest>(&content.body);
        let Manifest { objects } = manifest.map_err(|source| CompactError::Malformed { key: key.clone(), source })?;
        let head = Head {
            v: VERSION,
            manifest: content.etag,
            sealed_at: sealed.sealed_at,
            promoted_fields: self.limits.promoted_fields.clone(),
            objects: 0,
        };
        let is_incomplete =
            |number| state.made.get(&self.keys.part(number)).is_some_and(|part| !part.totals.is_complete());
        let plan = Plan::new(head, &objects, &Covered::by(&state.plans, is_incomplete), self.limits.part_bytes);
        let text = plan.encode().map_err(|source| CompactError::Malformed { key, source })?;
        self.bucket.put(&self.keys.plan(state.plans.len()), text.into(), Condition::Absent).await?;
        Ok(Some(plan))
    }

    /// All parts, in order. `None` when the time is over.
    async fn parts(&self, state: &State) -> Result<Option<Vec<Part>>, CompactError> {
        let planned: Vec<(&Head, &[Planned])> =
            state.plans.iter().flat_map(|plan| plan.parts.iter().map(|part| (&plan.head, &**part))).collect();
        let windows = windows(planned.iter().map(|(_, part)| said_lines(part)), self.limits.window_lines);
        let mut parts = Vec::new();
        // The rows of the window, and the first part that is not in them.
        let (mut distinct, mut unread) = (Distinct::default(), 0);
        for (number, (head, objects)) in planned.into_iter().enumerate() {
            if windows.binary_search(&number).is_ok() {
                (distinct, unread) = (Distinct::default(), number);
            }
            let key = self.keys.part(number);
            if let Some(part) = state.made.get(&key) {
                parts.push(part.clone());
                continue;
            }
            if !self.has_time() || !self.read_back(unread..number, &mut distinct).await? || !self.has_time() {
                return Ok(None);
            }
            unread = number + 1;
            parts.push(self.build(key, head, objects, &mut distinct).await?);
        }
        Ok(Some(parts))
    }

    fn has_time(&self) -> bool {
        self.deadline.remaining() >= self.limits.part_time
    }

    async fn read_part(&self, key: &str) -> Result<PartReader, CompactError> {
        let content = self.bucket.get(key).await?;
        let content = content.ok_or_else(|| CompactError::PartMissing { key: key.to_owned() })?;
        PartReader::new(content.body).map_err(|source| CompactError::Part { key: key.to_owned(), source })
    }

    /// Reads the rows of parts that are there, to compare others with them; `false` when the time is over.
    async fn read_back(&self, parts: Range<usize>, distinct: &mut Distinct) -> Result<bool, CompactError> {
        for number in parts {
            let key = self.keys.part(number);
            let read = self.read_part(&key).await?.for_each_id(|id, event| {
                distinct.add(id, event);
            });
            read.map_err(|source| CompactError::Part { key, source })?;
            if !self.has_time() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn build(
        &self,
        key: String,
        head: &Head,
        objects: &[Planned],
        distinct: &mut Distinct,
    ) -> Result<Part, CompactError> {
        let (file, totals) = self.write(&key, head, objects, distinct).await?;
        let bytes = file.len() as u64;
        match self.bucket.put(&key, file.clone(), Condition::Absent).await {
            Ok(etag) => Ok(Part { key, etag, bytes, totals }),
            // Another run made it, or this one did and the answer was lost.
            Err(BucketError::ConditionFailed { .. }) => {
                let there = self.bucket.get(&key).await?.filter(|there| there.body == file);
                let there = there.ok_or_else(|| CompactError::PartDiffers { key: key.clone() })?;
                Ok(Part { key, etag: there.etag, bytes, totals })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn write(
        &self,
        key: &str,
        head: &Head,
        objects: &[Planned],
        distinct: &mut Distinct,
    ) -> Result<(Bytes, Totals), CompactError> {
        let promoted = PromotedFields::parse(&head.promoted_fields)?;
        let failed = |source| CompactError::Part { key: key.to_owned(), source };
        let writer = PartWriter::new(Vec::new(), promoted.names(), said_lines(objects)).map_err(failed)?;
        let mut rows = Rows { writer, distinct, promoted: &promoted, totals: Totals::default() };
        let mut objects = Objects::new(self.bucket, objects);
        while let Some((object, found)) = objects.next().await? {
            rows.add_object(object, found).map_err(failed)?;
        }
        let totals = rows.totals;
        Ok((rows.writer.finish(&totals).map_err(failed)?.into(), totals))
    }

    async fn commit(&self, state: &State, parts: Vec<Part>) -> Result<(), CompactError> {
        let Some(Plan { head, .. }) = state.plans.last() else { return Ok(()) };
        let mut totals = Totals::default();
        parts.iter().for_each(|part| totals.add(&part.totals));
        let compacted = Compacted {
            v: VERSION,
            partition: self.hour.partition(),
            sealed_at: head.sealed_at,
            manifest: head.manifest.clone(),
            plans: state.plans.len(),
            parts,
            totals,
        };
        let key = self.keys.success();
        let body =
            serde_json::to_vec(&compacted).map_err(|source| CompactError::Malformed { key: key.clone(), source })?;
        let body = Bytes::from(body);
        let read = state.committed.as_ref().map(|(_, etag)| &**etag);
        match self.bucket.put(&key, body.clone(), Condition::unchanged(read)).await {
            // Ours, if its answer was lost and the call was made again.
            Err(BucketError::ConditionFailed { .. })
                if self.bucket.get(&key).await?.is_some_and(|there| there.body == body) =>
            {
                Ok(())
            }
            put => Ok(put.map(drop)?),
        }
    }
}

/// An hour's manifest, as far as it is read here.
#[derive(Deserialize)]
struct Manifest {
    objects: Vec<Entry>,
}

/// The rows of a part on their way into its file.
struct Rows<'r> {
    writer: PartWriter<Vec<u8>>,
    distinct: &'r mut Distinct,
    promoted: &'r PromotedFields,
    totals: Totals,
}

impl Rows<'_> {
    fn add_object(&mut self, object: &Planned, found: Found) -> Result<(), parquet::errors::ParquetError> {
        self.totals.objects += 1;
        let lines_before = self.totals.lines;
        match found {
            Found::Missing => {
                tracing::warn!(key = object.key, "the object is gone since the hour was sealed");
                self.totals.missing_objects += 1;
            }
            Found::Unreadable(problem) => {
                tracing::warn!(key = object.key, problem, "the object can't be read");
                self.totals.unreadable_objects += 1;
            }
            Found::Lines(text) => {
                let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                let mut values = Vec::new();
                for line in lines {
                    self.add_line(line, &mut values)?;
                }
            }
        }
        let expected = object.lines.unwrap_or(self.totals.lines - lines_before);
        // What manifests say may be anything.
        self.totals.expected_lines = self.totals.expected_lines.saturating_add(expected);
        Ok(())
    }

    fn add_line<'t>(
        &mut self,
        line: &'t [u8],
        promoted: &mut Vec<Option<Cow<'t, str>>>,
    ) -> Result<(), parquet::errors::ParquetError> {
        self.totals.lines += 1;
        let Ok(row) = Row::read(line) else {
            self.totals.not_json += 1;
            return Ok(());
        };
        match row.id.as_deref().map(|id| self.distinct.add(id, row.event)) {
            Some(Seen::Double) => {
                self.totals.doubled += 1;
                return Ok(());
            }
            Some(Seen::Clashing) => self.totals.clashing += 1,
            Some(Seen::New) | None => {}
        }
        self.promoted.extract(row.event, promoted);
        self.totals.rows += 1;
        self.writer.add(&row, promoted)
    }
}
