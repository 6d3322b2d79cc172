//! Seals an hour: one listing, a look at each object, the manifest, then `_SUCCESS`.

use futures_util::future::try_join_all;
use shared::line::Kind;
use shared::object::{ObjectKey, ObjectMetadata, ObjectName, manifest_key, prefix, success_key};
use shared::timestamp::UtcHour;

use super::context::{Candidate, Halt, Published, Run, Sealing};
use super::incomplete::{Terms, Verdict};
use super::manifest_text::{self, MAX_OVERLAPS, Manifest};
use super::progress::{Marker, Progress, Replaced, Stopped};
use super::reaches::Overlapped;
use super::{CONCURRENCY, MAX_ATTEMPTS, SealError};
use crate::bucket::{Bucket, BucketError, Condition, Content, List, Listed, Streams, Uploads};
use crate::cloudwatch::Metrics;
use crate::manifest::{Entry, EntryContent, MAX_KEYS, Overlap, Success, Totals, progress_key, replaced_key};

impl<B: Bucket + Uploads, F: Bucket + Streams, M: Metrics, T: Fn() -> bool> Run<'_, B, F, M, T> {
    /// Seals an hour if it is whole, or accepted as it is. `covers` are the reseals that a listing satisfies which begins now.
    pub(super) async fn seal_hour(
        &self,
        candidate: &mut Candidate,
        terms: &Terms,
        covers: Vec<String>,
    ) -> Result<Sealing, Halt> {
        let partition = candidate.partition();
        let stopped = candidate.stopped.take();
        let (marker, mut found) = stopped.map_or((None, None), |stopped| (Some(stopped.content), stopped.progress));
        for _ in 0..MAX_ATTEMPTS {
            let published = self.published(&partition).await?;
            let mut progress = self.begin(&partition, found.take(), &published.etags, &covers).await?;
            match self.attempt(candidate.hour, terms, published.success.as_ref(), &mut progress).await {
                Ok(sealing) => {
                    if marker.is_some() {
                        self.bucket.delete(&progress_key(&partition)).await?;
                    }
                    return Ok(sealing);
                }
                Err(Halt::Conflict) => self.abort(&partition, progress.upload.as_deref()).await?,
                Err(Halt::Stopped) => {
                    self.put_marker(&partition, progress, marker.as_ref()).await?;
                    return Err(Halt::Stopped);
                }
                Err(failed) => return Err(failed),
            }
        }
        Err(SealError::Contended { partition, attempts: MAX_ATTEMPTS }.into())
    }

    /// Writes the manifest and, if nothing is missing, `_SUCCESS`.
    async fn attempt(
        &self,
        hour: UtcHour,
        terms: &Terms,
        before: Option<&Success>,
        progress: &mut Progress,
    ) -> Result<Sealing, Halt> {
        let etag = self.write_manifest(hour, before.is_some(), progress).await?;
        // The upload is over.
        progress.upload = None;
        let accepted = match self.verdict(hour, terms, progress).await? {
            Verdict::Seal(accepted) => accepted,
            Verdict::Hold(missing) => return Ok(Sealing::Held(missing)),
        };
        let manifest = Manifest { etag, totals: progress.totals.clone() };
        let success = manifest_text::success((&hour.partition(), self.at), before, manifest, accepted);
        let condition = Condition::unchanged(progress.replaced.success.as_deref());
        if !self.put_success(&success, condition).await? {
            return Err(Halt::Conflict);
        }
        Ok(Sealing::Sealed { success: Box::new(success), covers: progress.covers.clone() })
    }

    /// Writes `_SUCCESS`; `false` when it changed meanwhile.
    pub(super) async fn put_success(&self, success: &Success, condition: Condition<'_>) -> Result<bool, SealError> {
        let key = success_key(&success.partition);
        let body = serde_json::to_vec(success)?;
        match self.bucket.put(&key, body.clone().into(), condition).await {
            Ok(_) => Ok(true),
            // It may have been this very write, whose answer was lost, or another run that found the same.
            Err(BucketError::ConditionFailed { .. }) => {
                Ok(self.bucket.get(&key).await?.is_some_and(|found| found.body == body))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Continues where an earlier run stopped, unless the partition was sealed since.
    async fn begin(
        &self,
        partition: &str,
        found: Option<Progress>,
        replaced: &Replaced,
        covers: &[String],
    ) -> Result<Progress, SealError> {
        if let Some(found) = found {
            if found.replaced == *replaced {
                return Ok(found);
            }
            self.abort(partition, found.upload.as_deref()).await?;
        }
        let mut progress = Progress { replaced: replaced.clone(), covers: covers.to_vec(), ..Progress::default() };
        manifest_text::begin(&mut progress.buffer, partition, "objects");
        Ok(progress)
    }

    async fn abort(&self, partition: &str, upload: Option<&str>) -> Result<(), SealError> {
        if let Some(upload) = upload {
            self.bucket.abort_upload(&manifest_key(partition), upload).await?;
        }
        Ok(())
    }

    /// Where an earlier run stopped. Progress of a seal that another run has overtaken is dropped.
    pub(super) async fn stopped(&self, partition: &str, published: &Published) -> Result<Option<Stopped>, SealError> {
        let Some(content) = self.bucket.get(&progress_key(partition)).await? else { return Ok(None) };
        let mut progress = Marker::decode(&content.body).and_then(|marker| marker.progress);
        if let Some(overtaken) = progress.take_if(|progress| progress.replaced != published.etags) {
            self.abort(partition, overtaken.upload.as_deref()).await?;
        }
        Ok(Some(Stopped { content, progress }))
    }

    /// Drops a seal that is no longer needed.
    pub(super) async fn forget_progress(&self, partition: &str, stopped: Option<Stopped>) -> Result<(), SealError> {
        let Some(stopped) = stopped else { return Ok(()) };
        self.abort(partition, stopped.progress.and_then(|progress| progress.upload).as_deref()).await?;
        Ok(self.bucket.delete(&progress_key(partition)).await?)
    }

    /// Has another invocation continue. If another run has put a marker since, that one is continued.
    async fn put_marker(&self, partition: &str, progress: Progress, found: Option<&Content>) -> Result<(), SealError> {
        let upload = progress.upload.clone();
        let condition = Condition::unchanged(found.map(|found| found.etag.as_str()));
        let marker = Marker::new(self.at, Some(progress)).encode()?;
        match self.bucket.put(&progress_key(partition), marker, condition).await {
            Ok(_) => Ok(()),
            Err(BucketError::ConditionFailed { .. }) => {
                let earlier = found.and_then(|found| Marker::decode(&found.body)?.progress?.upload);
                if upload != earlier { self.abort(partition, upload.as_deref()).await } else { Ok(()) }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes `_MANIFEST.json`; its `ETag`. The one that it replaces is kept if the hour was sealed: what it has and the new
    /// one lacks was deleted.
    async fn write_manifest(&self, hour: UtcHour, is_reseal: bool, progress: &mut Progress) -> Result<String, Halt> {
        let key = manifest_key(&hour.partition());
        for kind in [Kind::Event, Kind::Rejected] {
            self.collect(hour, kind, &key, progress).await?;
        }
        manifest_text::end(&mut progress.buffer, &progress.overlaps, &progress.totals)?;
        let replaced = progress.replaced.manifest.clone();
        if let Some(etag) = replaced.as_deref().filter(|_| is_reseal) {
            self.bucket.copy(&key, etag, &replaced_key(&hour.partition(), etag)).await?;
        }
        let condition = Condition::unchanged(replaced.as_deref());
        let Some(upload) = progress.upload.clone() else {
            let whole = std::mem::take(&mut progress.buffer);
            return Ok(self.bucket.put(&key, whole.into(), condition).await?);
        };
        self.flush(&key, progress).await?;
        Ok(self.bucket.complete_upload(&key, &upload, &progress.parts, condition).await?)
    }

    /// Writes the entries of one kind, from where the progress stands.
    async fn collect(&self, hour: UtcHour, kind: Kind, manifest: &str, progress: &mut Progress) -> Result<(), Halt> {
        let folder = format!("{}/{}/", prefix(kind), hour.partition());
        if progress.last_key.as_ref().is_some_and(|last| *last > folder && !last.starts_with(&folder)) {
            return Ok(());
        }
        loop {
            let start_after = progress.last_key.clone().filter(|last| last.starts_with(&folder));
            let list = List { prefix: &folder, start_after: start_after.as_deref(), ..List::default() };
            let page = self.bucket.list(list).await?;
            for listed in page.objects.chunks(CONCURRENCY) {
                if self.must_stop() {
                    return Err(Halt::Stopped);
                }
                let looks = try_join_all(listed.iter().map(|listed| self.look(&folder, listed))).await?;
                for (listed, look) in listed.iter().zip(looks) {
                    add(progress, kind, listed, look)?;
                    if progress.buffer.len() >= self.part_bytes {
                        self.flush(manifest, progress).await?;
                    }
                }
                self.has_worked.set(true);
            }
            if !page.is_truncated || page.objects.is_empty() {
                return Ok(());
            }
        }
    }

    async fn look(&self, folder: &str, listed: &Listed) -> Result<Look, BucketError> {
        // Readers of Hive partitions skip these names, among them the manifest and `_SUCCESS`.
        if listed.key[folder.len()..].starts_with(['_', '.']) {
            return Ok(Look::Nothing);
        }
        let Some(key) = ObjectKey::parse(&listed.key) else { return Ok(Look::Unreadable) };
        let Some(head) = self.bucket.head(&listed.key).await? else { return Ok(Look::Nothing) };
        let metadata = ObjectMetadata::from_entries(&key.name, &head.metadata);
        Ok(metadata.map_or(Look::Unreadable, |metadata| Look::Landed(Box::new((key, metadata)))))
    }

    /// Uploads what is in the buffer as the next part.
    async fn flush(&self, key: &str, progress: &mut Progress) -> Result<(), Halt> {
        let upload = match &progress.upload {
            Some(upload) => upload.clone(),
            None => self.bucket.create_upload(key).await?,
        };
        progress.upload = Some(upload.clone());
        let number = i32::try_from(progress.parts.len() + 1).unwrap_or(i32::MAX);
        let body = std::mem::take(&mut progress.buffer);
        progress.parts.push(self.bucket.upload_part(key, &upload, number, body.into()).await?);
        Ok(())
    }
}

/// What there is under a key.
enum Look {
    Landed(Box<(ObjectKey, ObjectMetadata)>),
    /// Not written by landing, or its metadata can't be read.
    Unreadable,
    /// It is gone, or is not data.
    Nothing,
}

fn add(progress: &mut Progress, kind: Kind, listed: &Listed, look: Look) -> Result<(), serde_json::Error> {
    progress.last_key = Some(listed.key.clone());
    let landed = match look {
        Look::Nothing => return Ok(()),
        Look::Unreadable => {
            if progress.unreadable.len() < MAX_KEYS {
                progress.unreadable.push(listed.key.clone());
            }
            None
        }
        Look::Landed(landed) => Some(*landed),
    };
    let is_first = progress.totals.all_objects() == 0;
    progress.totals.add_object(kind, listed.size, landed.as_ref().map(|(_, metadata)| metadata));
    let content = landed.as_ref().map(|(key, metadata)| content(key, metadata));
    let entry = Entry { key: listed.key.clone(), bytes: listed.size, content };
    manifest_text::entry(&mut progress.buffer, &entry, is_first)?;
    if let Some((key, metadata)) = &landed {
        add_records(progress, key, metadata);
    }
    Ok(())
}

/// Counts the records of an object once, whatever others they are in.
fn add_records(progress: &mut Progress, key: &ObjectKey, metadata: &ObjectMetadata) {
    let overlapped = progress.reaches.add(key, metadata.last_sequence_number.as_deref());
    let is_repeated = overlapped.as_ref().is_some_and(|overlapped| overlapped.is_within);
    let records = metadata.record_count;
    let (at_least, at_most) = match (&key.name, &overlapped) {
        (ObjectName::Spilled(_), _) => {
            progress.totals.add_spilled(key.kind, metadata);
            (0, 0)
        }
        // Its records are in the object that it was made of.
        (ObjectName::Redriven(_), _) => {
            if !is_repeated {
                progress.totals.add_redriven(metadata);
            }
            (0, 0)
        }
        (ObjectName::Landed(_), None) => (records, records),
        (ObjectName::Landed(_), Some(_)) if is_repeated => (0, 0),
        (ObjectName::Landed(_), Some(_)) => (0, records.saturating_sub(1)),
    };
    let landed = &mut progress.landed_records;
    landed.at_least = landed.at_least.saturating_add(at_least);
    landed.at_most = landed.at_most.saturating_add(at_most);
    let Some(Overlapped { first, reaches, .. }) = overlapped else { return };
    let repeated = &mut progress.totals.repeated;
    if is_repeated {
        repeated.add_object(key.kind, metadata);
    } else {
        repeated.add_record();
    }
    note(progress, Overlap { key: key.to_string(), first_sequence_number: first, reaches });
}

fn note(progress: &mut Progress, overlap: Overlap) {
    let Totals { overlaps, .. } = &mut progress.totals;
    *overlaps = overlaps.saturating_add(1);
    if progress.overlaps.len() < MAX_OVERLAPS {
        progress.overlaps.push(overlap);
    }
}

fn content(key: &ObjectKey, metadata: &ObjectMetadata) -> EntryContent {
    EntryContent {
        records: metadata.record_count,
        lines: metadata.event_count,
        uncompressed_bytes: metadata.uncompressed_bytes,
        first_sequence_number: key.name.first_record().map(|first| first.sequence_number.clone()),
        last_sequence_number: metadata.last_sequence_number.clone(),
        earliest_received_at: metadata.earliest_received_at.rfc3339(),
        latest_received_at: metadata.latest_received_at.rfc3339(),
    }
}
