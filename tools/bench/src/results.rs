//! All workloads, each done by all implementations.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::implementation::{Folders, Implementation};
use crate::libbz2::Libbz2;
use crate::measure::{Cost, Invocations, measure};
use crate::servers::{self, Case, Server, ServerRow};
use crate::targets::{self, Target};
use crate::workload::{Job, Workload};

/// What a run measured: docs/measured.json.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// The machine and the plan, in sentences.
    pub(crate) conditions: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) servers: Vec<ServerRow>,
}

impl Results {
    pub(crate) fn targets(&self) -> Vec<Target> {
        [targets::targets(&self.rows), servers::bars::targets(&self.servers)].concat()
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) workload: Workload,
    /// Events in one invocation.
    pub(crate) events: usize,
    /// Bytes of the POST's body, or of the batch's lines.
    pub(crate) input_bytes: usize,
    pub(crate) costs: BTreeMap<Implementation, Cost>,
    /// How far the CPU times of our function's processes lie apart, in percent of their median.
    pub(crate) spread_percent: f64,
    /// The batch's lines compressed by libbz2, and nothing else.
    pub(crate) libbz2: Option<Libbz2>,
}

impl Row {
    pub(crate) fn cost(&self, implementation: Implementation) -> Option<&Cost> {
        self.costs.get(&implementation)
    }
}

/// How much is measured.
pub(crate) struct Plan {
    rust_only: bool,
    quick: bool,
}

impl Plan {
    pub(crate) fn new(rust_only: bool, quick: bool) -> Self {
        Self { rust_only, quick }
    }

    /// The reference in Python knows no frames.
    fn implementations(&self, workload: Workload) -> &'static [Implementation] {
        match self.rust_only || matches!(workload, Workload::LandingSmallFrames | Workload::LandingFrames) {
            true => &[Implementation::Rust, Implementation::EmptyHandler],
            false => &[Implementation::Rust, Implementation::Python, Implementation::EmptyHandler],
        }
    }

    /// Fresh processes of each implementation.
    fn processes(&self) -> u32 {
        if self.quick { 1 } else { 5 }
    }

    /// Python is slower, so that fewer invocations say as much.
    fn invocations(&self, implementation: Implementation, workload: Workload) -> Invocations {
        let (warm_up, counted) = match implementation {
            _ if self.quick => return Invocations { warm_up: 1, counted: 5 },
            Implementation::Rust | Implementation::EmptyHandler => (100, 1_000),
            Implementation::Python => (50, 300),
        };
        Invocations { warm_up: warm_up / workload.weight(), counted: counted / workload.weight() }
    }

    /// nginx is no Rust.
    pub(crate) fn has_server(&self, case: &Case) -> bool {
        !self.rust_only || matches!(case.server, Server::Ingest { .. })
    }

    pub(crate) fn server_rounds(&self) -> u32 {
        if self.quick { 1 } else { 3 }
    }

    /// How long a load is looked at.
    pub(crate) fn server_window(&self) -> Duration {
        Duration::from_millis(if self.quick { 500 } else { 2_000 })
    }

    fn libbz2_rounds(&self, workload: Workload) -> u32 {
        if self.quick { 2 } else { 100 / workload.weight() }
    }
}

/// Measures everything. Progress goes to the standard error.
///
/// In each round every workload has one process of every implementation, so that a busy moment of the machine meets them all.
pub(crate) async fn measure_all(folders: &Folders, plan: &Plan) -> anyhow::Result<Results> {
    let mut samples: Vec<Samples> = Workload::ALL.into_iter().map(Samples::new).collect();
    // The first round only brings the files into memory: else a start would be the disk's.
    for round in 0..=plan.processes() {
        for of_workload in &mut samples {
            let title = of_workload.workload.title();
            of_workload.measure_round(folders, plan, round).await.context(title)?;
        }
    }
    let rows: Vec<Row> = samples.into_iter().map(Samples::into_row).collect();
    let servers = servers::measure_all(folders, plan).await?;
    Ok(Results { conditions: conditions(folders, plan, &rows), rows, servers })
}

/// What the processes of a workload cost.
struct Samples {
    workload: Workload,
    job: Job,
    costs: BTreeMap<Implementation, Vec<Cost>>,
    floors: Vec<Libbz2>,
}

impl Samples {
    fn new(workload: Workload) -> Self {
        Self { workload, job: workload.job(), costs: BTreeMap::new(), floors: Vec::new() }
    }

    async fn measure_round(&mut self, folders: &Folders, plan: &Plan, round: u32) -> anyhow::Result<()> {
        for implementation in plan.implementations(self.workload) {
            let name = implementation.name();
            progress(&format!("round {round} of {}: {}, {name}", plan.processes(), self.workload.title()));
            let invocations = match round {
                0 => Invocations { warm_up: 0, counted: 1 },
                _ => plan.invocations(*implementation, self.workload),
            };
            let cost = measure(folders, *implementation, &self.job, invocations).await.context(name)?;
            if round > 0 {
                self.costs.entry(*implementation).or_default().push(cost);
            }
        }
        if let Some(lines) = self.job.lines().filter(|_| round > 0 && !plan.rust_only) {
            self.floors.push(Libbz2::measure(&folders.reference, lines, plan.libbz2_rounds(self.workload)).await?);
        }
        Ok(())
    }

    fn into_row(self) -> Row {
        let spread_percent = self.costs.get(&Implementation::Rust).map_or(0.0, |costs| spread_percent(costs));
        let medians = self.costs.into_iter().filter_map(|(by, costs)| Some((by, Cost::median(&costs)?)));
        Row {
            workload: self.workload,
            events: self.job.events,
            input_bytes: self.job.input_bytes,
            costs: medians.collect(),
            spread_percent,
            libbz2: Libbz2::median(&self.floors),
        }
    }
}

fn spread_percent(costs: &[Cost]) -> f64 {
    let (least, most) =
        costs.iter().fold((f64::MAX, 0.0_f64), |(least, most), cost| (least.min(cost.cpu_us), most.max(cost.cpu_us)));
    Cost::median(costs).map_or(0.0, |median| (most - least) / median.cpu_us * 100.0)
}

fn conditions(folders: &Folders, plan: &Plan, rows: &[Row]) -> String {
    if plan.quick {
        return "A quick run: the numbers mean nothing.".into();
    }
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let processor = processor.map_or(std::env::consts::ARCH, |(_, name)| name);
    let python = Command::new(folders.python()).arg("--version").output().map(|output| output.stdout);
    let python = python.map(|version| String::from_utf8_lossy(&version).trim().to_owned()).unwrap_or_default();
    let spread = rows.iter().map(|row| row.spread_percent).fold(0.0, f64::max);
    format!(
        "{cores} cores of {processor}, Linux {}; {python}. Medians over {} processes; our functions' CPU times lie at most \
         {spread:.0} % apart.",
        read("/proc/sys/kernel/osrelease").trim(),
        plan.processes(),
    )
}

/// One line on a terminal, rewritten each time; in a log, a line each.
pub(crate) fn progress(doing: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{doing}\r");
    } else {
        eprintln!("{doing}");
    }
}
