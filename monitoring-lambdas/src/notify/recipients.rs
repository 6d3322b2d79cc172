//! The recipients as they are now: a webhook that is rotated needs no deployment.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use lambda_setup::deadline::Deadline;
use shared::timestamp::UnixMillis;

use super::formatting::between;
use super::parameter::{Parameter, ParameterError};
use super::recipient::{Recipient, RecipientError};

/// Once the recipients are this old they are read again. The schedule invokes notify every five minutes, a moment early or
/// late: so each of its runs reads them, and nothing uses older ones.
const MAX_AGE: Duration = Duration::from_secs(240);

/// Recipients that can't be used. Quotes nothing of the value, which contains secrets.
#[derive(Debug, thiserror::Error)]
#[error("parameter {name} {problem}")]
pub struct RecipientsError {
    name: String,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Unreadable(#[from] ParameterError),
    #[error("can't be used: {0}")]
    Malformed(#[from] RecipientError),
}

/// The groups that a parameter declares, read again from time to time.
pub struct Recipients<P> {
    parameter: P,
    known: RefCell<Known>,
}

struct Known {
    groups: Rc<[Recipient]>,
    /// When the parameter was last read, or could not be.
    read_at: UnixMillis,
    /// The problem that was logged last, and the value that had it: it is logged once.
    problem: Option<(Option<String>, String)>,
}

impl<P: Parameter> Recipients<P> {
    /// Reads them for the first time.
    ///
    /// # Errors
    ///
    /// When the parameter can't be read, or is malformed; the error names the parameter and the place in it.
    pub async fn start(parameter: P, now: UnixMillis, deadline: Deadline) -> Result<Self, RecipientsError> {
        let named = |problem| RecipientsError { name: parameter.name().to_owned(), problem };
        let value = parameter.read(deadline).await.map_err(|error| named(error.into()))?;
        let groups = parsed(value.as_deref()).map_err(|error| named(error.into()))?;
        let known = RefCell::new(Known { groups, read_at: now, problem: None });
        Ok(Self { parameter, known })
    }

    /// The groups, as they were at most [`MAX_AGE`] ago; the last usable ones when the parameter can't be read or used.
    pub(crate) async fn current(&self, now: UnixMillis, deadline: Deadline) -> Rc<[Recipient]> {
        if between(self.known.borrow().read_at, now) < MAX_AGE {
            return self.known.borrow().groups.clone();
        }
        self.read(now, deadline).await;
        self.known.borrow().groups.clone()
    }

    /// The groups as they are now, whenever they were read before; `None` when the parameter can't be read or used.
    pub(crate) async fn reread(&self, now: UnixMillis, deadline: Deadline) -> Option<Rc<[Recipient]>> {
        self.read(now, deadline).await;
        let known = self.known.borrow();
        known.problem.is_none().then(|| known.groups.clone())
    }

    async fn read(&self, now: UnixMillis, deadline: Deadline) {
        let read = self.parameter.read(deadline).await;
        let mut known = self.known.borrow_mut();
        known.read_at = now;
        let (value, read) = match read {
            Ok(value) => {
                let groups = parsed(value.as_deref()).map_err(Problem::from);
                (value, groups)
            }
            Err(error) => (None, Err(error.into())),
        };
        known.take(self.parameter.name(), value, read);
    }
}

impl Known {
    fn take(&mut self, name: &str, value: Option<String>, read: Result<Rc<[Recipient]>, Problem>) {
        let problem = match read {
            Ok(groups) => return self.replace(name, groups),
            Err(problem) => Some((value, problem.to_string())),
        };
        if self.problem != problem {
            let said = problem.as_ref().map(|(_, said)| said);
            tracing::error!(parameter = name, problem = said, "the last usable recipients get the notices");
            self.problem = problem;
        }
    }

    fn replace(&mut self, name: &str, groups: Rc<[Recipient]>) {
        let was_unusable = self.problem.take().is_some();
        if was_unusable || self.groups != groups {
            tracing::info!(parameter = name, groups = groups.len(), "recipients are read again");
            self.groups = groups;
        }
    }
}

/// Without a parameter, as with an empty list: one group, `everyone`, by e-mail.
fn parsed(value: Option<&str>) -> Result<Rc<[Recipient]>, RecipientError> {
    Ok(Recipient::parse_all(value.unwrap_or("[]"))?.into())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rstest::rstest;
    use std::cell::Cell;

    /// A parameter whose value the test sets.
    pub(crate) struct MemoryParameter {
        value: RefCell<Result<Option<String>, ParameterError>>,
        reads: Cell<u32>,
    }

    impl MemoryParameter {
        pub(crate) fn new(value: Option<&str>) -> Self {
            Self { value: RefCell::new(Ok(value.map(str::to_owned))), reads: Cell::default() }
        }

        pub(crate) fn set(&self, value: &str) {
            *self.value.borrow_mut() = Ok(Some(value.to_owned()));
        }

        fn fail(&self, problem: &str) {
            *self.value.borrow_mut() = Err(ParameterError(problem.into()));
        }
    }

    impl Parameter for &MemoryParameter {
        fn name(&self) -> &str {
            "/playhead/recipients"
        }

        async fn read(&self, _: Deadline) -> Result<Option<String>, ParameterError> {
            self.reads.set(self.reads.get() + 1);
            self.value.borrow().clone()
        }
    }

    const ADS: &str = r#"[{"group":"ads","alarms":["*"],"email":true}]"#;
    const OPS: &str = r#"[{"group":"ops","alarms":["*"],"webhook":"https://hooks.example.com/SECRET"}]"#;

    fn deadline() -> Deadline {
        Deadline::after(Duration::from_secs(30))
    }

    async fn groups_at(recipients: &Recipients<&MemoryParameter>, seconds: i64) -> Vec<String> {
        let groups = recipients.current(UnixMillis(1_000 * seconds), deadline()).await;
        groups.iter().map(|recipient| recipient.group.clone()).collect()
    }

    async fn started(parameter: &MemoryParameter) -> Recipients<&MemoryParameter> {
        Recipients::start(parameter, UnixMillis(0), deadline()).await.unwrap()
    }

    #[tokio::test]
    async fn a_changed_parameter_is_used_after_four_minutes_without_a_new_start() {
        let parameter = MemoryParameter::new(Some(ADS));
        let recipients = started(&parameter).await;
        parameter.set(OPS);
        assert_eq!(groups_at(&recipients, 239).await, ["ads"]);
        assert_eq!(parameter.reads.get(), 1);
        assert_eq!(groups_at(&recipients, 240).await, ["ops"]);
        assert_eq!(groups_at(&recipients, 479).await, ["ops"]);
        assert_eq!(parameter.reads.get(), 2);
    }

    #[rstest]
    #[case::none(None)]
    #[case::empty(Some("[]"))]
    #[tokio::test]
    async fn without_a_parameter_everyone_gets_email(#[case] value: Option<&str>) {
        let parameter = MemoryParameter::new(value);
        assert_eq!(groups_at(&started(&parameter).await, 1).await, ["everyone"]);
    }

    #[tokio::test]
    async fn a_start_with_a_malformed_parameter_names_it_and_the_place_and_quotes_nothing() {
        let json = r#"[{"group":"a","alarms":["*"],"webhook":"http://hooks.example.com/SECRET"}]"#;
        let parameter = MemoryParameter::new(Some(json));
        let error = Recipients::start(&parameter, UnixMillis(0), deadline()).await.err().unwrap();
        assert!(error.to_string().starts_with("parameter /playhead/recipients can't be used: RECIPIENTS[0].webhook"));
        assert!(!format!("{error} {error:?}").contains("SECRET"));
        parameter.fail("AccessDenied");
        let error = Recipients::start(&parameter, UnixMillis(0), deadline()).await.err().unwrap();
        assert_eq!(error.to_string(), "parameter /playhead/recipients can't be read: AccessDenied");
    }

    #[tokio::test]
    async fn the_last_usable_recipients_stay_while_the_parameter_is_unusable() {
        let parameter = MemoryParameter::new(Some(ADS));
        let recipients = started(&parameter).await;
        let problem = || recipients.known.borrow().problem.clone();
        parameter.set(r#"[{"group":"SECRET!"}]"#);
        assert_eq!(groups_at(&recipients, 300).await, ["ads"]);
        let first = problem().unwrap();
        assert!(!first.1.contains("SECRET"), "{}", first.1);
        assert_eq!(groups_at(&recipients, 600).await, ["ads"]);
        assert_eq!(problem().unwrap(), first);
        parameter.fail("throttled");
        assert_eq!(groups_at(&recipients, 900).await, ["ads"]);
        assert_ne!(problem().unwrap(), first);
        parameter.set(OPS);
        assert_eq!(groups_at(&recipients, 1_200).await, ["ops"]);
        assert!(problem().is_none());
    }
}
