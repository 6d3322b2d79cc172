//! Everything together: started in order, and stopped so that nothing that was answered is left behind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::asynchronous::OnTheirWay;
use crate::aws_endpoint::AwsEndpoint;
use crate::claim::Claim;
use crate::clock::Clock;
use crate::cloudwatch::CloudWatch;
use crate::config::Config;
use crate::event_source_mapping::{EventSourceMapping, Phase, Surroundings};
use crate::failed_batches::FailedBatches;
use crate::faults::{Faults, resharding};
use crate::function::Function;
use crate::function_url;
use crate::kinesis::{Kinesis, KinesisError};
use crate::landed_until::LandedUntil;
use crate::log::FunctionLog;
use crate::metric_store::MetricStore;
use crate::s3::S3;
use crate::s3_notifications::Notifications;
use crate::schedules::Schedules;
use crate::{counters, lambda, template};

/// The longest that requests under way may take when the stack stops. What comes later is answered 503.
const FRONT_DOOR_DRAIN: Duration = Duration::from_secs(30);
/// The longest that landing what is there may take when the stack stops.
const LANDING_DRAIN: Duration = Duration::from_secs(120);
/// The longest that events of objects and schedules may take to arrive after that.
const EVENT_DRAIN: Duration = Duration::from_secs(20);

/// A running stack.
pub struct Stack {
    pub front_door: SocketAddr,
    pub aws: SocketAddr,
    stop_front_door: watch::Sender<bool>,
    front_door_server: JoinHandle<()>,
    kinesis: Kinesis,
    faults: Arc<Faults>,
    phase: watch::Sender<Phase>,
    mappings: JoinSet<Result<(), KinesisError>>,
    unlanded: Vec<Arc<AtomicU64>>,
    on_their_way: OnTheirWay,
    _claim: Claim,
}

impl Stack {
    /// Starts all parts, the front door last.
    ///
    /// # Errors
    ///
    /// When a part can't start; the message names the file or variable to look at.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let template = read_template(config)?;
        let claim = Claim::of(&config.data_dir).await?;
        let front_door = listen("PORT", config.port).await?;
        let aws = listen("AWS_PORT", config.aws_port).await?;
        let aws_address = aws.local_addr()?;

        let logs = config.data_dir.join("logs");
        let faults =
            Faults::new(config.faults.clone(), &logs).with_context(|| format!("DATA_DIR: {}", logs.display()))?;
        let clock = Clock::new(config.clock, lambda_setup::now());
        let metrics = MetricStore::new(clock);
        counters::declare(&metrics, &template);
        let on_their_way = OnTheirWay::default();
        let notifications = notifications(&template, &on_their_way, clock);
        let buckets = config.data_dir.join("s3");
        let s3 = S3::start(&buckets, &template.buckets, notifications.clone(), clock)?;
        let (kinesis, kinesis_api) = Kinesis::start(metrics.clone(), clock);
        for stream in &template.streams {
            kinesis.create(stream).await?;
            tokio::spawn(resharding::run(faults.clone(), kinesis.clone(), stream.name.clone()));
        }
        let cloudwatch = CloudWatch::new(metrics.clone());
        let functions = start_functions(config, &template, aws_address, &faults, &metrics)?;
        let lambda = lambda::router(functions.clone(), on_their_way.clone(), clock);
        let endpoint = AwsEndpoint { kinesis: kinesis_api, s3, cloudwatch, lambda, metrics, faults: faults.clone() };
        tokio::spawn(endpoint.serve(aws));

        functions.iter().for_each(|function| notifications.deliver_to(function));
        let function = |id: &str| {
            let found = functions.iter().find(|function| function.id() == id);
            found.cloned().ok_or_else(|| anyhow!("the template has no function {id}"))
        };
        let (phase, phases) = watch::channel(Phase::Running);
        let landed_until = LandedUntil::default();
        let surroundings = Surroundings {
            kinesis: kinesis.clone(),
            faults: faults.clone(),
            clock,
            landed_until: landed_until.clone(),
            phase: phases.clone(),
        };
        let (mut mappings, mut unlanded) = (JoinSet::new(), Vec::new());
        for spec in template.mappings {
            let failed_batches = spec.on_failure_bucket.as_ref();
            let failed_batches = failed_batches.map(|bucket| FailedBatches::new(buckets.join(bucket), clock));
            let function = function(&spec.function)?;
            let mapping = EventSourceMapping::new(spec, function, failed_batches, surroundings.clone());
            unlanded.push(mapping.unlanded());
            mappings.spawn(mapping.run());
        }
        let schedules = Schedules { clock, on_their_way: on_their_way.clone(), landed_until, phase: phases };
        for schedule in template.schedules {
            let function = function(&schedule.function)?;
            tokio::spawn(schedules.clone().run(schedule, function));
        }

        let with_url =
            template.functions.iter().find(|function| Some(&function.binary) == template.front_door.as_ref());
        let with_url = with_url.ok_or_else(|| anyhow!("no function of the template has an AWS::Lambda::Url"))?;
        let front_door_address = front_door.local_addr()?;
        let (stop_front_door, stopping) = watch::channel(false);
        let server = function_url::serve(front_door, function(&with_url.id)?, clock, stopping);
        Ok(Self {
            front_door: front_door_address,
            aws: aws_address,
            stop_front_door,
            front_door_server: tokio::spawn(server),
            kinesis,
            faults,
            phase,
            mappings,
            unlanded,
            on_their_way,
            _claim: claim,
        })
    }

    /// Resolves when a part of the stack ended that never should.
    ///
    /// # Errors
    ///
    /// Always: with what ended.
    pub async fn fails(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            ended = &mut self.front_door_server => Err(anyhow!("the front door ended: {ended:?}")),
            Some(ended) = self.mappings.join_next() => Err(anyhow!("an event source mapping ended: {ended:?}")),
        }
    }

    /// Takes no more events, finishes the requests under way, lands all that is on the streams, and delivers the events of
    /// what landed, as far as there is time: what lands is safe without them.
    ///
    /// # Errors
    ///
    /// When something could not be landed in the time there is.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop_front_door.send_replace(true);
        if tokio::time::timeout(FRONT_DOOR_DRAIN, self.front_door_server).await.is_err() {
            tracing::warn!("requests were still under way {} s after the stop", FRONT_DOOR_DRAIN.as_secs());
        }
        // Whoever stops a stack wants what it has on disk.
        self.faults.end();
        // What still comes, from a request that takes longer or from another producer, is told so.
        self.kinesis.close().await;
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
                let unlanded: u64 = self.unlanded.iter().map(|count| count.load(Ordering::Relaxed)).sum();
                return Err(anyhow!(
                    "not everything landed in {} s: batches of {unlanded} records failed again and again, and what is \
                     behind them did not land either; see the log of the landing function",
                    LANDING_DRAIN.as_secs()
                ));
            }
        }
        if tokio::time::timeout(EVENT_DRAIN, self.on_their_way.fewer_than(1)).await.is_err() {
            let events = self.on_their_way.count();
            tracing::warn!(events, "events of objects and schedules did not arrive in {} s", EVENT_DRAIN.as_secs());
        }
        Ok(())
    }
}

fn read_template(config: &Config) -> anyhow::Result<template::Stack> {
    let path = config.template.display();
    let text = std::fs::read_to_string(&config.template).with_context(|| format!("TEMPLATE: {path}"))?;
    template::Stack::parse(&text, &config.parameters).with_context(|| path.to_string())
}

fn notifications(template: &template::Stack, on_their_way: &OnTheirWay, clock: Clock) -> Arc<Notifications> {
    let rules = template.notifications.clone();
    let takes_events = |function: &&template::Function| rules.iter().any(|rule| rule.function == function.id);
    let takers = template.functions.iter().filter(takes_events).map(|function| function.binary.clone()).collect();
    Notifications::new(rules, takers, on_their_way.clone(), clock)
}

async fn listen(variable: &str, port: u16) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    listener.with_context(|| format!("{variable}: port {port} can't be had; {variable}=0 picks a free one"))
}

fn start_functions(
    config: &Config,
    template: &template::Stack,
    aws: SocketAddr,
    faults: &Faults,
    metrics: &MetricStore,
) -> anyhow::Result<Vec<Arc<Function>>> {
    let logs = config.data_dir.join("logs");
    let start = |spec: &template::Function| {
        let log = FunctionLog::open(&logs, &spec.binary, metrics.clone());
        let log = log.with_context(|| format!("DATA_DIR: {}", logs.display()))?;
        let (endpoint, environments) = (format!("http://{aws}"), faults.environments.clone());
        Function::new(spec.clone(), &config.functions_dir, endpoint, log, environments, metrics.clone())
    };
    template.functions.iter().map(start).collect()
}
