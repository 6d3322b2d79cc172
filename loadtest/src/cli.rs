//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::ledger::{MAX_RUN_ID_BYTES, is_run_id};
use crate::rate::{RateError, Shape};
use crate::thresholds::share;

const OUTCOMES: &str = "\
Exit codes:
  0  PASS: every threshold holds
  1  FAIL: at least one does not
  2  it could not run: wrong usage, no connection, no access to the bucket
  3  INVALID: the generator fell behind its plan, so what was measured is not the system";

const RUN_HELP: &str = "\
POSTs leave at their planned times whatever the answers do (open loop), and latency counts from the planned time: a
system that stalls is not waited for, and its stall shows.

Rates, in POSTs a second (with --replay, in sessions a second):
  1000           constant
  100..2000      ramp, evenly over the whole run
  100,500,1000   steps of equal length
  100^2000       100, with 2000 in the middle fifth of the run

Thresholds: a name, one of < <= > >= =, and a value with its unit.
  p50 p90 p95 p99 p99.9 p99.99 max mean   latency, such as p99<50ms
  service_p99 …                           from the real sending on; what a closed loop would have seen
  landed_p50 … landed_max                 from the planned time until the file is in the bucket
  errors                                  share of POSTs without the answer that they should get, such as errors<0.1%
  missing doubled misplaced               events, such as missing=0; known with --bucket alone
  unknown                                 events without an answer that says what became of them
  rate events_rate                        POSTs and events a second that were answered in time, such as rate>990
Without any it is errors<0.1%, and with --bucket also missing=0, doubled=0, misplaced=0.

Examples:
  loadtest run --rate 1000 --duration 60s --events-per-post 1 --threshold 'p99<50ms'
  loadtest run --rate 100..2000 --duration 5m --result result.json --report report.html
  loadtest run --rate 20 --replay tests/fixtures/mux-embed-session.jsonl --speed 10
  AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=us-east-1 \\
    loadtest run --bucket landing-bucket --endpoint-url http://127.0.0.1:4566 --bad 1%
";

const FIND_MAX_HELP: &str = "\
Doubles the rate from --from until a step fails or --to is reached, then halves the distance between the highest rate that
passed and the lowest that did not, until they are within 5% of each other. An INVALID step is the generator's limit and not
the system's; the search does not go above it, and says so.

Example:
  loadtest find-max --from 200 --to 20000 --step-duration 10s --threshold 'p99<50ms'
";

/// How much a deployment of Playhead carries: load like real players', and the truth about what landed.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, after_help = OUTCOMES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sends POSTs at a rate, and says whether the system kept to the thresholds.
    #[command(after_help = [RUN_HELP, OUTCOMES].join("\n"))]
    Run(Box<RunArgs>),
    /// Searches for the highest constant rate at which all thresholds hold.
    #[command(after_help = [FIND_MAX_HELP, OUTCOMES].join("\n"))]
    FindMax(Box<FindMaxArgs>),
    /// Shows two results side by side.
    Compare(CompareArgs),
    /// Makes the HTML report of a result.
    Report(ReportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// POSTs a second: 1000, 100..2000, 100,500,1000 or 100^2000; see below
    #[arg(long, default_value = "100", value_name = "RATE", value_parser = rate)]
    pub(crate) rate: Rate,
    /// How long POSTs are sent, such as 60s or 5m; answers are waited for after it
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = time)]
    pub(crate) duration: Duration,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Where the HTML report goes
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct FindMaxArgs {
    /// The first rate, in POSTs a second
    #[arg(long, default_value_t = 100.0, value_name = "RATE", value_parser = plain_rate)]
    pub(crate) from: f64,
    /// The highest rate that is tried
    #[arg(long, default_value_t = 20_000.0, value_name = "RATE", value_parser = plain_rate)]
    pub(crate) to: f64,
    /// How long each rate is tried
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = time)]
    pub(crate) step_duration: Duration,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// What `run` and `find-max` have in common.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Where events are posted; https:// speaks TLS
    #[arg(long, default_value = "http://127.0.0.1:8080/events", value_name = "URL")]
    pub(crate) url: String,
    /// Connections that are open from the start and kept alive
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = positive)]
    pub(crate) connections: usize,
    /// Connections at most; beyond --connections they are opened when all are busy
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = positive)]
    pub(crate) max_connections: usize,
    /// HTTP/2: by prior knowledge on http://, by ALPN on https://
    #[arg(long)]
    pub(crate) http2: bool,
    /// Certificates to trust in TLS, in a PEM file, instead of the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long, conflicts_with = "cacert")]
    pub(crate) insecure: bool,
    /// How long an answer is waited for
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = time)]
    pub(crate) timeout: Duration,
    /// The same seed and run id send the same bytes in the same order
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// What the run's events are told by, in letters and digits [default: of chance]
    #[arg(long, value_name = "ID", value_parser = run_id)]
    pub(crate) run_id: Option<String>,
    /// Events a POST: a number, or the fewest and the most, such as 1..50
    #[arg(long, default_value = "20", value_name = "N", value_parser = events_per_post)]
    pub(crate) events_per_post: EventsPerPost,
    /// Pads each event to about so many bytes [default: as players send them, some 300]
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = event_bytes)]
    pub(crate) event_bytes: usize,
    /// Share of POSTs that are bad, in several ways, such as 1%; each has the answer that it should get
    #[arg(long, default_value = "0%", value_name = "SHARE", value_parser = of_a_million)]
    pub(crate) bad: u32,
    /// Viewers that post in turn, each with its sessions
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = viewers)]
    pub(crate) viewers: u32,
    /// Replays a recorded session instead, a copy for each session that --rate asks for
    #[arg(long, value_name = "FILE")]
    pub(crate) replay: Option<PathBuf>,
    /// How fast it is replayed; 1 is as recorded
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", requires = "replay", value_parser = speed)]
    pub(crate) speed: f64,
    /// The landing bucket: everything in it is read at the end, and each event looked for by its id. Credentials and region
    /// come from the AWS environment variables or the profile
    #[arg(long, value_name = "NAME")]
    pub(crate) bucket: Option<String>,
    /// Where S3 and CloudWatch are, if it is not AWS; AWS_ENDPOINT_URL says the same
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint_url: Option<String>,
    /// How functions and streams begin whose metrics are shown, such as playhead-dev- [default: all]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PREFIX")]
    pub(crate) metrics_prefix: String,
    /// For how long nothing may land, while something is missing, before it counts as missing
    #[arg(long, default_value = "180s", value_name = "TIME", value_parser = time)]
    pub(crate) landing_timeout: Duration,
    /// How long to look on after everything was found: what comes twice comes up to a batching window later
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = time)]
    pub(crate) settle: Duration,
    /// What must hold, such as 'p99<50ms'; again, or with commas, for more
    #[arg(long, value_name = "THRESHOLD")]
    pub(crate) threshold: Vec<String>,
    /// A file of thresholds, one a line; # begins a comment
    #[arg(long, value_name = "FILE")]
    pub(crate) thresholds: Option<PathBuf>,
    /// How late 99 of 100 POSTs may leave before the run is INVALID
    #[arg(long, default_value = "20ms", value_name = "TIME", value_parser = time)]
    pub(crate) max_lag: Duration,
    /// Where the result goes, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) result: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// A result that `run --result` wrote
    #[arg(value_name = "A")]
    pub(crate) a: PathBuf,
    /// Another
    #[arg(value_name = "B")]
    pub(crate) b: PathBuf,
    /// Where the comparison goes as HTML
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// A result that `run --result` wrote
    #[arg(value_name = "RESULT")]
    pub(crate) result: PathBuf,
    /// Where the report goes [default: the result's name with .html]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// A rate as it was written, and as it is meant.
#[derive(Debug, Clone)]
pub(crate) struct Rate {
    pub(crate) text: String,
    pub(crate) shape: Shape,
}

fn rate(text: &str) -> Result<Rate, RateError> {
    Ok(Rate { text: text.to_owned(), shape: text.parse()? })
}

fn plain_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(Shape::Constant(rate)) => Ok(rate),
        Ok(_) => Err("one rate, such as 100".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Longer than no time, and at most a day.
fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|_| "a time, such as 500ms, 60s or 1m30s")?;
    let is_right = time > Duration::ZERO && time <= Duration::from_secs(24 * 3_600);
    if is_right { Ok(time) } else { Err("a time of more than 0 and at most 24h".into()) }
}

fn positive(text: &str) -> Result<usize, String> {
    in_range(text, 1, 100_000)
}

fn viewers(text: &str) -> Result<u32, String> {
    in_range(text, 1, 10_000_000)
}

/// Kinesis takes no larger record than 10 MiB, and Lambda no larger body than 6 MB.
fn event_bytes(text: &str) -> Result<usize, String> {
    in_range(text, 0, 5_000_000)
}

fn in_range<T: std::str::FromStr + PartialOrd + std::fmt::Display>(text: &str, first: T, last: T) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| *number >= first && *number <= last);
    number.ok_or_else(|| format!("a whole number from {first} to {last}"))
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed: &f64| *speed >= 0.001 && *speed <= 1_000_000.0);
    speed.ok_or_else(|| "a factor from 0.001 to 1000000".into())
}

fn run_id(text: &str) -> Result<String, String> {
    let wrong = || format!("1 to {MAX_RUN_ID_BYTES} letters and digits");
    is_run_id(text).then(|| text.to_owned()).ok_or_else(wrong)
}

/// Fewest and most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventsPerPost {
    pub(crate) fewest: u32,
    pub(crate) most: u32,
}

/// One fewer than ingest takes in a request, since something bad may stand among them.
const MAX_EVENTS_PER_POST: u32 = 9_999;

fn events_per_post(text: &str) -> Result<EventsPerPost, String> {
    let (fewest, most) = text.split_once("..").unwrap_or((text, text));
    let events = EventsPerPost {
        fewest: in_range(fewest, 1, MAX_EVENTS_PER_POST)?,
        most: in_range(most, 1, MAX_EVENTS_PER_POST)?,
    };
    if events.fewest <= events.most { Ok(events) } else { Err("the fewest first: 1..50".into()) }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // From 0 to a million.
fn of_a_million(text: &str) -> Result<u32, String> {
    let share = share(text).ok_or("a share from 0% to 100%, or from 0 to 1")?;
    Ok((share * 1_000_000.0).round() as u32)
}

#[cfg(test)]
mod tests;
