//! What the operations' requests have in common, and how they are refused.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
#[cfg(test)]
use shared::timestamp::UnixMillis;

use crate::alarms::NoSuchAlarm;
#[cfg(test)]
use crate::metric_store::MetricStore;
use crate::metric_store::NotKept;

#[derive(Debug, thiserror::Error)]
pub(super) enum CloudWatchError {
    #[error("the request can't be read: {0}")]
    Malformed(String),
    #[error("{0}")]
    Value(String),
    #[error("the parameter {0} is missing")]
    Missing(&'static str),
    #[error("the token is not one of this listing")]
    Token,
    #[error("{0} is not supported locally")]
    Operation(String),
    #[error("{0}")]
    NotKept(#[from] NotKept),
    #[error(transparent)]
    NoSuchAlarm(#[from] NoSuchAlarm),
    #[error("the request is not signed")]
    Unsigned,
}

impl CloudWatchError {
    /// CloudWatch's code for it.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "SerializationException",
            Self::Value(_) | Self::NotKept(NotKept::TooOld | NotKept::TooNew) => "InvalidParameterValue",
            Self::NotKept(NotKept::TooManyMetrics) => "LimitExceeded",
            Self::Missing(_) => "MissingParameter",
            Self::Token => "InvalidNextToken",
            Self::Operation(_) => "UnknownOperationException",
            Self::NoSuchAlarm(_) => "ResourceNotFound",
            Self::Unsigned => "MissingAuthenticationToken",
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unsigned => StatusCode::FORBIDDEN,
            Self::NoSuchAlarm(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, CloudWatchError>;

/// A metric's dimension.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Dimension {
    pub(super) name: String,
    pub(super) value: String,
}

/// A position in a list as a token, and back.
pub(super) fn position(token: Option<&str>) -> Result<usize> {
    token.map_or(Ok(0), |token| token.parse().map_err(|_| CloudWatchError::Token))
}

pub(super) fn read<T: for<'de> Deserialize<'de>>(input: Value) -> Result<T> {
    T::deserialize(input).map_err(|problem| CloudWatchError::Malformed(problem.to_string()))
}

/// A service with one metric of these values, put at the start of the minute 1,000 and each third minute after it.
#[cfg(test)]
pub(super) fn with_values(values: &[f64]) -> (MetricStore, crate::metric_store::MetricId) {
    use crate::metric_store::{MetricId, Sample};
    let origin = "1970-01-01T16:40:00.000Z x1".parse().unwrap();
    let store = MetricStore::new(crate::clock::Clock::new(Some(origin), lambda_setup::now()));
    let id = MetricId::new("Playhead", "AcceptedEvents", &[("FunctionName", "f")]);
    for (index, value) in values.iter().enumerate() {
        let minute = 1000 + 3 * i64::try_from(index).unwrap();
        store.record(&id, Some("Count"), UnixMillis(minute * 60_000), Sample::of(*value)).unwrap();
    }
    (store, id)
}
