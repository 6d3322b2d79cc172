//! Groups of people: which alarms they get, and how.

use serde::Deserialize;

use super::mail_address::{MAX_ADDRESSES, MailAddress};
use super::webhook_url::{WebhookError, WebhookUrl};

/// The most groups: each costs requests for every notice.
const MAX_GROUPS: usize = 20;

/// A group of people and how messages reach them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipient {
    /// Part of object keys and the message attribute that e-mail subscriptions filter by.
    pub group: String,
    /// Patterns for the names of their alarms.
    pub alarms: Vec<String>,
    pub webhook: Option<Webhook>,
    /// Whether messages are published for their e-mail subscriptions.
    pub email: bool,
    /// Who gets messages as mails by SES; at most [`MAX_ADDRESSES`].
    pub mail: Vec<MailAddress>,
    /// Whether the group gets the daily digest.
    pub digest: bool,
}

/// A group's webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub url: WebhookUrl,
    pub format: Format,
}

/// The format that a webhook takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// `{"text": …}`: Slack, and what takes Slack's messages.
    #[default]
    Text,
    /// A message with an Adaptive Card: Workflows of Microsoft Teams.
    AdaptiveCard,
}

impl Format {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "adaptive-card" => Some(Self::AdaptiveCard),
            _ => None,
        }
    }
}

/// Recipients that can't be used. Errors name positions and quote nothing: an address, which is a secret, may have been
/// typed into any member.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecipientError {
    #[error(
        r#"is not JSON of the form [{{"group":"…","alarms":["*"],"webhook":"https://…","format":"text","email":true,"mail":["…"],"digest":true}}] (line {line}, column {column})"#
    )]
    Form { line: usize, column: usize },
    #[error("has {0} groups; it takes at most {MAX_GROUPS}")]
    TooMany(usize),
    #[error("RECIPIENTS has no group that gets alarms; one must have \"alarms\" such as [\"*\"]")]
    Unheard,
    #[error("RECIPIENTS[{0}].group must be 1 to 64 of a-z, A-Z, 0-9, - and _")]
    Group(usize),
    #[error("RECIPIENTS[{0}].group is the same as RECIPIENTS[{1}].group")]
    Twice(usize, usize),
    #[error("RECIPIENTS[{0}].alarms must have at least one pattern that does not begin with !, such as \"*\"")]
    NoAlarms(usize),
    #[error("RECIPIENTS[{0}] must have a webhook, \"email\":true, or \"mail\" with addresses")]
    NoWay(usize),
    #[error("RECIPIENTS[{0}].mail must have at most {MAX_ADDRESSES} addresses such as a@example.com, without names")]
    Mail(usize),
    #[error("RECIPIENTS[{0}].webhook can't be used: {1}")]
    Webhook(usize, #[source] WebhookError),
    #[error("RECIPIENTS[{0}].format must be \"text\" or \"adaptive-card\"")]
    Format(usize),
    #[error("RECIPIENTS[{0}].format is that of a webhook, and RECIPIENTS[{0}] has none")]
    FormatOfNothing(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    group: String,
    alarms: Vec<String>,
    webhook: Option<String>,
    format: Option<String>,
    #[serde(default)]
    email: bool,
    #[serde(default)]
    mail: Vec<String>,
    #[serde(default)]
    digest: bool,
}

impl Recipient {
    /// A group that is not among the recipients: it gets no alarm, and nothing reaches it.
    pub(crate) fn gone(group: &str) -> Self {
        let group = group.to_owned();
        Self { group, alarms: Vec::new(), webhook: None, email: false, mail: Vec::new(), digest: false }
    }

    /// Whether nothing reaches it, which is so of no group that is declared.
    pub(crate) fn is_gone(&self) -> bool {
        self.webhook.is_none() && !self.email && self.mail.is_empty()
    }

    /// Reads a list of groups. An empty list is one group, `everyone`, which gets all alarms by e-mail.
    pub(crate) fn parse_all(json: &str) -> Result<Vec<Self>, RecipientError> {
        let declared: Vec<Declared> = serde_json::from_str(json)
            .map_err(|error| RecipientError::Form { line: error.line(), column: error.column() })?;
        if declared.is_empty() {
            let (group, alarms) = ("everyone".into(), vec!["*".into()]);
            return Ok(vec![Self { group, alarms, webhook: None, email: true, mail: Vec::new(), digest: false }]);
        }
        if declared.len() > MAX_GROUPS {
            return Err(RecipientError::TooMany(declared.len()));
        }
        let mut recipients: Vec<Self> = Vec::with_capacity(declared.len());
        for (at, one) in declared.into_iter().enumerate() {
            let recipient = Self::checked(at, one)?;
            if let Some(first) = recipients.iter().position(|other| other.group == recipient.group) {
                return Err(RecipientError::Twice(at, first));
            }
            recipients.push(recipient);
        }
        // A list replaces `everyone`: nobody would be notified of an alarm.
        if recipients.iter().all(|recipient| recipient.alarms.is_empty()) {
            return Err(RecipientError::Unheard);
        }
        Ok(recipients)
    }

    fn checked(at: usize, declared: Declared) -> Result<Self, RecipientError> {
        let Declared { group, alarms, webhook, format, email, mail, digest } = declared;
        let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
        if group.is_empty() || group.len() > 64 || !group.chars().all(is_plain) {
            return Err(RecipientError::Group(at));
        }
        // A group may be there for the digest alone.
        let needs_alarms = !digest || !alarms.is_empty();
        if needs_alarms && alarms.iter().all(|pattern| pattern.starts_with(EXCLUDED)) {
            return Err(RecipientError::NoAlarms(at));
        }
        let webhook = Webhook::checked(at, webhook, format)?;
        let mail = Self::addresses(at, &mail)?;
        if webhook.is_none() && !email && mail.is_empty() {
            return Err(RecipientError::NoWay(at));
        }
        Ok(Self { group, alarms, webhook, email, mail, digest })
    }

    fn addresses(at: usize, mail: &[String]) -> Result<Vec<MailAddress>, RecipientError> {
        let addresses: Option<Vec<_>> = mail.iter().map(|address| MailAddress::parse(address)).collect();
        addresses.filter(|addresses| addresses.len() <= MAX_ADDRESSES).ok_or(RecipientError::Mail(at))
    }

    /// Whether an alarm is theirs.
    pub(crate) fn owns(&self, alarm: &str) -> bool {
        let fits = |pattern: &str| matches(pattern.as_bytes(), alarm.as_bytes());
        let is_excluded = self.alarms.iter().filter_map(|pattern| pattern.strip_prefix(EXCLUDED)).any(fits);
        !is_excluded && self.alarms.iter().any(|pattern| fits(pattern))
    }
}

impl Webhook {
    fn checked(at: usize, url: Option<String>, format: Option<String>) -> Result<Option<Self>, RecipientError> {
        let format = match format {
            Some(_) if url.is_none() => return Err(RecipientError::FormatOfNothing(at)),
            Some(name) => Format::parse(&name).ok_or(RecipientError::Format(at))?,
            None => Format::default(),
        };
        let Some(url) = url else { return Ok(None) };
        let url = WebhookUrl::parse(&url).map_err(|error| RecipientError::Webhook(at, error))?;
        Ok(Some(Self { url, format }))
    }
}

/// Begins a pattern for alarms that the group does not get, whatever other patterns match.
const EXCLUDED: char = '!';

/// `*` matches any characters, `?` any one.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where the last star is, and the earliest end of what it matches in the name.
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
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case(&["*", "!*-warning-*"], "prod-given-up", true)]
    #[case(&["*", "!*-warning-*"], "prod-warning-stream-bytes", false)]
    #[case(&["!*-warning-*", "*"], "prod-warning-stream-bytes", false)]
    #[case(&["dev-*", "!*-warning-*"], "prod-given-up", false)]
    fn an_exclusion_overrides_the_other_patterns(
        #[case] patterns: &[&str],
        #[case] name: &str,
        #[case] expected: bool,
    ) {
        let json = serde_json::json!([{"group": "pager", "alarms": patterns, "email": true}]).to_string();
        assert_eq!(Recipient::parse_all(&json).unwrap()[0].owns(name), expected);
    }

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
                       {"group":"ads","alarms":["*-app-ads-*"],"email":true}]"#;
        let recipients = Recipient::parse_all(json).unwrap();
        assert_eq!(recipients.len(), 2);
        assert!(recipients[0].owns("prod-errors") && !recipients[1].owns("prod-errors"));
        let everyone = Recipient::parse_all("[]").unwrap().remove(0);
        assert!(everyone.email && everyone.owns("anything"));
    }

    #[rstest]
    #[case("", Format::Text)]
    #[case(r#","format":"text""#, Format::Text)]
    #[case(r#","format":"adaptive-card""#, Format::AdaptiveCard)]
    fn a_webhook_has_a_format(#[case] member: &str, #[case] format: Format) {
        let json = format!(r#"[{{"group":"a","alarms":["*"],"webhook":"https://hooks.example.com/x"{member}}}]"#);
        assert_eq!(Recipient::parse_all(&json).unwrap()[0].webhook.as_ref().unwrap().format, format);
    }

    #[rstest]
    #[case("[", "not JSON")]
    #[case(r#"[{"group":"a","alarms":["*"],"hook":1}]"#, "not JSON")]
    #[case(r#"[{"group":"https://hooks.example.com/secret","alarms":["*"],"email":true}]"#, "RECIPIENTS[0].group")]
    #[case(
        r#"[{"group":"a","alarms":["*"],"email":true},{"group":"","alarms":["*"],"email":true}]"#,
        "RECIPIENTS[1].group"
    )]
    #[case(
        r#"[{"group":"secret","alarms":["*"],"email":true},{"group":"secret","alarms":["*"],"email":true}]"#,
        "RECIPIENTS[1].group is the same as RECIPIENTS[0].group"
    )]
    #[case(r#"[{"group":"secret","alarms":[],"email":true}]"#, "RECIPIENTS[0].alarms")]
    #[case(r#"[{"group":"secret","alarms":["!*-warning-*"],"email":true}]"#, "RECIPIENTS[0].alarms")]
    #[case(r#"[{"group":"secret","alarms":["*"]}]"#, "RECIPIENTS[0] must have a webhook")]
    #[case(
        r#"[{"group":"secret","alarms":["*"],"webhook":"http://hooks.example.com/secret"}]"#,
        "RECIPIENTS[0].webhook"
    )]
    #[case(
        r#"[{"group":"a","alarms":["*"],"webhook":"https://hooks.example.com/x","format":"https://secret"}]"#,
        "RECIPIENTS[0].format must be"
    )]
    #[case(r#"[{"group":"a","alarms":["*"],"format":"text","email":true}]"#, "RECIPIENTS[0] has none")]
    #[case(r#"[{"group":"a","alarms":["*"],"mail":["A <secret@example.com>"]}]"#, "RECIPIENTS[0].mail")]
    #[case(r#"[{"group":"a","alarms":["*"],"mail":[]}]"#, "RECIPIENTS[0] must have a webhook")]
    #[case(r#"[{"group":"a","alarms":["!secret"],"email":true,"digest":true}]"#, "RECIPIENTS[0].alarms")]
    fn errors_name_the_position_and_no_content(#[case] json: &str, #[case] named: &str) {
        let error = Recipient::parse_all(json).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
        assert!(!said(&error).contains("secret"));
    }

    /// What `make deploy` refuses and takes, by the same file: tests/test_recipients.py.
    #[test]
    fn recipients_that_are_deployed_are_those_that_can_be_used() {
        let cases: Vec<Value> = serde_json::from_str(include_str!("fixtures/recipients.json")).unwrap();
        for case in &cases {
            let parsed = Recipient::parse_all(case["recipients"].as_str().unwrap());
            match case["problem"].as_str() {
                None => assert!(parsed.is_ok(), "{case}"),
                Some(problem) => assert!(parsed.unwrap_err().to_string().contains(problem), "{case}"),
            }
        }
    }

    /// All that an error can be made to say.
    fn said(error: &RecipientError) -> String {
        let source = std::error::Error::source(error).map(|source| format!("{source} {source:?}"));
        format!("{error} {error:?} {source:?}")
    }

    /// A value with the secret, of any kind that somebody may type.
    fn secret_value() -> impl Strategy<Value = Value> {
        let text = prop::sample::select(vec![
            "https://hooks.example.com/services/SECRET",
            "http://hooks.example.com/SECRET",
            "SECRET",
            "SECRET/é",
            "SECRET\n",
        ]);
        text.prop_flat_map(|text| {
            prop::sample::select(vec![json!(text), json!([text]), json!({ text: text }), json!([[text]]), json!([])])
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whatever is typed into any member, and wherever the text is cut off, errors quote none of it.
        #[test]
        fn no_error_contains_a_secret(
            members in prop::collection::btree_map(
                prop::sample::select(vec!["group", "alarms", "webhook", "format", "email", "mail", "digest", "SECRET"]),
                secret_value(),
                0..8,
            ),
            is_sound in prop::collection::vec(any::<bool>(), 8),
            length in any::<prop::sample::Index>(),
            is_cut in prop::bool::weighted(0.2),
        ) {
            let mut one = json!({"group": "a", "alarms": ["*"], "webhook": "https://hooks.example.com/SECRET", "email": true});
            for ((name, value), is_sound) in members.into_iter().zip(is_sound) {
                if !is_sound {
                    one[name] = value;
                }
            }
            let mut json = json!([one.clone(), one]).to_string();
            if is_cut {
                json.truncate(json.floor_char_boundary(length.index(json.len())));
            }
            if let Err(error) = Recipient::parse_all(&json) {
                prop_assert!(!said(&error).contains("SECRET"), "{}", error);
            }
        }
    }

    #[rstest]
    #[case(10, true)]
    #[case(11, false)]
    fn a_group_has_at_most_ten_addresses(#[case] count: usize, #[case] is_taken: bool) {
        let addresses = vec!["a@example.com"; count];
        let groups = json!([{"group": "a", "alarms": ["*"], "mail": addresses}]).to_string();
        assert_eq!(Recipient::parse_all(&groups).is_ok(), is_taken);
    }

    #[test]
    fn a_group_of_the_digest_alone_owns_no_alarm() {
        let groups = r#"[{"group":"bosses","alarms":[],"mail":["a@example.com"],"digest":true},
                         {"group":"platform","alarms":["*"],"email":true}]"#;
        let group = Recipient::parse_all(groups).unwrap().remove(0);
        assert!(group.digest && !group.owns("prod-errors"));
    }

    #[test]
    fn at_most_twenty_groups_are_accepted() {
        let json = |count: usize| {
            let groups = (0..count).map(|number| format!(r#"{{"group":"g{number}","alarms":["*"],"email":true}}"#));
            format!("[{}]", groups.collect::<Vec<_>>().join(","))
        };
        assert_eq!(Recipient::parse_all(&json(20)).unwrap().len(), 20);
        assert_eq!(Recipient::parse_all(&json(21)), Err(RecipientError::TooMany(21)));
    }
}
