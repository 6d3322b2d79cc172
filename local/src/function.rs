//! A function: its execution environments, each a process of its own, started on demand and reused.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shared::timestamp::UnixMillis;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tracing::warn;
use uuid::Uuid;

use crate::faults::environments::{Environments, Registered};
use crate::log::{FunctionLog, Tail};
use crate::metric_store::{MetricId, MetricStore};
use crate::mutex::Mutex;
use crate::runtime_api::{FunctionError, Invocation, RuntimeApi};
use crate::template::{self, REGION, function_arn};

/// The most environments of one function. On a laptop's few cores more would only take turns.
pub(crate) const MAX_ENVIRONMENTS: usize = 8;
/// Lambda's own limit for the start of a function.
/// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an environment stays without an invocation. Lambda keeps one for minutes, but nobody wants to wait so long for what
/// a function writes at its end.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// The time that Lambda gives a process with an internal extension to end.
/// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>
const SHUTDOWN_TIME: Duration = Duration::from_millis(500);

/// What all functions share.
#[derive(Clone)]
pub struct Host {
    /// The folder of the functions' binaries.
    pub binaries: PathBuf,
    /// Where functions call AWS.
    pub aws_endpoint: String,
    /// The function that players wait for.
    pub front_door: Option<String>,
    pub environments: Environments,
    pub metrics: MetricStore,
}

pub struct Function {
    pub(crate) spec: template::Function,
    host: Host,
    binary: PathBuf,
    log: FunctionLog,
    places: Arc<Semaphore>,
    /// The one that was used last is the last.
    idle: Mutex<Vec<Environment>>,
    /// Held while environments are shut down, so that the last shutdown waits for those before it.
    shutting_down: tokio::sync::Mutex<()>,
    started: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    #[error("the function reported {0}")]
    Reported(#[from] FunctionError),
    #[error("the function ran longer than its {} s and was killed", .0.as_secs())]
    TimedOut(Duration),
    #[error("the function's process ended: {0}")]
    Died(ExitStatus),
    #[error("an injected fault killed the function")]
    Killed,
    #[error("the function did not start: {0}")]
    NotStarted(String),
}

impl Function {
    pub fn new(spec: template::Function, log: FunctionLog, host: Host) -> anyhow::Result<Arc<Self>> {
        let binary = host.binary(&spec.binary)?;
        let places = Arc::new(Semaphore::new(MAX_ENVIRONMENTS));
        let (idle, shutting_down, started) = (Mutex::default(), tokio::sync::Mutex::default(), AtomicU64::new(0));
        Ok(Arc::new(Self { spec, host, binary, log, places, idle, shutting_down, started }))
    }

    pub fn name(&self) -> &str {
        &self.spec.binary
    }

    pub fn arn(&self) -> String {
        function_arn(&self.spec.binary)
    }

    /// One permit for each environment. A caller that takes one itself decides how long to wait for it.
    pub(crate) fn places(&self) -> Arc<Semaphore> {
        self.places.clone()
    }

    /// Invokes the function in an idle environment, or in a new one; waits while all of them are busy.
    pub async fn invoke(&self, request_id: String, payload: Bytes) -> Result<Bytes, InvokeError> {
        self.invoke_logged(request_id, payload).await.0
    }

    /// [`Function::invoke`], with the log of the environment that ran it, if one did. Its last lines may still be on their way.
    pub(crate) async fn invoke_logged(
        &self,
        request_id: String,
        payload: Bytes,
    ) -> (Result<Bytes, InvokeError>, Option<Tail>) {
        match self.places().acquire_owned().await {
            Ok(place) => self.invoke_in(place, request_id, payload).await,
            Err(closed) => (Err(InvokeError::NotStarted(closed.to_string())), None),
        }
    }

    /// [`Function::invoke_logged`] by a caller that has a place, which is given back at the end. Notes the metrics that Lambda
    /// notes.
    /// <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html>
    pub(crate) async fn invoke_in(
        &self,
        place: OwnedSemaphorePermit,
        request_id: String,
        payload: Bytes,
    ) -> (Result<Bytes, InvokeError>, Option<Tail>) {
        let (at, begun) = (self.host.metrics.now(), Instant::now());
        let mut tail = None;
        let result = self.run(request_id, payload, &mut tail).await;
        drop(place);
        let failed = if result.is_err() { 1.0 } else { 0.0 };
        self.note("Invocations", "Count", at, 1.0);
        self.note("Errors", "Count", at, failed);
        self.note("Throttles", "Count", at, 0.0);
        // The time that it really took, whatever the stack's clock.
        self.note("Duration", "Milliseconds", at, begun.elapsed().as_secs_f64() * 1000.0);
        (result, tail)
    }

    /// Notes an invocation that was refused because all environments are busy.
    pub(crate) fn note_throttle(&self) {
        self.note("Throttles", "Count", self.host.metrics.now(), 1.0);
    }

    /// Notes the age of the last record of a batch that is about to be handed to the function.
    pub(crate) fn note_iterator_age(&self, age: Duration) {
        self.note("IteratorAge", "Milliseconds", self.host.metrics.now(), age.as_secs_f64() * 1000.0);
    }

    fn note(&self, name: &str, unit: &str, at: UnixMillis, value: f64) {
        let id = MetricId::new("AWS/Lambda", name, &[("FunctionName", self.name())]);
        self.host.metrics.note(&id, unit, at, value);
    }

    async fn run(&self, request_id: String, payload: Bytes, tail: &mut Option<Tail>) -> Result<Bytes, InvokeError> {
        let not_started = |problem: &dyn std::fmt::Display| InvokeError::NotStarted(problem.to_string());
        let mut environment = match self.take_idle(tail) {
            Some(environment) => environment,
            None => self.start(tail).await?,
        };
        let (reply, answer) = oneshot::channel();
        let timeout = self.spec.timeout;
        let invoked = environment.api.invoke(Invocation { request_id, payload, timeout, reply });
        let result = tokio::select! {
            // A reply that came before the process ended counts.
            biased;
            (answer, ()) = async { tokio::join!(answer, invoked) } => match answer {
                Ok(reply) => reply.map_err(InvokeError::from),
                Err(gone) => return Err(not_started(&gone)),
            },
            () = environment.killed.notified() => return Err(InvokeError::Killed),
            status = environment.process.wait() => return match status {
                Ok(status) => Err(InvokeError::Died(status)),
                Err(problem) => Err(not_started(&problem)),
            },
            // Dropping the environment kills its process.
            () = tokio::time::sleep(timeout) => return Err(InvokeError::TimedOut(timeout)),
        };
        environment.idle_since = Instant::now();
        self.idle.lock().push(environment);
        result
    }

    /// Shuts down the environments that have been idle for [`IDLE_TIME`], for as long as the stack runs.
    pub(crate) async fn shut_down_idle(self: Arc<Self>) {
        loop {
            tokio::time::sleep(IDLE_TIME / 10).await;
            self.shut_down_if(|environment| environment.idle_since.elapsed() >= IDLE_TIME).await;
        }
    }

    /// Shuts down all environments that run nothing.
    pub async fn shut_down(&self) {
        self.shut_down_if(|_| true).await;
    }

    async fn shut_down_if(&self, ends: impl Fn(&Environment) -> bool) {
        let _one_at_a_time = self.shutting_down.lock().await;
        let ending: Vec<Environment> = self.idle.lock().extract_if(.., |environment| ends(environment)).collect();
        ending.into_iter().map(Environment::shut_down).collect::<JoinSet<()>>().join_all().await;
    }

    /// The environment that was used last, if its process still lives.
    fn take_idle(&self, tail: &mut Option<Tail>) -> Option<Environment> {
        let mut idle = self.idle.lock();
        while let Some(mut environment) = idle.pop() {
            if matches!(environment.process.try_wait(), Ok(None)) {
                drop(environment.tail.take());
                *tail = Some(environment.tail.clone());
                return Some(environment);
            }
        }
        None
    }

    async fn start(&self, tail: &mut Option<Tail>) -> Result<Environment, InvokeError> {
        let not_started = |problem: std::io::Error| InvokeError::NotStarted(problem.to_string());
        let api = RuntimeApi::start(self.name()).await.map_err(not_started)?;
        let name = format!("{}-{}", self.spec.binary, self.started.fetch_add(1, Ordering::Relaxed));
        let mut process = self.command(&api, &name).spawn().map_err(not_started)?;
        let tail = tail.insert(Tail::default()).clone();
        let output = [
            tokio::spawn(self.log.clone().follow(process.stdout.take(), tail.clone())),
            tokio::spawn(self.log.clone().follow(process.stderr.take(), tail.clone())),
        ];
        let (registered, killed) = self.host.environments.register(&name);
        let idle_since = Instant::now();
        let mut environment = Environment { api, process, output, tail, killed, idle_since, _registered: registered };
        tokio::select! {
            started = environment.api.started() => {
                started?;
                Ok(environment)
            }
            status = environment.process.wait() => match status {
                Ok(status) => Err(InvokeError::NotStarted(format!("its process ended with {status}; see its log"))),
                Err(problem) => Err(not_started(problem)),
            },
            () = tokio::time::sleep(START_TIMEOUT) => {
                Err(InvokeError::NotStarted(format!("it took longer than {} s", START_TIMEOUT.as_secs())))
            }
        }
    }

    fn command(&self, api: &RuntimeApi, name: &str) -> Command {
        let mut command = self.host.command(&self.binary, &self.spec, name);
        command
            .env("AWS_LAMBDA_RUNTIME_API", api.address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", &self.spec.binary)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", self.spec.memory_mb.to_string());
        command
    }
}

impl Host {
    /// A process with a function's environment: the embedded services know it by this name.
    pub(crate) fn command(&self, binary: &Path, spec: &template::Function, name: &str) -> Command {
        let mut command = if self.front_door.as_deref() == Some(&spec.binary) {
            Command::new(binary)
        } else {
            // In AWS no other function takes the CPU from the one that players wait for.
            let mut nice = Command::new("nice");
            nice.args(["-n", "10"]).arg(binary);
            nice
        };
        command
            // The function must see what it would see in AWS, nothing of this machine.
            .env_clear()
            .env("AWS_REGION", REGION)
            // By its key the embedded services know who sent a request.
            .env("AWS_ACCESS_KEY_ID", name)
            .env("AWS_SECRET_ACCESS_KEY", name)
            .env("AWS_ENDPOINT_URL", &self.aws_endpoint)
            .envs(&spec.environment)
            // A group of its own: Ctrl-C in the terminal is for the stack, which ends the functions when it is done.
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The path of a function's binary.
    pub(crate) fn binary(&self, name: &str) -> anyhow::Result<PathBuf> {
        let binary = self.binaries.join(name);
        anyhow::ensure!(binary.is_file(), "{} is not built; `make build-local` builds it", binary.display());
        Ok(binary)
    }
}

/// A process and the Runtime API that it asks for work.
struct Environment {
    api: RuntimeApi,
    process: Child,
    /// They read what it writes to its end, also after it was killed.
    output: [JoinHandle<()>; 2],
    tail: Tail,
    killed: Arc<Notify>,
    idle_since: Instant,
    _registered: Registered,
}

impl Environment {
    /// Ends the process as Lambda does: where it has an extension, it gets a SIGTERM and a little time. What it writes last is
    /// read to its end.
    async fn shut_down(mut self) {
        let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
        if !self.api.has_extensions() {
            return;
        }
        let ended = async {
            self.process.wait().await?;
            for output in self.output {
                output.await?;
            }
            std::io::Result::Ok(())
        };
        let problem = match kill(Pid::from_raw(pid), Signal::SIGTERM) {
            Ok(()) => match tokio::time::timeout(SHUTDOWN_TIME, ended).await {
                Ok(Ok(())) => return,
                Ok(Err(problem)) => problem.to_string(),
                Err(_) => format!("it runs on {} ms after SIGTERM", SHUTDOWN_TIME.as_millis()),
            },
            Err(problem) => problem.to_string(),
        };
        warn!(problem, "a function's process is killed");
    }
}

pub(crate) fn new_request_id() -> String {
    Uuid::new_v4().to_string()
}
