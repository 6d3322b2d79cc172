//! The stack's configuration, read once from the environment. docs/LOCAL.md describes each variable.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use lambda_setup::environment::{self, EnvironmentError};

use crate::clock::Pace;
use crate::faults::plan::Plan;

#[derive(Debug, Clone)]
pub struct Config {
    /// `PORT`; 0 is any that is free.
    pub port: u16,
    /// `AWS_PORT`; 0 is any that is free.
    pub aws_port: u16,
    /// `STATUS_PORT`; 0 is any that is free.
    pub status_port: u16,
    pub data_dir: PathBuf,
    pub template: PathBuf,
    pub parameters: BTreeMap<String, String>,
    pub functions_dir: PathBuf,
    pub faults: Plan,
    /// `CLOCK`; `None` is the real time.
    pub clock: Option<Pace>,
    pub front_door: FrontDoorKind,
    /// `RECIPIENTS`: who gets notices, as the parameter that notify reads has it.
    pub recipients: Option<String>,
}

/// `FRONT_DOOR`: what takes events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrontDoorKind {
    /// The function, behind a Function URL.
    Lambda,
    /// `ingest-server`
    Server,
}

impl Config {
    pub fn from_environment() -> anyhow::Result<Self> {
        let path = |name, default: &str| -> Result<PathBuf, EnvironmentError> {
            Ok(PathBuf::from(environment::optional(name)?.unwrap_or_else(|| default.to_owned())))
        };
        let functions_dir = match environment::optional("FUNCTIONS_DIR")? {
            Some(folder) => folder.into(),
            None => std::env::current_exe()?.with_file_name(""),
        };
        let front_door =
            environment::choice("FRONT_DOOR", &[("lambda", FrontDoorKind::Lambda), ("server", FrontDoorKind::Server)])?;
        let clock = environment::optional("CLOCK")?.map(|text| parsed("CLOCK", &text)).transpose()?;
        if front_door == FrontDoorKind::Server && clock.is_some() {
            let problem = "is server, whose clock is this machine's; unset CLOCK, or take FRONT_DOOR=lambda";
            return Err(EnvironmentError::new("FRONT_DOOR", problem).into());
        }
        Ok(Self {
            port: environment::number("PORT", 8080, 0..=u16::MAX)?,
            aws_port: environment::number("AWS_PORT", 4566, 0..=u16::MAX)?,
            status_port: environment::number("STATUS_PORT", 8081, 0..=u16::MAX)?,
            data_dir: path("DATA_DIR", "data")?,
            template: path("TEMPLATE", "template.yaml")?,
            parameters: parameters(&environment::optional("PARAMETERS")?.unwrap_or_default())?,
            functions_dir,
            faults: parsed("FAULTS", &environment::optional("FAULTS")?.unwrap_or_default())?,
            clock,
            front_door,
            recipients: environment::optional("RECIPIENTS")?,
        })
    }
}

/// `Name=Value Name=Value`, as `sam deploy --parameter-overrides` takes them.
fn parameters(text: &str) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let pair = |pair: &str| {
        let problem = || EnvironmentError::new("PARAMETERS", format!("holds {pair:?}; it takes Name=Value Name=Value"));
        pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(problem)
    };
    text.split_whitespace().map(pair).collect()
}

fn parsed<T: FromStr<Err: ToString>>(name: &'static str, text: &str) -> Result<T, EnvironmentError> {
    text.parse().map_err(|problem: T::Err| EnvironmentError::new(name, problem.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_pairs() {
        let parsed = parameters(" A=1  B=x=y ").unwrap();
        assert_eq!(parsed, BTreeMap::from([("A".into(), "1".into()), ("B".into(), "x=y".into())]));
        assert!(parameters("A").unwrap_err().to_string().contains("PARAMETERS"));
    }

    #[test]
    fn invalid_clocks_are_named() {
        let clock = parsed::<Pace>;
        assert!(clock("CLOCK", "2026-11-18T00:00:00Z x1440").is_ok());
        assert!(clock("CLOCK", "noon").unwrap_err().to_string().contains("CLOCK"));
    }
}
