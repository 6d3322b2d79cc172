//! EventBridge's schedules: a function is invoked at the times that its expression says, in the stack's time.
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html>
//!
//! A schedule never has two runs at once here. If it was due several times meanwhile, as is usual on a fast clock, it runs for
//! the newest time only.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use serde_json::{Value, json};
use shared::timestamp::UnixMillis;
use tokio::sync::watch;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::asynchronous::{self, InFlight, Source};
use crate::clock::Clock;
use crate::event_source_mapping::Phase;
use crate::function::{Function, new_request_id};
use crate::metric_store::{MetricId, MetricStore};
use crate::read_progress::ReadProgress;
use crate::template::{ACCOUNT_ID, REGION, Schedule};

/// The longest single sleep, so that a machine that was suspended is soon on time again.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// The shortest, so that a clock can't keep the machine busy.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// The longest real time that a run waits for records to land. Beyond that it is an outage, which the checks must see.
const LANDING_TIMEOUT: Duration = Duration::from_secs(3);

/// What all schedules need.
#[derive(Clone)]
pub(crate) struct Schedules {
    pub clock: Clock,
    pub in_flight: InFlight,
    pub progress: ReadProgress,
    pub metrics: MetricStore,
    pub phase: watch::Receiver<Phase>,
}

impl Schedules {
    /// Invokes a function by its schedule until the stack drains.
    pub(crate) async fn run(mut self, schedule: Schedule, function: Arc<Function>) {
        let start = self.clock.now();
        let mut last = start;
        while *self.phase.borrow() != Phase::Draining {
            let now = self.clock.now();
            if let Some(due) = schedule.expression.newest(start, now).filter(|due| *due > last) {
                last = due;
                self.invoke(&schedule, due, &function).await;
                continue;
            }
            let Some(next) = schedule.expression.next(start, now) else {
                warn!(schedule = schedule.name, expression = %schedule.expression, "is never due again");
                return;
            };
            let sleep = self.clock.real_time(now, next).clamp(SHORTEST_SLEEP, LONGEST_SLEEP);
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                // A stack that is gone drains too.
                _ = self.phase.wait_for(|phase| *phase == Phase::Draining) => return,
            }
        }
    }

    async fn invoke(&self, schedule: &Schedule, due: UnixMillis, function: &Function) {
        let _counted = self.in_flight.one();
        if self.clock.is_fast() {
            self.landed(due).await;
        }
        // What EventBridge counts of a rule: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-monitoring.html
        let id = MetricId::new("AWS/Events", "Invocations", &[("RuleName", &schedule.name)]);
        self.metrics.note(&id, "Count", self.metrics.now(), 1.0);
        let event = Bytes::from(event(schedule, due).to_string());
        let source = Source::Schedule(schedule.name.clone(), due);
        asynchronous::invoke(new_request_id(), function, &event, &source, self.clock).await;
    }

    /// Waits until what had arrived by then has landed. On a fast clock a moment of machine time is many minutes, and a check
    /// would report as missing what is about to land. Its event still has the time that it was due.
    async fn landed(&self, due: UnixMillis) {
        let has_landed = || self.progress.landed_until().is_none_or(|until| self.clock.at(until) >= due);
        let landed = async {
            while !has_landed() {
                tokio::time::sleep(SHORTEST_SLEEP).await;
            }
        };
        if tokio::time::timeout(LANDING_TIMEOUT, landed).await.is_err() {
            debug!(due = due.rfc3339(), "a run no longer waits for records to land");
        }
    }
}

/// What EventBridge hands to the function; `time` is when it was due.
fn event(schedule: &Schedule, due: UnixMillis) -> Value {
    json!({
        "version": "0",
        "id": Uuid::new_v4().to_string(),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT_ID,
        // Whole seconds.
        "time": format!("{}Z", &due.rfc3339()[..19]),
        "region": REGION,
        "resources": [format!("arn:aws:events:{REGION}:{ACCOUNT_ID}:rule/{}", schedule.name)],
        "detail": {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_has_the_form_of_eventbridge() {
        let due = UnixMillis::parse("2026-11-18T09:20:00.000Z").unwrap();
        let expression = "cron(20 * * * ? *)".parse().unwrap();
        let schedule = Schedule { function: "SealFunction".into(), name: "SealFunctionHourly".into(), expression };
        let mut event = event(&schedule, due);
        assert!(event["id"].take().as_str().is_some_and(|id| id.len() == 36));
        let expected = json!({
            "version": "0",
            "id": null,
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": "000000000000",
            "time": "2026-11-18T09:20:00Z",
            "region": "us-east-1",
            "resources": ["arn:aws:events:us-east-1:000000000000:rule/SealFunctionHourly"],
            "detail": {},
        });
        assert_eq!(event, expected);
    }
}
