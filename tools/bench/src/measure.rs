//! What one process of an implementation costs, and medians of several.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::implementation::{Folders, Implementation};
use crate::process::FunctionProcess;
use crate::services::Services;
use crate::workload::Job;

/// How often a process is invoked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Invocations {
    pub(crate) warm_up: u32,
    /// At least 1.
    pub(crate) counted: u32,
}

/// What one process cost, or the medians of several.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// From the start of the process to its first request for work.
    pub(crate) start_up_ms: f64,
    /// From handing over the first invocation to its answer.
    pub(crate) first_answer_ms: f64,
    /// An invocation's user and system time, of all threads.
    pub(crate) cpu_us: f64,
    pub(crate) peak_rss_mib: f64,
    /// Records that an invocation put on the stream.
    pub(crate) records: f64,
    /// Bytes that an invocation stored: on the stream with the keys, or in the bucket.
    pub(crate) stored_bytes: f64,
}

impl Cost {
    /// Each number's own median.
    pub(crate) fn median(costs: &[Self]) -> Option<Self> {
        Some(Self {
            start_up_ms: median(costs, |cost| cost.start_up_ms)?,
            first_answer_ms: median(costs, |cost| cost.first_answer_ms)?,
            cpu_us: median(costs, |cost| cost.cpu_us)?,
            peak_rss_mib: median(costs, |cost| cost.peak_rss_mib)?,
            records: median(costs, |cost| cost.records)?,
            stored_bytes: median(costs, |cost| cost.stored_bytes)?,
        })
    }
}

/// The middle value, the upper one of an even number; `None` of nothing.
pub(crate) fn median<T>(items: &[T], value: impl FnMut(&T) -> f64) -> Option<f64> {
    let mut values: Vec<f64> = items.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Starts a process, gives it the same job again and again, and checks what it stored.
///
/// # Errors
///
/// When an answer is no success, or anything but the job's events was stored. The empty handler need store nothing.
pub(crate) async fn measure(
    folders: &Folders,
    implementation: Implementation,
    job: &Job,
    invocations: Invocations,
) -> anyhow::Result<Cost> {
    let services = Services::start(Duration::ZERO).await?;
    let mut process = FunctionProcess::start(folders, implementation, job.function, &services).await?;
    let began = Instant::now();
    invoke(&mut process, job, 1).await?;
    let first_answer = began.elapsed();
    invoke(&mut process, job, invocations.warm_up).await?;
    let cpu_before = process.cpu()?;
    invoke(&mut process, job, invocations.counted).await?;
    let cpu = process.cpu()?.saturating_sub(cpu_before);
    let (start_up, peak_rss_mib) = (process.start_up, process.peak_rss_mib()?);
    process.end().await?;

    let (stored, times) = (services.take_stored(), 1 + invocations.warm_up + invocations.counted);
    if implementation != Implementation::EmptyHandler {
        job.check_stored(&stored, times as usize)?;
    }
    let bytes: usize = stored.records.iter().map(|record| record.data.len() + record.partition_key.len()).sum();
    let bytes = bytes + stored.objects.iter().map(|object| object.body.len()).sum::<usize>();
    Ok(Cost {
        start_up_ms: milliseconds(start_up),
        first_answer_ms: milliseconds(first_answer),
        cpu_us: milliseconds(cpu) * 1e3 / f64::from(invocations.counted),
        peak_rss_mib,
        records: stored.records.len() as f64 / f64::from(times),
        stored_bytes: bytes as f64 / f64::from(times),
    })
}

async fn invoke(process: &mut FunctionProcess, job: &Job, times: u32) -> anyhow::Result<()> {
    for _ in 0..times {
        job.check_answer(&process.invoke(&job.payload).await?)?;
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
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
    fn the_median_is_the_middle_value(#[case] values: &[f64], #[case] expected: Option<f64>) {
        assert_eq!(median(values, |value| *value), expected);
    }
}
