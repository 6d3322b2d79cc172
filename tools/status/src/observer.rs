//! Reads what there is, again and again while somebody looks, and keeps the newest snapshot for all who ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use lambda_setup::bucket::{BucketError, Streams};
use lambda_setup::sdk::SdkConfig;
use monitoring_lambdas::cloudwatch::{CloudWatch, MetricsError};
use monitoring_lambdas::notify::Incident;
use shared::line::Kind;
use shared::timestamp::{UnixMillis, UtcHour};
use tokio::sync::{Notify, watch};

use crate::alarms::{Alarms, CloudWatchAlarms};
use crate::checks::{self, Check};
use crate::config::Config;
use crate::flow::{self, Signals};
use crate::follow::{Follower, MAX_SHARDS};
use crate::hour_state;
use crate::hours::{Hour, Hours};
use crate::incidents::Incidents;
use crate::lines::{self, Lines, Source};
use crate::metrics::{self, Values};
use crate::snapshot::{Newest, Object, Part, Snapshot, Versions, events_problem};
use crate::store::{Counted, Store as _};

/// Nothing is read when nobody has asked for so long: a page that is open asks by its stream.
const LOOKED_AT: Duration = Duration::from_secs(15);
/// Objects of a kind that are read at once.
const READ_AT_ONCE: usize = 4;

/// Who asks, and what they get.
#[derive(Clone)]
pub(crate) struct Watch {
    pub(crate) snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    looks: Arc<Looks>,
}

struct Looks {
    started: Instant,
    /// Milliseconds after the start.
    last: AtomicU64,
    wakes: Notify,
}

impl Watch {
    /// Says that somebody looks.
    pub(crate) fn look(&self) {
        self.looks.last.store(self.looks.millis(), Ordering::Relaxed);
        self.looks.wakes.notify_one();
    }

    /// The next snapshot, or the newest if it is young enough to be what somebody wants to see.
    pub(crate) async fn fresh(&mut self, age: Duration) -> Option<Arc<Snapshot>> {
        let newest = self.snapshots.borrow_and_update().clone();
        let is_fresh = newest.is_some_and(|newest| newest.read_at.elapsed() <= age);
        self.look();
        if !is_fresh {
            self.snapshots.changed().await.ok()?;
        }
        self.snapshots.borrow_and_update().clone()
    }
}

impl Looks {
    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    async fn wait(&self) {
        let limit = u64::try_from(LOOKED_AT.as_millis()).unwrap_or(u64::MAX);
        loop {
            let last = self.last.load(Ordering::Relaxed);
            if last > 0 && self.millis() - last.min(self.millis()) < limit {
                return;
            }
            self.wakes.notified().await;
        }
    }
}

/// A part that is read at its own pace.
struct Timer {
    every: Duration,
    last: Option<Instant>,
}

impl Timer {
    fn new(every: Duration) -> Self {
        Self { every, last: None }
    }

    fn is_due(&mut self) -> bool {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= self.every);
        if is_due {
            self.last = Some(Instant::now());
        }
        is_due
    }
}

/// The parts that are read, each with what it last found. A part that fails has no value: an old one would look like a new one.
pub(crate) struct Observer<B> {
    config: Arc<Config>,
    store: Counted<B>,
    cloudwatch: CloudWatch,
    alarm_source: CloudWatchAlarms,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    looks: Arc<Looks>,
    parts: Parts,
    timers: Timers,
}

struct Parts {
    events: Series,
    rejected: Series,
    hours: Hours,
    shown_hours: Option<Arc<Vec<Hour>>>,
    incidents: Incidents,
    shown_incidents: Option<Arc<Vec<Incident>>>,
    /// Since when records wait on the stream.
    waiting_since: Option<UnixMillis>,
    values: Option<Values>,
    checks: Option<Arc<Vec<Check>>>,
    alarms: Arc<Alarms>,
    newest: Arc<Newest>,
    problems: BTreeMap<&'static str, String>,
    versions: Versions,
}

struct Timers {
    metrics: Timer,
    hours: Timer,
    incidents: Timer,
    checks: Timer,
}

/// What is read in a look.
#[derive(Debug, Clone, Copy)]
struct Due {
    is_first: bool,
    metrics: bool,
    hours: bool,
    incidents: bool,
    checks: bool,
}

impl Timers {
    fn due(&mut self) -> Due {
        Due {
            is_first: self.hours.last.is_none(),
            metrics: self.metrics.is_due(),
            hours: self.hours.is_due(),
            incidents: self.incidents.is_due(),
            checks: self.checks.is_due(),
        }
    }
}

/// A kind's newest objects and their lines, by key and `ETag`.
struct Series {
    kind: Kind,
    follower: Follower,
    read: BTreeMap<(String, String), Arc<Lines>>,
    /// Whether the last look at them succeeded.
    is_known: bool,
}

impl Series {
    fn new(kind: Kind) -> Self {
        Self { kind, follower: Follower::new(kind), read: BTreeMap::new(), is_known: false }
    }

    async fn look<B: Streams>(
        &mut self,
        store: &Counted<B>,
        config: &Config,
        now: UnixMillis,
        read_until: Option<UnixMillis>,
    ) -> Result<(), BucketError> {
        self.is_known = false;
        self.follower.look(store, now, read_until).await?;
        let wanted = self.follower.recent().to_vec();
        self.read.retain(|(key, etag), _| wanted.iter().any(|one| one.key == *key && one.etag == *etag));
        let is_new =
            |one: &&lambda_setup::bucket::Listed| !self.read.contains_key(&(one.key.clone(), one.etag.clone()));
        let new: Vec<_> = wanted.iter().filter(is_new).cloned().collect();
        let kind = self.kind;
        let reads = new.into_iter().map(|one| async move {
            let Some(beginning) = store.beginning(&one.key, lines::MAX_OBJECT_BYTES).await? else { return Ok(None) };
            let (key_fields, is_raw) = (config.key_fields.clone(), config.is_raw);
            let source = Source { kind, file: one.key.clone(), key_fields, is_raw };
            let read = tokio::task::spawn_blocking(move || lines::read(&source, beginning.bytes, beginning.is_all));
            // It can't panic; if it did, the object would be shown as empty.
            Ok::<_, BucketError>(Some(((one.key, one.etag), Arc::new(read.await.unwrap_or_default()))))
        });
        let found: Vec<_> = stream::iter(reads).buffer_unordered(READ_AT_ONCE).collect().await;
        for read in found {
            self.read.extend(read?);
        }
        self.is_known = true;
        Ok(())
    }

    /// What is read, the newest first, and how many are not.
    fn objects(&self) -> (Vec<Object>, usize) {
        let recent = self.follower.recent();
        let object = |one: &lambda_setup::bucket::Listed| {
            let lines = self.read.get(&(one.key.clone(), one.etag.clone()))?.clone();
            Some(Object { key: one.key.clone(), landed_at: one.modified, bytes: one.size, lines })
        };
        let objects: Vec<Object> = recent.iter().filter_map(object).collect();
        let unread = recent.len() - objects.len();
        (objects, unread)
    }
}

impl<B: Streams> Observer<B> {
    pub(crate) fn new(config: Arc<Config>, bucket: B, sdk: &SdkConfig) -> (Self, Watch) {
        let (snapshots, receiver) = watch::channel(None);
        let looks = Arc::new(Looks { started: Instant::now(), last: AtomicU64::new(0), wakes: Notify::new() });
        let timer = |times: u32| Timer::new(config.refresh * times);
        let observer = Self {
            store: Counted::new(bucket),
            cloudwatch: CloudWatch::new(sdk),
            alarm_source: CloudWatchAlarms::new(sdk, config.alarm_prefix.clone()),
            snapshots,
            looks: looks.clone(),
            parts: Parts::new(&config),
            timers: Timers { metrics: timer(3), hours: timer(4), incidents: timer(6), checks: timer(12) },
            config,
        };
        (observer, Watch { snapshots: receiver, looks })
    }

    /// Looks while somebody does, until the process ends.
    pub(crate) async fn run(mut self) {
        loop {
            self.looks.wait().await;
            let began = Instant::now();
            self.look().await;
            tokio::time::sleep(self.config.refresh.saturating_sub(began.elapsed())).await;
        }
    }

    async fn look(&mut self) {
        let (now, began) = (self.config.clock.now(), Instant::now());
        let due = self.timers.due();
        if due.is_first {
            // What landed is shown before the rest is read.
            self.parts.look_at_events(&self.store, &self.config, now).await;
            self.publish(now, began);
        }
        let since = self.parts.hours.first().map(UtcHour::start).max(self.config.started);
        let Self { config, store, cloudwatch, alarm_source, parts, .. } = self;
        let values = when(due.metrics, metrics::read(cloudwatch, config, now));
        let alarms = when(due.metrics, alarm_source.read());
        let checks = when(due.checks, checks::read(cloudwatch, config, since, now));
        // One that is slow does not keep the others waiting.
        let ((), values, alarms, checks) =
            tokio::join!(parts.look_at_s3(store, config, due, now), values, alarms, checks);
        parts.note_cloudwatch(values, alarms, checks);
        self.publish(now, began);
    }

    fn publish(&mut self, now: UnixMillis, read_at: Instant) {
        let parts = &mut self.parts;
        let landed = parts.events.follower.landed().max(parts.rejected.follower.landed());
        parts.waiting_since = flow::waiting_since(parts.waiting_since, parts.values.as_ref(), landed);
        let recent_steps = recent_steps(&self.config);
        let signals = Signals {
            now,
            values: parts.values.as_ref(),
            recent_steps,
            newest_object: (parts.events.is_known && parts.rejected.is_known).then_some(landed),
            waiting_since: parts.waiting_since,
            batching_window: self.config.batching_window,
            hours: parts.shown_hours.as_deref().map(Vec::as_slice),
            alarms: &parts.alarms,
            has_alarms: self.config.alarm_prefix.is_some(),
            has_search: self.config.function("LoadSearchFunction").is_some(),
            has_warehouse: self.config.function("LoadWarehouseFunction").is_some(),
            is_raw: self.config.is_raw,
            maximum_rejected_percent: self.config.limits.maximum_rejected_percent,
        };
        let stages = flow::stages(&signals);
        self.snapshots.send_replace(Some(Arc::new(Snapshot {
            at: now,
            read_at,
            state: flow::overall(&stages, &signals),
            stages,
            values: parts.values.clone(),
            recent_steps,
            newest: parts.newest.clone(),
            hours: parts.shown_hours.clone(),
            incidents: parts.shown_incidents.clone(),
            unreadable_incidents: Arc::new(parts.incidents.unreadable()),
            checks: parts.checks.clone(),
            alarms: parts.alarms.clone(),
            problems: parts.problems.clone(),
            requests: self.store.requests.count(),
            versions: parts.versions,
        })));
    }
}

/// What is read, if it is due.
async fn when<T>(is_due: bool, read: impl Future<Output = T>) -> Option<T> {
    if is_due { Some(read.await) } else { None }
}

/// The current step and the one before, and those whose values CloudWatch may not show yet.
fn recent_steps(config: &Config) -> usize {
    let step = metrics::step(config).as_secs().max(1);
    2 + usize::try_from(config.metrics_delay.as_secs().div_ceil(step)).unwrap_or_default()
}

impl Parts {
    fn new(config: &Config) -> Self {
        Self {
            events: Series::new(Kind::Event),
            rejected: Series::new(Kind::Rejected),
            hours: Hours::new(config.limits, hour_state::Due { minutes: config.due_minutes, started: config.started }),
            shown_hours: None,
            incidents: Incidents::default(),
            shown_incidents: None,
            waiting_since: None,
            values: None,
            checks: None,
            alarms: Arc::new(Alarms::NotAvailable { why: "not read yet".to_owned() }),
            newest: Arc::default(),
            problems: BTreeMap::new(),
            versions: Versions::default(),
        }
    }

    /// What lies in S3; the events were read before at the first look.
    async fn look_at_s3<B: Streams>(&mut self, store: &Counted<B>, config: &Config, due: Due, now: UnixMillis) {
        if !due.is_first {
            self.look_at_events(store, config, now).await;
        }
        if due.hours {
            self.look_at_hours(store, now).await;
        }
        if due.incidents {
            self.look_at_incidents(store).await;
        }
    }

    async fn look_at_events<B: Streams>(&mut self, store: &Counted<B>, config: &Config, now: UnixMillis) {
        let read_until = flow::read_until(self.values.as_ref(), recent_steps(config), now);
        let events = self.events.look(store, config, now, read_until);
        let (events, rejected) = tokio::join!(events, self.rejected.look(store, config, now, read_until));
        let before = events_problem(&self.problems).cloned();
        self.note("events", events.and(rejected));
        if self.events.follower.has_more_shards() || self.rejected.follower.has_more_shards() {
            self.problems.insert("shards", format!("only an hour's first {MAX_SHARDS} shards are read"));
        } else {
            self.problems.remove("shards");
        }
        let ((events, one), (rejected, other)) = (self.events.objects(), self.rejected.objects());
        let keys = |objects: &[Object]| objects.iter().map(|one| (one.key.clone(), one.bytes)).collect::<Vec<_>>();
        let changed = keys(&events) != keys(&self.newest.events)
            || keys(&rejected) != keys(&self.newest.rejected)
            || before.is_some() != events_problem(&self.problems).is_some();
        self.versions.events += u64::from(changed);
        self.newest = Arc::new(Newest { events, rejected, unread: one + other });
    }

    async fn look_at_hours<B: Streams>(&mut self, store: &Counted<B>, now: UnixMillis) {
        let looked = self.hours.look(store, now).await;
        let before = self.problems.get(Part::Hours.name()).cloned();
        let is_read = self.note(Part::Hours.name(), looked).is_some();
        match self.hours.unread_history() {
            Some(problem) => drop(self.problems.insert("history", problem)),
            None => drop(self.problems.remove("history")),
        }
        let hours = is_read.then(|| Arc::new(self.hours.at(now)));
        let shown = |hours: &Option<Arc<Vec<Hour>>>| {
            hours.as_ref().map(|hours| hours.iter().map(crate::snapshot::details).collect::<Vec<_>>())
        };
        let changed =
            shown(&hours) != shown(&self.shown_hours) || before.as_ref() != self.problems.get(Part::Hours.name());
        self.versions.hours += u64::from(changed);
        self.shown_hours = hours;
    }

    async fn look_at_incidents<B: Streams>(&mut self, store: &Counted<B>) {
        let looked = self.incidents.look(store).await;
        let before = self.problems.get(Part::Incidents.name()).cloned();
        let is_read = self.note(Part::Incidents.name(), looked).is_some();
        // A failure is shown beside what was known before; before the first look nothing is.
        let incidents = if is_read { Some(Arc::new(self.incidents.all())) } else { self.shown_incidents.clone() };
        let is_same = incidents == self.shown_incidents && before.as_ref() == self.problems.get(Part::Incidents.name());
        self.versions.incidents += u64::from(!is_same);
        self.shown_incidents = incidents;
    }

    fn note_cloudwatch(
        &mut self,
        values: Option<Result<Values, MetricsError>>,
        alarms: Option<Alarms>,
        checks: Option<Result<Vec<Check>, MetricsError>>,
    ) {
        if let Some(values) = values {
            self.values = self.note("metrics", values);
        }
        if let Some(alarms) = alarms {
            self.alarms = Arc::new(alarms);
        }
        if let Some(checks) = checks {
            self.checks = self.note("checks", checks).map(Arc::new);
        }
    }

    /// What a part has found; a problem is kept until the part is read again.
    fn note<T, E: std::fmt::Display>(&mut self, part: &'static str, read: Result<T, E>) -> Option<T> {
        match read {
            Ok(found) => {
                self.problems.remove(part);
                Some(found)
            }
            Err(problem) => {
                self.problems.insert(part, problem.to_string());
                None
            }
        }
    }
}
