//! `make bench`: each function's real binary behind a real Runtime API, with instant stand-ins for Kinesis and S3.
//!
//! Prints start-up, CPU per invocation, peak memory and invocations a second: medians of several fresh processes. In the
//! same run it measures bzip2 alone on the lines of the landing row, so that there is a ratio to compare between
//! machines where times can't be compared.

mod floor;
mod measure;
mod payloads;
mod stand_ins;

use std::path::Path;

use anyhow::Context;
use measure::{Measurement, measure};

/// Fresh processes for each row; the row shows medians.
const PROCESSES: usize = 5;
const INVOCATIONS: u32 = 2_000;

struct Row {
    name: &'static str,
    binary: &'static str,
    payload: String,
    /// Events in one invocation.
    events: u32,
}

fn main() -> anyhow::Result<()> {
    let binaries = std::env::current_exe()?.with_file_name("");
    let rows = [
        Row { name: "ingest, 1 event", binary: "ingest-lambda", payload: payloads::post(1), events: 1 },
        Row { name: "ingest, 20 events", binary: "ingest-lambda", payload: payloads::post(20), events: 20 },
        Row {
            name: "landing, 100 records",
            binary: "kinesis-to-s3-lambda",
            payload: payloads::batch(100),
            events: 100,
        },
    ];
    println!("{PROCESSES} processes a row, {INVOCATIONS} invocations each after the first; medians");
    println!(
        "{:<22} {:>10} {:>12} {:>13} {:>12} {:>12} {:>10}",
        "", "start-up", "first answer", "CPU/invocation", "CPU/event", "invocations", "peak RSS"
    );
    for row in &rows {
        print_row(row, &binaries)?;
    }
    floor::print(&payloads::lines(100), INVOCATIONS)
}

fn print_row(row: &Row, binaries: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let binary = binaries.join(row.binary);
    let mut runs = Vec::with_capacity(PROCESSES);
    for _ in 0..PROCESSES {
        let run = runtime.block_on(measure(&binary, &row.payload, INVOCATIONS));
        runs.push(run.with_context(|| format!("{}: {}", row.name, binary.display()))?);
    }
    let median = |value: fn(&Measurement) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let cpu_micros = median(|run| run.cpu_per_invocation.as_secs_f64() * 1e6);
    println!(
        "{:<22} {:>7.1} ms {:>9.1} ms {:>11.0} µs {:>9.1} µs {:>10.0}/s {:>6.1} MiB",
        row.name,
        median(|run| run.start_up.as_secs_f64() * 1e3),
        median(|run| run.first_answer.as_secs_f64() * 1e3),
        cpu_micros,
        cpu_micros / f64::from(row.events),
        median(|run| run.invocations_per_second),
        median(|run| run.peak_rss_bytes as f64 / 1_048_576.0),
    );
    Ok(())
}
