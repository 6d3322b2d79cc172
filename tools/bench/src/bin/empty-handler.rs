//! A function that does nothing: what the runtime, its connection and its loop cost, which no function can avoid.
//!
//! It takes whatever JSON it is given, unread, and answers what the environment's `ANSWER` holds.

// The types of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

use std::convert::Infallible;

use anyhow::Context;
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::value::RawValue;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    lambda_setup::log::init()?;
    let answer = lambda_setup::environment::required("ANSWER").context("empty-handler can't start")?;
    let answer = RawValue::from_string(answer)?;
    let handle = |_: LambdaEvent<Box<RawValue>>| {
        let answer = answer.clone();
        async { Ok::<_, Infallible>(answer) }
    };
    lambda_runtime::run(service_fn(handle)).await.map_err(anyhow::Error::from_boxed)
}
