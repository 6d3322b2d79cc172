//! The keys by which the checks share results and ask for seals.

/// Says that an object landed after its hour's time to be sealed. check-object puts it, seal-partition takes it.
pub(crate) fn late_key(partition: &str) -> String {
    format!("{LATE_PREFIX}{partition}")
}

/// Where a run of seal-partition stopped in a partition. S3 invokes seal-partition when it is put.
pub(crate) fn checkpoint_key(partition: &str) -> String {
    format!("{SEALING_PREFIX}{partition}{CHECKPOINT_SUFFIX}")
}

/// Says that an hour is to be sealed again. Each run puts its own, so that no run removes what another asked for; S3
/// invokes nothing for it.
pub(crate) fn reseal_key(partition: &str, run_id: &str) -> String {
    format!("{SEALING_PREFIX}{partition}.{run_id}{RESEAL_SUFFIX}")
}

/// The key of an hour's `_INCOMPLETE`.
pub fn incomplete_key(partition: &str) -> String {
    format!("events/{partition}/_INCOMPLETE")
}

/// Says that an hour has an `_INCOMPLETE`, so that runs look at it however old it is.
pub(crate) fn held_key(partition: &str) -> String {
    format!("{SEALING_PREFIX}{partition}{HELD_SUFFIX}")
}

/// Where `tools/scripts/accept-hour` puts an [`Accepted`](super::Accepted).
pub(crate) fn accepted_key(partition: &str) -> String {
    format!("accepted/{partition}.json")
}

/// check-object's verdict on a broken object.
pub(crate) fn broken_key(object_key: &str) -> String {
    format!("{BROKEN_PREFIX}{object_key}.json")
}

/// check-deletions' report of what is gone since the hour was sealed.
pub(crate) fn deleted_key(partition: &str) -> String {
    format!("{DELETED_PREFIX}{partition}.json")
}

/// Where a sealed hour's manifest is kept when another replaces it, until check-deletions has compared it.
pub(crate) fn replaced_key(partition: &str, etag: &str) -> String {
    format!("{REPLACED_PREFIX}{partition}/{}.json", etag.trim_matches('"'))
}

pub(crate) const BROKEN_PREFIX: &str = "broken/";
pub(crate) const DELETED_PREFIX: &str = "deleted/";
pub(crate) const LATE_PREFIX: &str = "late/";
pub(crate) const REPLACED_PREFIX: &str = "replaced/";
pub(crate) const SEALING_PREFIX: &str = "sealing/";
pub(crate) const CHECKPOINT_SUFFIX: &str = ".json";
pub(crate) const HELD_SUFFIX: &str = ".incomplete";
pub(crate) const RESEAL_SUFFIX: &str = ".late";
