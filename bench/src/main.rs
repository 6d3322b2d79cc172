//! `make bench`: each function's real binary behind a real Runtime API, with instant stand-ins for Kinesis and S3; the
//! same job in Python and Node.js; and the floors that no function gets below. What counts are the ratios.

mod bars;
mod floor;
mod function_process;
mod functions;
mod growth;
mod growth_plot;
mod job;
mod machine;
mod measure;
mod options;
mod page;
mod payloads;
mod rows;
mod stand_ins;
mod tables;
mod verify;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use bars::Bar;
use clap::Parser;
use functions::{Places, Subject};
use growth::{Series, SeriesName};
use machine::Moment;
use options::{Options, Reference};
use page::Part;
use rows::{Plan, Row, RowName};
use serde::Serialize;
use tokio::runtime::Runtime;

/// Fresh processes for each row and subject.
const PROCESSES: u32 = 5;

/// All that a run saw.
#[derive(Serialize)]
struct Results {
    conditions: String,
    rows: Vec<Row>,
    growth: Vec<Series>,
    bars: Vec<Bar>,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let own = std::env::current_exe()?.with_file_name("");
    let places = Places { functions: options.functions.clone().unwrap_or(own), reference: options.reference.clone() };
    if options.verify {
        verify::verify(&runtime, &places, &references(&options))?;
        return Ok(ExitCode::SUCCESS);
    }
    let results = measure(&runtime, &places, &options)?;
    print(&results);
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&results)?).with_context(|| file.display().to_string())?;
    }
    if let Some(file) = &options.page {
        write_page(file, &results)?;
    }
    let missed = results.bars.iter().filter(|bar| !bar.holds).count();
    Ok(if options.bars && missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn references(options: &Options) -> Vec<Subject> {
    let all = [(Reference::Python, Subject::Python), (Reference::Node, Subject::Node)];
    all.into_iter().filter(|(name, _)| !options.without.contains(name)).map(|(_, subject)| subject).collect()
}

fn measure(runtime: &Runtime, places: &Places, options: &Options) -> anyhow::Result<Results> {
    let began = Moment::now()?;
    let mut subjects = vec![Subject::Rust];
    subjects.extend(references(options));
    subjects.push(Subject::Empty);
    let plan = Plan { subjects, processes: if options.quick { 1 } else { PROCESSES }, quick: options.quick };
    let rows: Vec<Row> = RowName::ALL
        .into_iter()
        .map(|name| rows::measure_row(runtime, places, &plan, name))
        .collect::<anyhow::Result<_>>()?;
    let series = if options.growth { &SeriesName::ALL[..] } else { &[] };
    let growth: Vec<Series> =
        series.iter().map(|name| growth::measure_series(runtime, places, *name)).collect::<anyhow::Result<_>>()?;
    rows::progress_done();
    let mut bars = bars::bars(&rows);
    bars.extend(growth.iter().map(growth::bar));
    Ok(Results { conditions: machine::conditions(&plan, places, began)?, rows, growth, bars })
}

fn print(results: &Results) {
    println!("{}\n", results.conditions);
    println!("{}", tables::costs(&results.rows).aligned());
    if !results.growth.is_empty() {
        println!("{}", tables::growth(&results.growth).aligned());
    }
    println!("{}", tables::bars(&results.bars).aligned());
}

fn write_page(file: &Path, results: &Results) -> anyhow::Result<()> {
    let mut text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    text = page::replace(&text, Part::Conditions, &results.conditions)?;
    text = page::replace(&text, Part::Costs, &tables::costs(&results.rows).markdown())?;
    text = page::replace(&text, Part::Bars, &tables::bars(&results.bars).markdown())?;
    if !results.growth.is_empty() {
        text = page::replace(&text, Part::Growth, &tables::growth(&results.growth).markdown())?;
        growth_plot::draw(&file.with_file_name("performance-growth.svg"), &results.growth)?;
    }
    std::fs::write(file, text).with_context(|| file.display().to_string())
}
