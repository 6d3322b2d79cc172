//! The text of manifests: one object a line, so that `grep` finds what it looks for.

use serde::Serialize;
use shared::timestamp::UnixMillis;

use crate::manifest::{Accepted, HourOfDate, Overlap, Success, Totals, VERSION};

type Result<T> = std::result::Result<T, serde_json::Error>;

/// The most overlaps in a manifest; `totals` has their number.
pub(super) const MAX_OVERLAPS: usize = 100;

/// `{"v":1,"partition":"…","objects":[` or `…"hours":[`
pub(super) fn begin(text: &mut Vec<u8>, partition: &str, items: &str) {
    text.extend_from_slice(format!("{{\"v\":{VERSION},\"partition\":\"{partition}\",\"{items}\":[").as_bytes());
}

/// `],"overlaps":[…],"totals":{…}}`
pub(super) fn end(text: &mut Vec<u8>, overlaps: &[Overlap], totals: &Totals) -> Result<()> {
    text.extend_from_slice(b"\n],\"overlaps\":[");
    for (number, overlap) in overlaps.iter().enumerate() {
        item(text, overlap, number == 0)?;
    }
    end_with_totals(text, totals)
}

/// A date's manifest whole.
pub(super) fn of_date(partition: &str, hours: &[HourOfDate], totals: &Totals) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    begin(&mut text, partition, "hours");
    for (number, hour) in hours.iter().enumerate() {
        item(&mut text, hour, number == 0)?;
    }
    end_with_totals(&mut text, totals)?;
    Ok(text)
}

/// One of the objects, hours or overlaps.
pub(super) fn item(text: &mut Vec<u8>, item: &impl Serialize, is_first: bool) -> Result<()> {
    text.extend_from_slice(if is_first { b"\n" } else { b",\n" });
    serde_json::to_writer(text, item)
}

fn end_with_totals(text: &mut Vec<u8>, totals: &Totals) -> Result<()> {
    text.extend_from_slice(b"\n],\"totals\":");
    serde_json::to_writer(&mut *text, totals)?;
    text.extend_from_slice(b"}\n");
    Ok(())
}

/// The `_SUCCESS` of a partition, which replaces the one `before`: so each late object counts once.
pub(super) fn success(
    (partition, at): (&str, UnixMillis),
    before: Option<&Success>,
    manifest: Manifest,
    accepted: Option<Accepted>,
) -> Success {
    let Manifest { etag, totals } = manifest;
    Success {
        v: VERSION,
        partition: partition.to_owned(),
        first_sealed_at: before.map_or(at, |before| before.first_sealed_at),
        sealed_at: at,
        late_objects: before
            .map_or(0, |before| before.late_objects.saturating_add(added_since(&before.totals, &totals))),
        manifest: Some(etag),
        accepted,
        totals,
    }
}

/// A manifest that is in the bucket.
pub(super) struct Manifest {
    pub(super) etag: String,
    pub(super) totals: Totals,
}

/// Objects that came since; at least one if something was replaced, which changes records or bytes but not the number. A deletion
/// changes bytes, too, but then more lines are deleted than before. Fewer are when landing has brought some back.
fn added_since(before: &Totals, now: &Totals) -> u64 {
    let deleted = |totals: &Totals| [totals.deleted_events, totals.deleted_rejected];
    let (had, has) = (deleted(before), deleted(now));
    let has_lines_again = has[0] < had[0] || has[1] < had[1];
    let is_rewritten = now.all_bytes() != before.all_bytes() && has == had;
    let replaced = now.records != before.records || is_rewritten || has_lines_again;
    now.all_objects().saturating_sub(before.all_objects()).max(u64::from(replaced))
}
