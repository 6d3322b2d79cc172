//! What the environment says.

use lambda_setup::environment::{self, EnvironmentError};

use super::sql::{CopyRole, Tables};

const BUCKET: &str = "BUCKET_NAME";
const WORKGROUP: &str = "WAREHOUSE_WORKGROUP";
const CLUSTER: &str = "WAREHOUSE_CLUSTER";
const DATABASE: &str = "WAREHOUSE_DATABASE";
const SCHEMA: &str = "WAREHOUSE_SCHEMA";
const COPY_ROLE: &str = "WAREHOUSE_COPY_ROLE";
const ENDPOINT: &str = "WAREHOUSE_ENDPOINT";

/// The most bytes of a name: <https://docs.aws.amazon.com/redshift/latest/dg/r_names.html>
const MAX_NAME_BYTES: usize = 127;

/// What the environment says.
#[derive(Debug)]
pub(super) struct Config {
    /// `BUCKET_NAME`
    pub(super) bucket: String,
    pub(super) target: Target,
    /// `WAREHOUSE_DATABASE`
    pub(super) database: String,
    pub(super) tables: Tables,
    /// `WAREHOUSE_ENDPOINT`: where the Data API answers, if not at its own address.
    pub(super) endpoint: Option<String>,
}

/// The warehouse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// `WAREHOUSE_WORKGROUP`: the ARN of a serverless workgroup.
    Workgroup(String),
    /// `WAREHOUSE_CLUSTER`: the identifier of a provisioned cluster.
    Cluster(String),
}

impl Config {
    /// # Errors
    ///
    /// A variable that is missing or has no value of its kind.
    pub(super) fn from_environment() -> Result<Self, EnvironmentError> {
        Ok(Self {
            bucket: bucket(environment::required(BUCKET)?)?,
            target: target(environment::optional(WORKGROUP)?, environment::optional(CLUSTER)?)?,
            database: environment::optional(DATABASE)?.unwrap_or_else(|| "dev".to_owned()),
            tables: Tables {
                schema: schema(environment::optional(SCHEMA)?.unwrap_or_else(|| "playhead".to_owned()))?,
                copy_role: copy_role(environment::optional(COPY_ROLE)?)?,
            },
            endpoint: environment::optional(ENDPOINT)?,
        })
    }
}

/// The name becomes part of addresses inside SQL.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>
fn bucket(name: String) -> Result<String, EnvironmentError> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let is_valid = name.bytes().all(is_allowed);
    if is_valid { Ok(name) } else { Err(EnvironmentError::new(BUCKET, format!("is {name:?}, not a bucket's name"))) }
}

fn target(workgroup: Option<String>, cluster: Option<String>) -> Result<Target, EnvironmentError> {
    match (workgroup, cluster) {
        (Some(workgroup), None) => Ok(Target::Workgroup(workgroup)),
        (None, Some(cluster)) => Ok(Target::Cluster(cluster)),
        (None, None) => Err(EnvironmentError::new(WORKGROUP, "is not set, and WAREHOUSE_CLUSTER is not either")),
        (Some(_), Some(_)) => {
            Err(EnvironmentError::new(CLUSTER, "is set beside WAREHOUSE_WORKGROUP; there is one warehouse"))
        }
    }
}

fn schema(name: String) -> Result<String, EnvironmentError> {
    let is_letter = |byte: u8| byte.is_ascii_lowercase();
    let is_valid = name.len() <= MAX_NAME_BYTES
        && name.bytes().next().is_some_and(is_letter)
        && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit() || byte == b'_');
    let problem = || format!("is {name:?}; it takes a lower-case letter, then letters, digits and _");
    if is_valid { Ok(name) } else { Err(EnvironmentError::new(SCHEMA, problem())) }
}

/// A role's ARN, or the warehouse's default role.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-names>
fn copy_role(text: Option<String>) -> Result<CopyRole, EnvironmentError> {
    let Some(arn) = text.filter(|text| text != "default") else { return Ok(CopyRole::Default) };
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":/+=,.@-_".contains(&byte);
    let is_valid = arn.starts_with("arn:") && arn.contains(":role/") && arn.bytes().all(is_allowed);
    let problem = || format!("is {arn:?}; it takes the ARN of a role, or default");
    if is_valid { Ok(CopyRole::Arn(arn)) } else { Err(EnvironmentError::new(COPY_ROLE, problem())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn there_is_one_warehouse() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(target(text("w"), None).unwrap(), Target::Workgroup("w".into()));
        assert_eq!(target(None, text("c")).unwrap(), Target::Cluster("c".into()));
        assert!(target(None, None).is_err());
        assert!(target(text("w"), text("c")).is_err());
    }

    #[rstest]
    #[case("playhead", true)]
    #[case("a_2", true)]
    #[case("", false)]
    #[case("_a", false)]
    #[case("Playhead", false)]
    #[case("a\"; DROP TABLE x; --", false)]
    fn schemas_are_plain_names(#[case] name: &str, #[case] is_valid: bool) {
        assert_eq!(schema(name.to_owned()).is_ok(), is_valid);
    }

    #[test]
    fn schemas_are_bounded() {
        assert!(schema("a".repeat(MAX_NAME_BYTES)).is_ok());
        assert!(schema("a".repeat(MAX_NAME_BYTES + 1)).is_err());
    }

    #[rstest]
    #[case(None, Some(CopyRole::Default))]
    #[case(Some("default"), Some(CopyRole::Default))]
    #[case(Some("arn:aws:iam::123456789012:role/copy"), Some(CopyRole::Arn("arn:aws:iam::123456789012:role/copy".into())))]
    #[case(Some("copy"), None)]
    #[case(Some("arn:aws:iam::123456789012:user/copy"), None)]
    #[case(Some("arn:aws:iam::123456789012:role/a' OR"), None)]
    fn copy_has_a_role(#[case] text: Option<&str>, #[case] expected: Option<CopyRole>) {
        assert_eq!(copy_role(text.map(str::to_owned)).ok(), expected);
    }

    #[test]
    fn a_bucket_is_no_sql() {
        assert!(bucket("landing-1.x".into()).is_ok());
        assert!(bucket("landing'".into()).is_err());
    }
}
