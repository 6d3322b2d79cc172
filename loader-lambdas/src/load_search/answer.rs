//! Answers to `_bulk` requests: what became of each document.
//! <https://docs.opensearch.org/latest/api-reference/document-apis/bulk/>

use serde::Deserialize;

/// What of an answer is asked for: a thousand documents that were created take some 30 KB. Percent-encoded, as signatures have
/// it: `errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason`.
pub(super) const FILTER_PATH: &str =
    "errors%2Citems.%2A.status%2Citems.%2A.error.type%2Citems.%2A.error.reason%2Citems.%2A.error.caused_by.reason";

/// The most bytes of a reason, and of its type, that are kept.
const MAX_REASON_BYTES: usize = 1024;
const MAX_KIND_BYTES: usize = 256;

/// What became of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// It is there now.
    Loaded,
    /// It was there.
    Present,
    /// The cluster may take it later.
    Later(Reason),
    /// The cluster failed at it: it may take it later, unless it is the document that makes it fail.
    Failed(Reason),
    /// The cluster will never take it.
    Refused(Reason),
    /// The cluster takes no such documents as it is set up: the index is closed or may not be created, or the function may not
    /// write to it.
    Blocked(Reason),
}

/// What the cluster says of a document that it did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) kind: String,
    pub(super) reason: String,
}

impl Reason {
    pub(super) fn new(kind: &str, reason: &str) -> Self {
        Self { kind: cut(kind, MAX_KIND_BYTES).to_owned(), reason: cut(reason, MAX_REASON_BYTES).to_owned() }
    }

    /// Whether it says nothing of other indexes. A block of one index names it: `index [playhead-2026.11.21] blocked by: …`.
    pub(super) fn is_about_one_index(&self) -> bool {
        match self.kind.as_str() {
            CLOSED_INDEX | NO_SUCH_INDEX => true,
            BLOCK => self.reason.starts_with("index ["),
            _ => false,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind, self.reason)
    }
}

fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// An answer that does not say what became of each document.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("the answer can't be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the answer has {found} items for {sent} documents")]
    Count { sent: usize, found: usize },
}

#[derive(Deserialize)]
struct BulkAnswer {
    items: Vec<CreateAnswer>,
}

#[derive(Deserialize)]
struct CreateAnswer {
    create: ItemAnswer,
}

#[derive(Deserialize)]
struct ItemAnswer {
    status: u16,
    error: Option<ItemError>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ItemError {
    #[serde(rename = "type")]
    kind: String,
    reason: Option<String>,
    caused_by: Cause,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: Option<String>,
}

/// Reads the answer to a request with so many documents; the items are in the same order.
pub(super) fn read(body: &[u8], documents: usize) -> Result<Vec<Item>, AnswerError> {
    let answer: BulkAnswer = serde_json::from_slice(body)?;
    if answer.items.len() != documents {
        return Err(AnswerError::Count { sent: documents, found: answer.items.len() });
    }
    Ok(answer.items.into_iter().map(|item| judge(item.create)).collect())
}

/// Answers of a cluster that is too busy for now, whatever their status: a block of all writes, which a full disk causes, has 403.
const PASSING: [&str; 3] = ["circuit_breaking_exception", "es_rejected_execution_exception", BLOCK];
const BLOCK: &str = "cluster_block_exception";
const NO_SUCH_INDEX: &str = "index_not_found_exception";
/// Says 400, as for a bad document: a person closed the day's index, and may open it again.
const CLOSED_INDEX: &str = "index_closed_exception";
/// Says 400 where the day's index can't be created, as the cluster has the most shards that it may have.
const TOO_MANY_SHARDS: &str = "validation_exception";

fn judge(item: ItemAnswer) -> Item {
    let error = item.error.unwrap_or_default();
    let reason = || match (&error.reason, &error.caused_by.reason) {
        (Some(reason), Some(cause)) => Reason::new(&error.kind, &format!("{reason}: {cause}")),
        (reason, cause) => {
            Reason::new(&error.kind, reason.as_deref().or(cause.as_deref()).unwrap_or("no reason is given"))
        }
    };
    match item.status {
        200..=299 => Item::Loaded,
        409 => Item::Present,
        _ if PASSING.contains(&error.kind.as_str()) => Item::Later(reason()),
        429 | 502..=504 => Item::Later(reason()),
        500.. => Item::Failed(reason()),
        400 if ![TOO_MANY_SHARDS, CLOSED_INDEX].contains(&error.kind.as_str()) => Item::Refused(reason()),
        _ => Item::Blocked(reason()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    fn item(status: u16, kind: &str) -> Item {
        let answer =
            json!({"errors": true, "items": [{"create": {"status": status, "error": {"type": kind, "reason": "r"}}}]});
        read(answer.to_string().as_bytes(), 1).unwrap().remove(0)
    }

    #[rstest]
    #[case::full_queue(429, "es_rejected_execution_exception")]
    #[case::full_queue_of_opensearch(429, "rejected_execution_exception")]
    #[case::breaker(429, "circuit_breaking_exception")]
    #[case::breaker_with_another_status(400, "circuit_breaking_exception")]
    #[case::full_disk(403, "cluster_block_exception")]
    #[case::shard_away(503, "unavailable_shards_exception")]
    #[case::gateway(502, "")]
    #[case::slow(504, "process_cluster_event_timeout_exception")]
    fn what_may_pass_is_for_later(#[case] status: u16, #[case] kind: &str) {
        assert_eq!(item(status, kind), Item::Later(Reason::new(kind, "r")));
    }

    #[rstest]
    #[case::bug(500, "null_pointer_exception")]
    #[case::no_reason(500, "")]
    #[case::unknown(505, "")]
    fn what_fails_inside_the_cluster_may_be_the_documents_fault(#[case] status: u16, #[case] kind: &str) {
        assert_eq!(item(status, kind), Item::Failed(Reason::new(kind, "r")));
    }

    #[rstest]
    #[case(400, "mapper_parsing_exception")]
    #[case(400, "document_parsing_exception")]
    #[case(400, "illegal_argument_exception")]
    #[case(400, "")]
    fn what_is_wrong_with_the_document_is_refused(#[case] status: u16, #[case] kind: &str) {
        assert_eq!(item(status, kind), Item::Refused(Reason::new(kind, "r")));
    }

    #[rstest]
    #[case::too_many_shards(400, "validation_exception")]
    #[case::closed_index(400, "index_closed_exception")]
    #[case::index_may_not_be_created(404, "index_not_found_exception")]
    #[case::no_permission(403, "security_exception")]
    #[case::no_credentials(401, "security_exception")]
    fn what_is_wrong_with_the_cluster_is_no_fault_of_the_document(#[case] status: u16, #[case] kind: &str) {
        assert_eq!(item(status, kind), Item::Blocked(Reason::new(kind, "r")));
    }

    #[rstest]
    #[case::closed("index_closed_exception", "closed", true)]
    #[case::not_there("index_not_found_exception", "no such index [i]", true)]
    #[case::block_of_an_index(
        "cluster_block_exception",
        "index [i] blocked by: [FORBIDDEN/8/index write (api)];",
        true
    )]
    #[case::block_of_all("cluster_block_exception", "blocked by: [FORBIDDEN/6/cluster read-only (api)];", false)]
    #[case::full_queue("es_rejected_execution_exception", "index [i]", false)]
    #[case::too_many_shards("validation_exception", "this action would add [2] shards", false)]
    fn reasons_about_one_index_are_told_from_others(#[case] kind: &str, #[case] reason: &str, #[case] is_one: bool) {
        assert_eq!(Reason::new(kind, reason).is_about_one_index(), is_one);
    }

    #[test]
    fn an_answer_has_an_item_a_document() {
        let answer = br#"{"errors":true,"items":[{"create":{"status":201}},{"create":{"status":409,"error":{"type":"t"}}},
            {"create":{"status":400,"error":{"type":"m","reason":"r","caused_by":{"reason":"c"}}}},{"create":{"status":503}}]}"#;
        let expected = [
            Item::Loaded,
            Item::Present,
            Item::Refused(Reason::new("m", "r: c")),
            Item::Later(Reason::new("", "no reason is given")),
        ];
        assert_eq!(read(answer, 4).unwrap(), expected);
        assert!(matches!(read(answer, 3), Err(AnswerError::Count { sent: 3, found: 4 })));
        assert!(matches!(read(answer, 5), Err(AnswerError::Count { .. })));
        for other in [&b""[..], b"<html>", b"{}", br#"{"items":[{"index":{"status":201}}]}"#] {
            assert!(matches!(read(other, 1), Err(AnswerError::Json(_))));
        }
    }

    #[test]
    fn reasons_are_cut_at_their_bounds() {
        let reason = Reason::new(&"k".repeat(MAX_KIND_BYTES + 1), &"r".repeat(MAX_REASON_BYTES));
        assert_eq!((reason.kind.len(), reason.reason.len()), (MAX_KIND_BYTES, MAX_REASON_BYTES));
        let reason = Reason::new("", &"é".repeat(MAX_REASON_BYTES)).reason;
        assert_eq!(reason.len(), MAX_REASON_BYTES);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), documents in 0usize..4) {
            prop_assert!(read(&bytes, documents).is_err());
        }

        #[test]
        fn any_status_is_judged(status in any::<u16>(), kind in "[a-z_]{0,12}") {
            let is_done = matches!(item(status, &kind), Item::Loaded | Item::Present);
            prop_assert_eq!(is_done, (200..300).contains(&status) || status == 409);
        }
    }
}
