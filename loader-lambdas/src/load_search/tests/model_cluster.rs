//! A search cluster in memory: documents by index and id, and faults that are injected call by call.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::cluster::{Answer, CallError, SearchCluster};

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// The connection breaks before anything is stored.
    Broken,
    /// Everything is stored, and no answer comes.
    TimeOutAfterStoring,
    /// Everything is stored, and the answer is not JSON.
    Unreadable,
    /// Everything is stored, and an item of the answer is missing.
    ItemMissing,
    /// The whole request is refused.
    Status(u16),
    /// A third of all documents are refused for now, with this status and type, from this one on.
    Busy(u16, &'static str, usize),
    /// All documents are refused, because of how the cluster is set up.
    Blocked,
}

/// Documents whose event has this member are refused for good.
pub(super) const CONFLICT: &str = "conflict";
/// At documents whose event has this member the cluster fails each time.
pub(super) const POISON: &str = "poison";

#[derive(Default)]
pub(super) struct ModelCluster {
    pub(super) documents: RefCell<BTreeMap<(String, String), Value>>,
    /// Of `_bulk` calls.
    pub(super) faults: RefCell<VecDeque<Fault>>,
    /// Of the other calls.
    pub(super) setup_faults: RefCell<VecDeque<Fault>>,
    /// An index that takes no documents, with the status and the error of each.
    pub(super) unwritable: RefCell<Option<(String, u16, Value)>>,
    /// After the last of the others.
    pub(super) lasting: Cell<Option<Fault>>,
    /// A larger request is answered with 413.
    pub(super) max_request_bytes: Cell<Option<usize>>,
    pub(super) templates: RefCell<Vec<(String, Value)>>,
    pub(super) bulk_calls: Cell<usize>,
    pub(super) largest_request: Cell<usize>,
}

impl ModelCluster {
    fn create(&self, action: &Value, document: Value) -> Value {
        let text = |name: &str| action["create"][name].as_str().unwrap().to_owned();
        let id = (text("_index"), text("_id"));
        if document["event"].get(CONFLICT).is_some() {
            let error = json!({"type": "mapper_parsing_exception", "reason": "failed to parse"});
            return json!({"create": {"status": 400, "error": error}});
        }
        if document["event"].get(POISON).is_some() {
            return json!({"create": {"status": 500, "error": {"type": "null_pointer_exception"}}});
        }
        if let Some((_, status, error)) = self.unwritable.borrow().as_ref().filter(|(index, ..)| *index == id.0) {
            return json!({"create": {"status": status, "error": error}});
        }
        let mut documents = self.documents.borrow_mut();
        if documents.contains_key(&id) {
            return json!({"create": {"status": 409, "error": {"type": "version_conflict_engine_exception"}}});
        }
        documents.insert(id, document);
        json!({"create": {"status": 201}})
    }

    fn item(&self, number: usize, action: &Value, document: Value, fault: Fault) -> Value {
        let refused =
            |status: u16, kind: &str| json!({"create": {"status": status, "error": {"type": kind, "reason": "busy"}}});
        match fault {
            Fault::Busy(status, kind, from) if (number + from).is_multiple_of(3) => refused(status, kind),
            Fault::Blocked => refused(403, "security_exception"),
            _ => self.create(action, document),
        }
    }

    fn items(&self, lines: &[u8], fault: Fault) -> Vec<Value> {
        let lines: Vec<Value> = serde_json::Deserializer::from_slice(lines).into_iter().map(Result::unwrap).collect();
        let pairs = lines.chunks_exact(2).enumerate();
        pairs.map(|(number, pair)| self.item(number, &pair[0], pair[1].clone(), fault)).collect()
    }

    fn next_fault(&self) -> Fault {
        let next = self.faults.borrow_mut().pop_front();
        next.or(self.lasting.get()).unwrap_or(Fault::None)
    }

    fn next_setup_fault(&self) -> Result<Fault, CallError> {
        match self.setup_faults.borrow_mut().pop_front() {
            Some(Fault::Broken) => Err(CallError::Connection("reset".into())),
            fault => Ok(fault.unwrap_or(Fault::None)),
        }
    }
}

/// The answer to a call that is no `_bulk`, once what it asks for is done.
async fn set_up(fault: Fault, body: &'static str) -> Result<Answer, CallError> {
    match fault {
        Fault::TimeOutAfterStoring => std::future::pending().await,
        Fault::Unreadable => answer(200, "<html>"),
        _ => answer(200, body),
    }
}

fn answer(status: u16, body: impl Into<Bytes>) -> Result<Answer, CallError> {
    Ok(Answer { status, body: body.into() })
}

impl SearchCluster for &ModelCluster {
    async fn root(&self) -> Result<Answer, CallError> {
        let fault = self.next_setup_fault()?;
        if let Fault::Status(status) = fault {
            return answer(status, "no");
        }
        set_up(fault, r#"{"version":{"distribution":"opensearch","number":"2.19.0"}}"#).await
    }

    async fn put_index_template(&self, name: &str, template: Bytes) -> Result<Answer, CallError> {
        let fault = self.next_setup_fault()?;
        if let Fault::Status(status) = fault {
            return answer(status, "no");
        }
        self.templates.borrow_mut().push((name.to_owned(), serde_json::from_slice(&template).unwrap()));
        set_up(fault, r#"{"acknowledged":true}"#).await
    }

    async fn bulk(&self, lines: Bytes) -> Result<Answer, CallError> {
        self.bulk_calls.set(self.bulk_calls.get() + 1);
        self.largest_request.set(self.largest_request.get().max(lines.len()));
        if self.max_request_bytes.get().is_some_and(|most| lines.len() > most) {
            return answer(413, "");
        }
        let fault = self.next_fault();
        match fault {
            Fault::Broken => return Err(CallError::Connection("reset".into())),
            Fault::Status(status) => return answer(status, "no"),
            _ => {}
        }
        let mut items = self.items(&lines, fault);
        match fault {
            Fault::TimeOutAfterStoring => std::future::pending().await,
            Fault::Unreadable => answer(200, "<html>"),
            _ => {
                if fault == Fault::ItemMissing {
                    items.pop();
                }
                answer(200, json!({"errors": true, "items": items}).to_string())
            }
        }
    }
}
