//! Times in JSON, as text.

use serde::{Deserialize, Deserializer, Serializer};
use shared::timestamp::UnixMillis;

use crate::event;

/// For `#[serde(with = "rfc3339")]`.
pub(crate) fn serialize<S: Serializer>(time: &UnixMillis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.rfc3339())
}

/// For `#[serde(with = "rfc3339")]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixMillis, D::Error> {
    let text = String::deserialize(deserializer)?;
    read(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no RFC 3339 time in UTC")))
}

/// A time as CloudWatch (`2026-11-21T09:40:12.345+0000`), SNS (`…12.345Z`) and EventBridge (`…12Z`) write it.
pub(crate) fn read(text: &str) -> Option<UnixMillis> {
    let local =
        text.strip_suffix("+0000").or_else(|| text.strip_suffix("+00:00")).or_else(|| text.strip_suffix('Z'))?;
    event::time(&format!("{local}Z")).ok()
}

/// The same for times that may be missing: `#[serde(with = "rfc3339::optional")]`.
pub(crate) mod optional {
    use super::{Deserialize, Deserializer, Serializer, UnixMillis, read};

    /// For `#[serde(with = "rfc3339::optional")]`.
    // serde hands over a reference to the field.
    #[allow(clippy::ref_option)]
    pub(crate) fn serialize<S: Serializer>(time: &Option<UnixMillis>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_some(&time.rfc3339()),
            None => serializer.serialize_none(),
        }
    }

    /// For `#[serde(with = "rfc3339::optional")]`.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UnixMillis>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let time = read(&text);
        if time.is_some() { Ok(time) } else { Err(serde::de::Error::custom(format!("{text:?} is no time"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("2026-11-21T09:40:12.345+0000", Some("2026-11-21T09:40:12.345Z"))]
    #[case("2026-11-21T09:40:12.345Z", Some("2026-11-21T09:40:12.345Z"))]
    #[case("2026-11-21T09:40:12Z", Some("2026-11-21T09:40:12.000Z"))]
    #[case("2026-11-21T09:40:12+00:00", Some("2026-11-21T09:40:12.000Z"))]
    #[case("2026-11-21T10:40:12+0100", None)]
    #[case("", None)]
    fn times_of_all_three_services_are_read(#[case] text: &str, #[case] time: Option<&str>) {
        assert_eq!(read(text).map(UnixMillis::rfc3339).as_deref(), time);
    }
}
