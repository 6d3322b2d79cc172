//! What is measured, and how each is started.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde::Serialize;

/// Who does a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    /// The binary that is deployed.
    Rust,
    /// The references.
    Python,
    Node,
    /// A Rust function that does nothing.
    Empty,
}

impl fmt::Display for Subject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::Node => "Node.js",
            Self::Empty => "empty handler",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Ingest,
    Landing,
}

/// Where the functions are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The folder of the binaries that are deployed, and of the empty handler, built like them.
    pub(crate) functions: PathBuf,
    /// The folder of the references, with what `install.sh` put there.
    pub(crate) reference: PathBuf,
}

/// Where Lambda's and AWS's interfaces are answered while a function is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoints {
    pub(crate) runtime_api: SocketAddr,
    pub(crate) services: SocketAddr,
}

impl Places {
    /// The command that starts a function as Lambda would, and nothing of the caller's environment but the search path.
    pub(crate) fn command(
        &self,
        subject: Subject,
        function: Function,
        endpoints: Endpoints,
    ) -> anyhow::Result<Command> {
        let mut command = self.program(subject, function)?;
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("AWS_LAMBDA_RUNTIME_API", endpoints.runtime_api.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "bench")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_DEFAULT_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "bench")
            .env("AWS_SECRET_ACCESS_KEY", "bench")
            .env("AWS_ENDPOINT_URL", format!("http://{}", endpoints.services))
            // Of whoever runs the bench nothing is read, and the SDKs don't look for it.
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("STREAM_NAME", "bench")
            .env("BUCKET_NAME", "bench")
            .env("ANSWER", empty_answer(function));
        Ok(command)
    }

    fn program(&self, subject: Subject, function: Function) -> anyhow::Result<Command> {
        let module = match function {
            Function::Ingest => "ingest.handler",
            Function::Landing => "landing.handler",
        };
        let binary = match function {
            Function::Ingest => "ingest-lambda",
            Function::Landing => "kinesis-to-s3-lambda",
        };
        match subject {
            Subject::Rust => Ok(Command::new(existing(&self.functions.join(binary))?)),
            Subject::Empty => Ok(Command::new(existing(&self.functions.join("empty-handler"))?)),
            Subject::Python => {
                // Not resolved further: the link is what tells Python of its environment.
                let python = existing(&std::path::absolute(self.reference.join(".venv/bin/python"))?)?;
                let mut command = Command::new(python);
                command.args(["-m", "awslambdaric", module]).current_dir(self.reference.join("python"));
                Ok(command)
            }
            Subject::Node => {
                let folder = self.reference.join("node");
                let client = "node_modules/aws-lambda-ric/bin/index.mjs";
                existing(&folder.join(client))?;
                let mut command = Command::new("node");
                command.args([client, module]).current_dir(folder);
                Ok(command)
            }
        }
    }
}

/// An absolute path of what must be there.
fn existing(path: &Path) -> anyhow::Result<PathBuf> {
    if !path.exists() {
        bail!("there is no {}; `make bench` builds and installs what is measured", path.display());
    }
    std::path::absolute(path).with_context(|| path.display().to_string())
}

/// What the empty handler answers: as long as a real answer is.
fn empty_answer(function: Function) -> &'static str {
    match function {
        Function::Ingest => {
            r#"{"statusCode":200,"headers":{"content-type":"application/json"},"body":"{\"accepted\":1,\"rejected\":[]}","isBase64Encoded":false}"#
        }
        Function::Landing => r#"{"batchItemFailures":[]}"#,
    }
}
