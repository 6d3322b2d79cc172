//! `make bench`: what an invocation of each function costs, compared with the same work in Python and with floors; and what a POST
//! costs ingest-server, compared with nginx.

mod implementation;
mod libbz2;
mod measure;
mod payloads;
mod process;
mod report;
mod results;
mod servers;
mod services;
mod targets;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use implementation::Folders;
use results::{Plan, Results};

/// Measures what an invocation of each function costs, compared with the same work in Python and with floors; and what a POST
/// costs ingest-server, compared with nginx.
///
/// Each function runs as a process behind a Lambda Runtime API, with fakes of Kinesis and S3 that answer at once, and
/// ingest-server with a Kinesis that takes 8 ms. Numbers are medians over fresh processes. `make bench` builds and installs what
/// is needed.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Options {
    /// Measure only what is written in Rust: neither Python, C nor nginx
    #[arg(long)]
    rust_only: bool,

    /// Exit with 1 when a target is missed
    #[arg(long)]
    check: bool,

    /// Invoke one process a few times: shows that everything works; the numbers mean nothing
    #[arg(long)]
    quick: bool,

    /// Write measured.json, and its tables into PERFORMANCE.md, in this folder
    #[arg(long, value_name = "FOLDER")]
    docs: Option<PathBuf>,

    /// The folder of the functions' binaries [default: the folder of this program]
    #[arg(long, value_name = "FOLDER")]
    functions: Option<PathBuf>,

    /// ingest-server as it is deployed [default: that in the folder of the functions]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,

    /// The folder of the references
    #[arg(long, value_name = "FOLDER", default_value = "tools/bench/reference")]
    reference: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let own_folder = std::env::current_exe()?.with_file_name("");
    let functions = options.functions.unwrap_or(own_folder);
    let server = options.server.unwrap_or_else(|| functions.join("ingest-server"));
    let folders = Folders { functions, server, reference: options.reference };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let plan = Plan::new(options.rust_only, options.quick);
    let results = runtime.block_on(results::measure_all(&folders, &plan))?;
    println!("{}\n{}", report::costs(&results), report::met_targets(&results));
    if let Some(folder) = options.docs {
        write_docs(&folder, &results)?;
    }
    let is_failure = options.check && results.targets().iter().any(|target| !target.is_met());
    Ok(if is_failure { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn write_docs(folder: &std::path::Path, results: &Results) -> anyhow::Result<()> {
    let page = folder.join("PERFORMANCE.md");
    let text = std::fs::read_to_string(&page).with_context(|| page.display().to_string())?;
    let text = report::replace(&text, &report::costs(results)).with_context(|| page.display().to_string())?;
    std::fs::write(&page, text).with_context(|| page.display().to_string())?;
    let json = folder.join("measured.json");
    let mut text = serde_json::to_string_pretty(results)?;
    text.push('\n');
    std::fs::write(&json, text).with_context(|| json.display().to_string())
}
