//! Who does the work, and the command that starts it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Implementation {
    /// The binary that is deployed.
    Rust,
    /// The reference.
    Python,
    /// A Rust function that does nothing: the floor of any handler.
    EmptyHandler,
}

impl Implementation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::EmptyHandler => "empty handler",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Ingest,
    Landing,
}

impl Function {
    fn binary(self) -> &'static str {
        match self {
            Self::Ingest => "ingest-lambda",
            Self::Landing => "kinesis-to-s3-lambda",
        }
    }

    fn python_handler(self) -> &'static str {
        match self {
            Self::Ingest => "ingest.handler",
            Self::Landing => "landing.handler",
        }
    }

    /// What the empty handler answers: as long as a real answer.
    fn answer(self) -> &'static str {
        match self {
            Self::Ingest => {
                r#"{"statusCode":200,"headers":{"content-type":"application/json"},"body":"{\"accepted\":1,\"rejected\":[]}","isBase64Encoded":false}"#
            }
            Self::Landing => r#"{"batchItemFailures":[]}"#,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Folders {
    /// Has the binaries that are deployed, and the empty handler.
    pub(crate) functions: PathBuf,
    /// ingest-server's binary.
    pub(crate) server: PathBuf,
    /// Has what `install.sh` installed.
    pub(crate) reference: PathBuf,
}

/// Addresses at which Lambda and AWS are answered for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoints {
    pub(crate) runtime_api: SocketAddr,
    pub(crate) services: SocketAddr,
}

impl Folders {
    pub(crate) fn python(&self) -> PathBuf {
        self.reference.join(".venv/bin/python")
    }

    /// Starts a function as Lambda would. Of the caller's environment it gets the search path alone.
    pub(crate) fn command(
        &self,
        implementation: Implementation,
        function: Function,
        endpoints: Endpoints,
    ) -> anyhow::Result<Command> {
        let mut command = match implementation {
            Implementation::Rust => Command::new(existing(&self.functions.join(function.binary()))?),
            Implementation::EmptyHandler => Command::new(existing(&self.functions.join("empty-handler"))?),
            Implementation::Python => {
                let mut command = Command::new(existing(&self.python())?);
                command.args(["-m", "awslambdaric", function.python_handler()]);
                command.current_dir(self.reference.join("python"));
                command
            }
        };
        with_aws(&mut command, endpoints.services);
        command
            .env("AWS_LAMBDA_RUNTIME_API", endpoints.runtime_api.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "bench")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            .env("ANSWER", function.answer());
        Ok(command)
    }
}

/// Replaces the environment: of the caller's it keeps the search path alone, and AWS is these services.
pub(crate) fn with_aws(command: &mut Command, services: SocketAddr) {
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_DEFAULT_REGION", "eu-central-1")
        .env("AWS_ACCESS_KEY_ID", "bench")
        .env("AWS_SECRET_ACCESS_KEY", "bench")
        .env("AWS_ENDPOINT_URL", format!("http://{services}"))
        // The caller's own settings are not read.
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("STREAM_NAME", "bench")
        .env("BUCKET_NAME", "bench");
}

/// The absolute path of what must exist. Links stay as they are: Python finds its packages by the link.
pub(crate) fn existing(path: &Path) -> anyhow::Result<PathBuf> {
    ensure!(path.exists(), "there is no {}; `make bench` builds and installs what is measured", path.display());
    std::path::absolute(path).with_context(|| path.display().to_string())
}
