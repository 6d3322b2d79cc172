//! The environment, read once at the start: a missing or bad value stops the start and names the variable.

use std::env;
use std::fmt::Display;
use std::str::FromStr;

/// A variable that keeps a function from starting.
#[derive(Debug, thiserror::Error)]
#[error("environment variable {name}: {problem}")]
pub struct EnvironmentError {
    name: &'static str,
    problem: String,
}

impl EnvironmentError {
    /// An error that names the variable and says what is wrong with its value.
    pub fn new(name: &'static str, problem: impl Into<String>) -> Self {
        Self { name, problem: problem.into() }
    }
}

/// The value of a variable that must be set.
///
/// # Errors
///
/// When it is not set, is empty or is not Unicode.
pub fn required(name: &'static str) -> Result<String, EnvironmentError> {
    optional(name)?.ok_or_else(|| EnvironmentError::new(name, "is not set; it is required"))
}

/// The value of a variable; `None` when it is not set or empty.
///
/// # Errors
///
/// When it is not Unicode.
pub fn optional(name: &'static str) -> Result<Option<String>, EnvironmentError> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(EnvironmentError::new(name, "is not Unicode")),
    }
}

/// The value of a variable as a number from `range`, or `default`.
///
/// # Errors
///
/// When it is not such a number.
pub fn number<T>(name: &'static str, default: T, range: std::ops::RangeInclusive<T>) -> Result<T, EnvironmentError>
where
    T: FromStr + PartialOrd + Display,
{
    let Some(text) = optional(name)? else { return Ok(default) };
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        EnvironmentError::new(name, format!("is {text:?}; it takes a number from {} to {}", range.start(), range.end()))
    })
}

/// The value of a variable as one of named choices, or the first of them.
///
/// # Errors
///
/// When it is none of them.
pub fn choice<T: Copy>(name: &'static str, choices: &[(&str, T)]) -> Result<T, EnvironmentError> {
    let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let text = optional(name)?;
    let wanted = text.as_deref().unwrap_or(choices[0].0);
    choices
        .iter()
        .find(|(name, _)| *name == wanted)
        .map(|(_, choice)| *choice)
        .ok_or_else(|| EnvironmentError::new(name, format!("is {wanted:?}; it takes one of: {}", names())))
}

/// The comma-separated values of a variable, or of `default`, without the spaces around them; at least one.
///
/// # Errors
///
/// When it is not Unicode, or set and without a value.
pub fn list(name: &'static str, default: &str) -> Result<Vec<String>, EnvironmentError> {
    let text = optional(name)?;
    let items = text.as_deref().unwrap_or(default).split(',').map(str::trim);
    let items: Vec<String> = items.filter(|item| !item.is_empty()).map(str::to_owned).collect();
    if items.is_empty() { Err(EnvironmentError::new(name, "holds no value")) } else { Ok(items) }
}
