//! notify's environment, and the rules that it sets.

use std::collections::BTreeMap;
use std::time::Duration;

use lambda_setup::environment::{self, EnvironmentError};

use super::incident::{Episode, Incident};
use super::mail_address::MailAddress;
use super::reporter::{Reporter, TrustedAccounts};

/// What the environment says.
#[derive(Debug, Clone)]
pub struct Config {
    /// `BUCKET_NAME`: where incidents are kept.
    pub bucket_name: String,
    /// `NOTICES_TOPIC_ARN`: whose subscriptions are e-mail addresses.
    pub topic_arn: String,
    /// Where notify runs, which the topic's ARN says.
    pub home: Reporter,
    /// `RECIPIENTS_PARAMETER`: the name of the parameter that has the recipients.
    pub recipients_parameter: String,
    /// `MAIL_FROM`: the sender of mails; `None` for no mails.
    pub mail_from: Option<MailAddress>,
    /// `STACK_NAME`: which deployment it is.
    pub stack_name: String,
    /// `RUNBOOK_URL`, without the `#`.
    pub runbook_url: String,
    pub rules: Rules,
    /// `TRUSTED_ACCOUNTS`: of which other accounts alarms are taken, and of the own one in other regions.
    pub trusted: TrustedAccounts,
}

/// When a group gets a message.
#[derive(Debug, Clone)]
pub struct Rules {
    /// `GROUPING_SECONDS`: the shortest time for which further alarms are collected.
    pub grouping: Duration,
    /// `REMINDER_MINUTES`: how long an incident lasts until the group is reminded of it.
    pub reminder: Duration,
    /// `PARENTS`
    pub parents: Parents,
}

/// Which alarm explains which, by suffixes of their names: `{"late-partitions":"seal-partition-did-not-run"}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parents(BTreeMap<String, String>);

impl Config {
    /// # Errors
    ///
    /// When a variable is missing or malformed; the error names it.
    pub fn from_environment() -> Result<Self, EnvironmentError> {
        let parents = environment::optional("PARENTS")?.unwrap_or_else(|| "{}".into());
        let trusted = environment::optional("TRUSTED_ACCOUNTS")?.unwrap_or_default();
        let topic_arn = environment::required("NOTICES_TOPIC_ARN")?;
        let not_an_arn = || EnvironmentError::new("NOTICES_TOPIC_ARN", "must be a topic's ARN");
        Ok(Self {
            bucket_name: environment::required("BUCKET_NAME")?,
            home: Reporter::of_arn(&topic_arn).ok_or_else(not_an_arn)?,
            topic_arn,
            recipients_parameter: environment::required("RECIPIENTS_PARAMETER")?,
            mail_from: mail_from()?,
            stack_name: environment::required("STACK_NAME")?,
            runbook_url: environment::required("RUNBOOK_URL")?,
            trusted: TrustedAccounts::parse(&trusted)
                .map_err(|problem| EnvironmentError::new("TRUSTED_ACCOUNTS", problem))?,
            rules: Rules {
                grouping: Duration::from_secs(environment::number("GROUPING_SECONDS", 60, 0..=3_600)?),
                reminder: Duration::from_secs(60 * environment::number("REMINDER_MINUTES", 60, 5..=10_080)?),
                parents: Parents::parse(&parents).map_err(|problem| EnvironmentError::new("PARENTS", problem))?,
            },
        })
    }
}

/// `MAIL_FROM`
pub(crate) fn mail_from() -> Result<Option<MailAddress>, EnvironmentError> {
    let malformed = || EnvironmentError::new("MAIL_FROM", "must be an address such as a@example.com");
    environment::optional("MAIL_FROM")?.map(|text| MailAddress::parse(&text).ok_or_else(malformed)).transpose()
}

impl Parents {
    /// # Errors
    ///
    /// When it is not such an object, or alarms explain one another in a circle: none of them would ever be announced.
    pub fn parse(json: &str) -> Result<Self, String> {
        let parents: BTreeMap<String, String> = serde_json::from_str(json).map_err(|error| {
            // The error's own text may quote an address that was put here by mistake.
            let (line, column) = (error.line(), error.column());
            format!(r#"is not JSON of the form {{"child":"parent"}} (line {line}, column {column})"#)
        })?;
        for child in parents.keys() {
            let chain = std::iter::successors(parents.get(child), |parent| parents.get(*parent));
            if chain.take(parents.len()).any(|parent| parent == child) {
                return Err(format!("makes {child} its own parent"));
            }
        }
        Ok(Self(parents))
    }

    /// The alarms that are on, have not been named by a message, and have no parent that is on.
    pub(crate) fn unannounced<'i>(&'i self, incident: &'i Incident) -> impl Iterator<Item = (&'i str, &'i Episode)> {
        incident.on().filter(|(name, episode)| !episode.announced && !self.quiets(name, incident))
    }

    /// Whether an alarm's parent is on in the same incident and explains it.
    pub(crate) fn quiets(&self, name: &str, incident: &Incident) -> bool {
        self.0.iter().any(|(child, parent)| {
            let Some(stack) = name.strip_suffix(child.as_str()) else { return false };
            let is_whole = stack.is_empty() || stack.ends_with('-');
            is_whole && incident.on().any(|(other, _)| other.strip_suffix(parent.as_str()) == Some(stack))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("[]", "not JSON")]
    #[case(r#"{"a":"a"}"#, "its own parent")]
    #[case(r#"{"a":"b","b":"c","c":"a"}"#, "its own parent")]
    fn bad_parents_are_named(#[case] json: &str, #[case] named: &str) {
        assert!(Parents::parse(json).unwrap_err().contains(named));
    }

    #[test]
    fn errors_do_not_quote_the_input() {
        assert!(!Parents::parse(r#"{"a":["https://hooks.example.com/secret"]}"#).unwrap_err().contains("secret"));
        assert!(!Parents::parse(r#""https://hooks.example.com/secret""#).unwrap_err().contains("secret"));
    }

    #[test]
    fn a_chain_of_parents_is_accepted() {
        assert!(Parents::parse(r#"{"a":"b","b":"c","d":"c"}"#).is_ok());
    }
}
