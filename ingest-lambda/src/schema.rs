//! Whether events are what a JSON Schema says, if one is configured: [`schema_rules`] judges,
//! [`source`] reads it from S3 at the start of the process, [`counts`] keeps what was broken.

mod counts;
mod source;

use std::sync::{Arc, OnceLock};

use lambda_setup::environment::{self, EnvironmentError};
pub use schema_rules::Violation;
use schema_rules::{MAX_STEPS_A_REQUEST, Rules};
use shared::rejection::{Reason, Rejection};
use shared::timestamp::UnixMillis;

use crate::counts::FrontDoor;
use counts::SchemaCounts;
pub use source::{ReadError, SchemaBucket, SchemaReader};

/// What becomes of events that break a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaMode {
    /// They are counted.
    Report,
    /// They are rejected.
    Reject,
}

/// Which schema, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaConfig {
    /// `EVENT_SCHEMA`, a key in the landing bucket.
    pub key: String,
    /// `EVENT_SCHEMA_MODE`
    pub mode: SchemaMode,
}

pub(crate) const VARIABLE: &str = "EVENT_SCHEMA";
const MAX_KEY_BYTES: usize = 128;

impl SchemaConfig {
    /// `None` where no schema is configured.
    ///
    /// # Errors
    ///
    /// When a variable is malformed; the error names it.
    pub(crate) fn from_environment() -> Result<Option<Self>, EnvironmentError> {
        let modes = [("report", SchemaMode::Report), ("reject", SchemaMode::Reject)];
        let mode = environment::choice("EVENT_SCHEMA_MODE", &modes)?;
        let Some(key) = environment::optional(VARIABLE)? else { return Ok(None) };
        let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        if !key.starts_with("schemas/") || key.len() > MAX_KEY_BYTES || !key.bytes().all(is_usual) {
            let takes = "it takes a key of the landing bucket such as schemas/events-3.json, of A-Za-z0-9._-/";
            return Err(EnvironmentError::new(VARIABLE, format!("is {key:?}; {takes}")));
        }
        Ok(Some(Self { key, mode }))
    }
}

/// What is said of an event that breaks a rule.
pub(crate) fn rejection(Violation { rule, path }: &Violation) -> Rejection {
    let place = if path.is_empty() { "as a whole" } else { path };
    Rejection::new(Reason::SchemaViolation, format!("the event, {place}, breaks the schema's rule {rule}"))
}

/// The schema of a process. It never changes while the process runs: a new version is a new key and a deployment, so that a roll-back
/// is one too.
#[derive(Debug, Clone)]
pub struct EventSchema(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    mode: SchemaMode,
    /// Empty until S3 has given them.
    rules: OnceLock<Rules>,
    counts: SchemaCounts,
}

impl EventSchema {
    /// Reads the schema in the server; its metrics have this name.
    ///
    /// # Errors
    ///
    /// When the schema can't be used, as its deployment should find out. Not when S3 does not answer: then it is asked again every
    /// now and then.
    pub fn open(
        config: SchemaConfig,
        bucket: impl SchemaBucket + Send + 'static,
        name: String,
    ) -> Result<Self, EnvironmentError> {
        let (schema, key) = Self::unknown(config, name, FrontDoor::Server);
        source::load(&schema, key, bucket)?;
        Ok(schema)
    }

    /// Reads the schema in the function; its metrics have this name. Without a schema that can be used the function starts all the same.
    pub async fn open_in_function<B: SchemaBucket>(config: SchemaConfig, bucket: B, name: String) -> SchemaReader<B> {
        let (schema, key) = Self::unknown(config, name, FrontDoor::Lambda);
        SchemaReader::open(schema, key, bucket).await
    }

    fn unknown(SchemaConfig { key, mode }: SchemaConfig, name: String, front_door: FrontDoor) -> (Self, String) {
        let counts = SchemaCounts::new(name, front_door);
        (Self(Arc::new(Shared { mode, rules: OnceLock::new(), counts })), key)
    }

    fn is_known(&self) -> bool {
        self.0.rules.get().is_some()
    }

    fn set(&self, rules: Rules) {
        if self.0.rules.set(rules).is_err() {
            tracing::debug!("the schema is known already");
        }
    }

    /// Judges the events of one request.
    pub(crate) fn judge(&self, received_at: UnixMillis) -> Judge<'_> {
        let shared = &*self.0;
        Judge { shared, rules: shared.rules.get(), received_at, steps: MAX_STEPS_A_REQUEST }
    }

    /// The lines of metrics that are not written yet.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.counts.lines()
    }

    /// All events so far that broke a rule, by the rule, and those that were not validated.
    pub(crate) fn totals(&self) -> (Vec<(String, u64)>, u64) {
        self.0.counts.totals()
    }

    #[cfg(test)]
    pub(crate) fn of(schema: Option<&serde_json::Value>, mode: SchemaMode) -> Self {
        let counts = SchemaCounts::new("ingest".into(), FrontDoor::Lambda);
        let this = Self(Arc::new(Shared { mode, rules: OnceLock::new(), counts }));
        schema.into_iter().for_each(|schema| this.set(Rules::parse(schema.to_string().as_bytes()).unwrap()));
        this
    }
}

/// Judges the events of one request, and counts what it finds.
pub(crate) struct Judge<'s> {
    shared: &'s Shared,
    rules: Option<&'s Rules>,
    received_at: UnixMillis,
    /// What may still be spent on finding out which rules are broken.
    steps: usize,
}

impl Judge<'_> {
    /// # Errors
    ///
    /// The rule that the event breaks, if such events are rejected.
    pub(crate) fn check(&mut self, event: &str) -> Result<(), Violation> {
        let Shared { mode, counts, .. } = self.shared;
        let Some(rules) = self.rules else {
            counts.add_unvalidated(self.received_at);
            return Ok(());
        };
        match mode {
            SchemaMode::Report => {
                if let Some(broken) = rules.all(event, &mut self.steps) {
                    counts.add(self.received_at, broken);
                }
                Ok(())
            }
            SchemaMode::Reject => match rules.first(event, &mut self.steps) {
                None => Ok(()),
                Some(violation) => {
                    counts.add(self.received_at, [violation.rule.clone()]);
                    Err(violation)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_that_breaks_a_rule_passes_or_not_as_configured_and_is_counted() {
        let schema = json!({"required": ["type"], "properties": {"type": {"enum": ["play"]}, "n": {"minimum": 0}}});
        let reporting = EventSchema::of(Some(&schema), SchemaMode::Report);
        let mut judge = reporting.judge(UnixMillis(0));
        for event in [r#"{"type":"play"}"#, r#"{"type":"x","n":-1}"#, r#"{"type":"y","n":1}"#] {
            assert_eq!(judge.check(event), Ok(()));
        }
        let expected = vec![("/properties/n/minimum".to_owned(), 1), ("/properties/type/enum".to_owned(), 2)];
        assert_eq!(reporting.totals(), (expected, 0));

        let rejecting = EventSchema::of(Some(&schema), SchemaMode::Reject);
        let mut judge = rejecting.judge(UnixMillis(0));
        assert_eq!(judge.check(r#"{"type":"play","n":0}"#), Ok(()));
        let violation = judge.check(r#"{"type":"secret"}"#).unwrap_err();
        assert_eq!(violation, Violation { rule: "/properties/type/enum".into(), path: "/type".into() });
        assert!(!rejection(&violation).detail.contains("secret"));
        assert_eq!(rejecting.totals(), (vec![("/properties/type/enum".to_owned(), 1)], 0));
    }

    #[test]
    fn without_a_schema_events_pass_and_are_counted() {
        let schema = EventSchema::of(None, SchemaMode::Reject);
        assert_eq!(schema.judge(UnixMillis(0)).check("{}"), Ok(()));
        assert_eq!(schema.totals(), (vec![], 1));
        schema.set(Rules::parse(b"false").unwrap());
        assert!(schema.judge(UnixMillis(0)).check("{}").is_err());
        assert_eq!(schema.totals(), (vec![("/".to_owned(), 1)], 1));
    }
}
