//! A function's log, on its standard output.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::environment::{self, EnvironmentError};

/// Sets up the log: from `AWS_LAMBDA_LOG_LEVEL` on, else from `RUST_LOG`, else from `INFO`; as JSON where
/// `AWS_LAMBDA_LOG_FORMAT` says so. Each line has its time. Both are Lambda's own variables, and so are the names of a JSON
/// line's `timestamp` and `level`:
/// <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-advanced.html>
///
/// # Errors
///
/// When a variable is not Unicode, or a level is none.
pub fn init() -> Result<(), EnvironmentError> {
    let lines = tracing_subscriber::fmt().with_target(false).with_timer(UtcMillis).with_max_level(level()?);
    match environment::optional("AWS_LAMBDA_LOG_FORMAT")? {
        Some(format) if format.eq_ignore_ascii_case("json") => lines.json().init(),
        _ => lines.init(),
    }
    Ok(())
}

/// The time of a line, in UTC with milliseconds: `2026-11-21T09:32:08.006Z`.
#[derive(Debug, Clone, Copy)]
pub struct UtcMillis;

impl FormatTime for UtcMillis {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&crate::now().rfc3339())
    }
}

fn level() -> Result<LevelFilter, EnvironmentError> {
    for name in ["AWS_LAMBDA_LOG_LEVEL", "RUST_LOG"] {
        if let Some(text) = environment::optional(name)? {
            return level_of(&text).ok_or_else(|| {
                EnvironmentError::new(name, format!("is {text:?}; it takes trace, debug, info, warn or error"))
            });
        }
    }
    Ok(LevelFilter::INFO)
}

/// Lambda's `FATAL` is what nothing here says: errors are all that is left.
fn level_of(text: &str) -> Option<LevelFilter> {
    if text.eq_ignore_ascii_case("fatal") {
        return Some(LevelFilter::ERROR);
    }
    LevelFilter::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_s_time_is_utc_to_the_millisecond() {
        let before = crate::now();
        let mut text = String::new();
        UtcMillis.format_time(&mut Writer::new(&mut text)).unwrap();
        let time = shared::timestamp::UnixMillis::parse(&text).unwrap();
        assert!(before <= time && time <= crate::now(), "{text}");
    }

    #[test]
    fn levels_are_lambda_s() {
        let levels = ["TRACE", "DEBUG", "info", "WARN", "ERROR", "FATAL"].map(|text| level_of(text).unwrap());
        let expected = [
            LevelFilter::TRACE,
            LevelFilter::DEBUG,
            LevelFilter::INFO,
            LevelFilter::WARN,
            LevelFilter::ERROR,
            LevelFilter::ERROR,
        ];
        assert_eq!(levels, expected);
        assert_eq!(level_of("loud"), None);
    }
}
