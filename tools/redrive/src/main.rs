//! Lands again what did not land as it should have: batches that were given up, rejected lines after a fix, and the records of
//! an hour whose objects are lost.
//!
//! All of it may be run twice, killed half way and run again: nothing is landed twice by that, and nothing is removed before
//! what it holds has landed.

#![recursion_limit = "256"]

mod batches;
mod bucket;
mod event_format;
mod failed_batch;
mod landed_counts;
mod lander;
mod rejected;
mod replay;
mod stream;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use ingest_lambda::content::body_form;
use shared::line::EventFormat;
use shared::rejection::Reason;
use shared::timestamp::UtcHour;

use monitoring_lambdas::cloudwatch::CloudWatch;

use bucket::Bucket;
use event_format::Formats;
use lander::Lander;
use rejected::read_options::ReadOptions;
use replay::{LandingNow, Replay};
use stream::Stream;

/// Lands again what did not land as it should have. Credentials and region come from the AWS environment variables.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lands the batches of the on-failure destination, each record exactly once, and removes those that have landed.
    Batches {
        /// The bucket of failed batches (the stack's output FailedBatchesBucketName).
        #[arg(long, value_name = "BUCKET")]
        from: String,
        /// The bucket that the batches should have landed in (the output LandingBucketName).
        #[arg(long, value_name = "BUCKET")]
        to: String,
        /// Only batches whose keys begin so.
        #[arg(long, default_value = failed_batch::PREFIX)]
        prefix: String,
        #[command(flatten)]
        format: FormatArgument,
    },
    /// Reads rejected lines again, as this version reads bodies, and lands the events that it finds in them, beside the
    /// rejected lines, which stay.
    Rejected {
        /// The landing bucket.
        #[arg(long)]
        bucket: String,
        /// The partitions to read: a date, or an hour of one.
        #[arg(long, value_name = "rejected/dt=…/hour=…/")]
        prefix: String,
        /// The reasons whose lines are read again, with commas between.
        #[arg(long, value_delimiter = ',', required = true, value_name = "REASON,…", value_parser = reason)]
        reasons: Vec<Reason>,
        /// Read whole bodies as this type, whatever their senders called it.
        #[arg(long, value_name = "TYPE", value_parser = content_type)]
        content_type: Option<String>,
        #[command(flatten)]
        format: FormatArgument,
    },
    /// Reads an hour from the stream again and lands the records that are in no object, each exactly once, when landing is
    /// done with the hour.
    Replay {
        /// The stream (the output StreamName).
        #[arg(long)]
        stream: String,
        /// The landing bucket (the output LandingBucketName).
        #[arg(long)]
        bucket: String,
        /// The bucket of failed batches (the output FailedBatchesBucketName); what they hold is not replayed.
        #[arg(long, value_name = "BUCKET")]
        failed_batches: String,
        /// The hour in which the records arrived (UTC).
        #[arg(long, value_name = "dt=…/hour=…", value_parser = utc_hour)]
        hour: UtcHour,
        /// The function that lands (ops physical LandingFunction): CloudWatch knows how far it is.
        #[arg(long, value_name = "FUNCTION", required_unless_present = "landing_is_gone")]
        landing_function: Option<String>,
        /// The stack was deleted and its stream was not: nothing else lands its records any more.
        #[arg(long, conflicts_with = "landing_function")]
        landing_is_gone: bool,
        #[command(flatten)]
        format: FormatArgument,
    },
}

impl Command {
    fn landing_bucket(&self) -> &str {
        match self {
            Self::Batches { to: bucket, .. } | Self::Rejected { bucket, .. } | Self::Replay { bucket, .. } => bucket,
        }
    }
}

#[derive(Args, Clone, Copy)]
struct FormatArgument {
    /// What a landed line is, envelope or raw: only where what landed around it does not say so.
    #[arg(long, value_parser = event_format)]
    event_format: Option<EventFormat>,
}

fn event_format(text: &str) -> Result<EventFormat, String> {
    EventFormat::parse(text).ok_or_else(|| "envelope or raw".into())
}

fn reason(text: &str) -> Result<Reason, String> {
    let found = Reason::ALL.into_iter().find(|reason| reason.as_str() == text);
    found.ok_or_else(|| format!("it is one of {}", Reason::ALL.map(Reason::as_str).join(", ")))
}

fn content_type(text: &str) -> Result<String, String> {
    body_form(Some(text)).map(|_| text.to_owned()).map_err(|rejection| rejection.detail.to_string())
}

fn utc_hour(text: &str) -> Result<UtcHour, String> {
    UtcHour::parse(text).ok_or_else(|| "an hour is written dt=2026-11-21/hour=09".into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("redrive: {problem:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was done.
async fn run(command: Command) -> anyhow::Result<bool> {
    let config = lambda_setup::sdk::loader().load().await;
    let cloudwatch = CloudWatch::new(&config);
    let bucket = |name: &str| Bucket::new(&config, name.to_owned());
    let lander = Lander::new(&config, command.landing_bucket().to_owned());
    let landing_bucket = bucket(command.landing_bucket());
    let formats = |format: FormatArgument| Formats::new(landing_bucket.clone(), format.event_format);
    let is_done = match command {
        Command::Batches { from, to, prefix, format } => {
            let redrive =
                batches::Redrive { from: bucket(&from), to: bucket(&to), lander: &lander, formats: formats(format) };
            redrive.all(&prefix).await
        }
        Command::Rejected { bucket: name, prefix, reasons, content_type, format } => {
            let options = ReadOptions { reasons, content_type };
            rejected::Redrive::new(bucket(&name), &lander, formats(format), options).all(&prefix).await
        }
        Command::Replay { stream, bucket: name, failed_batches, hour, landing_function, format, .. } => {
            let landing_now = landing_function.map(|function| LandingNow {
                metrics: cloudwatch.clone(),
                stream: stream.clone(),
                function,
                now: lambda_setup::now(),
            });
            let replay = Replay {
                stream: Stream::new(&config, stream),
                landing: bucket(&name),
                failed_batches: bucket(&failed_batches),
                lander: &lander,
                formats: formats(format),
                landing_now,
            };
            replay.hour(hour).await
        }
    };
    // Whatever went wrong, what has landed counts.
    lander
        .landed
        .put(&cloudwatch)
        .await
        .context("everything reported above has landed, but CloudWatch has not counted it")?;
    is_done
}
