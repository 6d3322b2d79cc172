//! `make run`: the whole pipeline on this machine.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use local::aws_endpoint::METRICS_PATH;
use local::config::Config;
use local::stack::Stack;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    // The embedded services log every request at INFO; what they have to say to a user is at WARN.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,local=info,s3s=error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        // A closed terminal must not end the landing of what is there.
        .log_internal_errors(false)
        .init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            tracing::error!("{problem:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let config = Config::from_environment()?;
    let mut signals = Signals::listen()?;
    let mut stack = Stack::start(&config).await?;
    announce(&config, &stack)?;
    tokio::select! {
        failed = stack.fails() => return failed,
        () = signals.next() => say("stopping: taking no more events, landing what is here (Ctrl-C again to give up)"),
    }
    tokio::select! {
        stopped = stack.stop() => stopped?,
        () = signals.gives_up() => anyhow::bail!("given up: what had not landed is lost"),
    }
    say("stopped: everything that was taken has landed");
    Ok(())
}

fn announce(config: &Config, stack: &Stack) -> anyhow::Result<()> {
    let folder = std::path::absolute(&config.data_dir)?;
    say(&format!("files: {}", folder.join("s3").display()));
    say(&format!("logs: {}", folder.join("logs").display()));
    let services = "Kinesis, S3, CloudWatch and Lambda's Invoke; any access key whose secret is the same text";
    say(&format!("aws: http://{} ({services})", stack.aws));
    say(&format!("metrics: http://{}{METRICS_PATH}", stack.aws));
    if let Some(pace) = &config.clock {
        say(&format!("clock: {pace}"));
    }
    if config.faults.is_active() {
        say(&format!("faults: {} (journal: {})", config.faults, folder.join("logs/faults.jsonl").display()));
    }
    say(&format!("ready: POST http://{}/events", stack.front_door));
    Ok(())
}

/// Prints, if anyone still listens: `make run | tee log` loses its reader to the same Ctrl-C, and must land all the same.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    if let Err(problem) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!(%problem, line, "nobody reads standard output");
    }
}

/// A signal that comes so soon after another tells of the same stop.
const SAME_STOP: Duration = Duration::from_secs(1);

/// Ctrl-C, the signal of service managers, and that of a terminal which closes.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Resolves when a person presses Ctrl-C again. Signals of the same stop come in twos: a shell and the kernel both tell
    /// of a closed terminal, and `make` passes on what its group has got already.
    async fn gives_up(&mut self) {
        let first = Instant::now();
        loop {
            match self.interrupt.recv().await {
                Some(()) if first.elapsed() >= SAME_STOP => return,
                Some(()) => {}
                // No more signals can come.
                None => std::future::pending().await,
            }
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
