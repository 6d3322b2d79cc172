use super::*;
use rstest::rstest;

fn copy(body: &str, content_type: &str) -> Result<String, String> {
    let headers = serde_json::json!({ "content-type": content_type });
    let line = serde_json::json!({ "t_ms": 1, "path": "/events", "headers": headers, "body": body });
    Ok(request(&line.to_string())?.body("2", || "X".to_owned()))
}

#[rstest]
#[case::object(r#"{"a":1}"#, r#"{"id":"X","a":1}"#)]
#[case::nothing_in_it(" {} ", r#" {"id":"X"} "#)]
#[case::its_own_id(r#"{"a":1, "id" : 42 }"#, r#"{"a":1, "id" : "X" }"#)]
#[case::identities(
    r#"[{"xid":"a","sid":"b"},{"sid" : "c"}]"#,
    r#"[{"id":"X","xid":"a-2","sid":"b-2"},{"id":"X","sid" : "c-2"}]"#
)]
#[case::wrapped(
    r#"{"metadata":{"sid":"m"},"events":[{"a":{"sid":"n"}}]}"#,
    r#"{"metadata":{"sid":"m"},"events":[{"id":"X","a":{"sid":"n"}}]}"#
)]
#[case::numbers_stay(r#"{"sid":7}"#, r#"{"id":"X","sid":7}"#)]
fn json_events_get_their_own_ids_and_identities(#[case] body: &str, #[case] expected: &str) {
    assert_eq!(copy(body, "application/json; charset=utf-8").unwrap(), expected);
}

#[test]
fn each_line_is_an_event() {
    let expected = "{\"id\":\"X\",\"sid\":\"a-2\"}\n\n {\"id\":\"X\"}\n";
    assert_eq!(copy("{\"sid\":\"a\"}\n\n {\"id\":\"\"}\n", "application/x-ndjson").unwrap(), expected);
}

#[rstest]
#[case("e=t,sid=\"a\",v=2\n", "e=t,sid=\"a-2\",v=2,com.playhead-id=\"X\"\n")]
#[case("e=t\nsid=\"b\"\n", "e=t,com.playhead-id=\"X\"\nsid=\"b-2\",com.playhead-id=\"X\"\n")]
#[case("cid=\",sid=\\\"\",sid=\"c\"", "cid=\",sid=\\\"\",sid=\"c-2\",com.playhead-id=\"X\"")]
fn cmcd_reports_get_their_own_ids_and_identities(#[case] body: &str, #[case] expected: &str) {
    assert_eq!(copy(body, "application/cmcd").unwrap(), expected);
}

#[rstest]
#[case("[1]", "application/json")]
#[case("{\"a\":", "text/plain")]
#[case("{\"a\":1}\nnull", "application/x-ndjson")]
fn bodies_without_events_are_errors(#[case] body: &str, #[case] content_type: &str) {
    assert!(copy(body, content_type).is_err());
}

#[rstest]
#[case("/events", true)]
#[case("/events/cmcd?v=2", true)]
#[case("/events/a b", false)]
#[case("/eventful", false)]
#[case("/", false)]
fn a_path_is_below_that_of_events_and_fits_into_a_url(#[case] path: &str, #[case] is_right: bool) {
    let line = serde_json::json!({ "t_ms": 1, "path": path, "headers": {}, "body": "{}" });
    assert_eq!(request(&line.to_string()).is_ok(), is_right);
}
