use super::*;
use generators::json::{json_object, json_value};
use proptest::prelude::*;
use rstest::rstest;

fn members(text: &str) -> Result<Vec<(String, String)>, serde_json::Error> {
    let mut found = Vec::new();
    for_each_member(text, |key, value| found.push((key.to_owned(), value.to_owned())))?;
    Ok(found)
}

#[test]
fn members_come_as_they_stand_in_the_text() {
    let found = members(" {\"a\" : 1.0e+2 , \"\\u0062\":\"\\ud800\" ,\"c\":{ \"d\" : [ ] }, \"a\":2} ").unwrap();
    let expected = [("\"a\"", "1.0e+2"), ("\"\\u0062\"", "\"\\ud800\""), ("\"c\"", "{ \"d\" : [ ] }"), ("\"a\"", "2")];
    assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}

#[rstest]
#[case::empty("")]
#[case::scalar("1")]
#[case::null("null")]
#[case::array("[]")]
#[case::truncated("{\"a\":1")]
#[case::trailing("{} x")]
#[case::two("{}{}")]
#[case::bad_member("{\"a\":tru}")]
#[case::bare_key("{a:1}")]
#[case::line_break_in_string("{\"a\":\"\n\"}")]
fn anything_but_one_object_is_an_error(#[case] text: &str) {
    assert!(members(text).is_err());
}

#[test]
fn a_million_levels_cost_no_stack() {
    let text = format!("{{\"a\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert_eq!(members(&text).unwrap().len(), 1);
    assert!(is_deeper_than(&text, 100));
}

#[rstest]
#[case("{}", 1)]
#[case("{\"a\":[[1],{\"b\":{}}]}", 4)]
#[case("{\"[[[[\":\"{\\\"[[\\\\\"}", 1)]
#[case("[\"\\\\\",[\"\\\"[\"]]", 2)]
fn depth_counts_brackets_outside_strings(#[case] text: &str, #[case] depth: usize) {
    assert!(!is_deeper_than(text, depth));
    assert!(is_deeper_than(text, depth - 1));
}

/// The depth as serde's own recursion sees it. A tree of values would forget duplicate members.
struct Depth(usize);

impl<'de> serde::Deserialize<'de> for Depth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DepthVisitor;

        impl<'de> Visitor<'de> for DepthVisitor {
            type Value = Depth;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("any JSON value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Depth, A::Error> {
                let mut deepest = 0;
                while let Some((_, Depth(depth))) = map.next_entry::<&RawValue, Depth>()? {
                    deepest = deepest.max(depth);
                }
                Ok(Depth(1 + deepest))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Depth, A::Error> {
                let mut deepest = 0;
                while let Some(Depth(depth)) = seq.next_element()? {
                    deepest = deepest.max(depth);
                }
                Ok(Depth(1 + deepest))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Depth, E> {
                Ok(Depth(0))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Depth, E> {
                Ok(Depth(0))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Depth, E> {
                Ok(Depth(0))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Depth, E> {
                Ok(Depth(0))
            }

            fn visit_str<E>(self, _: &str) -> Result<Depth, E> {
                Ok(Depth(0))
            }

            fn visit_unit<E>(self) -> Result<Depth, E> {
                Ok(Depth(0))
            }
        }

        deserializer.deserialize_any(DepthVisitor)
    }
}

#[rstest]
#[case::high_alone(r#"{"title":"a \ud83d b"}"#, r#"{"title":"a \ufffd b"}"#, 1)]
#[case::low_alone(r#"["\udc00"]"#, r#"["\ufffd"]"#, 1)]
#[case::reversed(r#""\udc00\ud800""#, r#""\ufffd\ufffd""#, 2)]
#[case::upper_case_digits(r#""\uD83D\uDBFFx\uDFFF""#, r#""\ufffd\ufffdx\ufffd""#, 3)]
#[case::high_before_a_pair(r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#, 1)]
#[case::low_behind_a_pair(r#""\ud83d\ude00\ude00""#, r#""\ud83d\ude00\ufffd""#, 1)]
#[case::high_before_another_escape(r#""\ud800\n\ud800\u0041""#, r#""\ufffd\n\ufffd\u0041""#, 2)]
#[case::in_a_key(r#"{"\ud800":{"\udfff":1}}"#, r#"{"\ufffd":{"\ufffd":1}}"#, 2)]
#[case::behind_an_escaped_backslash(r#""\\\ud800\\\\ud800""#, r#""\\\ufffd\\\\ud800""#, 1)]
#[case::between_wide_characters(r#""é\ud800é🎬""#, r#""é\ufffdé🎬""#, 1)]
#[case::halves_in_two_strings(r#"["\ud83d","\ude00"]"#, r#"["\ufffd","\ufffd"]"#, 2)]
#[case::pair(r#""\ud83d\ude00\uD83D\uDE00""#, r#""\ud83d\ude00\uD83D\uDE00""#, 0)]
#[case::escaped_backslash(r#""\\ud83d""#, r#""\\ud83d""#, 0)]
#[case::neighbours_of_surrogates(r#""\ud7ff\ue000\ufffd""#, r#""\ud7ff\ue000\ufffd""#, 0)]
#[case::no_escape(r#"{"a":"ud800"}"#, r#"{"a":"ud800"}"#, 0)]
fn lone_surrogates_are_replaced_and_pairs_are_not(#[case] json: &str, #[case] expected: &str, #[case] count: u64) {
    assert_eq!(replace_lone_surrogates(json), (Cow::Borrowed(expected), count));
    assert_eq!(expected.len(), json.len());
}

#[test]
fn text_that_ends_within_an_escape_is_left_alone() {
    for text in ["\\", "\\u", "\\ud80", "\"\\ud8é0"] {
        assert_eq!(replace_lone_surrogates(text), (Cow::Borrowed(text), 0));
    }
}

proptest! {
    #[test]
    fn what_was_replaced_is_unicode_and_all_else_is_as_it_was(text in json_value()) {
        let (replaced, count) = replace_lone_surrogates(&text);
        prop_assert_eq!(replaced.len(), text.len());
        prop_assert_eq!(replace_lone_surrogates(&replaced).1, 0);
        let different = text.bytes().zip(replaced.bytes()).filter(|(before, after)| before != after).count();
        prop_assert!((count * 2..=count * 4).contains(&(different as u64)) || different == 0 && count == 0);
        // serde_json refuses lone surrogates; other than that, only numbers that no machine word holds.
        let problem = serde_json::from_str::<serde_json::Value>(&replaced).err().map(|error| error.to_string());
        prop_assert!(problem.as_ref().is_none_or(|problem| problem.contains("number")), "{:?}", problem);
    }

    #[test]
    fn every_object_a_client_may_send_is_walked(text in json_object()) {
        prop_assert!(members(&text).is_ok());
    }

    #[test]
    fn walking_agrees_with_a_tree_of_values(text in json_object()) {
        // The tree can't hold lone surrogates; all else it can.
        if let Ok(serde_json::Value::Object(tree)) = serde_json::from_str(&text) {
            let walked: std::collections::BTreeMap<String, serde_json::Value> = members(&text)?.into_iter()
                .map(|(key, value)| Ok((serde_json::from_str(&key)?, serde_json::from_str(&value)?)))
                .collect::<Result<_, serde_json::Error>>()?;
            prop_assert_eq!(walked.into_iter().collect::<serde_json::Map<_, _>>(), tree);
        }
    }

    #[test]
    fn depth_agrees_with_a_recursive_reader(text in json_value()) {
        // Numbers and lone surrogates that Rust can't hold end the reader early.
        if let Ok(Depth(depth)) = serde_json::from_str(&text) {
            prop_assert_eq!(deepest_level(&text), depth);
        }
    }

    #[test]
    fn folding_changes_no_value_and_leaves_one_line(text in json_value()) {
        let folded = fold_line_breaks(&text);
        prop_assert!(!folded.contains(['\n', '\r']));
        prop_assert_eq!(folded.len(), text.len());
        if let Ok(tree) = serde_json::from_str::<serde_json::Value>(&text) {
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&folded)?, tree);
        }
    }

    #[test]
    fn any_text_is_looked_at_without_panic(text in any::<String>()) {
        let _walked = members(&text);
        let _deep = is_deeper_than(&text, 3);
    }
}
