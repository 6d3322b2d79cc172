//! Seals an hour: one listing, a look at each object, the manifest, then `_SUCCESS`.

use futures_util::future::try_join_all;
use shared::line::Kind;
use shared::object::{ObjectKey, ObjectMetadata, manifest_key, prefix, success_key};
use shared::timestamp::UtcHour;

use super::SealError;
use super::manifest_text::{self, MAX_OVERLAPS};
use super::progress::{Before, Marker, Progress, Replaced};
use super::reaches::first_sequence_number;
use super::run::{CONCURRENCY, Named, Run, Sealed};
use crate::bucket::{Bucket, BucketError, Condition, Content, List, Listed, Uploads};
use crate::manifest::{Entry, EntryContent, Overlap, Success, Totals, progress_key};

/// How often a seal begins anew because another run changed something, or an upload is gone.
pub(super) const MAX_ATTEMPTS: u32 = 3;

/// What became of a write that must not undo what another run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Yes,
    /// Something changed meanwhile: begin anew.
    Conflict,
    Stopped,
}

/// Conflicts are an outcome, not an error.
pub(super) fn written(result: Result<(), BucketError>) -> Result<Written, BucketError> {
    match result {
        Ok(()) => Ok(Written::Yes),
        Err(BucketError::ConditionFailed { .. } | BucketError::UploadGone { .. }) => Ok(Written::Conflict),
        Err(error) => Err(error),
    }
}

impl<B: Bucket + Uploads, T: Fn() -> bool> Run<'_, B, T> {
    /// `None` if the time was up. `resealed` is what an hour that is sealed anew is counted from.
    pub(super) async fn seal_hour(
        &self,
        hour: UtcHour,
        named: &Named,
        resealed: Option<Before>,
    ) -> Result<Option<Sealed>, SealError> {
        let partition = hour.partition();
        let marker = if named.progress { self.bucket.get(&progress_key(&partition)).await? } else { None };
        let mut found = marker.as_ref().and_then(|marker| Marker::decode(&marker.body)?.progress);
        for _ in 0..MAX_ATTEMPTS {
            let (sealed, replaced) = self.replaced(&partition).await?;
            let mut progress = self.begin(&partition, found.take(), replaced).await?;
            match self.write_manifest(hour, &mut progress).await? {
                Written::Yes => {}
                Written::Conflict => {
                    self.abort(&partition, progress.upload.as_deref()).await?;
                    continue;
                }
                Written::Stopped => {
                    self.put_marker(&partition, progress, marker.as_ref()).await?;
                    return Ok(None);
                }
            }
            let before = resealed.clone().or_else(|| sealed.as_ref()?.success.as_ref().map(Before::of));
            let success = manifest_text::success(&partition, self.at, before.as_ref(), progress.totals);
            let condition = Condition::unchanged(progress.replaced.success.as_deref());
            if let Some(sealed) = self.put_success(&success, condition).await? {
                if named.progress {
                    self.bucket.delete(&progress_key(&partition)).await?;
                }
                return Ok(Some(sealed));
            }
        }
        Err(SealError::Contended { partition, attempts: MAX_ATTEMPTS })
    }

    /// What there is of a partition, and what of it may not change until it is replaced.
    pub(super) async fn replaced(&self, partition: &str) -> Result<(Option<Sealed>, Replaced), SealError> {
        let sealed = self.sealed(partition.to_owned()).await?;
        let manifest = self.bucket.head(&manifest_key(partition)).await?;
        let success = sealed.as_ref().map(|sealed| sealed.etag.clone());
        Ok((sealed, Replaced { success, manifest: manifest.map(|manifest| manifest.etag) }))
    }

    /// `_SUCCESS`; `None` when it changed meanwhile.
    pub(super) async fn put_success(
        &self,
        success: &Success,
        condition: Condition<'_>,
    ) -> Result<Option<Sealed>, SealError> {
        let key = success_key(&success.partition);
        let body = serde_json::to_vec(success)?;
        if written(self.bucket.put(&key, body.clone().into(), condition).await)? == Written::Yes {
            return Ok(Some(Sealed { etag: String::new(), success: Some(success.clone()) }));
        }
        // It may have been this very write, whose answer was lost, or another run that found the same.
        let found = self.bucket.get(&key).await?.filter(|found| found.body == body);
        Ok(found.map(|Content { etag, .. }| Sealed { etag, success: Some(success.clone()) }))
    }

    /// Goes on where an earlier run stopped, unless the partition was sealed since.
    async fn begin(&self, partition: &str, found: Option<Progress>, replaced: Replaced) -> Result<Progress, SealError> {
        if let Some(found) = found {
            if found.replaced == replaced {
                return Ok(found);
            }
            self.abort(partition, found.upload.as_deref()).await?;
        }
        let mut progress = Progress { replaced, ..Progress::default() };
        manifest_text::begin(&mut progress.buffer, partition, "objects");
        Ok(progress)
    }

    async fn abort(&self, partition: &str, upload: Option<&str>) -> Result<(), SealError> {
        if let Some(upload) = upload {
            self.bucket.abort_upload(&manifest_key(partition), upload).await?;
        }
        Ok(())
    }

    /// The rest of a seal that is not needed any more.
    pub(super) async fn forget_progress(&self, hour: UtcHour) -> Result<(), SealError> {
        let partition = hour.partition();
        let key = progress_key(&partition);
        let marker = self.bucket.get(&key).await?;
        let progress = marker.and_then(|marker| Marker::decode(&marker.body)?.progress);
        self.abort(&partition, progress.and_then(|progress| progress.upload).as_deref()).await?;
        Ok(self.bucket.delete(&key).await?)
    }

    /// Has another run go on. If another run has put a marker since, that one goes on, with what it has.
    async fn put_marker(&self, partition: &str, progress: Progress, found: Option<&Content>) -> Result<(), SealError> {
        let upload = progress.upload.clone();
        let condition = Condition::unchanged(found.map(|found| found.etag.as_str()));
        let marker = Marker::new(self.at, Some(progress)).encode()?;
        let put = written(self.bucket.put(&progress_key(partition), marker, condition).await)?;
        let earlier = || found.and_then(|found| Marker::decode(&found.body)?.progress?.upload);
        if put == Written::Conflict && upload != earlier() {
            self.abort(partition, upload.as_deref()).await?;
        }
        Ok(())
    }

    async fn write_manifest(&self, hour: UtcHour, progress: &mut Progress) -> Result<Written, SealError> {
        let key = manifest_key(&hour.partition());
        for kind in [Kind::Event, Kind::Rejected] {
            let collected = self.collect(hour, kind, &key, progress).await?;
            if collected != Written::Yes {
                return Ok(collected);
            }
        }
        manifest_text::end(&mut progress.buffer, &progress.overlaps, &progress.totals)?;
        let replaced = progress.replaced.manifest.clone();
        let condition = Condition::unchanged(replaced.as_deref());
        let Some(upload) = progress.upload.clone() else {
            let whole = std::mem::take(&mut progress.buffer);
            return Ok(written(self.bucket.put(&key, whole.into(), condition).await)?);
        };
        if self.flush(&key, progress).await? == Written::Conflict {
            return Ok(Written::Conflict);
        }
        Ok(written(self.bucket.complete_upload(&key, &upload, &progress.parts, condition).await)?)
    }

    /// Writes the entries of one kind, from where the progress stands.
    async fn collect(
        &self,
        hour: UtcHour,
        kind: Kind,
        manifest: &str,
        progress: &mut Progress,
    ) -> Result<Written, SealError> {
        let folder = format!("{}/{}/", prefix(kind), hour.partition());
        if progress.last_key.as_ref().is_some_and(|last| *last > folder && !last.starts_with(&folder)) {
            return Ok(Written::Yes);
        }
        loop {
            let start_after = progress.last_key.clone().filter(|last| last.starts_with(&folder));
            let list = List { prefix: &folder, start_after: start_after.as_deref(), ..List::default() };
            let page = self.bucket.list(list).await?;
            for listed in page.objects.chunks(CONCURRENCY) {
                if self.must_stop() {
                    return Ok(Written::Stopped);
                }
                let looks = try_join_all(listed.iter().map(|listed| self.look(&folder, listed))).await?;
                for (listed, look) in listed.iter().zip(looks) {
                    add(progress, kind, listed, look)?;
                    if progress.buffer.len() >= self.part_bytes
                        && self.flush(manifest, progress).await? == Written::Conflict
                    {
                        return Ok(Written::Conflict);
                    }
                }
                self.has_worked.set(true);
            }
            if !page.is_truncated || page.objects.is_empty() {
                return Ok(Written::Yes);
            }
        }
    }

    async fn look(&self, folder: &str, listed: &Listed) -> Result<Look, BucketError> {
        // Readers of Hive partitions pass over these names: the manifest and `_SUCCESS` among them.
        if listed.key[folder.len()..].starts_with(['_', '.']) {
            return Ok(Look::Nothing);
        }
        let Some(key) = ObjectKey::parse(&listed.key) else { return Ok(Look::Unreadable) };
        let Some(head) = self.bucket.head(&listed.key).await? else { return Ok(Look::Nothing) };
        let metadata = ObjectMetadata::from_entries(&head.metadata);
        Ok(metadata.map_or(Look::Unreadable, |metadata| Look::Landed(Box::new((key, metadata)))))
    }

    /// Uploads what is in the buffer as the next part.
    async fn flush(&self, key: &str, progress: &mut Progress) -> Result<Written, SealError> {
        let upload = match &progress.upload {
            Some(upload) => upload.clone(),
            None => self.bucket.create_upload(key).await?,
        };
        progress.upload = Some(upload.clone());
        let number = i32::try_from(progress.parts.len() + 1).unwrap_or(i32::MAX);
        let body = std::mem::take(&mut progress.buffer);
        let part = self.bucket.upload_part(key, &upload, number, body.into()).await;
        let written = written(part.map(|part| progress.parts.push(part)))?;
        Ok(written)
    }
}

/// What there is under a key.
enum Look {
    Landed(Box<(ObjectKey, ObjectMetadata)>),
    /// None of ours, or its metadata can't be read.
    Unreadable,
    /// It is gone, or is no data.
    Nothing,
}

fn add(progress: &mut Progress, kind: Kind, listed: &Listed, look: Look) -> Result<(), SealError> {
    progress.last_key = Some(listed.key.clone());
    let landed = match look {
        Look::Nothing => return Ok(()),
        Look::Unreadable => None,
        Look::Landed(landed) => Some(*landed),
    };
    let is_first = progress.totals.all_objects() == 0;
    progress.totals.add_object(kind, listed.size, landed.as_ref().map(|(_, metadata)| metadata));
    let content = landed.as_ref().map(|(key, metadata)| content(key, metadata));
    let entry = Entry { key: listed.key.clone(), bytes: listed.size, content };
    manifest_text::entry(&mut progress.buffer, &entry, is_first)?;
    if let Some((key, metadata)) = &landed
        && let Some(reaches) = progress.reaches.add(key, &metadata.last_sequence_number)
    {
        let first_sequence_number = key.first_sequence_number.clone();
        note(progress, Overlap { key: listed.key.clone(), first_sequence_number, reaches });
    }
    Ok(())
}

fn note(progress: &mut Progress, overlap: Overlap) {
    let Totals { overlaps, .. } = &mut progress.totals;
    *overlaps += 1;
    if progress.overlaps.len() < MAX_OVERLAPS {
        progress.overlaps.push(overlap);
    }
}

fn content(key: &ObjectKey, metadata: &ObjectMetadata) -> EntryContent {
    EntryContent {
        records: metadata.record_count,
        lines: metadata.event_count,
        uncompressed_bytes: metadata.uncompressed_bytes,
        first_sequence_number: first_sequence_number(key).0.to_owned(),
        last_sequence_number: metadata.last_sequence_number.clone(),
        earliest_received_at: metadata.earliest_received_at.rfc3339(),
        latest_received_at: metadata.latest_received_at.rfc3339(),
    }
}
