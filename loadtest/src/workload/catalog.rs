//! Devices and titles of realistic traffic.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

/// All devices are equally frequent, and so are all titles.
#[derive(Debug, Deserialize)]
pub(super) struct Catalog {
    pub(super) devices: Vec<Device>,
    pub(super) titles: Vec<Title>,
    /// From the lowest to the highest.
    pub(super) qualities: Vec<Quality>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Device {
    pub(super) user_agent: String,
    pub(super) os: String,
    pub(super) player: String,
    pub(super) player_version: String,
    pub(super) form: Form,
}

#[derive(Debug, Deserialize)]
pub(super) struct Title {
    pub(super) id: String,
    pub(super) name: Value,
    pub(super) duration_ms: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct Quality {
    pub(super) bitrate_kbps: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

#[allow(clippy::expect_used)]
pub(super) static CATALOG: LazyLock<Catalog> =
    LazyLock::new(|| serde_json::from_str(include_str!("catalog.json")).expect("the catalog is ours"));

/// How a player packs its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    /// A JSON array, or the object alone when there is one.
    Array,
    /// An object with the list as its `events`, sent as text/plain, which needs no preflight.
    Wrapped,
    /// An object a line.
    Lines,
}

impl Form {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Array => "application/json",
            Self::Wrapped => "text/plain;charset=UTF-8",
            Self::Lines => "application/x-ndjson",
        }
    }

    pub(super) fn pack(self, items: &[String]) -> String {
        match self {
            Self::Array if items.len() == 1 => items.concat(),
            Self::Array => format!("[{}]", items.join(",")),
            Self::Wrapped => format!(r#"{{"metadata":{{"player":"web"}},"events":[{}]}}"#, items.join(",")),
            Self::Lines => items.join("\n") + "\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Form::Array, &["{}"], "{}")]
    #[case(Form::Array, &["{}", "7"], "[{},7]")]
    #[case(Form::Wrapped, &["{}"], r#"{"metadata":{"player":"web"},"events":[{}]}"#)]
    #[case(Form::Wrapped, &["{}", "7"], r#"{"metadata":{"player":"web"},"events":[{},7]}"#)]
    #[case(Form::Lines, &["{}"], "{}\n")]
    #[case(Form::Lines, &["{}", "7"], "{}\n7\n")]
    fn items_are_packed_as_players_do(#[case] form: Form, #[case] items: &[&str], #[case] expected: &str) {
        let items: Vec<String> = items.iter().map(ToString::to_string).collect();
        assert_eq!(form.pack(&items), expected);
    }
}
