//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, value_parser};

use crate::rate::{Rate, RateError, positive};
use crate::thresholds::{Thresholds, as_ratio, in_file, in_unit, parse, share};

const OUTCOMES: &str = "\
Exit codes:
  0  PASS: every threshold holds
  1  FAIL: at least one does not
  2  it could not run: wrong usage, no connection, no access to the bucket
  3  INVALID: the generator fell behind its plan, so the numbers are not the system's";

const RUN_HELP: &str = "\
POSTs leave at their planned times whatever the answers do (open loop), and latency counts from the planned time: the
generator does not wait for a system that stalls, and the stall shows.

Rates, in POSTs a second (with --replay, in sessions a second):
  1000           constant
  100..2000      ramp, evenly over the whole run
  100,500,1000   steps of equal length
  100^2000       100, with 2000 in the middle fifth of the run

Thresholds: a name, one of < <= > >= =, and a value with its unit.
  p50 p90 p95 p99 p99.9 p99.99 max mean   latency, such as p99<50ms
  service_p99 …                           from when the request left: what a closed loop would have seen
  landed_p50 … landed_max                 from the planned time until the file is in the bucket
  errors                                  share of POSTs without the expected answer, such as errors<0.1%
  missing doubled misplaced               events, such as missing=0; known only with --bucket
  unknown                                 events without an answer that says what became of them
  rate events_rate                        POSTs and events a second that were answered in time, such as rate>990
The default is errors<0.1%, and with --bucket also missing=0, doubled=0, misplaced=0.

Examples:
  loadtest run --rate 1000 --duration 60s --events-per-post 1 --threshold 'p99<50ms'
  loadtest run --rate 100..2000 --duration 5m --result result.json --report report.html
  loadtest run --rate 20 --replay tests/fixtures/mux-embed-session.jsonl --speed 10
  AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=us-east-1 \\
    loadtest run --bucket landing-bucket --endpoint-url http://127.0.0.1:4566 --bad 1%
";

const FIND_MAX_HELP: &str = "\
Doubles the rate from --from until a step fails or --to is reached, then bisects between the highest rate that passed and
the lowest that did not, until they are within 5% of each other. An INVALID step is the generator's limit, not the system's;
the search does not go above it, and says so.

Example:
  loadtest find-max --from 200 --to 20000 --duration 10s --threshold 'p99<50ms'
";

const COMPARE_HELP: &str = "\
Of a find-max result, the step with the highest rate that passed is compared.

Thresholds limit the ratio B/A: the names of `run`, and a factor or a percentage. 0/0 counts as 1.
Without any, the exit code is 0. With them it is 3 when A or B is INVALID.

Examples:
  loadtest compare before.json after.json --report comparison.html
  loadtest compare before.json after.json --threshold 'p99<1.1,rate>95%,missing<=1'
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
    /// Send POSTs at a rate, and say whether the thresholds held.
    #[command(after_help = [RUN_HELP, OUTCOMES].join("\n"))]
    Run(Box<RunArgs>),
    /// Search for the highest constant rate at which all thresholds hold.
    #[command(after_help = [FIND_MAX_HELP, OUTCOMES].join("\n"))]
    FindMax(Box<FindMaxArgs>),
    /// Compare two results.
    #[command(after_help = [COMPARE_HELP, OUTCOMES].join("\n"))]
    Compare(CompareArgs),
    /// Make the HTML report of a result.
    Report(ReportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// POSTs a second: 1000, 100..2000, 100,500,1000 or 100^2000; see below
    #[arg(long, default_value = "100", value_name = "RATE")]
    pub(crate) rate: Rate,
    /// How long to send, such as 60s or 5m; then the last answers are awaited
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = time)]
    pub(crate) duration: Duration,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Debug, Args)]
pub(crate) struct FindMaxArgs {
    /// The first rate, in POSTs a second
    #[arg(long, default_value_t = 100.0, value_name = "RATE", value_parser = constant_rate)]
    pub(crate) from: f64,
    /// The highest rate to try
    #[arg(long, default_value_t = 20_000.0, value_name = "RATE", value_parser = constant_rate)]
    pub(crate) to: f64,
    /// How long to send at each rate
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = time)]
    pub(crate) duration: Duration,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// What `run` and `find-max` have in common.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Connections to open before the start and keep alive
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) connections: u32,
    /// The most connections; beyond --connections they are opened when all are busy
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) max_connections: u32,
    /// How long to wait for an answer
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = time)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) players: PlayersArgs,
    /// Marks the events of this run, in letters and digits [default: random]
    #[arg(long, default_value_t = random_run_id(), hide_default_value = true, value_name = "ID", value_parser = run_id)]
    pub(crate) run_id: String,
    /// Replay a recorded session instead, one copy for each session that --rate asks for
    #[arg(long, value_name = "FILE")]
    pub(crate) replay: Option<PathBuf>,
    /// How fast to replay it; 1 is as recorded
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", requires = "replay", value_parser = speed)]
    pub(crate) speed: f64,
    /// The landing bucket: read it at the end, and look for each event by its id. Credentials and region come from the AWS
    /// environment variables or the profile
    #[arg(long, value_name = "NAME")]
    pub(crate) bucket: Option<String>,
    /// Where S3 and CloudWatch are, if not at AWS; the same as AWS_ENDPOINT_URL
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint_url: Option<String>,
    /// Show only metrics of functions and streams whose names begin with this, such as playhead-dev- [default: all]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PREFIX")]
    pub(crate) metrics_prefix: String,
    /// While events are missing, how long to wait since the last one landed
    #[arg(long, default_value = "180s", value_name = "TIME", value_parser = time)]
    pub(crate) landing_timeout: Duration,
    /// How long to watch once everything was found: duplicates come up to a batching window later
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = time)]
    pub(crate) settle: Duration,
    /// What must hold, such as 'p99<50ms'; repeat it, or separate with commas
    #[arg(long, value_name = "THRESHOLD", value_parser = |text: &str| parse(text, in_unit))]
    pub(crate) threshold: Vec<Thresholds>,
    /// A file of thresholds, one a line; # begins a comment
    #[arg(long, value_name = "FILE", value_parser = |path: &str| in_file(path, in_unit))]
    pub(crate) thresholds: Option<Thresholds>,
    /// How late 99 of 100 POSTs may leave before the run is INVALID
    #[arg(long, default_value = "20ms", value_name = "TIME", value_parser = time)]
    pub(crate) max_lag: Duration,
    /// Write the result as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) result: Option<PathBuf>,
    /// Write the HTML report to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

/// Where POSTs go, and whose certificates are trusted there.
#[derive(Debug, Clone, Args)]
pub(crate) struct TargetArgs {
    /// Where to post events; https:// speaks TLS
    #[arg(long, default_value = "http://127.0.0.1:8080/events", value_name = "URL")]
    pub(crate) url: String,
    /// HTTP/2: by prior knowledge on http://, by ALPN on https://
    #[arg(long)]
    pub(crate) http2: bool,
    /// Trust the certificates in this PEM file instead of the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long, conflicts_with = "cacert")]
    pub(crate) insecure: bool,
}

/// What players send.
#[derive(Debug, Clone, Args)]
pub(crate) struct PlayersArgs {
    /// The same seed and run id send the same bytes in the same order
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Events in a POST: a number, or the fewest and the most, such as 1..50
    #[arg(long, default_value = "20", value_name = "N")]
    pub(crate) events_per_post: EventsPerPost,
    /// Pad each event to about this many bytes [default: as players send them, some 300]
    // Kinesis takes no record above 10 MiB, and Lambda no body above 6 MB.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N", value_parser = value_parser!(u32).range(0..=5_000_000))]
    pub(crate) event_bytes: u32,
    /// Share of POSTs that are bad, in several ways, such as 1%; each has its expected answer
    #[arg(long, default_value = "0%", value_name = "SHARE", value_parser = parts_per_million)]
    pub(crate) bad: u32,
    /// Viewers that post in turn, each with its sessions
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = value_parser!(u32).range(1..=10_000_000))]
    pub(crate) viewers: u32,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// A result that --result wrote
    #[arg(value_name = "A")]
    pub(crate) a: PathBuf,
    /// Another
    #[arg(value_name = "B")]
    pub(crate) b: PathBuf,
    /// What must hold for B/A, such as 'p99<1.1'; repeat it, or separate with commas
    #[arg(long, value_name = "THRESHOLD", value_parser = |text: &str| parse(text, as_ratio))]
    pub(crate) threshold: Vec<Thresholds>,
    /// A file of thresholds, one a line; # begins a comment
    #[arg(long, value_name = "FILE", value_parser = |path: &str| in_file(path, as_ratio))]
    pub(crate) thresholds: Option<Thresholds>,
    /// Write the comparison as HTML to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// A result that --result wrote
    #[arg(value_name = "RESULT")]
    pub(crate) result: PathBuf,
    /// Write the HTML report to this file [default: the result's name with .html]
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

fn constant_rate(text: &str) -> Result<f64, String> {
    positive(text).map_err(|error| match error {
        RateError::NotANumber(_) => "one rate, such as 100".to_owned(),
        error => error.to_string(),
    })
}

/// More than nothing, and at most a day.
fn time(text: &str) -> Result<Duration, &'static str> {
    let time = humantime::parse_duration(text).map_err(|_| "a time, such as 500ms, 60s or 1m30s")?;
    let allowed = Duration::from_nanos(1)..=Duration::from_secs(24 * 3_600);
    if allowed.contains(&time) { Ok(time) } else { Err("a time of more than 0 and at most 24h") }
}

fn speed(text: &str) -> Result<f64, &'static str> {
    let speed = text.parse().ok().filter(|speed| (0.001..=1_000_000.0).contains(speed));
    speed.ok_or("a factor from 0.001 to 1000000")
}

fn random_run_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..8].to_owned()
}

const MAX_RUN_ID_BYTES: usize = 40;

/// Letters and digits alone: no format escapes anything of them.
fn run_id(text: &str) -> Result<String, String> {
    let is_right =
        (1..=MAX_RUN_ID_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_right { Ok(text.to_owned()) } else { Err(format!("1 to {MAX_RUN_ID_BYTES} letters and digits")) }
}

fn parts_per_million(text: &str) -> Result<u32, &'static str> {
    let share = share(text).ok_or("a share from 0% to 100%, or from 0 to 1")?;
    Ok((share * 1_000_000.0).round() as u32)
}

/// How many events a POST has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventsPerPost {
    pub(crate) fewest: u32,
    pub(crate) most: u32,
}

/// One fewer than ingest takes in a request, since something bad may be among them.
const MAX_EVENTS_PER_POST: u32 = 9_999;

impl FromStr for EventsPerPost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = |text: &str| text.parse().ok().filter(|count| (1..=MAX_EVENTS_PER_POST).contains(count));
        let (fewest, most) = text.split_once("..").unwrap_or((text, text));
        match (count(fewest), count(most)) {
            (Some(fewest), Some(most)) if fewest <= most => Ok(Self { fewest, most }),
            (Some(_), Some(_)) => Err("the fewest first: 1..50".into()),
            _ => Err(format!("a whole number from 1 to {MAX_EVENTS_PER_POST}, or two, such as 1..50")),
        }
    }
}

#[cfg(test)]
mod tests;
