//! Everything together: started in order, and stopped so that nothing that was answered is left behind.

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, anyhow};
use shared::timestamp::UnixMillis;
use testbed::KinesisError;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::alarms::{Alarms, Notice};
use crate::asynchronous::{InFlight, Source};
use crate::aws_endpoint::AwsEndpoint;
use crate::claim::claim;
use crate::clock::Clock;
use crate::cloudwatch::CloudWatch;
use crate::config::{Config, FrontDoorKind};
use crate::embedded_metrics::{EmbeddedMetrics, LineTime};
use crate::event_queues::EventQueues;
use crate::event_source_mapping::{EventSourceMapping, Phase};
use crate::failed_batches::FailedBatches;
use crate::faults::{Faults, resharding};
use crate::function::{Function, Host};
use crate::function_url::FrontDoor;
use crate::gate::Door;
use crate::ingest_server::{self, IngestServer};
use crate::kinesis::Kinesis;
use crate::log::FunctionLog;
use crate::metric_store::MetricStore;
use crate::notices::Notices;
use crate::open_files::{self, ConnectionLimits};
use crate::page_server::{PageServer, Serving, Watched};
use crate::queue_poller::QueuePoller;
use crate::s3::S3;
use crate::s3_notifications::{Notifications, Targets};
use crate::schedules::Schedules;
use crate::server::Port;
use crate::ses_api::Ses;
use crate::sns::{Message, Topics};
use crate::sns_api::Sns;
use crate::sqs::Queues;
use crate::ssm_api::Ssm;
use crate::template::{Endpoint, Target};
use crate::traffic::{Accepted, Traffic};
use crate::{counters, lambda, shard_readers, template};

/// The event source mappings, each of which ends only with an error.
type Mappings = JoinSet<Result<(), KinesisError>>;

/// How long requests in flight may take when the stack stops. Later ones are answered 503.
const FRONT_DOOR_DRAIN: Duration = Duration::from_secs(30);
/// How long landing the rest may take when the stack stops.
const LANDING_DRAIN: Duration = Duration::from_secs(120);
/// How long the events of objects and schedules may take after that.
const EVENT_DRAIN: Duration = Duration::from_secs(20);

pub struct Stack {
    pub front_door: SocketAddr,
    pub aws: SocketAddr,
    pub page: SocketAddr,
    stop_front_door: watch::Sender<bool>,
    front_door_server: JoinHandle<()>,
    functions: Functions,
    kinesis: Kinesis,
    faults: Arc<Faults>,
    phase: watch::Sender<Phase>,
    mappings: Mappings,
    in_flight: InFlight,
    _page_server: Serving,
    _claim: File,
}

impl Stack {
    /// Starts all parts, the front door last.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let template = read_template(config)?;
        let claim = claim(&config.data_dir)?;
        let aws_port = listen("AWS_PORT", config.aws_port).await?;
        // The same services as on the AWS port, at an address that the functions alone know.
        let functions_port = listen("AWS_PORT", 0).await?;
        let aws = aws_port.local_addr()?;
        let builder = Builder::new(config, &template)?;
        let host = builder.host(functions_port.local_addr()?);
        let page_server = PageServer::new(config.status_port)?;
        let functions = builder.functions(&host)?;
        for function in &functions.0 {
            tokio::spawn(function.clone().shut_down_idle());
        }
        let (phase, phases) = watch::channel(Phase::Running);
        let (kinesis, s3) = builder.services(&functions, aws_port, functions_port, &phases)?;
        builder.schedules(&functions, &kinesis, &phases)?;
        builder.queue_pollers(&functions, &phases)?;
        let mappings = builder.mappings(&functions, &(kinesis.clone(), s3), &phases)?;
        let (stop_front_door, stopping) = watch::channel(false);
        let (front_door, front_door_server) = match config.front_door {
            FrontDoorKind::Lambda => builder.function_url(&functions, stopping).await?,
            FrontDoorKind::Server => builder.ingest_server(&functions, host, stopping).await?,
        };
        tokio::spawn(builder.traffic(&functions, &kinesis)?.run(phases));
        let (page, page_server) = page_server.start(&builder.watched(aws, front_door)).await?;
        let Builder { faults, in_flight, .. } = builder;
        Ok(Self {
            front_door,
            aws,
            page,
            stop_front_door,
            front_door_server,
            functions,
            kinesis,
            faults,
            phase,
            mappings,
            in_flight,
            _page_server: page_server,
            _claim: claim,
        })
    }

    /// Resolves when a part of the stack has ended that never should.
    pub async fn fails(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            ended = &mut self.front_door_server => Err(anyhow!("the front door ended: {ended:?}")),
            Some(ended) = self.mappings.join_next() => Err(anyhow!("an event source mapping ended: {ended:?}")),
        }
    }

    /// Takes no more events, finishes the requests in flight, lands everything on the streams, and delivers the events of
    /// what landed if there is time: landed objects are safe without them.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop_front_door.send_replace(true);
        if tokio::time::timeout(FRONT_DOOR_DRAIN, self.front_door_server).await.is_err() {
            tracing::warn!("requests were still under way {} s after the stop", FRONT_DOOR_DRAIN.as_secs());
        }
        // Nobody stops a stack to see its faults: what it holds must land.
        self.faults.end();
        // From here on puts are refused, be they of a slow request or of another producer.
        self.kinesis.close();
        self.phase.send_replace(Phase::Draining);
        let drained = async {
            while let Some(mapping) = self.mappings.join_next().await {
                mapping??;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(LANDING_DRAIN, drained).await {
            Ok(drained) => drained?,
            Err(_) => {
                return Err(anyhow!(
                    "not everything landed in {} s: batches failed again and again, and what follows them did not \
                     land either; see the log of the landing function",
                    LANDING_DRAIN.as_secs()
                ));
            }
        }
        if tokio::time::timeout(EVENT_DRAIN, self.in_flight.fewer_than(1)).await.is_err() {
            let events = self.in_flight.count();
            tracing::warn!(events, "events of objects and schedules did not arrive in {} s", EVENT_DRAIN.as_secs());
        }
        self.functions.shut_down().await;
        Ok(())
    }
}

fn read_text(config: &Config) -> anyhow::Result<String> {
    let path = config.template.display();
    std::fs::read_to_string(&config.template).with_context(|| format!("TEMPLATE: {path}"))
}

fn read_template(config: &Config) -> anyhow::Result<template::Stack> {
    let parsed = template::Stack::parse(&read_text(config)?, &config.parameters);
    parsed.with_context(|| config.template.display().to_string())
}

async fn listen(variable: &str, port: u16) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    listener.with_context(|| format!("{variable}: port {port} is not available; {variable}=0 picks a free one"))
}

struct Builder<'a> {
    config: &'a Config,
    template: &'a template::Stack,
    connections: ConnectionLimits,
    clock: Clock,
    started: UnixMillis,
    metrics: MetricStore,
    faults: Arc<Faults>,
    in_flight: InFlight,
    queues: Arc<Queues>,
    /// Events that the front door answered as accepted.
    answered: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Functions(Vec<Arc<Function>>);

impl Functions {
    fn by_id(&self, id: &str) -> anyhow::Result<Arc<Function>> {
        let found = self.0.iter().find(|function| function.spec.id == id);
        found.cloned().ok_or_else(|| anyhow!("the template has no function {id}"))
    }

    /// Shuts all of their environments down, at the same time.
    async fn shut_down(self) {
        let shut_down = self.0.into_iter().map(|function| async move { function.shut_down().await });
        shut_down.collect::<JoinSet<()>>().join_all().await;
    }
}

impl<'a> Builder<'a> {
    fn new(config: &'a Config, template: &'a template::Stack) -> anyhow::Result<Self> {
        let open_files = open_files::raise_limit().context("the limit of open files")?;
        let logs = config.data_dir.join("logs");
        let faults = Faults::new(config.faults.clone(), &logs);
        let faults = faults.with_context(|| format!("DATA_DIR: {}", logs.display()))?;
        let started = lambda_setup::now();
        let clock = Clock::new(config.clock, started);
        let metrics = MetricStore::new(clock);
        counters::declare(&metrics, template);
        let (connections, in_flight) = (ConnectionLimits::of(open_files), InFlight::default());
        let is_read = |queue: &str| template.queue_mappings.iter().any(|mapping| mapping.queue == queue);
        let queues = Queues::new(&template.queues, is_read, in_flight.clone(), clock);
        let answered = Arc::default();
        Ok(Self { config, template, connections, clock, started, metrics, faults, in_flight, queues, answered })
    }

    /// What all functions share; they call AWS at this address.
    fn host(&self, aws: SocketAddr) -> Host {
        Host {
            binaries: self.config.functions_dir.clone(),
            aws_endpoint: format!("http://{aws}"),
            front_door: self.template.front_door.clone(),
            environments: self.faults.environments.clone(),
            metrics: self.metrics.clone(),
        }
    }

    fn watched(&self, aws: SocketAddr, front_door: SocketAddr) -> Watched<'_> {
        Watched { template: self.template, aws, front_door, clock: (self.config.clock, self.started) }
    }

    fn functions(&self, host: &Host) -> anyhow::Result<Functions> {
        let start = |spec: &template::Function| Function::new(spec.clone(), self.log_of(spec)?, host.clone());
        self.template.functions.iter().map(start).collect::<anyhow::Result<_>>().map(Functions)
    }

    fn log_of(&self, function: &template::Function) -> anyhow::Result<FunctionLog> {
        // Landing stamps its lines with the machine's time; other functions know the stack's by what invokes them.
        let lands = self.template.mappings.iter().any(|mapping| mapping.function == function.id);
        self.log(&function.binary, if lands { LineTime::Machine } else { LineTime::Stack })
    }

    fn log(&self, name: &str, times: LineTime) -> anyhow::Result<FunctionLog> {
        let logs = self.config.data_dir.join("logs");
        let log = FunctionLog::open(&logs, name, EmbeddedMetrics::new(self.metrics.clone(), times));
        log.with_context(|| format!("DATA_DIR: {}", logs.display()))
    }

    fn services(
        &self,
        functions: &Functions,
        port: TcpListener,
        functions_port: TcpListener,
        phases: &watch::Receiver<Phase>,
    ) -> anyhow::Result<(Kinesis, S3)> {
        let events = self.event_queues();
        let topics = Topics::new(self.template.subscriptions.clone(), events.clone(), self.queues.clone());
        let alarms = self.alarms(topics.clone())?;
        tokio::spawn(alarms.clone().run(phases.clone()));
        let folder = self.config.data_dir.join("s3");
        let notifications = self.notifications(&events, topics.clone());
        let s3 = S3::start(&folder, &self.template.buckets, notifications, self.clock);
        let s3 = s3.with_context(|| format!("DATA_DIR: {} can't hold buckets", folder.display()))?;
        let kinesis = Kinesis::start(self.metrics.clone(), self.clock);
        for stream in &self.template.streams {
            kinesis.create(stream);
            tokio::spawn(resharding::run(self.faults.clone(), kinesis.clone(), stream.name.clone()));
        }
        let notices = self.notices()?;
        let endpoint = AwsEndpoint {
            kinesis: kinesis.clone(),
            s3: s3.clone(),
            cloudwatch: CloudWatch::new(self.metrics.clone(), alarms),
            lambda: lambda::router(functions.0.clone(), self.in_flight.clone(), self.clock),
            metrics: self.metrics.clone(),
            faults: self.faults.clone(),
            sns: Sns::new(self.template.topics.clone(), topics, notices.clone(), self.clock),
            ses: self.ses(notices)?,
            ssm: Ssm::new(self.config.recipients.as_deref()),
        };
        tokio::spawn(endpoint.clone().serve(functions_port, self.connections.functions));
        tokio::spawn(endpoint.serve(port, self.connections.aws));
        functions.0.iter().for_each(|function| events.deliver_to(function));
        Ok((kinesis, s3))
    }

    /// Queues for the functions that S3 or a topic invokes.
    fn event_queues(&self) -> Arc<EventQueues> {
        let direct = self.template.notifications.iter().filter_map(|notification| match &notification.target {
            Target::Function(function) => Some(function.clone()),
            Target::Topic(_) => None,
        });
        let by_topic = self.template.subscriptions.iter().filter_map(|subscription| match &subscription.endpoint {
            Endpoint::Function(function) => Some(function.clone()),
            Endpoint::Queue { .. } => None,
        });
        EventQueues::new(direct.chain(by_topic), self.in_flight.clone(), self.clock)
    }

    /// The alarms of the templates that are nested in the template, which are beside it.
    fn alarms(&self, topics: Topics) -> anyhow::Result<Alarms> {
        let text = read_text(self.config)?;
        let nested = |path: &str| std::fs::read_to_string(self.config.template.with_file_name(path));
        let alarms = template::Stack::alarms(&text, &self.config.parameters, nested);
        let alarms = alarms.with_context(|| self.config.template.display().to_string())?;
        let publish = move |notice: &Notice| {
            let source = Source::Alarm(notice.alarm.clone());
            let Notice { subject, text, at, .. } = notice;
            topics.publish(&notice.topic, &Message { text, subject, at: *at, source: &source });
        };
        let alarms = Alarms::new(alarms, &self.config.parameters, self.metrics.clone(), Box::new(publish));
        let file = self.config.data_dir.join("alarms.json");
        alarms.kept_in(&file).with_context(|| format!("DATA_DIR: {}", file.display()))
    }

    fn notices(&self) -> anyhow::Result<Notices> {
        let logs = self.config.data_dir.join("logs");
        Notices::open(&logs).with_context(|| format!("DATA_DIR: {}", logs.display()))
    }

    fn ses(&self, notices: Notices) -> anyhow::Result<Ses> {
        let folder = self.config.data_dir.join("mail");
        Ses::new(&folder, notices, self.clock).with_context(|| format!("DATA_DIR: {}", folder.display()))
    }

    fn notifications(&self, events: &Arc<EventQueues>, topics: Topics) -> Arc<Notifications> {
        let reads_queue = |function: &str| self.template.queue_mappings.iter().any(|one| one.function == function);
        let handles_events = |function: &&template::Function| events.has(&function.id) || reads_queue(&function.id);
        let handlers = self.template.functions.iter().filter(handles_events);
        let handlers = handlers.map(|function| function.binary.clone()).collect();
        let targets = Targets { functions: events.clone(), topics, handlers };
        Notifications::new(self.template.notifications.clone(), targets, self.in_flight.clone(), self.clock)
    }

    fn queue_pollers(&self, functions: &Functions, phase: &watch::Receiver<Phase>) -> anyhow::Result<()> {
        for spec in &self.template.queue_mappings {
            let function = functions.by_id(&spec.function)?;
            let (queues, phase) = (self.queues.clone(), phase.clone());
            QueuePoller { spec: spec.clone(), queues, function, clock: self.clock, phase }.start();
        }
        Ok(())
    }

    fn schedules(
        &self,
        functions: &Functions,
        kinesis: &Kinesis,
        phase: &watch::Receiver<Phase>,
    ) -> anyhow::Result<()> {
        let (in_flight, progress, phase) = (self.in_flight.clone(), kinesis.progress.clone(), phase.clone());
        let schedules = Schedules { clock: self.clock, in_flight, progress, metrics: self.metrics.clone(), phase };
        for schedule in &self.template.schedules {
            let function = functions.by_id(&schedule.function)?;
            tokio::spawn(schedules.clone().run(schedule.clone(), function));
        }
        Ok(())
    }

    fn mappings(
        &self,
        functions: &Functions,
        (kinesis, s3): &(Kinesis, S3),
        phase: &watch::Receiver<Phase>,
    ) -> anyhow::Result<Mappings> {
        let mut mappings = JoinSet::new();
        for spec in &self.template.mappings {
            let failed_batches = spec.on_failure_bucket.clone();
            let failed_batches = failed_batches.map(|bucket| FailedBatches::new(s3.clone(), bucket, self.clock));
            let mapping = EventSourceMapping {
                spec: spec.clone(),
                kinesis: kinesis.clone(),
                function: functions.by_id(&spec.function)?,
                failed_batches,
                faults: self.faults.clone(),
                clock: self.clock,
                phase: phase.clone(),
            };
            mappings.spawn(shard_readers::run(mapping));
        }
        Ok(mappings)
    }

    fn traffic(&self, functions: &Functions, kinesis: &Kinesis) -> anyhow::Result<Traffic> {
        let answered = match self.config.front_door {
            FrontDoorKind::Lambda => Accepted::Answered(self.answered.clone()),
            // The server counts by the name of the function in whose place it is.
            FrontDoorKind::Server => Accepted::Counted(self.ingest(functions)?.name().to_owned()),
        };
        let lands =
            |function: &&template::Function| self.template.mappings.iter().any(|one| one.function == function.id);
        let landing = self.template.functions.iter().filter(lands).map(|function| function.binary.clone()).collect();
        Ok(Traffic::new(answered, landing, (self.metrics.clone(), kinesis.progress.clone(), self.clock)))
    }

    async fn function_url(
        &self,
        functions: &Functions,
        stopping: watch::Receiver<bool>,
    ) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
        let listener = listen("PORT", self.config.port).await?;
        let address = listener.local_addr()?;
        let port = Port { listener, door: Door::Events, max_connections: self.connections.events };
        let front_door = FrontDoor::new(self.ingest(functions)?, self.clock, self.answered.clone());
        Ok((address, tokio::spawn(front_door.serve(port, stopping))))
    }

    async fn ingest_server(
        &self,
        functions: &Functions,
        host: Host,
        stopping: watch::Receiver<bool>,
    ) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
        let (spec, log) = (self.ingest(functions)?.spec.clone(), self.log(ingest_server::BINARY, LineTime::Machine)?);
        let server = IngestServer::new(spec, host, log, self.config.port)?;
        server.start(stopping).await
    }

    /// The function that has the Function URL.
    fn ingest(&self, functions: &Functions) -> anyhow::Result<Arc<Function>> {
        let has_url = |function: &&Arc<Function>| Some(function.name()) == self.template.front_door.as_deref();
        let function = functions.0.iter().find(has_url).cloned();
        function.ok_or_else(|| anyhow!("no function of the template has an AWS::Lambda::Url"))
    }
}
