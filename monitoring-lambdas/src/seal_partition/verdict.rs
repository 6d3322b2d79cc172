//! Whether an hour is whole.
//!
//! As many records landed as arrived: then neither other consumers that lag nor batches that just failed hold the hour
//! back. Fewer landed than arrived: then nothing that says that landing is up to date seals it.
//!
//! What is missing is asked for before anything is listed, landing before the failed batches: a batch that moves from the
//! one to the other, or into the hour, is seen in one of them.

use shared::line::Kind;
use shared::object::prefix;
use shared::timestamp::UtcHour;

use super::SealError;
use super::backlog::Backlog;
use super::checkpoint::Draft;
use super::context::Run;
use super::failed_batches;
use super::landing::{self, Landing, Watched};
use super::state::HourState;
use crate::cloudwatch::Metrics;
use crate::manifest::{Accepted, BROKEN_PREFIX, MAX_KEYS, Missing, Totals, accepted_key};
use crate::rules::completeness::{LandedRecords, lost_records};
use lambda_setup::bucket::{BucketError, List, Streams, Uploads};

/// What is known of an hour before it is listed.
#[derive(Debug, Clone)]
pub(super) enum Assessment {
    /// It was whole once: what comes later is added to it, whatever is missing.
    WasWhole,
    /// It is sealed if nothing is missing, or nothing that was not accepted.
    Open { missing: Vec<Missing>, accepted: Option<Accepted> },
    /// It was sealed as it was accepted: `_SUCCESS` stays, and says what is missing now.
    WasAccepted { missing: Vec<Missing>, accepted: Option<Accepted> },
}

impl Assessment {
    /// What is certainly missing.
    pub(super) fn refusal(&self) -> Option<&[Missing]> {
        let Self::Open { missing, accepted } = self else { return None };
        let refuses = |missing: &Missing| !is_suspicion(missing) && !is_accepted(accepted.as_ref(), missing);
        missing.iter().any(refuses).then_some(missing)
    }
}

fn is_accepted(accepted: Option<&Accepted>, missing: &Missing) -> bool {
    accepted.is_some_and(|accepted| accepted.includes(missing))
}

/// Whether an hour that was listed is sealed.
pub(super) enum Verdict {
    /// With what its `_SUCCESS` says to be missing, if anything is.
    Seal(Option<Accepted>),
    /// Never empty.
    Hold(Vec<Missing>),
}

/// What says that landing is late with something, which need not be of the hour: the count of its records decides.
const fn is_suspicion(missing: &Missing) -> bool {
    matches!(missing, Missing::UnreadRecords { .. } | Missing::FailingBatches | Missing::IdleLanding)
}

/// Whether what is missing may be why fewer records landed than arrived. Those of a broken object are counted by its metadata.
fn explains(missing: &[Missing]) -> bool {
    missing.iter().any(|missing| !matches!(missing, Missing::BrokenObjects { .. }))
}

/// Whether the records that arrived in an hour have landed.
enum Count {
    All,
    /// The neighbouring hours, which are not sealed yet, may have what is missing here.
    Unsure(Missing),
    Fewer(Missing),
    /// CloudWatch has no values.
    Unknown,
}

impl<B: Uploads, F: Streams, M: Metrics> Run<'_, B, F, M> {
    /// Looks at what an hour lacks. Nothing of it is listed before this.
    pub(super) async fn assess(&self, state: &HourState) -> Result<Assessment, SealError> {
        let HourState { hour, markers, published, .. } = state;
        if published.was_whole() {
            return Ok(Assessment::WasWhole);
        }
        let mut missing = self.backlog(*hour).await?.of(*hour);
        missing.extend(self.broken(*hour).await?);
        if markers.held {
            missing.extend(self.still_unreadable(*hour).await?);
        }
        let accepted = self.accepted(*hour).await?;
        Ok(match &published.success {
            None => Assessment::Open { missing, accepted },
            Some(success) => {
                Assessment::WasAccepted { missing, accepted: accepted.or_else(|| success.accepted.clone()) }
            }
        })
    }

    /// What a person has accepted. What can't be read leaves the hour as it is.
    async fn accepted(&self, hour: UtcHour) -> Result<Option<Accepted>, BucketError> {
        let key = accepted_key(&hour.partition());
        let Some(content) = self.bucket.get(&key).await? else { return Ok(None) };
        match serde_json::from_slice(&content.body) {
            Ok(accepted) => Ok(Some(accepted)),
            Err(problem) => {
                tracing::warn!(key, %problem, "not an acceptance; accept the hour with tools/scripts/accept-hour");
                Ok(None)
            }
        }
    }

    /// Judges an hour by its assessment, its listing and the count of its records.
    pub(super) async fn verdict(
        &self,
        hour: UtcHour,
        assessment: &Assessment,
        draft: &Draft,
    ) -> Result<Verdict, SealError> {
        let (known, accepted, may_be_held) = match assessment {
            Assessment::WasWhole => return Ok(Verdict::Seal(None)),
            Assessment::Open { missing, accepted } => (missing, accepted, true),
            Assessment::WasAccepted { missing, accepted } => (missing, accepted, false),
        };
        let missing = self.missing(hour, known, draft).await?;
        if missing.is_empty() {
            return Ok(Verdict::Seal(None));
        }
        if may_be_held && !missing.iter().all(|missing| is_accepted(accepted.as_ref(), missing)) {
            return Ok(Verdict::Hold(missing));
        }
        Ok(Verdict::Seal(accepted.clone().map(|accepted| Accepted { missing, ..accepted })))
    }

    /// What an hour that was listed lacks.
    async fn missing(&self, hour: UtcHour, known: &[Missing], draft: &Draft) -> Result<Vec<Missing>, SealError> {
        let mut missing = known.to_vec();
        let (count, keys) = (draft.totals.unreadable_objects, draft.unreadable.clone());
        let unreadable = (count > 0).then_some(Missing::UnreadableObjects { count, keys });
        // It may have been found to be unreadable before the listing already.
        missing.extend(unreadable.filter(|unreadable| !known.contains(unreadable)));
        let is_read = self.backlog(hour).await?.is_read();
        let count = self.count(hour, draft.landed_records).await?;
        let may_be_owed = match count {
            Count::Fewer(_) => true,
            Count::Unknown => !self.is_last_run(hour),
            Count::All | Count::Unsure(_) => false,
        };
        match count {
            Count::All => missing.retain(|missing| !is_suspicion(missing)),
            Count::Fewer(fewer) if !explains(&missing) => missing.push(fewer),
            Count::Unsure(fewer) if !explains(&missing) && !is_read => missing.push(fewer),
            // What is missing already explains it.
            Count::Fewer(_) | Count::Unsure(_) | Count::Unknown => {}
        }
        // Whoever replays the hour must know that landing may still land what nothing shows to have been read.
        if may_be_owed && !is_read && !missing.iter().any(is_suspicion) {
            missing.push(Missing::UnknownProgress);
        }
        Ok(missing)
    }

    /// Reads what may be owed to the hours of this run, once: nothing has been listed by then.
    async fn backlog(&self, hour: UtcHour) -> Result<&Backlog, SealError> {
        let read = || async move {
            let watched = Watched {
                stream_name: &self.config.stream_name,
                landing_function_name: &self.config.landing_function_name,
                landing_timeout_millis: self.config.landing_timeout_seconds * 1_000,
            };
            let landing = Landing::read(self.metrics, &watched, self.at).await?;
            let since = self.oldest.get().unwrap_or(hour);
            let failed_batches = failed_batches::list(self.failed_batches, since).await?;
            Ok::<_, SealError>(Backlog { landing, failed_batches })
        };
        self.backlog.get_or_try_init(read).await
    }

    /// Compares the records that landed with those that arrived, where the neighbouring hours may have some of them.
    async fn count(&self, hour: UtcHour, landed: LandedRecords) -> Result<Count, SealError> {
        let Some(arrived) = landing::arrived(self.metrics, self.config, hour, self.at).await? else {
            return Ok(Count::Unknown);
        };
        let (previous, next) = (self.totals(hour.plus(-1)).await?, self.totals(hour.plus(1)).await?);
        let (certain, possible) = lost_records(arrived, landed, [previous.as_ref(), next.as_ref()]);
        // A count of records.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let whole = arrived[1].whole.max(0.0) as u64;
        let fewer = Missing::MissingRecords { arrived: whole, landed: landed.at_most };
        if certain > 0.0 {
            return Ok(Count::Fewer(fewer));
        }
        Ok(if possible > 0.0 { Count::Unsure(fewer) } else { Count::All })
    }

    /// The sums of a sealed hour.
    async fn totals(&self, hour: UtcHour) -> Result<Option<Totals>, SealError> {
        Ok(self.published(&hour.partition()).await?.success.map(|success| success.totals))
    }

    /// Objects of the hour that check-object has found broken.
    async fn broken(&self, hour: UtcHour) -> Result<Option<Missing>, BucketError> {
        let mut keys = Vec::new();
        for kind in [Kind::Event, Kind::Rejected] {
            let folder = format!("{BROKEN_PREFIX}{}/{}/", prefix(kind), hour.partition());
            let limit = u16::try_from(MAX_KEYS).ok();
            let page = self.bucket.list(List { prefix: &folder, limit, ..List::default() }).await?;
            let key = |verdict: &str| verdict.strip_prefix(BROKEN_PREFIX)?.strip_suffix(".json").map(str::to_owned);
            keys.extend(page.objects.iter().filter_map(|listed| key(&listed.key)));
        }
        keys.truncate(MAX_KEYS);
        Ok((!keys.is_empty()).then_some(Missing::BrokenObjects { keys }))
    }
}
