//! Under what conditions numbers were seen.

use std::process::Command;

use anyhow::Context;

use crate::function_process::stat_fields;
use crate::functions::{Places, Subject};
use crate::rows::Plan;

/// More of the machine's CPU than this for others than the bench, and times are not to be trusted.
const QUIET_PERCENT: f64 = 5.0;

/// What the machine's and the bench's CPU counters said at a moment, in ticks of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    all: u64,
    idle: u64,
    /// Of this process and of the functions that it started and that ended.
    own: u64,
}

impl Moment {
    pub(crate) fn now() -> anyhow::Result<Self> {
        let (machine, own) = (std::fs::read_to_string("/proc/stat")?, std::fs::read_to_string("/proc/self/stat")?);
        Self::parse(&machine, &own).context("/proc/stat or /proc/self/stat is malformed")
    }

    fn parse(machine: &str, own: &str) -> Option<Self> {
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user.
        let ticks: Vec<u64> = machine
            .lines()
            .next()?
            .split_whitespace()
            .skip(1)
            .take(8)
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        let idle = ticks.get(3)? + ticks.get(4)?;
        let own = stat_fields(own, [13, 14, 15, 16])?.iter().sum();
        Some(Self { all: ticks.iter().sum(), idle, own })
    }

    /// The share of the machine's CPU, from then to now, that went neither to the bench nor was idle.
    fn others_percent(self, now: Self) -> f64 {
        let all = now.all.saturating_sub(self.all);
        let accounted = now.idle.saturating_sub(self.idle) + now.own.saturating_sub(self.own);
        all.saturating_sub(accounted) as f64 / all.max(1) as f64 * 100.0
    }
}

/// In sentences: the machine, the versions of what is compared, how often each was invoked, who else was at work.
pub(crate) fn conditions(plan: &Plan, places: &Places, began: Moment) -> anyhow::Result<String> {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mut told = vec![format!("{cores} cores of {}, Linux {}.", processor(), kernel())];
    for (subject, program) in
        [(Subject::Python, places.reference.join(".venv/bin/python")), (Subject::Node, "node".into())]
    {
        if plan.subjects.contains(&subject) {
            told.extend(version(&program).map(|version| format!("{version}.")));
        }
    }
    let often: Vec<String> = plan
        .subjects
        .iter()
        .map(|subject| {
            let often = plan.invocations(*subject);
            format!("{subject} {} after {}", often.counted, often.warm_up)
        })
        .collect();
    told.push(format!("Medians of {} fresh processes each, invoked so often: {}.", plan.processes, often.join(", ")));
    let others = began.others_percent(Moment::now()?);
    told.push(format!("Other processes took {others:.0} % of the machine's CPU."));
    if others > QUIET_PERCENT {
        told.push("It was not quiet: times are longer for that.".into());
    }
    if plan.quick {
        told.push("A quick run: the numbers mean nothing.".into());
    }
    Ok(told.join(" "))
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| format!("a processor of {}", std::env::consts::ARCH), |(_, name)| name.trim().to_owned())
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// What a language's program says of itself; without it nothing was measured, and nothing need be said.
fn version(program: &std::path::Path) -> Option<String> {
    let printed = Command::new(program).arg("--version").output().ok()?.stdout;
    let printed = String::from_utf8(printed).ok()?.trim().to_owned();
    Some(printed.strip_prefix('v').map(|number| format!("Node.js {number}")).unwrap_or(printed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_who_is_neither_idle_nor_the_bench() {
        let own = |ticks: u64| format!("1 (a b) R 1 1 1 1 1 1 1 1 1 1 {ticks} 0 0 0 20\n");
        let machine = |user: u64, idle: u64| format!("cpu  {user} 0 0 {idle} 0 0 0 0 9 9\ncpu0 1\n");
        let then = Moment::parse(&machine(100, 100), &own(10)).unwrap();
        let now = Moment::parse(&machine(160, 140), &own(50)).unwrap();
        assert!((then.others_percent(now) - 20.0).abs() < 1e-9);
        assert!(then.others_percent(then).abs() < 1e-9);
        assert_eq!(Moment::parse("cpu", &own(1)), None);
    }
}
