//! Reads what there is, again and again while somebody looks, and keeps the newest snapshot for all who ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lambda_setup::bucket::{BucketError, Streams};
use lambda_setup::sdk::SdkConfig;
use monitoring_lambdas::cloudwatch::CloudWatch;
use monitoring_lambdas::notify::Incident;
use shared::line::Kind;
use shared::timestamp::UnixMillis;
use tokio::sync::{Notify, watch};

use crate::alarms::{Alarms, CloudWatchAlarms};
use crate::checks::{self, Check};
use crate::config::Config;
use crate::flow::{self, Signals};
use crate::follow::Follower;
use crate::hours::{Hour, Hours};
use crate::incidents::Incidents;
use crate::lines::{self, Lines, Source};
use crate::metrics::{self, Values};
use crate::snapshot::{Newest, Object, Snapshot, Versions};
use crate::store::{Counted, Store as _};

/// Nothing is read when nobody has asked for so long: a page that is open asks by its stream.
const LOOKED_AT: Duration = Duration::from_secs(15);
/// Objects whose lines are read in one look, of each kind.
const READ_A_LOOK: usize = 6;

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
        let began = self.looks.millis().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let is_fresh = self.snapshots.borrow_and_update().is_some() && self.looks.last.load(Ordering::Relaxed) > began;
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
    shown_incidents: Arc<Vec<Incident>>,
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
        now: UnixMillis,
        key_fields: &[String],
    ) -> Result<(), BucketError> {
        self.is_known = false;
        self.follower.look(store, now).await?;
        let wanted = self.follower.recent().to_vec();
        self.read.retain(|(key, etag), _| wanted.iter().any(|one| one.key == *key && one.etag == *etag));
        let is_new =
            |one: &&lambda_setup::bucket::Listed| !self.read.contains_key(&(one.key.clone(), one.etag.clone()));
        let new: Vec<_> = wanted.iter().filter(is_new).take(READ_A_LOOK).cloned().collect();
        for one in new {
            let Some(beginning) = store.beginning(&one.key, lines::MAX_OBJECT_BYTES).await? else { continue };
            let source = Source { kind: self.kind, file: one.key.clone(), key_fields: key_fields.to_vec() };
            let read = tokio::task::spawn_blocking(move || lines::read(&source, beginning.bytes, beginning.is_all));
            // It can't panic; if it did, the object would be shown as empty.
            self.read.insert((one.key, one.etag), Arc::new(read.await.unwrap_or_default()));
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
        let now = self.config.clock.now();
        let is_first = self.timers.hours.last.is_none();
        self.look_at_events(now).await;
        if is_first {
            // What landed is shown before the rest is read.
            self.publish(now);
        }
        if self.timers.metrics.is_due() {
            let read = metrics::read(&self.cloudwatch, &self.config, now).await;
            self.parts.values = self.parts.note("metrics", read);
            self.parts.alarms = Arc::new(self.alarm_source.read().await);
        }
        if self.timers.hours.is_due() {
            self.look_at_hours(now).await;
        }
        if self.timers.incidents.is_due() {
            self.look_at_incidents().await;
        }
        if self.timers.checks.is_due() {
            let read = checks::read(&self.cloudwatch, &self.config, now).await;
            self.parts.checks = self.parts.note("checks", read).map(Arc::new);
        }
        self.publish(now);
    }

    async fn look_at_events(&mut self, now: UnixMillis) {
        let (parts, fields) = (&mut self.parts, &self.config.key_fields);
        let (events, rejected) =
            tokio::join!(parts.events.look(&self.store, now, fields), parts.rejected.look(&self.store, now, fields),);
        parts.note("events", events.and(rejected));
        let ((events, one), (rejected, other)) = (parts.events.objects(), parts.rejected.objects());
        let keys = |objects: &[Object]| objects.iter().map(|one| (one.key.clone(), one.bytes)).collect::<Vec<_>>();
        let changed = keys(&events) != keys(&parts.newest.events) || keys(&rejected) != keys(&parts.newest.rejected);
        parts.versions.events += u64::from(changed);
        parts.newest = Arc::new(Newest { events, rejected, unread: one + other });
    }

    async fn look_at_hours(&mut self, now: UnixMillis) {
        let looked = self.parts.hours.look(&self.store, now).await;
        let is_read = self.parts.note("hours", looked).is_some();
        let hours = is_read.then(|| Arc::new(self.parts.hours.at(now)));
        let shown = |hours: &Option<Arc<Vec<Hour>>>| {
            hours.as_ref().map(|hours| hours.iter().map(crate::snapshot::details).collect::<Vec<_>>())
        };
        self.parts.versions.hours += u64::from(shown(&hours) != shown(&self.parts.shown_hours));
        self.parts.shown_hours = hours;
    }

    async fn look_at_incidents(&mut self) {
        let looked = self.parts.incidents.look(&self.store).await;
        self.parts.note("incidents", looked);
        let incidents = self.parts.incidents.all();
        self.parts.versions.incidents += u64::from(incidents != *self.parts.shown_incidents);
        self.parts.shown_incidents = Arc::new(incidents);
    }

    fn publish(&self, now: UnixMillis) {
        let parts = &self.parts;
        let newest = parts.newest.events.iter().chain(&parts.newest.rejected).map(|object| object.landed_at).max();
        let recent_steps = recent_steps(&self.config);
        let signals = Signals {
            now,
            values: parts.values.as_ref(),
            recent_steps,
            newest_object: (parts.events.is_known && parts.rejected.is_known).then_some(newest),
            hours: parts.shown_hours.as_deref().map(Vec::as_slice),
            alarms: &parts.alarms,
            has_loader: self.config.function("LoadSearchFunction").is_some(),
            maximum_rejected_percent: self.config.limits.maximum_rejected_percent,
        };
        let stages = flow::stages(&signals);
        let hours = parts.shown_hours.clone().unwrap_or_else(|| Arc::new(Vec::new()));
        self.snapshots.send_replace(Some(Arc::new(Snapshot {
            at: now,
            state: flow::overall(&stages),
            stages,
            values: parts.values.clone(),
            recent_steps,
            newest: parts.newest.clone(),
            hours,
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
            hours: Hours::new(config.limits, config.due_minutes),
            shown_hours: None,
            incidents: Incidents::default(),
            shown_incidents: Arc::default(),
            values: None,
            checks: None,
            alarms: Arc::new(Alarms::NotAvailable { why: "not read yet".to_owned() }),
            newest: Arc::default(),
            problems: BTreeMap::new(),
            versions: Versions::default(),
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
