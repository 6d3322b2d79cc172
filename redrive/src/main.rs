//! Lands again what did not land as it should have: whole batches that were given up, and rejected lines after a fix.
//!
//! Both may be run twice, killed half way and run again: nothing is landed twice by that, and nothing is removed before
//! what it holds has landed.

#![recursion_limit = "256"]

mod batches;
mod bucket;
mod decision;
mod found;
mod land;
mod landed;
mod object_lines;
mod redriven;
mod rejected;
mod rejected_line;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use shared::line::EventFormat;

use bucket::Bucket;
use land::Lander;
use monitoring_lambdas::cloudwatch::CloudWatch;

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
        #[arg(long, default_value = "aws/lambda/")]
        prefix: String,
        /// What a landed line is: envelope, or raw, as the stack's parameter EventFormat says.
        #[arg(long, default_value = "envelope", value_parser = event_format)]
        event_format: EventFormat,
    },
    /// Reads rejected lines again with this version's eyes and lands the events that it finds in them, beside the
    /// rejected lines, which stay.
    Rejected {
        /// The landing bucket.
        #[arg(long)]
        bucket: String,
        /// The partitions to read: a date, or an hour of one.
        #[arg(long, value_name = "rejected/dt=…/hour=…/")]
        prefix: String,
        /// The reasons whose lines are read again, with commas between.
        #[arg(long, value_delimiter = ',', required = true, value_name = "REASON,…")]
        reasons: Vec<String>,
        /// Read whole bodies as this type, whatever their senders called it.
        #[arg(long, value_name = "TYPE")]
        content_type: Option<String>,
        /// What a landed line is: envelope, or raw, as the stack's parameter EventFormat says.
        #[arg(long, default_value = "envelope", value_parser = event_format)]
        event_format: EventFormat,
    },
}

fn event_format(text: &str) -> Result<EventFormat, String> {
    EventFormat::parse(text).ok_or_else(|| "envelope or raw".into())
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
    let lander = |bucket: String| Lander::new(&config, bucket);
    let (lander, is_done) = match command {
        Command::Batches { from, to, prefix, event_format } => {
            let (from, landing, lander) = (Bucket::new(&config, from), Bucket::new(&config, to.clone()), lander(to));
            let redrive = batches::Redrive::new(from, landing, lander.clone(), event_format);
            (lander, redrive.all(&prefix).await)
        }
        Command::Rejected { bucket, prefix, reasons, content_type, event_format } => {
            let reading = rejected::Reading::new(&reasons, content_type, event_format)?;
            let (bucket, lander) = (Bucket::new(&config, bucket.clone()), lander(bucket));
            let is_done = rejected::redrive(&bucket, &lander, &prefix, &reading).await;
            (lander, is_done)
        }
    };
    // Whatever came in the way, what has landed counts.
    lander.landed.put(&CloudWatch::new(&config)).await.context("what is said above has landed, but is not counted")?;
    is_done
}
