//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures what an invocation of each function costs, beside the same job in Python and Node.js and beside floors.
///
/// Each function's real process runs behind a Lambda Runtime API, with instant stand-ins for Kinesis and S3. Numbers are
/// medians of five fresh processes each; in each round every language has its turn. `make bench` builds and installs
/// what is needed.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
pub(crate) struct Options {
    /// Leave a reference out; may be given twice. Without both, C's bzip2 is left out too
    #[arg(long, value_enum)]
    pub(crate) without: Vec<Reference>,

    /// Measure also how cost grows with batch size, event size, events and keys a POST: a minute more
    #[arg(long)]
    pub(crate) growth: bool,

    /// Exit with 1 when a bar is missed
    #[arg(long)]
    pub(crate) bars: bool,

    /// Few invocations of one process: shows that all of it works, with numbers that mean nothing
    #[arg(long)]
    pub(crate) quick: bool,

    /// Measure nothing: compare what the references answer and store with what the functions do
    #[arg(long, conflicts_with_all = ["growth", "bars", "quick", "json", "page"])]
    pub(crate) verify: bool,

    /// Write all numbers to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Write the tables into this page, between its marks; the plot of growth goes beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) page: Option<PathBuf>,

    /// The folder of the functions' binaries [default: where this program is]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) functions: Option<PathBuf>,

    /// The folder of the references
    #[arg(long, value_name = "FOLDER", default_value = "bench/reference")]
    pub(crate) reference: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reference {
    Python,
    Node,
}
