//! One process of a function, from its start through many invocations: what it cost.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use local::runtime_api::{Invocation, RuntimeApi};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use crate::stand_ins;

/// What one process cost.
pub(crate) struct Measurement {
    /// From the start of the process to its first request for work.
    pub(crate) start_up: Duration,
    /// From handing over the first invocation to its answer.
    pub(crate) first_answer: Duration,
    /// User and system time of the invocations after the first.
    pub(crate) cpu_per_invocation: Duration,
    pub(crate) invocations_per_second: f64,
    pub(crate) peak_rss_bytes: u64,
}

/// Starts a function and invokes it again and again with the same payload.
pub(crate) async fn measure(binary: &Path, payload: &str, invocations: u32) -> anyhow::Result<Measurement> {
    let services = stand_ins::start().await?;
    let api = RuntimeApi::start("arn:aws:lambda:eu-central-1:123456789012:function:bench".into()).await?;
    let began = Instant::now();
    let mut process = Command::new(binary)
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", api.address.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "bench")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ACCESS_KEY_ID", "bench")
        .env("AWS_SECRET_ACCESS_KEY", "bench")
        .env("AWS_ENDPOINT_URL", format!("http://{services}"))
        .env("STREAM_NAME", "bench")
        .env("BUCKET_NAME", "bench")
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    tokio::select! {
        started = api.started() => started?,
        ended = process.wait() => bail!("the function ended: {}", ended?),
    }
    let start_up = began.elapsed();

    let began = Instant::now();
    invoke(&api, payload, &mut process).await?;
    let first_answer = began.elapsed();

    let (began, cpu_before) = (Instant::now(), cpu_time(&process)?);
    for _ in 0..invocations {
        invoke(&api, payload, &mut process).await?;
    }
    Ok(Measurement {
        start_up,
        first_answer,
        cpu_per_invocation: cpu_time(&process)?.saturating_sub(cpu_before) / invocations,
        invocations_per_second: f64::from(invocations) / began.elapsed().as_secs_f64(),
        peak_rss_bytes: peak_rss_bytes(&process)?,
    })
}

/// One invocation; an answer that is no success is an error, so that nothing wrong is measured.
async fn invoke(api: &RuntimeApi, payload: &str, process: &mut Child) -> anyhow::Result<()> {
    let (reply, answer) = oneshot::channel();
    let payload = payload.to_owned().into();
    api.invoke(Invocation { request_id: "bench".into(), payload, timeout: Duration::from_secs(60), reply }).await;
    let answer = tokio::select! {
        answer = answer => answer.context("the Runtime API ended")??,
        ended = process.wait() => bail!("the function ended: {}", ended?),
    };
    let answer = std::str::from_utf8(&answer)?;
    if answer.contains("\"statusCode\":200") || answer == "{\"batchItemFailures\":[]}" {
        return Ok(());
    }
    bail!("the function answered {answer}");
}

/// User and system time, from /proc/<pid>/schedstat: nanoseconds on the CPU. A function has one thread.
fn cpu_time(process: &Child) -> anyhow::Result<Duration> {
    let text = read_proc(process, "schedstat")?;
    let nanos = text.split_whitespace().next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

fn peak_rss_bytes(process: &Child) -> anyhow::Result<u64> {
    let text = read_proc(process, "status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in status")?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024)
}

fn read_proc(process: &Child, file: &str) -> anyhow::Result<String> {
    let id = process.id().context("the function ended")?;
    let path = format!("/proc/{id}/{file}");
    std::fs::read_to_string(&path).context(path)
}
