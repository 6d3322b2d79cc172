//! The deployed alarms, played: each is evaluated every minute over the [`MetricStore`], and a change of its state goes to the
//! topics of its actions, as from CloudWatch.
//!
//! Three things differ from CloudWatch, so that a machine which nobody watches at night does not cry wolf:
//!
//! - Alarms on numbers that only a deployment has (`NEEDS`) are evaluated only where `PARAMETERS` gives the number.
//! - What should have happened before the stack started counts as unknown, not as missing; and hours that were sealed late
//!   raise no alarm for three hours. A machine that was suspended starts again, in this respect.
//! - The first OK after the start is not sent: sixty messages would say that nothing has happened.
//!
//! What is in ALARM is kept in a file: a stack that starts again sends the OK that is still owed.

pub mod evaluate;
pub mod math;
mod notice;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::timestamp::{MILLIS_PER_MINUTE, UnixMillis};
use tokio::sync::watch;
use tracing::{error, warn};

use crate::event_source_mapping::Phase;
use crate::metric_store::{MetricStore, minute_of};
use crate::mutex::Mutex;
use crate::template::{Alarm, Comparison, MetricStat, MissingData, Watched};
use crate::terminal;
use evaluate::{Rule, State};
pub use notice::Notice;

/// How long after a minute's end its values are awaited: runs of checks take a moment, and on a fast clock a moment is minutes.
const SETTLING: Duration = Duration::from_secs(4);
/// On a fast clock functions can't run as often as their schedules say. What did not happen for so long did not happen.
const SHORTEST_SILENCE: Duration = Duration::from_secs(15);
/// The longest single sleep, so that a machine that was suspended is soon on time again.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// The shortest: on a fast clock several minutes are evaluated at a time.
const SHORTEST_SLEEP: Duration = Duration::from_millis(200);
/// Minutes that are made up for at a time; those before them are skipped.
const MAX_MINUTES_AT_ONCE: i64 = 30;
/// A longer pause between two evaluations is a machine that was suspended: nothing ran, so nothing is missing.
const LONGEST_PAUSE: Duration = Duration::from_secs(3 * 60);

/// The alarms on numbers of a deployment, by logical id, and the parameter that gives the number: limits which nothing here
/// enforces, and the longest silence of players, who are few on one machine.
const NEEDS: [(&str, &str); 5] = [
    ("IngestConcurrencyAlarm", "IngestMaximumConcurrency"),
    ("IngestRequestsAlarm", "IngestMaximumConcurrency"),
    ("StaleDataAlarm", "MaximumDataAgeSeconds"),
    ("StreamBytesAlarm", "ShardCount"),
    ("StreamRecordsAlarm", "ShardCount"),
];

/// The alarms on hours that may have closed before the stack started: until it has caught up, check-recency finds them late, and
/// fails for it.
const OF_HOURS_BEFORE: [&str; 3] = ["CheckRecencyErrorsAlarm", "LatePartitionsAlarm", "MissingPartitionsAlarm"];
/// A late hour is reported for two hours after it was sealed, and is sealed within one of the start.
const CATCHING_UP: i64 = 3 * 60;

/// What takes the notices of changes.
pub type Publish = Box<dyn Fn(&Notice) + Send + Sync>;

#[derive(Clone)]
pub struct Alarms(Arc<Inner>);

struct Inner {
    /// By name.
    alarms: Vec<Alarm>,
    /// Of each alarm.
    conditions: Mutex<Vec<Condition>>,
    metrics: MetricStore,
    started: UnixMillis,
    /// The minute from which on it is known what happened: that of the start, or of the last waking.
    known_from: AtomicI64,
    kept: Option<PathBuf>,
    publish: Publish,
}

/// The state of an alarm, and since when.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub state: State,
    pub reason: String,
    pub since: UnixMillis,
    /// Whether it was never evaluated or set.
    is_new: bool,
    /// Whether it stays as it is.
    is_still: bool,
}

/// What is kept of an alarm that is in ALARM.
#[derive(Serialize, Deserialize)]
struct Kept {
    reason: String,
    since: i64,
}

#[derive(Debug, thiserror::Error)]
#[error("there is no alarm {0}")]
pub struct NoSuchAlarm(pub String);

impl Alarms {
    /// Alarms that are not evaluated before [`Alarms::run`]. `parameters` are the template's that were given.
    pub fn new(
        mut alarms: Vec<Alarm>,
        parameters: &BTreeMap<String, String>,
        metrics: MetricStore,
        publish: Publish,
    ) -> Self {
        alarms.sort_by(|one, other| one.name.cmp(&other.name));
        let started = metrics.now();
        let needs = |alarm: &Alarm| {
            let (_, parameter) = NEEDS.into_iter().find(|(id, _)| alarm.id == *id)?;
            (!parameters.contains_key(parameter)).then_some(parameter)
        };
        let condition = |alarm: &Alarm| Condition {
            state: State::InsufficientData,
            reason: match needs(alarm) {
                Some(parameter) => format!("On one machine it is evaluated only where PARAMETERS gives {parameter}."),
                None => "It was not evaluated yet.".to_owned(),
            },
            since: started,
            is_new: true,
            is_still: needs(alarm).is_some(),
        };
        let conditions = Mutex::new(alarms.iter().map(condition).collect());
        let known_from = AtomicI64::new(minute_of(started));
        Self(Arc::new(Inner { alarms, conditions, metrics, started, known_from, kept: None, publish }))
    }

    /// Goes on from the alarms that this file says were in ALARM, and keeps them there. A file that a power cut has damaged is
    /// as none: it costs an OK at most.
    pub(crate) fn kept_in(mut self, file: &Path) -> anyhow::Result<Self> {
        let before: BTreeMap<String, Kept> = match std::fs::read(file) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|problem| {
                warn!(%problem, file = %file.display(), "which alarms were on can't be read; they begin anew");
                BTreeMap::new()
            }),
            Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(problem) => return Err(problem.into()),
        };
        let Some(inner) = Arc::get_mut(&mut self.0) else { anyhow::bail!("the alarms are in use already") };
        inner.kept = Some(file.to_owned());
        let mut conditions = inner.conditions.lock();
        for (alarm, condition) in inner.alarms.iter().zip(conditions.iter_mut()) {
            if let Some(Kept { reason, since }) = before.get(&alarm.name) {
                let (reason, since) = (reason.clone(), UnixMillis(*since));
                *condition = Condition { state: State::Alarm, reason, since, is_new: false, ..condition.clone() };
            }
        }
        drop(conditions);
        Ok(self)
    }

    /// All alarms, by name, with their states.
    pub(crate) fn list(&self) -> Vec<(&Alarm, Condition)> {
        self.0.alarms.iter().zip(self.0.conditions.lock().iter().cloned()).collect()
    }

    pub(crate) fn started(&self) -> UnixMillis {
        self.0.started
    }

    /// Evaluates each minute of the clock until the stack drains.
    pub(crate) async fn run(self, mut phase: watch::Receiver<Phase>) {
        let clock = self.0.metrics.clock();
        let mut last = minute_of(self.0.started);
        loop {
            let settled = clock.at(UnixMillis(lambda_setup::now().0 - millis(SETTLING)));
            let newest = minute_of(settled);
            self.due(last, newest).for_each(|minute| self.evaluate(minute));
            last = last.max(newest);
            let next = UnixMillis((newest + 1) * MILLIS_PER_MINUTE);
            let sleep = clock.real_time(settled, next).clamp(SHORTEST_SLEEP, LONGEST_SLEEP);
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                // It fails only once the stack is gone.
                _ = phase.wait_for(|phase| *phase == Phase::Draining) => return,
            }
        }
    }

    /// The minutes to evaluate after the last one. After a pause, none: what is known begins anew with the minute that follows.
    fn due(&self, last: i64, newest: i64) -> RangeInclusive<i64> {
        let longest_pause = millis(self.0.metrics.clock().shown(LONGEST_PAUSE)) / MILLIS_PER_MINUTE;
        let first = if newest - last > longest_pause {
            self.0.known_from.store(newest + 1, Ordering::Relaxed);
            newest + 1
        } else {
            (last + 1).max(newest - MAX_MINUTES_AT_ONCE + 1)
        };
        first..=newest
    }

    fn known_from(&self) -> i64 {
        self.0.known_from.load(Ordering::Relaxed)
    }

    /// Evaluates all alarms over the periods that end where this minute begins.
    pub(crate) fn evaluate(&self, minute: i64) {
        for (index, alarm) in self.0.alarms.iter().enumerate() {
            let current = self.0.conditions.lock()[index].clone();
            let catches_up = minute < self.known_from() + CATCHING_UP;
            if current.is_still || catches_up && OF_HOURS_BEFORE.contains(&alarm.id.as_str()) {
                continue;
            }
            let values = self.values(alarm, minute);
            let state = self.state(alarm, &values, minute, current.state);
            if current.is_new && state == State::InsufficientData {
                continue;
            }
            if current.is_new || state != current.state {
                self.change(index, state, reason(alarm, &values, state));
            }
        }
    }

    /// Puts an alarm into a state, until it is evaluated again.
    pub(crate) fn set(&self, name: &str, state: State, reason: &str) -> Result<(), NoSuchAlarm> {
        let index = self.0.alarms.iter().position(|alarm| alarm.name == name);
        let index = index.ok_or_else(|| NoSuchAlarm(name.to_owned()))?;
        self.change(index, state, reason.to_owned());
        Ok(())
    }

    /// The values of an alarm's periods, oldest first.
    fn values(&self, alarm: &Alarm, minute: i64) -> Vec<Option<f64>> {
        let length = self.period_minutes(alarm);
        let periods = (1..=i64::try_from(alarm.evaluation_periods).unwrap_or(i64::MAX)).rev();
        periods
            .map(|back| {
                let from = minute - back * length;
                let of = |stat: &MetricStat| {
                    Some(stat.statistic?.of(self.0.metrics.between(&stat.id, from, from + length)?))
                };
                match &alarm.watched {
                    Watched::Metric(stat) => of(stat),
                    Watched::Calculation(sum) => sum.value(of),
                }
            })
            .collect()
    }

    fn period_minutes(&self, alarm: &Alarm) -> i64 {
        let period = i64::try_from(alarm.watched.period_seconds() / 60).unwrap_or(i64::MAX);
        match alarm.missing_data {
            MissingData::Breaching => {
                let silence = millis(self.0.metrics.clock().shown(SHORTEST_SILENCE));
                period.max((silence + MILLIS_PER_MINUTE - 1) / MILLIS_PER_MINUTE)
            }
            _ => period,
        }
    }

    fn state(&self, alarm: &Alarm, values: &[Option<f64>], minute: i64, current: State) -> State {
        let breaches = |value: &Option<f64>| value.map(|value| alarm.comparison.breaches(value, alarm.threshold));
        let begin = minute - self.period_minutes(alarm) * i64::try_from(values.len()).unwrap_or(i64::MAX);
        let missing_data = match alarm.missing_data {
            MissingData::Breaching if begin < self.known_from() => MissingData::Ignore,
            other => other,
        };
        let Alarm { evaluation_periods, datapoints_to_alarm, .. } = *alarm;
        let rule = Rule { evaluation_periods, datapoints_to_alarm, missing_data };
        rule.state(&values.iter().map(breaches).collect::<Vec<_>>(), current)
    }

    /// Notes a state. If it is another one, says so on the terminal and to the topics of the state's actions.
    fn change(&self, index: usize, state: State, reason: String) {
        let since = self.0.metrics.now();
        let alarm = &self.0.alarms[index];
        let changed = Condition { state, reason, since, is_new: false, is_still: false };
        let before = {
            let mut conditions = self.0.conditions.lock();
            let is_still = conditions[index].is_still;
            std::mem::replace(&mut conditions[index], Condition { is_still, ..changed.clone() })
        };
        if before.state != state && !(before.is_new && state == State::Ok) {
            self.say(alarm, &changed, before.state);
        }
        // Only now: a stack that is killed before says it again after its start, rather than never.
        self.keep(&self.0.conditions.lock());
    }

    fn say(&self, alarm: &Alarm, changed: &Condition, before: State) {
        let Condition { state, since, .. } = changed;
        let reason = if *state == State::Alarm { format!(": {}", changed.reason) } else { String::new() };
        terminal::say(&format!("{} {:>5} {}{reason}", since.rfc3339(), state.as_str(), alarm.name));
        for notice in notice::notices(alarm, changed, before) {
            (self.0.publish)(&notice);
        }
    }

    /// A file that can't be written costs an OK after the next start at most.
    fn keep(&self, conditions: &[Condition]) {
        let Some(file) = &self.0.kept else { return };
        let all = self.0.alarms.iter().zip(conditions).filter(|(_, condition)| condition.state == State::Alarm);
        let kept = |condition: &Condition| Kept { reason: condition.reason.clone(), since: condition.since.0 };
        let kept: BTreeMap<_, _> = all.map(|(alarm, condition)| (&alarm.name, kept(condition))).collect();
        let new = file.with_extension("new");
        let text = serde_json::to_vec(&kept).map_err(std::io::Error::from);
        let written = text.and_then(|text| std::fs::write(&new, text)).and_then(|()| std::fs::rename(&new, file));
        if let Err(problem) = written {
            error!(%problem, file = %file.display(), "the states of alarms are not kept");
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The most values that a reason lists.
const MAX_VALUES: usize = 5;

/// Why an alarm is in a state, in CloudWatch's manner.
fn reason(alarm: &Alarm, values: &[Option<f64>], state: State) -> String {
    let real: Vec<f64> = values.iter().rev().copied().flatten().collect();
    let all = values.len();
    let Some(_) = real.first() else {
        let missing: &str = alarm.missing_data.into();
        let seconds = alarm.watched.period_seconds();
        return format!("No datapoints were received: {all} times {seconds} s. Missing data is treated as {missing}.");
    };
    let breaches = |value: &&f64| alarm.comparison.breaches(**value, alarm.threshold);
    let count = match state {
        State::Alarm => real.iter().filter(breaches).count(),
        State::Ok | State::InsufficientData => real.iter().filter(|value| !breaches(value)).count(),
    };
    let not = if state == State::Alarm { "" } else { "not " };
    let listed: Vec<_> = real.iter().take(MAX_VALUES).map(f64::to_string).collect();
    let comparison = match alarm.comparison {
        Comparison::GreaterThanThreshold => "greater than",
        Comparison::GreaterThanOrEqualToThreshold => "greater than or equal to",
        Comparison::LessThanThreshold => "less than",
        Comparison::LessThanOrEqualToThreshold => "less than or equal to",
    };
    let threshold = alarm.threshold;
    let listed = listed.join(", ");
    format!(
        "Threshold Crossed: {count} out of the last {all} datapoints [{listed}] {not}{comparison} the threshold ({threshold})."
    )
}

/// The project's alarms, by name.
#[cfg(test)]
pub(crate) fn deployed() -> Vec<Alarm> {
    let template = include_str!("../../template.yaml");
    let nested = |_: &str| Ok(include_str!("../../alarms.yaml").to_owned());
    let mut alarms = crate::template::Stack::alarms(template, &BTreeMap::new(), nested).unwrap_or_default();
    alarms.sort_by(|one, other| one.name.cmp(&other.name));
    alarms
}

#[cfg(test)]
mod tests;
