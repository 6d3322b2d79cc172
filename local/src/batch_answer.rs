//! What a function answers to a batch: which of its items failed.
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchAnswer {
    batch_item_failures: Option<Vec<BatchItemFailure>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchItemFailure {
    item_identifier: Option<String>,
}

/// The identifiers of what failed, each where there is one: nothing when the answer is empty, null or names no failures. `None`
/// when it can't be read: then all failed.
pub(crate) fn failures(answer: &[u8]) -> Option<Vec<Option<String>>> {
    if answer.trim_ascii().is_empty() {
        return Some(Vec::new());
    }
    let answer = serde_json::from_slice::<Option<BatchAnswer>>(answer).ok()?;
    let failures = answer.and_then(|answer| answer.batch_item_failures).unwrap_or_default();
    Some(failures.into_iter().map(|failure| failure.item_identifier).collect())
}
