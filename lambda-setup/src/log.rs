//! A function's log, on its standard output.

use std::str::FromStr;

use tracing_subscriber::filter::LevelFilter;

use crate::environment::{self, EnvironmentError};

/// Sets up the log: from `AWS_LAMBDA_LOG_LEVEL` on, else from `RUST_LOG`, else from `INFO`; as JSON where
/// `AWS_LAMBDA_LOG_FORMAT` says so. Both are Lambda's own variables:
/// <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-advanced.html>
///
/// # Errors
///
/// When a variable is not Unicode, or a level is none.
pub fn init() -> Result<(), EnvironmentError> {
    let lines = tracing_subscriber::fmt().with_target(false).without_time().with_max_level(level()?);
    match environment::optional("AWS_LAMBDA_LOG_FORMAT")? {
        Some(format) if format.eq_ignore_ascii_case("json") => lines.json().init(),
        _ => lines.init(),
    }
    Ok(())
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
