//! What requests count, summed by the minute of their receipt: a line of metrics a request would cost more than the rest of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lambda_setup::vital_signs::VitalSigns;
use shared::emf;
use shared::metric::Metric;
use shared::timestamp::UnixMillis;

/// How long counts are held back while requests come.
const WRITE_EVERY_MILLIS: u64 = 10_000;
/// How long a loss is held back by a server, which may have many of them at once. Lambda's next request may be far away.
const WRITE_LOSS_EVERY_MILLIS: u64 = 1_000;
/// What is counted for each app, too. Each is a custom metric with a price, so these are the ones that an app's people act on.
const BY_APP: [Metric; 4] =
    [Metric::AcceptedEvents, Metric::RejectedLines, Metric::NotStoredEvents, Metric::LimitedRequests];
/// What CloudWatch keeps apart.
const MINUTE_MILLIS: i64 = 60_000;

/// The counts of an environment that are not written yet. They are written by the first request, and by each that is ten
/// seconds away from the one that last wrote them, so a quiet environment holds nothing back. Lambda freezes an environment
/// between requests: what the last ones counted waits for the next, or for the end.
#[derive(Debug)]
pub struct Counts {
    pending: Mutex<Pending>,
    vital_signs: VitalSigns,
    front_door: FrontDoor,
}

/// Which front end counts: a property of each line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrontDoor {
    Lambda,
    Server,
}

impl FrontDoor {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Lambda => "lambda",
            Self::Server => "server",
        }
    }
}

#[derive(Debug, Default)]
struct Pending {
    /// As the metrics' dimension says it.
    function_name: String,
    minutes: BTreeMap<UnixMillis, Minute>,
    /// Of what is written.
    totals: Minute,
    /// When the request was received that last wrote. By the requests' clock alone: the stack's may run fast.
    written_at: Option<UnixMillis>,
}

/// One value a metric: a sum, or an extreme where a sum says nothing.
type Sums = BTreeMap<Metric, u64>;

/// What was received in a minute.
#[derive(Debug, Default, Clone)]
struct Minute {
    sums: Sums,
    /// By apps, of which there are no more than write keys.
    apps: BTreeMap<String, Sums>,
}

impl Counts {
    /// Of a new environment of this front door.
    #[must_use]
    pub fn new(front_door: FrontDoor) -> Arc<Self> {
        Arc::new(Self { pending: Mutex::default(), vital_signs: VitalSigns::new(), front_door })
    }

    /// Counts a request that was received at `at`, of an app if it is known. Gives the lines that are to be written now: all of
    /// them if they are due, or if events are lost.
    #[must_use]
    pub fn add(&self, at: UnixMillis, function_name: &str, app: Option<&str>, values: &[(Metric, u64)]) -> Vec<String> {
        let mut pending = self.pending();
        if pending.function_name != function_name {
            function_name.clone_into(&mut pending.function_name);
        }
        pending.minutes.entry(minute_of(at)).or_default().add(app, values);
        let is_loss = values.iter().any(|(metric, count)| *metric == Metric::NotStoredEvents && *count > 0);
        let held_back = match (is_loss, self.front_door) {
            (false, _) => WRITE_EVERY_MILLIS,
            (true, FrontDoor::Server) => WRITE_LOSS_EVERY_MILLIS,
            (true, FrontDoor::Lambda) => 0,
        };
        // The server ends requests in another order than it received them, and writes every ten seconds in any case.
        let is_late = self.front_door == FrontDoor::Server && pending.written_at > Some(at);
        if is_late || !pending.is_due(at, held_back) {
            return Vec::new();
        }
        pending.written_at = Some(at);
        self.lines(&mut pending)
    }

    /// The lines of all that is not written yet.
    #[must_use]
    pub fn rest(&self) -> Vec<String> {
        self.lines(&mut self.pending())
    }

    /// All that was counted since the start.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<Metric, u64> {
        self.all().sums
    }

    /// What [`BY_APP`] counted since the start, by apps.
    #[must_use]
    pub fn totals_by_app(&self) -> BTreeMap<String, BTreeMap<Metric, u64>> {
        self.all().apps
    }

    fn all(&self) -> Minute {
        let pending = self.pending();
        let mut totals = pending.totals.clone();
        pending.minutes.values().for_each(|minute| totals.add_all(minute));
        totals
    }

    fn lines(&self, pending: &mut Pending) -> Vec<String> {
        if let Some(mut newest) = pending.minutes.last_entry() {
            let newest = &mut newest.get_mut().sums;
            self.vital_signs.of_environment().for_each(|(metric, value)| combine(newest, metric, value));
        }
        let minutes = std::mem::take(&mut pending.minutes);
        minutes.values().for_each(|minute| pending.totals.add_all(minute));
        minutes.into_iter().flat_map(|(at, minute)| self.lines_of(at, minute, &pending.function_name)).collect()
    }

    /// One of all requests, and one of each app.
    fn lines_of(&self, at: UnixMillis, Minute { mut sums, apps }: Minute, function_name: &str) -> Vec<String> {
        if self.front_door == FrontDoor::Server
            && let Some(&requests) = sums.get(&Metric::Requests)
        {
            sums.insert(Metric::ServerRequests, requests);
        }
        let properties = [("front_door", self.front_door.as_str())];
        let values = |sums: Sums| sums.into_iter().collect::<Vec<_>>();
        let of_all = emf::line(at, function_name, &values(sums), &properties);
        let of_app =
            |(app, sums): (String, Sums)| emf::line_of_app(at, function_name, &app, &values(sums), &properties);
        [of_all].into_iter().chain(apps.into_iter().map(of_app)).collect()
    }

    /// Nothing in between can panic half way.
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// A clock that is set back or forth makes them due, too.
    fn is_due(&self, at: UnixMillis, held_back: u64) -> bool {
        self.written_at.is_none_or(|written_at| written_at.0.abs_diff(at.0) >= held_back)
    }
}

pub(crate) fn minute_of(at: UnixMillis) -> UnixMillis {
    UnixMillis(at.0.saturating_sub(at.0.rem_euclid(MINUTE_MILLIS)))
}

impl Minute {
    fn add(&mut self, app: Option<&str>, values: &[(Metric, u64)]) {
        let values = values.iter().copied();
        combine_all(&mut self.sums, values.clone());
        let mut of_app = values.filter(|(metric, _)| BY_APP.contains(metric)).peekable();
        if let (Some(app), Some(_)) = (app, of_app.peek()) {
            combine_all(self.of_app(app), of_app);
        }
    }

    fn add_all(&mut self, other: &Self) {
        let values = |sums: &Sums| sums.clone().into_iter();
        combine_all(&mut self.sums, values(&other.sums));
        other.apps.iter().for_each(|(app, sums)| combine_all(self.of_app(app), values(sums)));
    }

    fn of_app(&mut self, app: &str) -> &mut Sums {
        self.apps.entry(app.to_owned()).or_default()
    }
}

fn combine_all(sums: &mut Sums, values: impl Iterator<Item = (Metric, u64)>) {
    values.for_each(|(metric, value)| combine(sums, metric, value));
}

fn combine(sums: &mut Sums, metric: Metric, value: u64) {
    let combined = match metric {
        Metric::RemainingTime => u64::min,
        Metric::LargestRequest | Metric::PeakMemory => u64::max,
        _ => u64::saturating_add,
    };
    sums.entry(metric).and_modify(|sum| *sum = combined(*sum, value)).or_insert(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::Value;

    /// 2026-11-21T09:32:00Z
    const MINUTE: i64 = 1_795_253_520_000;

    fn add(counts: &Counts, at: i64, accepted: u64) -> Vec<Value> {
        read(&counts.add(
            UnixMillis(at),
            "ingest",
            None,
            &[(Metric::AcceptedEvents, accepted), (Metric::RemainingTime, accepted)],
        ))
    }

    fn read(lines: &[String]) -> Vec<Value> {
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Minute and sum of each line.
    fn accepted(lines: &[Value]) -> Vec<(i64, u64)> {
        let sum =
            |line: &Value| (line["_aws"]["Timestamp"].as_i64().unwrap(), line["AcceptedEvents"].as_u64().unwrap());
        lines.iter().map(sum).collect()
    }

    #[test]
    fn the_first_request_writes_and_later_ones_are_summed_until_ten_seconds_are_over() {
        let counts = Counts::new(FrontDoor::Lambda);
        assert_eq!(accepted(&add(&counts, MINUTE + 5_000, 1)), [(MINUTE, 1)]);
        for later in [5_001, 9_000, 14_999] {
            assert_eq!(add(&counts, MINUTE + later, 2), [] as [Value; 0]);
        }
        assert_eq!(accepted(&add(&counts, MINUTE + 15_000, 4)), [(MINUTE, 10)]);
        assert!(counts.rest().is_empty());
    }

    #[test]
    fn requests_count_in_the_minute_of_their_receipt_and_nothing_is_left_at_the_end() {
        let counts = Counts::new(FrontDoor::Lambda);
        add(&counts, MINUTE + 55_000, 1);
        add(&counts, MINUTE + 59_999, 2);
        add(&counts, MINUTE + 60_000, 3);
        add(&counts, MINUTE + 59_998, 4);
        assert_eq!(accepted(&read(&counts.rest())), [(MINUTE, 6), (MINUTE + 60_000, 3)]);
        assert!(counts.rest().is_empty());
    }

    #[test]
    fn a_server_writes_what_is_lost_once_a_second() {
        let (counts, lost) = (Counts::new(FrontDoor::Server), [(Metric::NotStoredEvents, 1)]);
        let lines =
            [0, 1, 999, 1_000, 1_500].map(|later| counts.add(UnixMillis(MINUTE + later), "ingest", None, &lost).len());
        assert_eq!(lines, [1, 0, 0, 1, 0]);
    }

    #[test]
    fn a_server_writes_nothing_for_a_request_that_came_long_before_the_last_one_that_wrote() {
        let counts = Counts::new(FrontDoor::Server);
        let lines = [20_000, 1_000, 29_999, 30_000].map(|later| add(&counts, MINUTE + later, 1).len());
        assert_eq!(lines, [1, 0, 0, 1]);
    }

    #[rstest]
    #[case::lambda(FrontDoor::Lambda, None)]
    #[case::server(FrontDoor::Server, Some(2))]
    fn requests_of_the_server_have_a_count_of_their_own(#[case] front_door: FrontDoor, #[case] expected: Option<u64>) {
        let counts = Counts::new(front_door);
        let line = &read(&counts.add(UnixMillis(MINUTE), "ingest", None, &[(Metric::Requests, 2)]))[0];
        assert_eq!((line["Requests"].as_u64(), line["ServerRequests"].as_u64()), (Some(2), expected));
    }

    #[test]
    fn what_is_lost_is_written_at_once() {
        let counts = Counts::new(FrontDoor::Lambda);
        add(&counts, MINUTE, 1);
        add(&counts, MINUTE + 1, 1);
        let lines = counts.add(UnixMillis(MINUTE + 2), "ingest", None, &[(Metric::NotStoredEvents, 3)]);
        let line = &read(&lines)[0];
        assert_eq!((&line["NotStoredEvents"], &line["AcceptedEvents"]), (&3.into(), &1.into()));
        assert_eq!(add(&counts, MINUTE + 3, 1), [] as [Value; 0]);
    }

    #[test]
    fn what_an_apps_people_act_on_has_a_line_of_its_own_beside_that_of_all_apps() {
        let counts = Counts::new(FrontDoor::Lambda);
        add(&counts, MINUTE, 1);
        for (app, accepted) in [(Some("web"), 1), (Some("ios"), 2), (None, 4), (Some("web"), 8)] {
            let values = [(Metric::Requests, 1), (Metric::AcceptedEvents, accepted)];
            assert!(counts.add(UnixMillis(MINUTE + 1), "ingest", app, &values).is_empty());
        }
        let lines = read(&counts.rest());
        let found: Vec<_> = lines.iter().map(|line| (line["App"].as_str(), line["AcceptedEvents"].as_u64())).collect();
        assert_eq!(found, [(None, Some(15)), (Some("ios"), Some(2)), (Some("web"), Some(9))]);
        let dimensions = |line: &Value| line["_aws"]["CloudWatchMetrics"][0]["Dimensions"].clone();
        assert_eq!(dimensions(&lines[0]), serde_json::json!([["FunctionName"]]));
        assert_eq!(dimensions(&lines[1]), serde_json::json!([["FunctionName", "App"]]));
        assert!(lines[1..].iter().all(|line| line["Requests"].is_null() && line["front_door"] == "lambda"));
        let by_app = counts.totals_by_app();
        let accepted = ["ios", "web"].map(|app| by_app[app][&Metric::AcceptedEvents]);
        assert_eq!((accepted, counts.totals()[&Metric::AcceptedEvents]), ([2, 9], 16));
    }

    #[test]
    fn extremes_are_not_summed() {
        let counts = Counts::new(FrontDoor::Lambda);
        add(&counts, MINUTE, 1);
        for (largest, remaining) in [(5, 9_000), (70, 8_000), (6, 9_500)] {
            let values = [(Metric::LargestRequest, largest), (Metric::RemainingTime, remaining), (Metric::Requests, 1)];
            assert!(counts.add(UnixMillis(MINUTE + 1), "ingest", None, &values).is_empty());
        }
        let line = &read(&counts.rest())[0];
        let found = ["LargestRequest", "RemainingTime", "Requests"].map(|name| line[name].as_u64());
        assert_eq!(found, [Some(70), Some(8_000), Some(3)]);
    }

    #[test]
    fn each_write_has_the_environments_memory_and_the_first_one_the_cold_start() {
        let counts = Counts::new(FrontDoor::Lambda);
        let lines = [0, 60_000].map(|later| add(&counts, MINUTE + later, 1));
        let cold_starts = lines.each_ref().map(|lines| lines[0]["ColdStarts"].as_u64());
        assert_eq!(cold_starts, [Some(1), None]);
        assert!(!cfg!(target_os = "linux") || lines.iter().all(|lines| lines[0]["PeakMemory"].as_u64() > Some(0)));
    }

    #[rstest]
    #[case::back(-10_000, true)]
    #[case::a_little_back(-9_999, false)]
    #[case::forth(10_000, true)]
    #[case::to_the_beginning_of_time(i64::MIN, true)]
    #[case::to_its_end(i64::MAX, true)]
    fn a_clock_that_is_set_makes_counts_due(#[case] by: i64, #[case] writes: bool) {
        let counts = Counts::new(FrontDoor::Lambda);
        add(&counts, MINUTE, 1);
        assert_eq!(add(&counts, MINUTE.saturating_add(by), 1).is_empty(), !writes);
    }

    proptest! {
        /// Whatever the clocks show, what is written is what was counted, in its minutes, and few minutes wait.
        #[test]
        fn sums_are_exact_and_few_minutes_are_open(
            requests in prop::collection::vec((prop_oneof![-200_000i64..200_000, any::<i64>()], 0u64..1_000, 0u64..2), 0..200),
        ) {
            let (counts, mut expected, mut written) = (Counts::new(FrontDoor::Lambda), BTreeMap::new(), BTreeMap::new());
            let mut note = |lines: Vec<String>| {
                for line in read(&lines) {
                    let minute = line["_aws"]["Timestamp"].as_i64().unwrap();
                    *written.entry(minute).or_default() += line["AcceptedEvents"].as_u64().unwrap();
                }
            };
            for (at, events, lost) in requests {
                *expected.entry(minute_of(UnixMillis(at)).0).or_insert(0) += events;
                let values = [(Metric::AcceptedEvents, events), (Metric::NotStoredEvents, lost)];
                note(counts.add(UnixMillis(at), "ingest", None, &values));
                prop_assert!(counts.pending().minutes.len() <= 2);
            }
            note(counts.rest());
            let total = counts.totals().get(&Metric::AcceptedEvents).copied().unwrap_or(0);
            prop_assert_eq!(total, expected.values().sum::<u64>());
            prop_assert_eq!(written, expected);
        }
    }
}
