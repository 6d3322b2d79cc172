//! Writes an hour's manifest: the entry of each object, and the sums.

use futures_util::future::try_join_all;
use shared::line::Kind;
use shared::object::{ObjectKey, ObjectMetadata, ObjectName, ReceivedIn, manifest_key, prefix};
use shared::timestamp::UtcHour;

use super::CONCURRENCY;
use super::checkpoint::Draft;
use super::context::{Interrupt, Run};
use super::manifest_text::{self, MAX_OVERLAPS};
use super::overlaps::Overlapped;
use crate::cloudwatch::Metrics;
use crate::manifest::{Entry, EntryContent, MAX_KEYS, Overlap, replaced_key};
use crate::rules::completeness::LandedRecords;
use lambda_setup::bucket::{BucketError, Condition, List, Listed, Streams, Uploads};

impl<B: Uploads, F: Streams, M: Metrics> Run<'_, B, F, M> {
    /// Writes `_MANIFEST.json`; its `ETag`. The one that it replaces is kept if the hour was sealed: what it has and the new
    /// one lacks was deleted.
    pub(super) async fn write_manifest(
        &self,
        hour: UtcHour,
        is_reseal: bool,
        draft: &mut Draft,
    ) -> Result<String, Interrupt> {
        let key = manifest_key(&hour.partition());
        for kind in [Kind::Event, Kind::Rejected] {
            self.collect(hour, kind, &key, draft).await?;
        }
        manifest_text::end(&mut draft.buffer, &draft.overlaps, &draft.totals)?;
        let replaces = draft.replaces.manifest.clone();
        if let Some(etag) = replaces.as_deref().filter(|_| is_reseal) {
            self.bucket.copy(&key, etag, &replaced_key(&hour.partition(), etag)).await?;
        }
        let condition = Condition::unchanged(replaces.as_deref());
        let Some(upload) = draft.upload.clone() else {
            let whole = std::mem::take(&mut draft.buffer);
            return Ok(self.bucket.put(&key, whole.into(), condition).await?);
        };
        self.flush(&key, draft).await?;
        Ok(self.bucket.complete_upload(&key, &upload, &draft.parts, condition).await?)
    }

    /// Writes the entries of one kind, after the draft's last key.
    async fn collect(&self, hour: UtcHour, kind: Kind, manifest: &str, draft: &mut Draft) -> Result<(), Interrupt> {
        let folder = format!("{}/{}/", prefix(kind), hour.partition());
        if draft.last_key.as_ref().is_some_and(|last| *last > folder && !last.starts_with(&folder)) {
            return Ok(());
        }
        loop {
            let start_after = draft.last_key.clone().filter(|last| last.starts_with(&folder));
            let list = List { prefix: &folder, start_after: start_after.as_deref(), ..List::default() };
            let page = self.bucket.list(list).await?;
            for listed in page.objects.chunks(CONCURRENCY) {
                if self.is_out_of_time() {
                    return Err(Interrupt::OutOfTime);
                }
                let inspected = try_join_all(listed.iter().map(|listed| self.inspect(&folder, listed))).await?;
                for (listed, found) in listed.iter().zip(inspected) {
                    add(draft, kind, listed, found)?;
                    if draft.buffer.len() >= self.part_bytes {
                        self.flush(manifest, draft).await?;
                    }
                }
                self.has_worked.set(true);
            }
            if !page.is_truncated || page.objects.is_empty() {
                return Ok(());
            }
        }
    }

    async fn inspect(&self, folder: &str, listed: &Listed) -> Result<Inspected, BucketError> {
        // Readers of Hive partitions skip these names, among them the manifest and `_SUCCESS`.
        if listed.key[folder.len()..].starts_with(['_', '.']) {
            return Ok(Inspected::Nothing);
        }
        let Some(key) = ObjectKey::parse(&listed.key) else { return Ok(Inspected::Unreadable) };
        let Some(head) = self.bucket.head(&listed.key).await? else { return Ok(Inspected::Nothing) };
        let metadata = ObjectMetadata::from_entries(&key.name, &head.metadata);
        Ok(match (metadata, ReceivedIn::deleted(&head.metadata)) {
            (Ok(metadata), Ok(deleted)) => Inspected::Landed(Box::new(Landed { key, metadata, deleted })),
            (Err(_), _) | (_, Err(_)) => Inspected::Unreadable,
        })
    }

    /// Uploads what is in the buffer as the next part.
    async fn flush(&self, key: &str, draft: &mut Draft) -> Result<(), Interrupt> {
        let upload = match &draft.upload {
            Some(upload) => upload.clone(),
            None => self.bucket.create_upload(key).await?,
        };
        draft.upload = Some(upload.clone());
        let number = i32::try_from(draft.parts.len() + 1).unwrap_or(i32::MAX);
        let body = std::mem::take(&mut draft.buffer);
        draft.parts.push(self.bucket.upload_part(key, &upload, number, body.into()).await?);
        Ok(())
    }
}

/// A landed object.
struct Landed {
    key: ObjectKey,
    metadata: ObjectMetadata,
    /// Lines that were deleted from it.
    deleted: ReceivedIn,
}

/// What there is under a key.
enum Inspected {
    Landed(Box<Landed>),
    /// Not written by landing, or its metadata can't be read.
    Unreadable,
    /// It is gone, or is not data.
    Nothing,
}

fn add(draft: &mut Draft, kind: Kind, listed: &Listed, found: Inspected) -> Result<(), serde_json::Error> {
    draft.last_key = Some(listed.key.clone());
    let landed = match found {
        Inspected::Nothing => return Ok(()),
        Inspected::Unreadable => {
            if draft.unreadable.len() < MAX_KEYS {
                draft.unreadable.push(listed.key.clone());
            }
            None
        }
        Inspected::Landed(landed) => Some(*landed),
    };
    let is_first = draft.totals.all_objects() == 0;
    draft.totals.add_object(kind, listed.size, landed.as_ref().map(|landed| &landed.metadata));
    let content = landed.as_ref().map(|landed| content(&landed.key, &landed.metadata));
    let entry = Entry { key: listed.key.clone(), bytes: listed.size, content };
    manifest_text::item(&mut draft.buffer, &entry, is_first)?;
    if let Some(landed) = &landed {
        draft.totals.add_deleted(kind, landed.deleted);
        add_records(draft, landed);
    }
    Ok(())
}

/// Counts each record once, however many objects hold it.
fn add_records(draft: &mut Draft, Landed { key, metadata, deleted }: &Landed) {
    let Draft { totals, landed_records, .. } = draft;
    let overlapped = draft.extents.add(key, metadata.last_sequence_number.as_deref());
    let is_repeated = overlapped.as_ref().is_some_and(|overlapped| overlapped.is_within);
    match &key.name {
        ObjectName::Spilled(_) => totals.add_spilled(key.kind, metadata),
        // Its records are in the object that it was made of.
        ObjectName::Redriven(_) if is_repeated => {}
        ObjectName::Redriven(_) => totals.add_redriven(metadata, *deleted),
        ObjectName::Landed(_) => add_landed(landed_records, metadata.record_count, overlapped.as_ref()),
    }
    let Some(Overlapped { first, reaches, .. }) = overlapped else { return };
    if is_repeated {
        totals.repeated.add_object(key.kind, metadata);
        totals.repeated.add_deleted(key.kind, *deleted);
    } else {
        totals.repeated.add_record();
    }
    totals.overlaps = totals.overlaps.saturating_add(1);
    if draft.overlaps.len() < MAX_OVERLAPS {
        draft.overlaps.push(Overlap { key: key.to_string(), first_sequence_number: first, reaches });
    }
}

fn add_landed(landed: &mut LandedRecords, records: u64, overlapped: Option<&Overlapped>) {
    let (at_least, at_most) = match overlapped {
        None => (records, records),
        Some(overlapped) if overlapped.is_within => (0, 0),
        Some(_) => (0, records.saturating_sub(1)),
    };
    landed.at_least = landed.at_least.saturating_add(at_least);
    landed.at_most = landed.at_most.saturating_add(at_most);
}

fn content(key: &ObjectKey, metadata: &ObjectMetadata) -> EntryContent {
    EntryContent {
        records: metadata.record_count,
        lines: metadata.event_count,
        uncompressed_bytes: metadata.uncompressed_bytes,
        first_sequence_number: key.name.first_record().map(|first| first.sequence_number.clone()),
        last_sequence_number: metadata.last_sequence_number.clone(),
        earliest_received_at: metadata.earliest_received_at,
        latest_received_at: metadata.latest_received_at,
    }
}
