//! `make run`: the whole pipeline on this machine.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use lambda_setup::environment::{self, EnvironmentError};
use lambda_setup::log::UtcMillis;
use local::aws_endpoint::METRICS_PATH;
use local::config::Config;
use local::stack::Stack;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const HELP: &str = "\
Runs the whole pipeline on this machine: `make run` builds what it needs and starts it. It takes no arguments, but variables:

  PORT           where events are posted; 0 picks a free port [8080]
  AWS_PORT       where Kinesis, S3, CloudWatch and Lambda's Invoke answer; 0 picks a free port [4566]
  STATUS_PORT    where the status page is; 0 picks a free port [8081]
  DATA_DIR       landed files go to s3/<bucket>/, logs to logs/ in it [data]
  PARAMETERS     template parameters: \"BatchSize=10 BatchingWindowSeconds=1\"
  TEMPLATE       the template to run [template.yaml]
  FUNCTIONS_DIR  the folder of the functions' binaries [where this one is]
  FAULTS         what goes wrong on purpose: \"seed=1 all=0.02\"
  FRONT_DOOR     what takes events: lambda or server [lambda]
  RECIPIENTS     who gets notices, as JSON: docs/CONFIGURATION.md
  CLOCK          another start and a factor: \"2026-11-18T00:00:00Z x1440\"
  RUST_LOG       how much the stack itself says on the terminal [local=info]

Ctrl-C stops it: it takes no more events, lands what it has, and exits with 0.
";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.first() {
        None => {}
        Some(help) if help == "--help" || help == "-h" => {
            say(HELP.trim_end());
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!(
                "local: {} is not an argument; `local --help` lists the variables that it takes",
                other.display()
            );
            return ExitCode::from(2);
        }
    }
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{} ERROR {problem:#}", lambda_setup::now().rfc3339());
            ExitCode::FAILURE
        }
    }
}

/// The stack's own log goes to the terminal. Warnings of the embedded libraries go to a file: they report a client's mistakes
/// as errors, which mean nothing to a person at the terminal.
fn start_log(folder: &Path) -> anyhow::Result<()> {
    let place = || format!("DATA_DIR: {}", folder.display());
    std::fs::create_dir_all(folder).with_context(place)?;
    let file = File::options().create(true).append(true).open(folder.join("local.log")).with_context(place)?;
    let own = Targets::new().with_target("local", Level::INFO);
    let terminal = match environment::optional("RUST_LOG")? {
        Some(text) => {
            text.parse().map_err(|problem| EnvironmentError::new("RUST_LOG", format!("is {text:?}: {problem}")))?
        }
        None => own.clone(),
    };
    // A closed terminal or a full disk must not stop the landing.
    let lines = || tracing_subscriber::fmt::layer().with_timer(UtcMillis).with_ansi(false).log_internal_errors(false);
    tracing_subscriber::registry()
        .with(vec![
            lines().with_target(false).with_writer(io::stderr).with_filter(terminal).boxed(),
            lines().with_writer(Mutex::new(file)).with_filter(own.with_default(Level::WARN)).boxed(),
        ])
        .init();
    Ok(())
}

async fn run() -> anyhow::Result<()> {
    let config = Config::from_environment()?;
    start_log(&config.data_dir)?;
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
    say(&format!("page: http://{}/", stack.page));
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

/// Prints, if anyone still listens: `make run | tee log` loses its reader to the same Ctrl-C, and must still land.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    if let Err(problem) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!(%problem, line, "nobody reads standard output");
    }
}

/// Signals that come within this time belong to the same stop.
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

    /// Resolves when a person presses Ctrl-C again. Signals of one stop come in pairs: a shell and the kernel both report a
    /// closed terminal, and `make` passes on what its group has received already.
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
