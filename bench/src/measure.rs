//! What one process of a function costs for one job, and the medians of several processes.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;

use crate::function_process::FunctionProcess;
use crate::functions::{Places, Subject};
use crate::job::Job;
use crate::stand_ins::StandIns;

/// How often a process is invoked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Invocations {
    /// Before counting: compilers that watch a program while it runs get their time.
    pub(crate) warm_up: u32,
    /// At least 1.
    pub(crate) counted: u32,
}

/// What one process cost, or the medians of several.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// From the start of the process to its first request for work.
    pub(crate) start_up_ms: f64,
    /// From handing over the first invocation to its answer.
    pub(crate) first_answer_ms: f64,
    /// User and system time of all threads.
    pub(crate) cpu_us: f64,
    /// As fast as one caller gets answers.
    pub(crate) invocations_per_second: f64,
    pub(crate) peak_rss_mib: f64,
    /// Stored by one invocation: records on the stream.
    pub(crate) records: f64,
    /// Stored by one invocation: bytes on the stream with the keys, or in the bucket.
    pub(crate) stored_bytes: f64,
}

impl Cost {
    /// Each number's own median.
    pub(crate) fn median(costs: &[Self]) -> Option<Self> {
        Some(Self {
            start_up_ms: median(costs, |cost| cost.start_up_ms)?,
            first_answer_ms: median(costs, |cost| cost.first_answer_ms)?,
            cpu_us: median(costs, |cost| cost.cpu_us)?,
            invocations_per_second: median(costs, |cost| cost.invocations_per_second)?,
            peak_rss_mib: median(costs, |cost| cost.peak_rss_mib)?,
            records: median(costs, |cost| cost.records)?,
            stored_bytes: median(costs, |cost| cost.stored_bytes)?,
        })
    }

    /// Invocations that a second of CPU is good for.
    pub(crate) fn invocations_per_cpu_second(&self) -> f64 {
        1e6 / self.cpu_us
    }
}

/// The middle one, of an even number the upper of the two; `None` of nothing.
pub(crate) fn median<T>(of: &[T], value: impl FnMut(&T) -> f64) -> Option<f64> {
    let mut values: Vec<f64> = of.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Starts a process, invokes it again and again with the same payload, and looks at what it stored.
///
/// # Errors
///
/// When an answer is no success, or anything else was stored than the job says. The empty handler need store nothing.
pub(crate) async fn measure(places: &Places, subject: Subject, job: &Job, often: Invocations) -> anyhow::Result<Cost> {
    ensure!(often.counted > 0, "a cost needs an invocation");
    read_in(places, subject, job).await?;
    let mut process = FunctionProcess::start(places, subject, job.function, StandIns::start().await?).await?;
    let first_answer = invoke(&mut process, job).await?;
    for _ in 0..often.warm_up {
        invoke(&mut process, job).await?;
    }
    let (began, cpu_before) = (Instant::now(), process.cpu()?);
    for _ in 0..often.counted {
        invoke(&mut process, job).await?;
    }
    let (cpu, elapsed) = (process.cpu()?.saturating_sub(cpu_before), began.elapsed());
    let peak_rss_bytes = process.peak_rss_bytes()?;
    process.check_that_it_is_alone()?;

    process.stand_ins.keep();
    invoke(&mut process, job).await?;
    let (received, invocations) = (process.stand_ins.take(), u64::from(often.warm_up) + u64::from(often.counted) + 2);
    if subject != Subject::Empty {
        job.check_received(&received, invocations)?;
    }
    let each = |total: u64| total as f64 / invocations as f64;
    let start_up = process.start_up;
    process.end().await?;
    Ok(Cost {
        start_up_ms: start_up.as_secs_f64() * 1e3,
        first_answer_ms: first_answer.as_secs_f64() * 1e3,
        cpu_us: cpu.as_secs_f64() * 1e6 / f64::from(often.counted),
        invocations_per_second: f64::from(often.counted) / elapsed.as_secs_f64(),
        peak_rss_mib: peak_rss_bytes as f64 / 1_048_576.0,
        records: each(received.records),
        stored_bytes: each(received.record_bytes + received.object_bytes),
    })
}

/// Starts the function and invokes it, so that the kernel has its files in memory when it is measured. Else start-up would
/// be the disk's, and differ by what ran before.
async fn read_in(places: &Places, subject: Subject, job: &Job) -> anyhow::Result<()> {
    let mut process = FunctionProcess::start(places, subject, job.function, StandIns::start().await?).await?;
    invoke(&mut process, job).await?;
    Ok(process.end().await?)
}

async fn invoke(process: &mut FunctionProcess, job: &Job) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let reply = process.invoke(&job.payload).await?;
    let elapsed = began.elapsed();
    job.check_answer(&reply)?;
    Ok(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&[], None)]
    #[case(&[3.0], Some(3.0))]
    #[case(&[9.0, 1.0], Some(9.0))]
    #[case(&[9.0, 1.0, 3.0], Some(3.0))]
    fn medians(#[case] values: &[f64], #[case] expected: Option<f64>) {
        assert_eq!(median(values, |value| *value), expected);
    }
}
