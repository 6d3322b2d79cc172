//! How the cluster indexes documents: the template of the daily indexes.
//! <https://docs.opensearch.org/latest/im-plugin/index-templates/>

use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::limits::MAX_EVENT_DEPTH;
use shared::timestamp::UtcHour;

use crate::promoted::PromotedFields;

/// Grows with each change here.
const VERSION: u32 = 3;
/// Over templates of all indexes, which have 0 or 1 by custom, and under those of people, who may want the last word.
const PRIORITY: u32 = 100;
/// The most characters of a text that is searched by its whole; a longer one is in the document alone.
const MAX_KEYWORD_CHARS: u32 = 1024;

/// Which of the two projects the cluster runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distribution {
    OpenSearch,
    Elasticsearch,
}

impl Distribution {
    /// Reads the answer to `GET /`: OpenSearch names itself, and Elasticsearch does not.
    pub(super) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Root {
            version: Version,
        }
        #[derive(Deserialize)]
        struct Version {
            distribution: Option<String>,
        }
        let Root { version } = serde_json::from_slice(body)?;
        let is_opensearch = version.distribution.as_deref() == Some("opensearch");
        Ok(if is_opensearch { Self::OpenSearch } else { Self::Elasticsearch })
    }

    /// The type of field whose members are no fields of their own: whatever names clients make up, the mapping stays as it is.
    /// OpenSearch's takes no parameters. Elasticsearch's would refuse events that are deeper than 20, and long texts.
    fn event_field(self) -> Value {
        match self {
            Self::OpenSearch => json!({"type": "flat_object"}),
            Self::Elasticsearch => {
                json!({"type": "flattened", "depth_limit": MAX_EVENT_DEPTH, "ignore_above": MAX_KEYWORD_CHARS})
            }
        }
    }
}

/// The name of the index for what landed in an hour.
pub(super) fn index(prefix: &str, hour: UtcHour) -> String {
    // `dt=2026-11-21/hour=09`
    let partition = hour.partition();
    format!("{prefix}-{}", partition["dt=".len().."dt=2026-11-21".len()].replace('-', "."))
}

/// The body of `PUT _index_template/<prefix>`. It is the same each time; existing indexes keep the mapping that they have.
pub(super) fn index_template(prefix: &str, promoted: &PromotedFields, distribution: Distribution) -> Value {
    let keyword = json!({"type": "keyword", "ignore_above": MAX_KEYWORD_CHARS});
    let mut properties = Map::new();
    for name in ["id", "request_id", "app"].into_iter().chain(promoted.names()) {
        properties.insert(name.to_owned(), keyword.clone());
    }
    properties.insert("v".to_owned(), json!({"type": "short"}));
    properties.insert("received_at".to_owned(), json!({"type": "date"}));
    properties.insert("event".to_owned(), distribution.event_field());
    // What is no address is no reason to refuse an event.
    let ip = json!({"type": "ip", "ignore_malformed": true});
    properties.insert("client".to_owned(), json!({"properties": {"user_agent": keyword, "ip": ip, "origin": keyword, "page": keyword, "country": keyword}}));
    json!({
        // With the year's first digit: `playhead-*` would overlap with the template of another stack, `playhead-dev`, and a cluster
        // refuses the second of two such templates.
        "index_patterns": [format!("{prefix}-2*")],
        "priority": PRIORITY,
        "version": VERSION,
        "_meta": {"description": "Playhead's load-search writes this template."},
        "template": {"mappings": {"dynamic": false, "properties": properties}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::timestamp::UnixMillis;

    #[test]
    fn indexes_are_daily() {
        assert_eq!(index("playhead", UnixMillis(1_795_253_528_006).hour()), "playhead-2026.11.21");
    }

    #[test]
    fn clients_make_no_fields() {
        let promoted = PromotedFields::parse("type:type,session_id:sid").unwrap();
        for (distribution, kind) in
            [(Distribution::OpenSearch, "flat_object"), (Distribution::Elasticsearch, "flattened")]
        {
            let template = index_template("playhead", &promoted, distribution);
            let mappings = &template["template"]["mappings"];
            assert_eq!(mappings["dynamic"], json!(false));
            assert_eq!(mappings["properties"]["event"]["type"], json!(kind));
            let names: Vec<_> = mappings["properties"].as_object().unwrap().keys().collect();
            assert_eq!(names, ["app", "client", "event", "id", "received_at", "request_id", "session_id", "type", "v"]);
            assert_eq!(template["index_patterns"], json!(["playhead-2*"]));
        }
    }

    #[test]
    fn the_pattern_takes_our_indexes_and_none_of_a_stack_with_a_longer_prefix() {
        let promoted = PromotedFields::parse("type:type").unwrap();
        let template = index_template("playhead", &promoted, Distribution::OpenSearch);
        let start = template["index_patterns"][0].as_str().unwrap().strip_suffix('*').unwrap();
        let hour = UnixMillis(1_795_253_528_006).hour();
        assert!(index("playhead", hour).starts_with(start));
        assert!(!index("playhead-dev", hour).starts_with(start));
    }

    #[test]
    fn opensearch_says_what_it_is() {
        let read = |version: &str| Distribution::read(format!(r#"{{"version":{version}}}"#).as_bytes()).ok();
        assert_eq!(read(r#"{"distribution":"opensearch","number":"2.19.0"}"#), Some(Distribution::OpenSearch));
        assert_eq!(read(r#"{"number":"8.17.0","build_flavor":"default"}"#), Some(Distribution::Elasticsearch));
        assert_eq!(read("7"), None);
    }
}
