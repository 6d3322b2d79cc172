//! What CloudWatch keeps: metrics by namespace, name and dimensions, and of each minute the sum, the count and the
//! extremes. No single values, and so no percentiles.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html>

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::timestamp::{MILLIS_PER_MINUTE, UnixMillis};
use strum::{EnumIter, IntoStaticStr};
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::mutex::Mutex;

/// CloudWatch keeps points of a minute for 15 days.
pub(crate) const RETENTION_MINUTES: i64 = 15 * 24 * 60;
/// CloudWatch takes what is at most two weeks old,
const OLDEST_MINUTES: i64 = 14 * 24 * 60;
/// and at most two hours ahead.
const NEWEST_MINUTES: i64 = 2 * 60;
/// Metrics that are kept. One more is refused, and said so: the functions' dimensions have few values.
const MAX_SERIES: usize = 2_000;
/// Minutes of all metrics that are kept: some 250 MB. When there are more, the oldest hour of all of them goes.
const MAX_POINTS: usize = 4_000_000;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetricId {
    pub namespace: String,
    pub name: String,
    /// By name.
    pub dimensions: BTreeMap<String, String>,
}

impl MetricId {
    pub fn new(namespace: &str, name: &str, dimensions: &[(&str, &str)]) -> Self {
        let dimensions = dimensions.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { namespace: namespace.to_owned(), name: name.to_owned(), dimensions }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub sum: f64,
    pub count: f64,
    pub min: f64,
    pub max: f64,
}

impl Default for Sample {
    fn default() -> Self {
        Self { sum: 0.0, count: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl Sample {
    pub fn of(value: f64) -> Self {
        Self::repeated(value, 1.0)
    }

    /// One value so many times.
    pub fn repeated(value: f64, count: f64) -> Self {
        Self { sum: value * count, count, min: value, max: value }
    }

    pub fn and(self, other: Self) -> Self {
        Self {
            sum: self.sum + other.sum,
            count: self.count + other.count,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

/// What is said of a metric's values in a period, as far as it can be from what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, IntoStaticStr)]
pub enum Statistic {
    Sum,
    SampleCount,
    Average,
    Minimum,
    Maximum,
}

impl Statistic {
    pub fn of(self, sample: Sample) -> f64 {
        match self {
            Self::Sum => sample.sum,
            Self::SampleCount => sample.count,
            Self::Average => sample.sum / sample.count,
            Self::Minimum => sample.min,
            Self::Maximum => sample.max,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum NotKept {
    #[error("the time is more than two weeks past")]
    TooOld,
    #[error("the time is more than two hours ahead")]
    TooNew,
    #[error("there are {MAX_SERIES} metrics already; the local CloudWatch keeps no more")]
    TooManyMetrics,
}

#[derive(Debug, Clone, Default)]
pub struct Series {
    /// CloudWatch's name of the unit, as last given.
    pub unit: Option<String>,
    /// All values since the stack started.
    pub total: Sample,
    /// The mean of what came for its newest time, and that time; `None` before anything came.
    pub last: Option<(UnixMillis, f64)>,
    minutes: BTreeMap<i64, Sample>,
    /// Whether it stays when it has no values any more.
    is_declared: bool,
}

/// A metric's unit, and its minutes since 1970 with what was recorded in them.
pub type Minutes = (Option<String>, Vec<(i64, Sample)>);

/// All metrics, in the stack's time.
#[derive(Clone)]
pub struct MetricStore {
    clock: Clock,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    series: BTreeMap<MetricId, Series>,
    points: usize,
    floor: i64,
    dropped: BTreeMap<NotKept, u64>,
}

impl MetricStore {
    pub fn new(clock: Clock) -> Self {
        Self { clock, kept: Arc::default() }
    }

    /// The time that values have when they come without one.
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    pub fn record(&self, id: &MetricId, unit: Option<&str>, at: UnixMillis, sample: Sample) -> Result<(), NotKept> {
        let mut kept = self.kept.lock();
        let recorded = kept.record(id, unit, at, sample, self.clock.now());
        if let Err(problem) = recorded {
            let count = kept.dropped.entry(problem).or_default();
            *count += 1;
            if *count == 1 {
                warn!(namespace = id.namespace, name = id.name, at = at.rfc3339(), %problem, "values of a metric are not kept");
            }
        }
        recorded
    }

    /// Adds a value of the stack's own. When it is not kept, that is counted and warned of as in [`MetricStore::record`].
    pub fn note(&self, id: &MetricId, unit: &str, at: UnixMillis, value: f64) {
        if let Err(problem) = self.record(id, Some(unit), at, Sample::of(value)) {
            debug!(name = id.name, %problem, "not kept");
        }
    }

    /// Has a metric there from the start on, with no values: a counter that appears with its first value has no rate of it.
    /// CloudWatch's own operations don't see it before that.
    pub(crate) fn declare(&self, id: MetricId, unit: &str) {
        let declared = || Series { unit: Some(unit.to_owned()), is_declared: true, ..Series::default() };
        self.kept.lock().series.entry(id).or_insert_with(declared);
    }

    /// The minutes of a metric from one minute since 1970 to before another, oldest first; and its unit. `None` when there
    /// does not exist.
    pub fn minutes(&self, id: &MetricId, from: i64, to: i64) -> Option<Minutes> {
        let kept = self.kept.lock();
        let series = kept.series.get(id).filter(|series| series.last.is_some())?;
        let minutes = series.minutes.range(from..to.max(from)).map(|(minute, sample)| (*minute, *sample));
        Some((series.unit.clone(), minutes.collect()))
    }

    /// All that was recorded of a metric from one minute to before another; `None` without any.
    pub(crate) fn between(&self, id: &MetricId, from: i64, to: i64) -> Option<Sample> {
        let kept = self.kept.lock();
        let minutes = kept.series.get(id)?.minutes.range(from..to.max(from));
        minutes.map(|(_, sample)| *sample).reduce(Sample::and)
    }

    /// The sum of all values of a metric since the stack started.
    pub(crate) fn total(&self, id: &MetricId) -> f64 {
        self.kept.lock().series.get(id).map_or(0.0, |series| series.total.sum)
    }

    /// The metrics that are `wanted`, in order.
    pub fn list(&self, wanted: impl Fn(&MetricId) -> bool) -> Vec<MetricId> {
        let kept = self.kept.lock();
        let with_values = kept.series.iter().filter(|(_, series)| series.last.is_some());
        with_values.map(|(id, _)| id).filter(|id| wanted(id)).cloned().collect()
    }

    pub(crate) fn visit(&self, mut show: impl FnMut(&MetricId, &Series)) {
        self.kept.lock().series.iter().for_each(|(id, series)| show(id, series));
    }

    pub fn dropped(&self) -> BTreeMap<NotKept, u64> {
        self.kept.lock().dropped.clone()
    }
}

pub const fn minute_of(time: UnixMillis) -> i64 {
    time.0.div_euclid(MILLIS_PER_MINUTE)
}

impl Kept {
    fn record(
        &mut self,
        id: &MetricId,
        unit: Option<&str>,
        at: UnixMillis,
        sample: Sample,
        now: UnixMillis,
    ) -> Result<(), NotKept> {
        let (minute, current) = (minute_of(at), minute_of(now));
        if minute < (current - OLDEST_MINUTES).max(self.floor) {
            return Err(NotKept::TooOld);
        }
        if minute > current + NEWEST_MINUTES {
            return Err(NotKept::TooNew);
        }
        if !self.series.contains_key(id) && self.series.len() >= MAX_SERIES {
            self.forget_before(current - RETENTION_MINUTES);
            if self.series.len() >= MAX_SERIES {
                return Err(NotKept::TooManyMetrics);
            }
        }
        let series = self.series.entry(id.clone()).or_default();
        self.points = self.points + series.add(minute, at, sample) - series.trim(current - RETENTION_MINUTES);
        if let Some(unit) = unit {
            series.unit = Some(unit.to_owned());
        }
        while self.points > MAX_POINTS {
            self.forget_oldest_hour();
        }
        Ok(())
    }

    fn forget_oldest_hour(&mut self) {
        let first = self.series.values().filter_map(|series| series.minutes.keys().next()).min();
        let first = first.copied().unwrap_or(self.floor);
        self.forget_before(first.max(self.floor) + 60);
    }

    /// Drops earlier minutes, and metrics that have no others.
    fn forget_before(&mut self, minute: i64) {
        self.floor = self.floor.max(minute);
        let floor = self.floor;
        self.points -= self.series.values_mut().map(|series| series.trim(floor)).sum::<usize>();
        self.series.retain(|_, series| series.is_declared || !series.minutes.is_empty());
    }
}

impl Series {
    /// How many minutes that adds.
    fn add(&mut self, minute: i64, at: UnixMillis, sample: Sample) -> usize {
        self.total = self.total.and(sample);
        if self.last.is_none_or(|(last, _)| at >= last) {
            self.last = Some((at, mean(sample)));
        }
        let before = self.minutes.len();
        let kept = self.minutes.entry(minute).or_default();
        *kept = kept.and(sample);
        self.minutes.len() - before
    }

    /// Drops earlier minutes; how many.
    fn trim(&mut self, first: i64) -> usize {
        let before = self.minutes.len();
        while self.minutes.first_key_value().is_some_and(|(minute, _)| *minute < first) {
            self.minutes.pop_first();
        }
        before - self.minutes.len()
    }
}

fn mean(sample: Sample) -> f64 {
    if sample.count > 0.0 { sample.sum / sample.count } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixMillis = UnixMillis(1_795_253_528_006);

    fn metric(name: &str) -> MetricId {
        MetricId::new("Playhead", name, &[("FunctionName", "f")])
    }

    fn put(kept: &mut Kept, name: &str, at: i64, value: f64) -> Result<(), NotKept> {
        kept.record(&metric(name), None, UnixMillis(at), Sample::of(value), NOW)
    }

    #[test]
    fn a_minute_holds_sum_count_and_extremes() {
        let mut kept = Kept::default();
        for value in [3.0, -1.0, 4.0] {
            put(&mut kept, "A", NOW.0, value).unwrap();
        }
        let series = &kept.series[&metric("A")];
        assert_eq!(series.minutes[&minute_of(NOW)], Sample { sum: 6.0, count: 3.0, min: -1.0, max: 4.0 });
        assert_eq!((series.total.sum, series.last), (6.0, Some((NOW, 4.0))));
    }

    #[test]
    fn late_values_do_not_become_the_last_one() {
        let mut kept = Kept::default();
        put(&mut kept, "A", NOW.0, 1.0).unwrap();
        put(&mut kept, "A", NOW.0 - 1, 2.0).unwrap();
        assert_eq!(kept.series[&metric("A")].last, Some((NOW, 1.0)));
    }

    #[test]
    fn times_out_of_range_are_refused_and_those_at_its_edges_accepted() {
        let mut kept = Kept::default();
        let (oldest, newest) = (NOW.0 - OLDEST_MINUTES * MILLIS_PER_MINUTE, NOW.0 + NEWEST_MINUTES * MILLIS_PER_MINUTE);
        assert_eq!(put(&mut kept, "A", oldest, 1.0), Ok(()));
        assert_eq!(put(&mut kept, "A", oldest - MILLIS_PER_MINUTE, 1.0), Err(NotKept::TooOld));
        assert_eq!(put(&mut kept, "A", newest, 1.0), Ok(()));
        assert_eq!(put(&mut kept, "A", newest + MILLIS_PER_MINUTE, 1.0), Err(NotKept::TooNew));
    }

    #[test]
    fn one_metric_too_many_is_refused_until_old_ones_expire() {
        let mut kept = Kept::default();
        for number in 0..MAX_SERIES {
            put(&mut kept, &number.to_string(), NOW.0, 1.0).unwrap();
        }
        assert_eq!(put(&mut kept, "one more", NOW.0, 1.0), Err(NotKept::TooManyMetrics));
        assert_eq!(put(&mut kept, "0", NOW.0, 1.0), Ok(()));
        let later = UnixMillis(NOW.0 + (RETENTION_MINUTES + 1) * MILLIS_PER_MINUTE);
        assert_eq!(kept.record(&metric("one more"), None, later, Sample::of(1.0), later), Ok(()));
        assert_eq!((kept.series.len(), kept.points), (1, 1));
    }

    #[test]
    fn minutes_past_their_retention_are_dropped() {
        let mut kept = Kept::default();
        put(&mut kept, "A", NOW.0, 1.0).unwrap();
        let later = UnixMillis(NOW.0 + (RETENTION_MINUTES + 1) * MILLIS_PER_MINUTE);
        kept.record(&metric("A"), None, later, Sample::of(1.0), later).unwrap();
        assert_eq!(kept.series[&metric("A")].minutes.keys().collect::<Vec<_>>(), [&minute_of(later)]);
        assert_eq!(kept.points, 1);
    }

    #[test]
    fn the_oldest_hour_is_dropped_when_there_are_too_many_points() {
        let mut kept = Kept::default();
        for hours in 0..3 {
            put(&mut kept, "A", NOW.0 - hours * 60 * MILLIS_PER_MINUTE, 1.0).unwrap();
        }
        kept.forget_oldest_hour();
        assert_eq!((kept.series[&metric("A")].minutes.len(), kept.points), (2, 2));
        assert_eq!(put(&mut kept, "A", NOW.0 - 120 * MILLIS_PER_MINUTE, 1.0), Err(NotKept::TooOld));
    }

    #[test]
    fn declared_metrics_are_zero_and_unknown_to_cloudwatch_until_a_value_arrives() {
        let store = MetricStore::new(Clock::new(None, NOW));
        let (id, now) = (metric("A"), store.now());
        store.declare(id.clone(), "Count");
        let mut totals = Vec::new();
        store.visit(|_, series| totals.push((series.total.sum, series.total.count, series.last)));
        assert_eq!(totals, [(0.0, 0.0, None)]);
        assert_eq!((store.list(|_| true), store.minutes(&id, 0, i64::MAX)), (Vec::new(), None));
        store.record(&id, None, now, Sample::of(2.0)).unwrap();
        store.declare(id.clone(), "Count");
        let minutes = store.minutes(&id, 0, i64::MAX).unwrap();
        assert_eq!(minutes, (Some("Count".into()), vec![(minute_of(now), Sample::of(2.0))]));
        assert_eq!(store.list(|_| true), [id]);
    }

    #[test]
    fn declared_metrics_outlive_their_values() {
        let mut kept = Kept::default();
        kept.series.insert(metric("A"), Series { is_declared: true, ..Series::default() });
        put(&mut kept, "A", NOW.0, 2.0).unwrap();
        kept.forget_before(minute_of(NOW) + 1);
        assert_eq!(kept.series[&metric("A")].total.sum, 2.0);
    }

    #[test]
    fn ranges_exclude_their_end() {
        let store = MetricStore::new(Clock::new(None, NOW));
        let (id, now) = (metric("A"), store.now());
        store.record(&id, Some("Count"), now, Sample::of(2.0)).unwrap();
        let minute = minute_of(now);
        let minutes = |from, to| store.minutes(&id, from, to).unwrap().1.len();
        assert_eq!((minutes(minute, minute), minutes(minute, minute + 1), minutes(minute + 1, minute)), (0, 1, 0));
        assert_eq!(store.minutes(&metric("B"), 0, i64::MAX), None);
        assert_eq!(store.list(|id| id.name == "A"), [id]);
    }

    proptest! {
        #[test]
        fn points_are_counted(times in proptest::collection::vec((0..5u8, 0i64..400), 0..200)) {
            let mut kept = Kept::default();
            for (name, minutes) in times {
                put(&mut kept, &name.to_string(), NOW.0 - minutes * MILLIS_PER_MINUTE, 1.0).unwrap();
            }
            prop_assert_eq!(kept.points, kept.series.values().map(|series| series.minutes.len()).sum::<usize>());
        }
    }
}
