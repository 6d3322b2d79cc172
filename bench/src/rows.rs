//! The table: four jobs, each done by the functions and by what they are compared with.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use anyhow::Context;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::floor::{self, Floor, LinesFile};
use crate::functions::{Places, Subject};
use crate::job::Job;
use crate::measure::{Cost, Invocations, measure};
use crate::payloads;

/// What a bar speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RowName {
    IngestOne,
    IngestTwentyOfOneKey,
    IngestTwentyOfTwentyKeys,
    LandingHundred,
}

impl RowName {
    pub(crate) const ALL: [Self; 4] =
        [Self::IngestOne, Self::IngestTwentyOfOneKey, Self::IngestTwentyOfTwentyKeys, Self::LandingHundred];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::IngestOne => "ingest, 1 event",
            Self::IngestTwentyOfOneKey => "ingest, 20 events of one key",
            Self::IngestTwentyOfTwentyKeys => "ingest, 20 events of 20 keys",
            Self::LandingHundred => "landing, 100 records of 400 bytes",
        }
    }

    fn job(self) -> Job {
        match self {
            Self::IngestOne => Job::post(payloads::events(1, 1), Some(1)),
            Self::IngestTwentyOfOneKey => Job::post(payloads::events(20, 1), Some(1)),
            Self::IngestTwentyOfTwentyKeys => Job::post(payloads::events(20, 20), Some(20)),
            Self::LandingHundred => Job::batch(&(0..100).map(payloads::line).collect::<Vec<_>>()),
        }
    }
}

/// One job's numbers: medians.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: RowName,
    /// Events in one invocation.
    pub(crate) events: u64,
    pub(crate) costs: BTreeMap<Subject, Cost>,
    /// The same lines compressed and nothing else; where nothing is compressed there is none.
    pub(crate) bzip2: Option<Floor>,
}

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) subjects: Vec<Subject>,
    /// Fresh processes, for each row and subject.
    pub(crate) processes: u32,
    /// Few invocations: the numbers are there, but they are no good.
    pub(crate) quick: bool,
}

impl Plan {
    /// The references are slower, and what they are compared by is their ratio: fewer will do. V8 compiles while it runs
    /// and gets longer for it.
    pub(crate) fn invocations(&self, subject: Subject) -> Invocations {
        let (warm_up, counted) = match subject {
            _ if self.quick => (1, 5),
            Subject::Rust | Subject::Empty => (100, 1_000),
            Subject::Python => (50, 300),
            Subject::Node => (400, 300),
        };
        Invocations { warm_up, counted }
    }

    fn floor_rounds(&self) -> u32 {
        if self.quick { 2 } else { 100 }
    }

    fn has_references(&self) -> bool {
        self.subjects.iter().any(|subject| matches!(subject, Subject::Python | Subject::Node))
    }
}

/// Measures one job. In each round every subject has one process, so that a busy moment of the machine meets them all.
pub(crate) fn measure_row(runtime: &Runtime, places: &Places, plan: &Plan, name: RowName) -> anyhow::Result<Row> {
    let job = name.job();
    // The C program is installed with the references.
    let lines = job.lines().filter(|_| plan.has_references()).map(LinesFile::new).transpose()?;
    let mut costs: BTreeMap<Subject, Vec<Cost>> = BTreeMap::new();
    let mut floors = Vec::new();
    for round in 1..=plan.processes {
        for subject in &plan.subjects {
            progress(&format!("{}: {subject}, process {round} of {}", name.title(), plan.processes));
            let cost = runtime.block_on(measure(places, *subject, &job, plan.invocations(*subject)));
            costs.entry(*subject).or_default().push(cost.with_context(|| format!("{}, {subject}", name.title()))?);
        }
        if let Some(lines) = &lines {
            floors.push(floor::measure(&places.reference, lines, plan.floor_rounds())?);
        }
    }
    let medians = costs.into_iter().filter_map(|(subject, costs)| Some((subject, Cost::median(&costs)?)));
    Ok(Row { name, events: job.events, costs: medians.collect(), bzip2: Floor::median(&floors) })
}

/// Says on a terminal, in place of what it said before, what is going on; in a log, line by line.
pub(crate) fn progress(doing: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{doing}");
    } else {
        eprintln!("{doing}");
    }
}

/// Wipes what [`progress`] said last.
pub(crate) fn progress_done() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
