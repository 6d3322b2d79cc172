//! Faults between the functions and the embedded services, to try whether anything is lost or doubled.
//!
//! [`plan`] says which faults there are and how often each fires. They are drawn, counted and written to a journal here;
//! [`put_records`], [`objects`] and [`resharding`] make them happen, and the event source mapping those of its own.
//! Only requests of functions are hit, which are known by their access keys; people who look around are left alone.

pub mod environments;
pub mod objects;
pub mod plan;
pub mod put_records;
pub mod resharding;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use strum::IntoEnumIterator;

use crate::gate::access_key;
use crate::mutex::Mutex;
use environments::Environments;
use plan::{Fault, Plan};

/// Where the running stack's faults are read (GET), changed (PUT with a plan as `FAULTS` takes it) and ended (DELETE).
/// No bucket can have this name.
pub(crate) const CONTROL_PATH: &str = "/_faults";

pub struct Faults {
    drawing: Mutex<Drawing>,
    held_writes: AtomicU64,
    journal: Journal,
    pub environments: Environments,
}

struct Drawing {
    plan: Plan,
    random: StdRng,
    fired: BTreeMap<Fault, u64>,
}

/// A record of what was done to the functions: one JSON object a line.
struct Journal(Mutex<File>);

impl Journal {
    /// Appends to `<folder>/faults.jsonl`.
    fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = OpenOptions::new().create(true).append(true).open(folder.join("faults.jsonl"))?;
        Ok(Self(Mutex::new(file)))
    }

    fn write(&self, mut entry: Value) {
        entry["at"] = json!(lambda_setup::now().rfc3339());
        let mut file = self.0.lock();
        if let Err(problem) = file.write_all(format!("{entry}\n").as_bytes()) {
            tracing::error!(%problem, %entry, "an entry is missing from the journal of faults");
        }
    }
}

/// No answer: the connection breaks.
#[derive(Debug, thiserror::Error)]
#[error("an injected fault breaks the connection")]
pub struct NoAnswer;

impl Faults {
    /// Faults by this plan, with a journal at `<folder>/faults.jsonl`.
    pub fn new(plan: Plan, folder: &Path) -> io::Result<Arc<Self>> {
        let random = StdRng::seed_from_u64(plan.seed);
        Ok(Arc::new(Self {
            drawing: Mutex::new(Drawing { plan, random, fired: BTreeMap::new() }),
            held_writes: AtomicU64::new(0),
            journal: Journal::open(folder)?,
            environments: Environments::default(),
        }))
    }

    pub fn is_active(&self) -> bool {
        self.drawing.lock().plan.is_active()
    }

    /// The environment that sent a request, when faults are to hit it.
    pub fn sender(&self, headers: &HeaderMap) -> Option<String> {
        if !self.is_active() {
            return None;
        }
        access_key(headers).filter(|name| self.environments.contains(name)).map(str::to_owned)
    }

    /// Draws one of several faults, and notes it with what it hits.
    pub fn draw(&self, among: &[Fault], hits: &str) -> Option<Fault> {
        if !self.is_active() {
            return None;
        }
        let fault = {
            let mut drawing = self.drawing.lock();
            let Drawing { plan, random, fired } = &mut *drawing;
            let fault = among.iter().copied().find(|fault| random.random_bool(plan.rate(*fault)))?;
            *fired.entry(fault).or_default() += 1;
            fault
        };
        self.journal.write(json!({"fault": fault.name(), "hits": hits}));
        Some(fault)
    }

    pub fn up_to(&self, longest: Duration) -> Duration {
        longest.mul_f64(self.drawing.lock().random.random_range(0.0..=1.0))
    }

    pub(crate) fn count_up_to(&self, most: usize) -> usize {
        self.drawing.lock().random.random_range(1..=most.max(1))
    }

    pub fn end(&self) {
        self.change(Plan::default());
    }

    fn change(&self, plan: Plan) {
        let mut drawing = self.drawing.lock();
        if drawing.plan == plan {
            return;
        }
        tracing::info!(%plan, "faults changed");
        self.journal.write(json!({"plan": plan.to_string()}));
        drawing.random = StdRng::seed_from_u64(plan.seed);
        drawing.plan = plan;
    }

    pub fn control(&self, request: &Request<Bytes>) -> Response<Body> {
        match *request.method() {
            Method::GET => {}
            Method::DELETE => self.end(),
            Method::PUT => match String::from_utf8_lossy(request.body()).parse() {
                Ok(plan) => self.change(plan),
                Err(problem) => return refused(StatusCode::BAD_REQUEST, &problem),
            },
            _ => return refused(StatusCode::METHOD_NOT_ALLOWED, &"GET, PUT or DELETE"),
        }
        answer(StatusCode::OK, &self.state())
    }

    /// The plan, how often each fault has fired since the start, and the number of writes still held back.
    fn state(&self) -> Value {
        let drawing = self.drawing.lock();
        let fired = |fault: Fault| (fault.name(), drawing.fired.get(&fault).copied().unwrap_or(0));
        json!({
            "plan": drawing.plan.to_string(),
            "fired": Fault::iter().map(fired).collect::<BTreeMap<_, _>>(),
            "held_writes": self.held_writes.load(Ordering::SeqCst),
        })
    }
}

fn refused(status: StatusCode, problem: &dyn std::fmt::Display) -> Response<Body> {
    answer(status, &json!({"error": problem.to_string()}))
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn faults(plan: &str) -> (PathBuf, Arc<Faults>) {
        let folder = std::env::temp_dir().join(format!("faults-{}", uuid::Uuid::new_v4()));
        let faults = Faults::new(plan.parse().unwrap(), &folder).unwrap();
        (folder, faults)
    }

    #[test]
    fn the_same_seed_draws_the_same_faults() {
        let draws = || {
            let (_folder, faults) = faults("seed=5 s3.slow=0.3 s3.error=0.3");
            (0..100).map(|_| faults.draw(&[Fault::S3Slow, Fault::S3Error], "x")).collect::<Vec<_>>()
        };
        assert_eq!(draws(), draws());
        assert!(draws().contains(&Some(Fault::S3Error)) && draws().contains(&None));
    }

    #[test]
    fn faults_that_fire_are_counted_and_journaled() {
        let (folder, faults) = faults("s3.slow=1");
        assert_eq!(faults.draw(&[Fault::S3Error, Fault::S3Slow], "the object"), Some(Fault::S3Slow));
        faults.end();
        assert_eq!(faults.draw(&[Fault::S3Slow], "x"), None);
        assert_eq!(faults.state()["fired"]["s3.slow"], 1);
        let journal = std::fs::read_to_string(folder.join("faults.jsonl")).unwrap();
        assert!(journal.lines().next().unwrap().contains("the object"), "{journal}");
    }

    #[test]
    fn faults_hit_functions_only() {
        let (_folder, faults) = faults("s3.slow=1");
        let (_environment, _killed) = faults.environments.register("landing-1");
        let sender = |key: &str| {
            let mut headers = HeaderMap::new();
            let signature =
                format!("AWS4-HMAC-SHA256 Credential={key}/20261121/us-east-1/s3/aws4_request, Signature=0");
            headers.insert(header::AUTHORIZATION, signature.parse().unwrap());
            faults.sender(&headers)
        };
        assert_eq!(sender("landing-1").as_deref(), Some("landing-1"));
        assert_eq!(sender("local"), None);
        faults.end();
        assert_eq!(sender("landing-1"), None);
    }
}
