//! Other accounts and regions, whose alarms come by the event bus, and which of them are trusted.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The most accounts whose alarms are taken.
pub(crate) const MAX_ACCOUNTS: usize = 20;
const ACCOUNT_DIGITS: usize = 12;
/// Longer than any region's name.
const MAX_REGION_BYTES: usize = 32;

/// Where an alarm is that is not of notify's own stack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reporter {
    pub account: String,
    pub region: String,
}

impl Reporter {
    /// `None` unless both look as AWS writes them: they become part of object keys.
    pub(crate) fn new(account: &str, region: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_region = (1..=MAX_REGION_BYTES).contains(&region.len()) && region.bytes().all(is_plain);
        (is_account(account) && is_region).then(|| Self { account: account.to_owned(), region: region.to_owned() })
    }

    /// Where the resource of an ARN is: `arn:aws:sns:eu-central-1:123456789012:…`
    pub(crate) fn of_arn(arn: &str) -> Option<Self> {
        let mut parts = arn.split(':').skip(3);
        let (region, account) = (parts.next()?, parts.next()?);
        Self::new(account, region)
    }
}

impl fmt::Display for Reporter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "account {}, {}", self.account, self.region)
    }
}

/// `TRUSTED_ACCOUNTS`: whose alarms are taken; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedAccounts(BTreeSet<String>);

impl TrustedAccounts {
    /// Reads a comma-separated list, which may be empty.
    ///
    /// # Errors
    ///
    /// When one is not twelve digits, or there are too many.
    pub fn parse(text: &str) -> Result<Self, String> {
        let accounts: BTreeSet<_> = text.split(',').map(str::trim).filter(|one| !one.is_empty()).collect();
        if let Some(wrong) = accounts.iter().find(|one| !is_account(one)) {
            return Err(format!("holds {wrong:?}; an account is {ACCOUNT_DIGITS} digits"));
        }
        if accounts.len() > MAX_ACCOUNTS {
            return Err(format!("holds {} accounts; it takes at most {MAX_ACCOUNTS}", accounts.len()));
        }
        Ok(Self(accounts.into_iter().map(str::to_owned).collect()))
    }

    pub(crate) fn include(&self, reporter: &Reporter) -> bool {
        self.0.contains(&reporter.account)
    }
}

fn is_account(text: &str) -> bool {
    text.len() == ACCOUNT_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn at_most_twenty_accounts_are_trusted() {
        let list = |count: u64| (1..=count).map(|number| format!("{number:012}")).collect::<Vec<_>>().join(", ");
        let trusted = TrustedAccounts::parse(&list(20)).unwrap();
        assert!(trusted.include(&Reporter::new("000000000020", "eu-west-1").unwrap()));
        assert!(!trusted.include(&Reporter::new("000000000021", "eu-west-1").unwrap()));
        assert!(TrustedAccounts::parse(&list(21)).unwrap_err().contains("21 accounts"));
        assert_eq!(TrustedAccounts::parse(""), Ok(TrustedAccounts::default()));
    }

    #[rstest]
    #[case("11112222333")]
    #[case("1111222233334")]
    #[case("11112222333a")]
    #[case("*")]
    fn what_is_no_account_is_named(#[case] text: &str) {
        assert!(TrustedAccounts::parse(text).unwrap_err().contains(text));
    }

    #[rstest]
    #[case("111122223333", "eu-west-1", true)]
    #[case("111122223333", "", false)]
    #[case("111122223333", "../x", false)]
    #[case("111122223333", "eu.west.1", false)]
    #[case("11112222333/", "eu-west-1", false)]
    #[case("111122223333", "abcdefghijklmnopqrstuvwxyz-12345", true)]
    #[case("111122223333", "abcdefghijklmnopqrstuvwxyz-123456", false)]
    fn only_what_may_be_in_a_key_is_a_reporter(#[case] account: &str, #[case] region: &str, #[case] expected: bool) {
        assert_eq!(Reporter::new(account, region).is_some(), expected);
    }
}
