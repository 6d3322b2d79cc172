//! Reads the facts of a day. What can't be read is a line of the digest, never the end of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use lambda_setup::bucket::{Bucket, List, Listed};
use lambda_setup::deadline::Deadline;
use shared::metric::{Metric, NAMESPACE};
use shared::timestamp::{UnixMillis, UtcDate, UtcHour};

use super::facts::{DayBalance, Facts, HourFact, HourState, IncidentFact, Incidents, Known, Sizes, TurnedAway, totals};
use crate::check_completeness::{self, balance_hours};
use crate::check_size;
use crate::cloudwatch::{Metrics, Query};
use crate::manifest::incomplete_key;
use crate::notify::Incident;
use crate::notify::recipient::Recipient;
use crate::notify::store;
use crate::rules::partition::Partition;
use crate::rules::recency;
use crate::rules::size::{Limits, Outcome};
use crate::seal_partition::first_hour;
use crate::success;

/// How long the hours may take, and then all other facts at once: the digest must go out.
const MAX_READING_TIME: Duration = Duration::from_secs(25);
/// How many days before the day all incidents are read, for what went on into it.
const INCIDENT_DAYS: i64 = 7;
/// How many days before the day others may have begun, of which those are read that were kept since the day began: as long as the
/// bucket's rule keeps one.
const KEPT_DAYS: i64 = 400;
/// The most files of incidents that are read, newest first.
pub(crate) const MAX_INCIDENT_FILES: usize = 200;
const BILLING_PERIOD: Duration = Duration::from_secs(6 * 3_600);
const TURNED_AWAY_PERIOD: Duration = Duration::from_secs(3_600);
/// Requests to S3 that are under way at once.
const CONCURRENCY: usize = 24;

/// Where facts come from.
pub(crate) struct Sources<'a, B, M> {
    pub(crate) bucket: &'a B,
    pub(crate) metrics: &'a M,
    pub(crate) billing: &'a M,
    pub(crate) completeness: &'a check_completeness::Config,
    pub(crate) limits: &'a Limits,
    /// How long after its end an hour should be sealed.
    pub(crate) due_minutes: i64,
    pub(crate) recipients: &'a [Recipient],
}

impl<B: Bucket, M: Metrics> Sources<'_, B, M> {
    /// The facts of a day, as of now.
    pub(crate) async fn read(&self, date: UtcDate, now: UnixMillis, deadline: Deadline) -> Facts {
        // The day's neighbours are there for the balance of its first and last hours.
        let mut around = self.hours(date, deadline).await;
        self.excuse(&mut around, now, deadline).await;
        let hours = around[1..around.len() - 1].to_vec();
        let sizes = in_time(deadline, self.sizes(date, &hours));
        let balance = in_time(deadline, self.balance(date, &around));
        let turned_away = in_time(deadline, self.turned_away(date));
        let incidents = in_time(deadline, self.incidents(date));
        let month_usd = in_time(deadline, self.month_usd(date));
        let (sizes, balance, turned_away, incidents, month_usd) =
            tokio::join!(sizes, balance, turned_away, incidents, month_usd);
        Facts { date, hours, sizes, balance, turned_away, incidents, month_usd }
    }

    /// The hours of a day, the one before and the one after.
    async fn hours(&self, date: UtcDate, deadline: Deadline) -> Vec<HourFact> {
        let deadline = deadline.within(MAX_READING_TIME);
        let read = async |hour: UtcHour| match in_time(deadline, self.hour(hour)).await {
            Ok(state) => HourFact { hour, state },
            Err(problem) => HourFact { hour, state: HourState::Unreadable(problem) },
        };
        join_all((-1..=24).map(|of_day| read(date.hour(of_day)))).await
    }

    async fn hour(&self, hour: UtcHour) -> Known<HourState> {
        if let Some(success) = success::read(self.bucket, Partition::Hour(hour)).await.map_err(text)? {
            return Ok(HourState::Sealed(Box::new(success)));
        }
        let Some(content) = self.bucket.get(&incomplete_key(&hour.partition())).await.map_err(text)? else {
            return Ok(HourState::Unsealed);
        };
        serde_json::from_slice(&content.body).map(HourState::Incomplete).map_err(text)
    }

    /// Of hours that are not sealed, tells those that need not be, as check-recency does.
    async fn excuse(&self, hours: &mut [HourFact], now: UnixMillis, deadline: Deadline) {
        if hours.iter().all(|fact| fact.state != HourState::Unsealed) {
            return;
        }
        let reading = async { first_hour(self.bucket).await.map_err(text) };
        let first = in_time(deadline, reading).await;
        for fact in hours.iter_mut().filter(|fact| fact.state == HourState::Unsealed) {
            let verdict_at = recency::verdict_at(Partition::Hour(fact.hour), self.due_minutes);
            fact.state = match &first {
                Err(problem) => HourState::Unreadable(problem.clone()),
                Ok(first) if first.is_none_or(|first| fact.hour < first) => HourState::BeforeFirst,
                Ok(_) if now <= verdict_at => HourState::NotDue,
                Ok(_) => HourState::Unsealed,
            };
        }
    }

    async fn sizes(&self, date: UtcDate, hours: &[HourFact]) -> Known<Sizes> {
        let mut sizes = Sizes::default();
        let sealed = |fact: &HourFact| matches!(fact.state, HourState::Sealed(_));
        if hours.iter().all(sealed) {
            let totals = totals(hours);
            let checked = check_size::compare(self.bucket, Partition::Date(date), &totals, self.limits).await;
            sizes.date = Some(checked.map_err(text)?.found(self.limits).collect());
        }
        let compare = async |fact: &HourFact| {
            let HourState::Sealed(success) = &fact.state else { return Known::Ok(Vec::new()) };
            let hour = Partition::Hour(fact.hour);
            let checked = check_size::compare(self.bucket, hour, &success.totals, self.limits).await.map_err(text)?;
            let violations = checked.found(self.limits).filter(|found| found.outcome == Outcome::Violation);
            Ok(violations.map(|found| (fact.hour, found)).collect())
        };
        for found in join_all(hours.iter().map(compare)).await {
            let found: Vec<_> = found?;
            sizes.hours.extend(found);
        }
        Ok(sizes)
    }

    async fn balance(&self, date: UtcDate, around: &[HourFact]) -> Known<DayBalance> {
        let mut sealed = BTreeMap::new();
        for fact in around {
            if let HourState::Sealed(success) = &fact.state {
                sealed.insert(fact.hour, &success.totals);
            }
        }
        let is_whole = |hour: &UtcHour| (-1..=1).all(|hours| sealed.contains_key(&hour.plus(hours)));
        let chosen: BTreeSet<UtcHour> = date.hours().filter(is_whole).collect();
        let balanced = balance_hours(self.metrics, self.completeness, &sealed, &chosen).await.map_err(text)?;
        let mut day = DayBalance { hours: balanced.len(), ..DayBalance::default() };
        for hour in balanced {
            day.accepted += hour.sent.accepted.whole;
            day.landed += hour.landed.events;
            day.lost_events += hour.found.lost_events;
            day.doubled_events += hour.found.doubled_events;
            day.lost_records += hour.found.lost_records;
            day.doubled_records += hour.found.doubled_records;
            day.unknown_events += hour.found.unknown_events;
        }
        Ok(day)
    }

    async fn turned_away(&self, date: UtcDate) -> Known<TurnedAway> {
        let sum = async |metric: Metric| {
            let ingest = ("FunctionName", self.completeness.ingest_function_name.as_str());
            let times = (date.hour(0).start(), date.end());
            let query = Query::by_minute((NAMESPACE, metric.as_str()), ingest, "Sum", times);
            let values = self.metrics.read(&Query { period: TURNED_AWAY_PERIOD, ..query }).await.map_err(text)?;
            Known::Ok(values.iter().map(|(_, count)| count).sum())
        };
        Ok(TurnedAway {
            unknown: sum(Metric::UnauthorizedRequests).await?,
            limited: sum(Metric::LimitedRequests).await?,
            requests: sum(Metric::Requests).await?,
        })
    }

    /// The account's bill of the month by the end of the day, as AWS estimates it every few hours.
    async fn month_usd(&self, date: UtcDate) -> Known<Option<f64>> {
        let estimates = Query {
            namespace: "AWS/Billing".into(),
            name: "EstimatedCharges".into(),
            dimensions: vec![("Currency".into(), "USD".into())],
            statistic: "Maximum".into(),
            from: date.hour(0).start(),
            to: date.end(),
            period: BILLING_PERIOD,
        };
        let values = self.billing.read(&estimates).await.map_err(text)?;
        Ok(values.last().map(|(_, usd)| *usd))
    }

    /// The incidents of all groups: those that are kept, and those that groups' ledgers have.
    async fn incidents(&self, date: UtcDate) -> Known<Incidents> {
        let mut found = Vec::new();
        for recipient in self.recipients {
            let ledger = store::load(self.bucket, &recipient.group).await.map_err(text)?;
            found.extend(ledger.open.into_iter().chain(ledger.closed));
        }
        let (mut keys, mut unread) = (Vec::new(), 0);
        for kept in self.kept_incidents(date).await? {
            let room = MAX_INCIDENT_FILES - keys.len();
            unread += kept.len().saturating_sub(room);
            keys.extend(kept.into_iter().rev().take(room).map(|listed| listed.key));
        }
        for keys in keys.chunks(CONCURRENCY) {
            for incident in join_all(keys.iter().map(|key| self.incident(key))).await {
                match incident? {
                    Some(incident) => found.push(incident),
                    None => unread += 1,
                }
            }
        }
        let of_day = found.iter().filter_map(|incident| fact(incident, date));
        Ok(Incidents::merged(of_day, unread))
    }

    /// The files of incidents that may have gone on into the day, by the date on which they began, the newest first.
    async fn kept_incidents(&self, date: UtcDate) -> Known<Vec<Vec<Listed>>> {
        let folder = |days: i64| format!("incidents/{}/", date.plus(-days).partition());
        let recent: Vec<_> = (0..=INCIDENT_DAYS).map(folder).collect();
        // Behind all that is in it.
        let before = format!("{}~", folder(KEPT_DAYS + 1));
        let list =
            List { prefix: "incidents/dt=", delimiter: Some("/"), start_after: Some(&before), ..List::default() };
        // One page: there is a folder a day at most.
        let mut older = self.bucket.list(list).await.map_err(text)?.prefixes;
        older.retain(|listed| *listed < folder(INCIDENT_DAYS));
        older.reverse();
        let folders: Vec<_> = recent.into_iter().chain(older).collect();
        let mut kept = Vec::with_capacity(folders.len());
        for folders in folders.chunks(CONCURRENCY) {
            for listed in join_all(folders.iter().map(|folder| self.bucket.list_all(folder))).await {
                kept.push(listed.map_err(text)?);
            }
        }
        let day = date.hour(0).start();
        for (at, listed) in kept.iter_mut().enumerate() {
            let is_recent = at <= INCIDENT_DAYS as usize;
            // notify keeps an incident when it is over.
            listed.retain(|one| !store::is_reported(&one.key) && (is_recent || one.modified >= day));
        }
        Ok(kept)
    }

    /// `None` when it is gone, or no incident.
    async fn incident(&self, key: &str) -> Known<Option<Incident>> {
        let content = self.bucket.get(key).await.map_err(text)?;
        Ok(content.and_then(|content| serde_json::from_slice(&content.body).ok()))
    }
}

/// An incident of this stack, if it was going on at some time of the day. Other accounts' are theirs to sum up.
fn fact(incident: &Incident, date: UtcDate) -> Option<IncidentFact> {
    let (start, end): (UnixMillis, UnixMillis) = (date.hour(0).start(), date.end());
    let until = incident.over_at();
    let is_own = incident.reporter.is_none();
    let is_of_day = is_own && incident.opened_at < end && until.is_none_or(|until| until >= start);
    is_of_day.then(|| IncidentFact {
        from: incident.opened_at,
        until,
        alarms: incident.alarms.keys().cloned().collect(),
        groups: BTreeSet::from([incident.group.clone()]),
    })
}

async fn in_time<T>(deadline: Deadline, reading: impl Future<Output = Known<T>>) -> Known<T> {
    deadline.bound(MAX_READING_TIME, reading).await.unwrap_or_else(|time_is_up| Err(time_is_up.to_string()))
}

fn text(error: impl std::error::Error) -> String {
    error.to_string()
}
