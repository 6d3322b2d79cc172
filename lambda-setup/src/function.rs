//! A function from start to end: it reads its configuration, makes its clients and serves invocations with its handler.

use std::pin::Pin;

use anyhow::Context as _;
use lambda_runtime::{Context, Diagnostic, LambdaEvent, service_fn};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::sdk::{self, SdkConfig};

/// Runs a function that has this configuration.
///
/// # Errors
///
/// When it can't start, or the Runtime API does not answer.
pub fn start<C, P>(
    name: &str,
    configuration: impl FnOnce() -> Result<C, P>,
    function: impl AsyncFnOnce(C, SdkConfig) -> anyhow::Result<()>,
) -> anyhow::Result<()>
where
    P: std::error::Error + Send + Sync + 'static,
{
    crate::log::init()?;
    let configuration = configuration().with_context(|| format!("{name} can't start"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(function(configuration, sdk::config()?))
}

/// Serves invocations until Lambda ends the process. One that failed is reported with its error's type and text, any other
/// answered with the JSON of what the handler returns.
///
/// # Errors
///
/// When the Runtime API does not answer.
pub async fn serve<E, A, Failure>(handle: impl AsyncFn(E, Context) -> Result<A, Failure>) -> anyhow::Result<()>
where
    E: DeserializeOwned,
    A: Serialize,
    Failure: std::error::Error,
{
    let handle = &handle;
    run(&|LambdaEvent { payload, context }| {
        Box::pin(async move {
            let event = serde_json::from_value(payload).map_err(diagnostic)?;
            let answer = handle(event, context).await.map_err(diagnostic)?;
            serde_json::to_value(answer).map_err(diagnostic)
        })
    })
    .await
}

type Answer<'h> = Pin<Box<dyn Future<Output = Result<Value, Diagnostic>> + 'h>>;

/// The runtime without type parameters, which would be compiled for each handler.
async fn run<'h>(answer: &dyn Fn(LambdaEvent<Value>) -> Answer<'h>) -> anyhow::Result<()> {
    lambda_runtime::run(service_fn(answer)).await.map_err(anyhow::Error::from_boxed)
}

fn diagnostic<E: std::error::Error>(error: E) -> Diagnostic {
    let path = std::any::type_name::<E>();
    let error_type = path.rsplit("::").next().unwrap_or(path).to_owned();
    Diagnostic { error_type, error_message: error.to_string() }
}
