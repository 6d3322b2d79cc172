//! Redshift by its Data API, and the only file here that knows its SDK.
//! <https://docs.aws.amazon.com/redshift-data/latest/APIReference/API_BatchExecuteStatement.html>

use std::time::Duration;

use aws_sdk_redshiftdata::Client;
use aws_sdk_redshiftdata::config::Builder;
use aws_sdk_redshiftdata::operation::describe_statement::DescribeStatementOutput;
use aws_sdk_redshiftdata::types::StatusString;
use lambda_setup::s3::describe;
use lambda_setup::sdk::{SdkConfig, with_retries};

use super::config::{Config, Target};
use super::sql::Transaction;
use super::warehouse::{Progress, Warehouse, WarehouseError};

/// Attempts at a call, and how long each may take. A call only hands over or asks: nothing is waited for.
const ATTEMPTS: u32 = 4;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of what Redshift says of an error that are kept.
const MAX_PROBLEM_BYTES: usize = 1_000;

/// A workgroup's or cluster's database.
pub(super) struct RedshiftData {
    client: Client,
    target: Target,
    database: String,
}

impl RedshiftData {
    pub(super) fn new(config: &Config, sdk: &SdkConfig) -> Self {
        let mut builder = Builder::from(&with_retries(sdk, ATTEMPTS, ATTEMPT_TIMEOUT));
        if let Some(endpoint) = &config.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        let client = Client::from_conf(builder.build());
        Self { client, target: config.target.clone(), database: config.database.clone() }
    }
}

impl Warehouse for RedshiftData {
    /// A batch is one transaction: if a statement fails, all are rolled back.
    async fn submit(&self, transaction: &Transaction, token: &str) -> Result<String, WarehouseError> {
        let batch = self.client.batch_execute_statement();
        let batch = match &self.target {
            Target::Workgroup(workgroup) => batch.workgroup_name(workgroup),
            Target::Cluster(cluster) => batch.cluster_identifier(cluster),
        };
        let batch = batch.database(&self.database).statement_name(transaction.name()).client_token(token);
        let failed = |problem| WarehouseError { operation: "sending a transaction", problem };
        let sent = batch.set_sqls(Some(transaction.sqls())).send().await.map_err(|error| failed(describe(error)))?;
        sent.id.ok_or_else(|| failed("the answer has no id".to_owned()))
    }

    async fn progress(&self, id: &str) -> Result<Option<Progress>, WarehouseError> {
        match self.client.describe_statement().id(id).send().await {
            Ok(described) => Ok(Some(progress(&described))),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => {
                Ok(None)
            }
            Err(error) => Err(WarehouseError { operation: "asking for a transaction", problem: describe(error) }),
        }
    }
}

fn progress(described: &DescribeStatementOutput) -> Progress {
    match described.status() {
        Some(StatusString::Finished) => Progress::Committed,
        Some(status @ (StatusString::Failed | StatusString::Aborted)) => {
            let of_a_statement = || described.sub_statements().iter().find_map(|statement| statement.error());
            let problem = described.error().or_else(of_a_statement).unwrap_or_default();
            let end = problem.floor_char_boundary(MAX_PROBLEM_BYTES);
            Progress::Failed(format!("{status}: {}", &problem[..end]))
        }
        _ => Progress::UnderWay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_redshiftdata::types::SubStatementData;
    use rstest::rstest;

    fn described(status: StatusString, error: Option<&str>) -> DescribeStatementOutput {
        let builder = DescribeStatementOutput::builder().id("i").status(status);
        builder.set_error(error.map(str::to_owned)).build().unwrap()
    }

    #[rstest]
    #[case(StatusString::Submitted, Progress::UnderWay)]
    #[case(StatusString::Picked, Progress::UnderWay)]
    #[case(StatusString::Started, Progress::UnderWay)]
    #[case(StatusString::Finished, Progress::Committed)]
    #[case(StatusString::Failed, Progress::Failed("FAILED: e".into()))]
    #[case(StatusString::Aborted, Progress::Failed("ABORTED: e".into()))]
    fn each_status_is_a_progress(#[case] status: StatusString, #[case] expected: Progress) {
        assert_eq!(progress(&described(status, Some("e"))), expected);
    }

    #[test]
    fn what_redshift_says_is_bounded() {
        let said = |bytes| match progress(&described(StatusString::Failed, Some(&"x".repeat(bytes)))) {
            Progress::Failed(said) => said.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(said(MAX_PROBLEM_BYTES), MAX_PROBLEM_BYTES + "FAILED: ".len());
        assert_eq!(said(MAX_PROBLEM_BYTES + 1), MAX_PROBLEM_BYTES + "FAILED: ".len());
    }

    #[test]
    fn a_statement_says_what_the_batch_does_not() {
        let statement = SubStatementData::builder().id("i:3").error("no such column").build().unwrap();
        let builder = DescribeStatementOutput::builder().id("i").status(StatusString::Failed);
        let described = builder.sub_statements(statement).build().unwrap();
        assert_eq!(progress(&described), Progress::Failed("FAILED: no such column".into()));
    }
}
