//! `status`: the page that shows what is going on in a stack, on 127.0.0.1. docs/STATUS.md describes it.

// The types of the SDK nest deeper than the compiler's default.
#![recursion_limit = "256"]

mod alarms;
mod api;
mod checks;
mod config;
mod flow;
mod follow;
mod hour_state;
mod hours;
mod incidents;
mod lines;
mod metrics;
mod observer;
mod series_end;
mod size_band;
mod snapshot;
mod store;
mod stream;
mod wait;

use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use lambda_setup::bucket::{self, S3Bucket};
use local::gate::Door;
use local::server::Port;
use tokio::net::TcpListener;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::api::Api;
use crate::config::Config;
use crate::observer::Observer;
use crate::snapshot::About;

const HELP: &str = "\
Shows what is going on in a stack, on a page of this machine: `make run` starts it, and `make status ENV=prod` shows a stack in AWS,
with your own credentials. docs/STATUS.md describes the page, its API and its variables.
";
/// Browsers open up to six connections each.
const MAX_CONNECTIONS: usize = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some() {
        eprint!("{HELP}");
        return ExitCode::from(2);
    }
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("status: {problem:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let config = Arc::new(Config::from_environment()?);
    let sdk = lambda_setup::sdk::loader().load().await;
    let bucket = S3Bucket::new(bucket::client(&sdk), config.bucket.clone());
    let (observer, watch) = Observer::new(config.clone(), bucket, &sdk);
    let listener = TcpListener::bind(("127.0.0.1", config.port)).await;
    let listener =
        listener.with_context(|| format!("PORT: port {} is not available; PORT=0 picks a free one", config.port))?;
    let address = listener.local_addr()?;
    let api = Api::new(watch, about(&config))?;
    let (_runs_on, stopping) = watch::channel(false);
    let port = Port { listener, door: Door::Page, max_connections: MAX_CONNECTIONS };
    let serving = port.serve(move |_, request| answer(api.clone(), request), stopping);
    say(&format!("page: http://{address}/"));
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        () = serving => {}
        () = observer.run() => {}
        ended = stdin_ends(), if config.until_stdin_ends => ended?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Resolves when standard input ends, and passes over what comes before. Nothing is left reading at another end of this program,
/// as a thread would be.
async fn stdin_ends() -> std::io::Result<()> {
    let stdin = Receiver::from_owned_fd(std::io::stdin().as_fd().try_clone_to_owned()?)?;
    loop {
        stdin.readable().await?;
        match stdin.try_read(&mut [0; 256]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(problem) if problem.kind() == ErrorKind::WouldBlock => {}
            Err(problem) => return Err(problem),
        }
    }
}

async fn answer(
    api: Api,
    request: axum::http::Request<axum::body::Bytes>,
) -> Result<axum::http::Response<axum::body::Body>, local::faults::NoAnswer> {
    Ok(api.answer(request).await)
}

fn about(config: &Config) -> About {
    About {
        bucket: config.bucket.clone(),
        events_url: config.events_url.clone(),
        runbook_url: config.runbook_url.clone(),
        refresh_milliseconds: config.refresh.as_millis(),
        metrics_delay_seconds: config.metrics_delay.as_secs(),
    }
}

/// Prints, if anyone still listens.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(problem) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        eprintln!("status: nobody reads standard output: {problem}");
    }
}
