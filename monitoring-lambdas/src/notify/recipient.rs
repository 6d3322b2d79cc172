//! Who is told what, and how: groups of people, each with the alarms that are theirs.

use serde::Deserialize;

use super::webhook::{WebhookError, WebhookUrl};

/// Groups at most: each costs requests at every notice.
pub const GROUPS_LIMIT: usize = 20;

/// A group of people and how they are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Part of object keys and the message attribute that e-mail subscriptions filter by.
    pub group: String,
    /// Patterns of the names of their alarms.
    pub alarms: Vec<String>,
    /// Where a message is posted to.
    pub webhook: Option<WebhookUrl>,
    /// Whether a message is published for their e-mail subscriptions.
    pub email: bool,
}

/// Recipients that can't be told anything. No message holds a webhook's address: it is a secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    #[error(
        r#"is not JSON of the form [{{"group":"…","alarms":["*"],"webhook":"https://…","email":true}}] (line {line}, column {column})"#
    )]
    Form { line: usize, column: usize },
    #[error("has {0} groups; it takes at most {GROUPS_LIMIT}")]
    TooMany(usize),
    #[error("names a group {0:?}; it takes 1 to 64 of a-z, A-Z, 0-9, - and _")]
    Group(String),
    #[error("has the group {0} twice")]
    Twice(String),
    #[error("has no alarms for the group {0}")]
    NoAlarms(String),
    #[error("has neither a webhook nor e-mail for the group {0}")]
    NoWay(String),
    #[error("has a webhook for the group {0} that can't be used")]
    Webhook(String, #[source] WebhookError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    group: String,
    alarms: Vec<String>,
    webhook: Option<String>,
    #[serde(default)]
    email: bool,
}

impl Recipient {
    /// Reads `RECIPIENTS`. An empty list is one group, `everyone`, that hears of all alarms by e-mail.
    ///
    /// # Errors
    ///
    /// When it has not the form, or a group could not be told.
    pub fn parse_all(json: &str) -> Result<Vec<Self>, RecipientError> {
        let declared: Vec<Declared> = serde_json::from_str(json)
            .map_err(|error| RecipientError::Form { line: error.line(), column: error.column() })?;
        if declared.is_empty() {
            return Ok(vec![Self { group: "everyone".into(), alarms: vec!["*".into()], webhook: None, email: true }]);
        }
        if declared.len() > GROUPS_LIMIT {
            return Err(RecipientError::TooMany(declared.len()));
        }
        let mut recipients: Vec<Self> = Vec::with_capacity(declared.len());
        for one in declared {
            let recipient = Self::checked(one)?;
            if recipients.iter().any(|other| other.group == recipient.group) {
                return Err(RecipientError::Twice(recipient.group));
            }
            recipients.push(recipient);
        }
        Ok(recipients)
    }

    fn checked(declared: Declared) -> Result<Self, RecipientError> {
        let Declared { group, alarms, webhook, email } = declared;
        let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
        if group.is_empty() || group.len() > 64 || !group.chars().all(is_plain) {
            return Err(RecipientError::Group(group));
        }
        if alarms.is_empty() {
            return Err(RecipientError::NoAlarms(group));
        }
        let webhook = match webhook.map(|url| WebhookUrl::parse(&url)).transpose() {
            Ok(webhook) => webhook,
            Err(error) => return Err(RecipientError::Webhook(group, error)),
        };
        if webhook.is_none() && !email {
            return Err(RecipientError::NoWay(group));
        }
        Ok(Self { group, alarms, webhook, email })
    }

    /// Whether an alarm is theirs.
    #[must_use]
    pub fn hears_of(&self, alarm: &str) -> bool {
        self.alarms.iter().any(|pattern| matches(pattern.as_bytes(), alarm.as_bytes()))
    }
}

/// `*` stands for any characters, `?` for one.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where the last star is, and where in the name what it stands for ends at least.
    let mut star = None;
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((star_at, end)) = star else { return false };
                star = Some((star_at, end + 1));
                at = star_at + 1;
                from = end + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("*", "", true)]
    #[case("*", "prod-broken-objects", true)]
    #[case("prod-*", "prod-broken-objects", true)]
    #[case("*-objects", "prod-broken-objects", true)]
    #[case("*-broken-*", "prod-broken-objects", true)]
    #[case("prod-?roken-objects", "prod-broken-objects", true)]
    #[case("*o*o*s", "prod-broken-objects", true)]
    #[case("prod-", "prod-broken-objects", false)]
    #[case("dev-*", "prod-broken-objects", false)]
    #[case("*-object", "prod-broken-objects", false)]
    #[case("", "a", false)]
    fn patterns_match_names(#[case] pattern: &str, #[case] name: &str, #[case] expected: bool) {
        assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected);
    }

    #[test]
    fn groups_are_read_and_an_empty_list_is_everyone_by_email() {
        let json = r#"[{"group":"platform","alarms":["*"],"webhook":"https://hooks.example.com/T0/secret","email":true},
                       {"group":"ads","alarms":["prod-ads-*"],"email":true}]"#;
        let recipients = Recipient::parse_all(json).unwrap();
        assert_eq!(recipients.len(), 2);
        assert!(recipients[0].hears_of("prod-errors") && !recipients[1].hears_of("prod-errors"));
        let everyone = Recipient::parse_all("[]").unwrap().remove(0);
        assert!(everyone.email && everyone.hears_of("anything"));
    }

    #[rstest]
    #[case("[", "not JSON")]
    #[case(r#"[{"group":"a","alarms":["*"],"hook":1}]"#, "not JSON")]
    #[case(r#"[{"group":"a/b","alarms":["*"],"email":true}]"#, "a/b")]
    #[case(r#"[{"group":"a","alarms":["*"],"email":true},{"group":"a","alarms":["*"],"email":true}]"#, "twice")]
    #[case(r#"[{"group":"a","alarms":[],"email":true}]"#, "no alarms")]
    #[case(r#"[{"group":"a","alarms":["*"]}]"#, "neither")]
    #[case(r#"[{"group":"a","alarms":["*"],"webhook":"http://hooks.example.com/secret"}]"#, "can't be used")]
    fn bad_recipients_are_named_and_no_secret_is(#[case] json: &str, #[case] named: &str) {
        let error = Recipient::parse_all(json).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
        assert!(!format!("{error:?} {error}").contains("secret"));
    }

    #[test]
    fn twenty_groups_and_no_more() {
        let json = |count: usize| {
            let groups = (0..count).map(|number| format!(r#"{{"group":"g{number}","alarms":["*"],"email":true}}"#));
            format!("[{}]", groups.collect::<Vec<_>>().join(","))
        };
        assert_eq!(Recipient::parse_all(&json(20)).unwrap().len(), 20);
        assert_eq!(Recipient::parse_all(&json(21)), Err(RecipientError::TooMany(21)));
    }
}
