//! From a body's bytes to its events: slices of the body wherever possible, and never a tree of values.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use shared::json::for_each_member;
use shared::limits::MAX_EVENTS_PER_REQUEST;
use shared::rejection::{Reason, Rejection};

use crate::content::BodyForm;
use crate::event::{self, Event, Fields, KeyFields, not_one_object, utf8};
use crate::lines::{holds_lines, lines, trimmed};
use crate::salvage::{Piece, pieces};
use crate::steps;

/// One piece of a body; its place in the body's order is its index in answers.
#[derive(Debug, PartialEq)]
pub struct Item<'a> {
    /// What the client sent.
    pub source: &'a [u8],
    pub event: Result<Event<'a>, Rejection>,
}

/// Takes a body apart. There is at least one item in the result.
///
/// # Errors
///
/// When the body as a whole can't be taken apart: nothing of it is an event then.
pub fn split<'a>(body: &'a [u8], form: BodyForm, key_fields: &KeyFields) -> Result<Vec<Item<'a>>, Rejection> {
    let text = trimmed(body);
    if text.is_empty() {
        return Err(Rejection::new(Reason::NoEvents, "the body is empty; send an event, such as {\"type\":\"play\"}"));
    }
    let mut splitter = Splitter { key_fields, items: Vec::new() };
    match form {
        BodyForm::Json => splitter.json(text)?,
        BodyForm::JsonLines => splitter.json_lines(text)?,
        BodyForm::Cmcd => splitter.reports(text)?,
    }
    if splitter.items.is_empty() {
        return Err(Rejection::new(Reason::NoEvents, "there is no event in the body"));
    }
    Ok(splitter.items)
}

/// What was found in a body so far, in its order.
struct Splitter<'a, 'k> {
    key_fields: &'k KeyFields,
    items: Vec<Item<'a>>,
}

impl<'a> Splitter<'a, '_> {
    /// One JSON value; or a value a line, which senders of `text/plain` and `application/json` can't say.
    fn json(&mut self, text: &'a [u8]) -> Result<(), Rejection> {
        match self.value(text) {
            Err(rejection) if is_malformed(&rejection) && holds_lines(text) => self.json_lines(text),
            Err(rejection) => self.salvage(text, rejection),
            Ok(()) => Ok(()),
        }
    }

    /// Each line is one value, whatever the lines around it are.
    fn json_lines(&mut self, text: &'a [u8]) -> Result<(), Rejection> {
        lines(text).try_for_each(|line| {
            let added = self.value(line).or_else(|rejection| self.salvage(line, rejection));
            self.or_rejected(line, added)
        })
    }

    fn reports(&mut self, text: &'a [u8]) -> Result<(), Rejection> {
        lines(text).try_for_each(|line| self.add(line, event::from_cmcd(line, self.key_fields)))
    }

    /// Adds the events of one valid JSON value, or nothing.
    fn value(&mut self, json: &'a [u8]) -> Result<(), Rejection> {
        steps::count(json.len());
        let text = utf8(json)?;
        if text.starts_with('[') {
            return self.array(text);
        }
        let mut fields = Fields::new(self.key_fields);
        match events_member(text, |key, value| fields.see(key, value))? {
            Some(events) => self.array(events),
            None => self.add(json, fields.into_event(text)),
        }
    }

    fn array(&mut self, array: &'a str) -> Result<(), Rejection> {
        array_members(array)?.into_iter().try_for_each(|member| self.member(member.get().as_bytes()))
    }

    fn member(&mut self, member: &'a [u8]) -> Result<(), Rejection> {
        self.add(member, event::from_json(member, self.key_fields))
    }

    /// Adds the pieces of a text that is malformed, each judged on its own, if there is an event among them.
    fn salvage(&mut self, text: &'a [u8], rejection: Rejection) -> Result<(), Rejection> {
        let found = Some(text).filter(|_| is_malformed(&rejection)).and_then(pieces).unwrap_or_default();
        let before = self.items.len();
        for piece in found {
            match piece {
                Piece::Member(member) => self.member(member)?,
                Piece::Value(value) => {
                    let added = self.value(value);
                    self.or_rejected(value, added)?;
                }
            }
        }
        if self.items[before..].iter().any(|item| item.event.is_ok()) {
            return Ok(());
        }
        self.items.truncate(before);
        Err(rejection)
    }

    /// Adds a piece as rejected if nothing of it was added.
    fn or_rejected(&mut self, piece: &'a [u8], added: Result<(), Rejection>) -> Result<(), Rejection> {
        match added {
            Err(rejection) if rejection.reason != Reason::TooManyEvents => self.add(piece, Err(rejection)),
            added => added,
        }
    }

    fn add(&mut self, source: &'a [u8], event: Result<Event<'a>, Rejection>) -> Result<(), Rejection> {
        if self.items.len() == MAX_EVENTS_PER_REQUEST {
            return Err(too_many_events());
        }
        self.items.push(Item { source, event });
        Ok(())
    }
}

/// Whether a text is rejected for what stands in it, and not for what it is.
fn is_malformed(rejection: &Rejection) -> bool {
    matches!(rejection.reason, Reason::InvalidJson | Reason::InvalidUtf8)
}

/// The list of events that an object wraps, if it does. `see` is shown all members.
fn events_member<'a>(text: &'a str, mut see: impl FnMut(&'a str, &'a str)) -> Result<Option<&'a str>, Rejection> {
    let mut lists = Vec::new();
    for_each_member(text, |key, value| {
        if key == "\"events\"" {
            lists.push(value);
        }
        see(key, value);
    })
    .map_err(|error| not_one_object(text, &error))?;
    match lists[..] {
        [list] if is_list_of_events(list)? => Ok(Some(list)),
        _ => Ok(None),
    }
}

/// Whether the value of an `events` member is a list to unwrap: an array with an object in it, or an empty one. An event
/// may have a member of that name too, such as a list of names.
fn is_list_of_events(value: &str) -> Result<bool, Rejection> {
    if !value.starts_with('[') {
        return Ok(false);
    }
    let members = array_members(value)?;
    Ok(members.is_empty() || members.iter().any(|member| member.get().starts_with('{')))
}

fn array_members(array: &str) -> Result<Vec<&RawValue>, Rejection> {
    struct Members;

    impl<'a> Visitor<'a> for Members {
        /// `None` when there are too many.
        type Value = Option<Vec<&'a RawValue>>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a JSON array")
        }

        fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = array.next_element()? {
                if members.len() == MAX_EVENTS_PER_REQUEST {
                    while array.next_element::<IgnoredAny>()?.is_some() {}
                    return Ok(None);
                }
                members.push(member);
            }
            Ok(Some(members))
        }
    }

    steps::count(array.len());
    let mut deserializer = serde_json::Deserializer::from_str(array);
    let members = deserializer.deserialize_seq(Members).and_then(|members| deserializer.end().map(|()| members));
    members.map_err(|error| Rejection::new(Reason::InvalidJson, error.to_string()))?.ok_or_else(too_many_events)
}

fn too_many_events() -> Rejection {
    let detail = format!("the body holds more than {MAX_EVENTS_PER_REQUEST} events; send fewer at a time");
    Rejection::new(Reason::TooManyEvents, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::HashKey;
    use generators::json::json_object;
    use proptest::prelude::*;
    use rstest::rstest;
    use shared::json::{fold_line_breaks, replace_lone_surrogates};
    use shared::limits::{MAX_CMCD_REPORT_BYTES, MAX_EVENT_DEPTH, MAX_EVENT_ID_BYTES};

    fn key_fields() -> KeyFields {
        KeyFields::new(&["session_id".into(), "xid".into(), "sid".into()])
    }

    fn split_as(body: &[u8], form: BodyForm) -> Result<Vec<Item<'_>>, Rejection> {
        split(body, form, &key_fields())
    }

    /// `Ok(json)` or `Err(reason)` for each item, or the reason for which there are none.
    fn outcomes(body: &[u8], form: BodyForm) -> Result<Vec<Result<String, Reason>>, Reason> {
        let items = split_as(body, form).map_err(|rejection| rejection.reason)?;
        Ok(items
            .into_iter()
            .map(|item| item.event.map(|event| event.json.into_owned()).map_err(|rejection| rejection.reason))
            .collect())
    }

    fn ok(events: &[&str]) -> Result<Vec<Result<String, Reason>>, Reason> {
        Ok(events.iter().map(|event| Ok((*event).to_owned())).collect())
    }

    #[rstest]
    #[case::object("{\"a\":1}", ok(&["{\"a\":1}"]))]
    #[case::white_space(" \r\n{\"a\":1}\n\n", ok(&["{\"a\":1}"]))]
    #[case::pretty("{\n  \"a\": 1\n}", ok(&["{   \"a\": 1 }"]))]
    #[case::array("[{\"a\":1}, {\"b\":[2]}]", ok(&["{\"a\":1}", "{\"b\":[2]}"]))]
    #[case::events_member("{\"metadata\":{},\"events\":[{\"a\":1},{}]}", ok(&["{\"a\":1}", "{}"]))]
    #[case::events_member_that_is_no_list("{\"events\":3}", ok(&["{\"events\":3}"]))]
    #[case::events_member_without_objects("{\"events\":[\"play\"]}", ok(&["{\"events\":[\"play\"]}"]))]
    #[case::two_events_members("{\"events\":[{}],\"events\":[{}]}", ok(&["{\"events\":[{}],\"events\":[{}]}"]))]
    #[case::pretty_and_truncated("{\"items\": [\n{\"a\": 1},\n{\"b\": 2}\n]", Err(Reason::InvalidJson))]
    #[case::lines("{\"a\":1}\n{\"b\":2}\r\n\n", ok(&["{\"a\":1}", "{\"b\":2}"]))]
    #[case::byte_order_mark("\u{feff}{\"a\":1}", ok(&["{\"a\":1}"]))]
    #[case::duplicate_members("{\"a\":1,\"a\":2}", ok(&["{\"a\":1,\"a\":2}"]))]
    #[case::not_json("hello", Err(Reason::InvalidJson))]
    #[case::frames_a_line("{\"events\":[{\"a\":1},{}]}\n{\"v\":2,\"events\":[{\"b\":2}]}", ok(&["{\"a\":1}", "{}", "{\"b\":2}"]))]
    #[case::lists_a_line("[{\"a\":1},{}]\n[{\"b\":2}]\n{\"c\":3}", ok(&["{\"a\":1}", "{}", "{\"b\":2}", "{\"c\":3}"]))]
    #[case::empty_frames_a_line("{\"events\":[]}\n[]", Err(Reason::NoEvents))]
    #[case::byte_order_mark_a_line("\u{feff}{\"a\":1}\r\n\u{feff}{\"b\":2}", ok(&["{\"a\":1}", "{\"b\":2}"]))]
    #[case::byte_order_mark_alone("\u{feff}", Err(Reason::NoEvents))]
    #[case::number("17", Err(Reason::NotAnObject))]
    #[case::string("\"x\"", Err(Reason::NotAnObject))]
    #[case::null("null", Err(Reason::NotAnObject))]
    #[case::empty("", Err(Reason::NoEvents))]
    #[case::blank(" \n ", Err(Reason::NoEvents))]
    #[case::empty_array("[]", Err(Reason::NoEvents))]
    #[case::empty_events("{\"events\":[]}", Err(Reason::NoEvents))]
    fn json_bodies(#[case] body: &str, #[case] expected: Result<Vec<Result<String, Reason>>, Reason>) {
        assert_eq!(outcomes(body.as_bytes(), BodyForm::Json), expected);
    }

    #[test]
    fn bad_members_do_not_stop_good_ones_beside_them() {
        let good = |text: &str| Ok(text.to_owned());
        assert_eq!(
            outcomes(b"[{\"a\":1},7,{\"b\":2},[{}],{\"c\":3}]", BodyForm::Json),
            Ok(vec![
                good("{\"a\":1}"),
                Err(Reason::NotAnObject),
                good("{\"b\":2}"),
                Err(Reason::NotAnObject),
                good("{\"c\":3}")
            ])
        );
        for form in [BodyForm::Json, BodyForm::JsonLines] {
            assert_eq!(
                outcomes(b"{\"a\":1}\n{\"b\":\nnull\n\xff\n{\"c\":3}", form),
                Ok(vec![
                    good("{\"a\":1}"),
                    Err(Reason::InvalidJson),
                    Err(Reason::NotAnObject),
                    Err(Reason::InvalidUtf8),
                    good("{\"c\":3}")
                ])
            );
        }
        assert_eq!(
            outcomes(b"null\n{\"a\":1}\n7\n{\"b\":2}", BodyForm::Json),
            Ok(vec![Err(Reason::NotAnObject), good("{\"a\":1}"), Err(Reason::NotAnObject), good("{\"b\":2}")])
        );
        assert_eq!(
            outcomes(b"e=t,sn=1\nE!\ne=ps\n", BodyForm::Cmcd),
            Ok(vec![good("{\"e\":\"t\",\"sn\":1}"), Err(Reason::InvalidCmcd), good("{\"e\":\"ps\"}")])
        );
    }

    #[test]
    fn a_cmcd_report_stands_on_its_bound_and_one_past_it() {
        let report = |bytes: usize| format!("a=\"{}\"", "x".repeat(bytes - 4));
        assert!(outcomes(report(MAX_CMCD_REPORT_BYTES).as_bytes(), BodyForm::Cmcd).unwrap()[0].is_ok());
        let too_large = report(MAX_CMCD_REPORT_BYTES + 1);
        assert_eq!(outcomes(too_large.as_bytes(), BodyForm::Cmcd), Ok(vec![Err(Reason::EventTooLarge)]));
    }

    #[rstest]
    #[case::array(b"[{\"a\":\"\xc3\xa9\"}, {\"b\":\"\xff\xfe\"} ,{\"c\":3}]")]
    #[case::events_member(b"\xef\xbb\xbf{\"m\":1,\"events\":[{\"a\":\"\xc3\xa9\"},{\"b\":\"\xff\xfe\"},{\"c\":3}]}")]
    fn a_member_that_is_not_utf8_is_rejected_alone_and_as_it_was_sent(#[case] body: &[u8]) {
        let items = split_as(body, BodyForm::Json).unwrap();
        let [Item { event: Ok(first), .. }, Item { event: Err(rejection), source }, Item { event: Ok(last), .. }] =
            &items[..]
        else {
            panic!("{items:?}");
        };
        assert_eq!((&*first.json, &*last.json), ("{\"a\":\"é\"}", "{\"c\":3}"));
        assert_eq!((rejection.reason, *source), (Reason::InvalidUtf8, &b"{\"b\":\"\xff\xfe\"}"[..]));
    }

    const BAD: Result<&str, Reason> = Err(Reason::InvalidJson);
    const NOT_UTF8: Result<&str, Reason> = Err(Reason::InvalidUtf8);

    #[rstest]
    #[case::bad_number(b"[{\"n\":1},{\"n\":NaN},{\"n\":3}]", &[Ok("{\"n\":1}"), BAD, Ok("{\"n\":3}")])]
    #[case::bad_first(b"[undefined,{\"n\":2}]", &[BAD, Ok("{\"n\":2}")])]
    #[case::bad_and_no_object(b"[{\"n\":1},7,{\"n\":tru},[{}]]", &[Ok("{\"n\":1}"), Err(Reason::NotAnObject), BAD, Err(Reason::NotAnObject)])]
    #[case::raw_tab(b"[{\"t\":\"a\tb\"},{\"n\":2}]", &[BAD, Ok("{\"n\":2}")])]
    #[case::bad_escape(b"[{\"t\":\"\\x\"},{\"n\":2}]", &[BAD, Ok("{\"n\":2}")])]
    #[case::trailing_comma(b"[{\"a\":1},]", &[Ok("{\"a\":1}")])]
    #[case::truncated(b"[{\"a\":1},{\"b\":", &[Ok("{\"a\":1}"), BAD])]
    #[case::not_utf8_between_members(b"[{\"a\":1},\xff{\"b\":2}]", &[Ok("{\"a\":1}"), NOT_UTF8, Ok("{\"b\":2}")])]
    #[case::not_utf8_and_cut_off(b"[{\"a\":\"\xff\"},{\"b\":2}", &[NOT_UTF8, Ok("{\"b\":2}")])]
    #[case::frame(b"{\"m\":1,\"events\":[{\"n\":1},{\"n\":NaN}],\"z\":1}", &[Ok("{\"n\":1}"), BAD])]
    #[case::frame_that_is_bad_itself(b"{\"m\":NaN,\"events\":[{\"n\":1}]}", &[BAD, Ok("{\"n\":1}")])]
    #[case::first_line(b"{\"n\":NaN}\n{\"n\":2}\n{\"n\":3}", &[BAD, Ok("{\"n\":2}"), Ok("{\"n\":3}")])]
    #[case::first_line_is_no_json(b"hello\n{\"n\":2}", &[BAD, Ok("{\"n\":2}")])]
    #[case::first_line_is_not_utf8(b"\xff\n{\"n\":2}", &[NOT_UTF8, Ok("{\"n\":2}")])]
    #[case::frames_a_line(b"{\"events\":[{\"n\":1},x]}\nx\n{\"events\":[{\"n\":3},{\"n\":4}]}", &[Ok("{\"n\":1}"), BAD, BAD, Ok("{\"n\":3}"), Ok("{\"n\":4}")])]
    #[case::pretty(b"[\n  {\"n\": NaN},\n  {\n\"n\": 2\n}\n]", &[BAD, Ok("{ \"n\": 2 }")])]
    #[case::two_strings_that_do_not_end(br#"[{"p":"C:\"},{"n":2},{"p":"D:\"},{"n":4}]"#, &[BAD, Ok("{\"n\":2}"), BAD, Ok("{\"n\":4}")])]
    #[case::string_that_does_not_end_before_a_bad_number(br#"[{"n":"C:\"},{"n":2},{"n":NaN}]"#, &[BAD, Ok("{\"n\":2}"), BAD])]
    #[case::string_that_does_not_end_before_a_bad_number_and_a_good_one(br#"[{"t":"C:\"},{"n":2},{"n":NaN},{"n":4}]"#, &[BAD, Ok("{\"n\":2}"), BAD, Ok("{\"n\":4}")])]
    #[case::strings_without_their_last_quote(br#"[{"p":"x},{"n":2},{"p":"y},{"n":4}]"#, &[BAD, Ok("{\"n\":2}"), BAD, Ok("{\"n\":4}")])]
    #[case::strings_without_their_first_quote(br#"[{"p":x"},{"n":2},{"p":y"},{"n":4}]"#, &[BAD, Ok("{\"n\":2}"), BAD, Ok("{\"n\":4}")])]
    #[case::object_that_is_cut_off_in_a_string(br#"[{"t":"tru,{"n":2},{"n":3}]"#, &[BAD, Ok("{\"n\":2}"), Ok("{\"n\":3}")])]
    #[case::string_that_does_not_end_in_a_list_that_is_cut_off(br#"[{"t":"C:\"},{"n":2},{"n":3"#, &[BAD, Ok("{\"n\":2}"), BAD])]
    #[case::string_that_does_not_end_before_bytes_that_are_no_text(b"[{\"t\":\"C:\\\"},{\"n\":2},{\"t\":\"\xff\"}]", &[BAD, Ok("{\"n\":2}"), NOT_UTF8])]
    #[case::string_that_does_not_end_in_a_frame(br#"{"events":[{"p":"C:\"},{"n":2},{"p":"D:\"},{"n":4}]}"#, &[BAD, Ok("{\"n\":2}"), BAD, Ok("{\"n\":4}")])]
    #[case::string_that_does_not_end_before_the_list_of_a_frame(br#"{"path":"C:\","m":{"events":[{}]},"events":[{"n":1},{"n":2}]}"#, &[BAD, Ok("{\"n\":1}"), Ok("{\"n\":2}")])]
    #[case::strings_that_do_not_end_over_lines(b"[{\"p\":\"C:\\\"},\n{\"n\":2},\n{\"p\":\"D:\\\"},\n{\"n\":4}\n]", &[BAD, Ok("{\"n\":2}"), BAD, Ok("{\"n\":4}")])]
    #[case::string_that_does_not_end_before_a_list_of_objects(br#"[{"p":"C:\","q":[{"a":1},{"a":2}]},{"n":2},{"n":NaN}]"#, &[BAD, Ok("{\"n\":2}"), BAD])]
    #[case::string_that_does_not_end_and_holds_brackets(br#"[{"p":":-{ [( C:\"},{"n":2},{"n":NaN}]"#, &[BAD, Ok("{\"n\":2}"), BAD])]
    #[case::good_string_that_looks_like_members(br#"[{"t":"x},{",":1},":0},{"n":NaN}]"#, &[Ok(r#"{"t":"x},{",":1},":0}"#), BAD])]
    #[case::good_string_that_holds_members(br#"[{"t":"x},{},{\"n\":2},"},{"n":NaN},{"u":"},{\"n\":2}"}]"#, &[Ok(r#"{"t":"x},{},{\"n\":2},"}"#), BAD, Ok(r#"{"u":"},{\"n\":2}"}"#)])]
    #[case::list_in_a_string_without_escapes(br#"[{"t":"[{"a":1},{"a":2},{"a":3}]"},{"n":2}]"#, &[BAD, Ok("{\"n\":2}")])]
    #[case::name_of_events_without_quotes(br#"{events:[{"n":1},{"n":2}]}"#, &[BAD, Ok("{\"n\":1}"), Ok("{\"n\":2}")])]
    #[case::name_of_events_in_other_quotes(br#"{'v':1, 'events' :[{"n":1}]}"#, &[BAD, Ok("{\"n\":1}")])]
    #[case::byte_order_marks_between_values("\u{feff}[{\"n\":1}]\u{feff}[{\"n\":2}]".as_bytes(), &[Ok("{\"n\":1}"), Ok("{\"n\":2}")])]
    #[case::byte_order_mark_in_a_list("[\u{feff}{\"n\":1},{\"n\":2}]".as_bytes(), &[Ok("{\"n\":1}"), Ok("{\"n\":2}")])]
    #[case::zero_bytes_between_values(b"{\"n\":1}\0{\"n\":2}\0{\"n\":3}", &[Ok("{\"n\":1}"), Ok("{\"n\":2}"), Ok("{\"n\":3}")])]
    #[case::zero_byte_at_the_end(b"{\"n\":1}\0", &[Ok("{\"n\":1}")])]
    #[case::record_separators(b"\x1e{\"n\":1}\n\x1e{\"n\":2}", &[Ok("{\"n\":1}"), Ok("{\"n\":2}")])]
    #[case::control_bytes_in_a_list(b"[{\"n\":1}\0,\x01{\"n\":2}\x7f]", &[Ok("{\"n\":1}"), Ok("{\"n\":2}")])]
    #[case::line_cut_off_in_a_string_of_an_array(b"{\"tags\":[\"spo\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}", &[BAD, Ok("{\"n\":2}"), Ok("{\"n\":3}"), Ok("{\"n\":4}")])]
    #[case::line_cut_off_in_a_string_of_an_object_in_an_array(b"{\"items\":[{\"a\":1},{\"b\":\"x\n{\"n\":2}\n{\"n\":3}", &[BAD, Ok("{\"n\":2}"), Ok("{\"n\":3}")])]
    #[case::frame_cut_off_in_a_string_before_others(b"{\"events\":[{\"n\":1},{\"n\":\"tru\n{\"events\":[{\"n\":3}]}\n{\"events\":[{\"n\":4}]}", &[Ok("{\"n\":1}"), BAD, Ok("{\"n\":3}"), Ok("{\"n\":4}")])]
    #[case::list_cut_off_in_a_string_before_another(b"[{\"n\":\"tru\n[{\"n\":2}]", &[BAD, Ok("{\"n\":2}")])]
    #[case::line_cut_off_in_a_string_at_a_comma(b"{\"tags\":[\"spo,\n{\"n\":2}", &[BAD, Ok("{\"n\":2}")])]
    fn one_bad_member_costs_no_other(#[case] body: &[u8], #[case] expected: &[Result<&str, Reason>]) {
        let expected = expected.iter().map(|one| one.map(str::to_owned)).collect();
        assert_eq!(outcomes(body, BodyForm::Json), Ok(expected));
    }

    #[test]
    fn lines_of_frames_and_bad_ones_are_taken_apart_in_every_form_of_json() {
        let body = b"{\"events\":[{\"n\":1}]}\n{\"events\":[{\"n\":2},NaN]}\n\xef\xbb\xbf{\"n\":3}\n{\"n\":";
        let good = |n: u32| Ok(format!("{{\"n\":{n}}}"));
        let bad = || Err(Reason::InvalidJson);
        for form in [BodyForm::Json, BodyForm::JsonLines] {
            assert_eq!(outcomes(body, form), Ok(vec![good(1), good(2), bad(), good(3), bad()]));
        }
    }

    #[test]
    fn a_bad_member_is_kept_as_it_was_sent() {
        let body = b"[{\"n\":1}, {\"n\":\tNaN, \"t\":\"\xff\"} ,{\"n\":3}]";
        let items = split_as(body, BodyForm::Json).unwrap();
        assert!(items[1].event.is_err(), "{items:?}");
        assert_eq!(items[1].source, b"{\"n\":\tNaN, \"t\":\"\xff\"}");
    }

    #[rstest]
    #[case(
        r#"{"id":"\ud83d-1","title":"a \ud83d b"}"#,
        r#"{"id":"\ufffd-1","title":"a \ufffd b"}"#,
        "\"\\ufffd-1\"",
        2
    )]
    #[case(r#"{"id":"\\ud83d","t":"\ud83d\ude00"}"#, r#"{"id":"\\ud83d","t":"\ud83d\ude00"}"#, "\"\\\\ud83d\"", 0)]
    #[case("{\"id\":1,\n\"\\uDC00\":[\"\\uDC00\"]}", r#"{"id":1, "\ufffd":["\ufffd"]}"#, "\"1\"", 2)]
    fn lone_surrogates_are_replaced_in_events_and_ids(
        #[case] body: &str,
        #[case] json: &str,
        #[case] id: &str,
        #[case] count: u64,
    ) {
        let event = only_event(body);
        assert_eq!((&*event.json, event.id.as_deref(), event.replaced_surrogates), (json, Some(id), count));
    }

    #[test]
    fn invalid_utf8_alone_is_one_rejection() {
        assert_eq!(outcomes(b"{\"a\":\"\xff\"}", BodyForm::Json), Err(Reason::InvalidUtf8));
    }

    #[test]
    fn ten_thousand_levels_are_refused_without_a_deep_stack() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(outcomes(deep.as_bytes(), BodyForm::Json), Ok(vec![Err(Reason::TooDeep)]));
        let arrays = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(outcomes(arrays.as_bytes(), BodyForm::Json), Ok(vec![Err(Reason::NotAnObject)]));
    }

    #[test]
    fn depth_stands_on_the_bound_and_one_past_it() {
        let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        assert!(outcomes(nested(MAX_EVENT_DEPTH).as_bytes(), BodyForm::Json).unwrap()[0].is_ok());
        assert_eq!(outcomes(nested(MAX_EVENT_DEPTH + 1).as_bytes(), BodyForm::Json), Ok(vec![Err(Reason::TooDeep)]));
    }

    #[test]
    fn the_number_of_events_stands_on_the_bound_and_one_past_it() {
        let array = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
        let lines = |count: usize| "{}\n".repeat(count);
        for (form, body) in [
            (BodyForm::Json, &array as &dyn Fn(usize) -> String),
            (BodyForm::Json, &lines),
            (BodyForm::JsonLines, &lines),
        ] {
            let count = MAX_EVENTS_PER_REQUEST;
            assert_eq!(outcomes(body(count).as_bytes(), form).unwrap().len(), count);
            assert_eq!(outcomes(body(count + 1).as_bytes(), form), Err(Reason::TooManyEvents));
        }
    }

    fn only_event(body: &str) -> Event<'_> {
        let item = split_as(body.as_bytes(), BodyForm::Json).unwrap().remove(0);
        assert_eq!(item.source, body.as_bytes());
        item.event.unwrap()
    }

    #[rstest]
    #[case("{\"id\":\"e-1\"}", Some("\"e-1\""))]
    #[case("{\"id\":\"\\u00e9\"}", Some("\"\\u00e9\""))]
    #[case("{\"id\":17}", Some("\"17\""))]
    #[case("{\"id\":-1.5e3}", Some("\"-1.5e3\""))]
    #[case("{\"id\":\"\"}", None)]
    #[case("{\"id\":null}", None)]
    #[case("{\"id\":{}}", None)]
    #[case("{\"nested\":{\"id\":\"e-1\"}}", None)]
    fn ids_are_taken_as_they_stand(#[case] body: &str, #[case] expected: Option<&str>) {
        assert_eq!(only_event(body).id.as_deref(), expected);
    }

    #[test]
    fn long_ids_stay_in_the_event_alone() {
        let with_id = |length: usize| format!("{{\"id\":\"{}\"}}", "x".repeat(length));
        assert!(only_event(&with_id(MAX_EVENT_ID_BYTES - 2)).id.is_some());
        assert!(only_event(&with_id(MAX_EVENT_ID_BYTES - 1)).id.is_none());
    }

    #[rstest]
    #[case("{\"sid\":\"s\",\"xid\":\"x\"}", Some("x"))]
    #[case("{\"xid\":\"x\",\"sid\":\"s\"}", Some("x"))]
    #[case("{\"session_id\":\"\",\"sid\":\"s\"}", Some("s"))]
    #[case("{\"session_id\":null,\"sid\":7}", Some("7"))]
    #[case("{\"sid\":\"\\u0041\\n\"}", Some("A\n"))]
    #[case("{\"sid\":\"\\ud800\"}", Some("\"\\ud800\""))]
    #[case("{\"other\":1}", None)]
    fn the_first_field_that_has_a_value_is_the_key(#[case] body: &str, #[case] expected: Option<&str>) {
        assert_eq!(only_event(body).key, expected.map(|key| HashKey::of(key.as_bytes())));
    }

    /// Twice the body takes twice the steps, whatever it is made of, and never more than a few for each byte. (A string that
    /// does not end may cost a look at what follows for each of eight places.)
    #[rstest]
    #[case::good_list("[", "{\"n\":1},")]
    #[case::bad_tokens("[", "{\"n\":NaN},")]
    #[case::frames("", "{\"v\":NaN,\"events\":[{\"n\":1}]}")]
    #[case::frames_that_are_not_closed("", "{\"events\":[")]
    #[case::frames_without_objects("", "{\"events\":[1],x}")]
    #[case::frames_whose_name_has_no_list("", "{\"events\"   :   ")]
    #[case::frames_a_line("x\n", "{\"events\":[{},x]}\n")]
    #[case::frames_of_comments_that_are_not_closed("", "{\"events\":[/*]}")]
    #[case::comments_that_are_not_closed("[{},", "/* ")]
    #[case::comments_behind_objects("[", "{},/*")]
    #[case::comments_to_the_end_of_the_line("[", "//a")]
    #[case::comments_within("[", "a/*")]
    #[case::long_name_before_an_object("[{},\"", "n")]
    #[case::names_before_objects("[{},", "\"name\":{\"a\":1}")]
    #[case::colons("[{},", ":")]
    #[case::objects_that_are_not_closed("[", "{\"a\":1,")]
    #[case::objects_in_objects("[{},", "{\"a\":")]
    #[case::objects_behind_commas("[", ",{")]
    #[case::arrays("[{},x", "[")]
    #[case::arrays_and_objects("[{},", "[{")]
    #[case::brackets_that_close("[{}", "]")]
    #[case::brackets_that_close_behind_commas("[{}", "],{}")]
    #[case::objects_that_close("[{}", "}")]
    #[case::round_brackets("[{},", "(")]
    #[case::lists("", "[{},x]")]
    #[case::white_space_behind_commas("[{},", ",      ")]
    #[case::white_space_behind_brackets("[{}", "]      ")]
    #[case::white_space("[{}", " ")]
    #[case::strings_that_do_not_end("[", "{\"t\":\"C:\\\"},")]
    #[case::string_that_does_not_end("[{},\"", "},{")]
    #[case::strings_that_do_not_end_before_good_members("[", "{\"t\":\"C:\\\"},{\"n\":2},")]
    #[case::strings_that_seem_not_to_end("[{},\"", "},{\"a\":1},\"")]
    #[case::lists_in_strings_that_seem_not_to_end("[{\"x\":\"", ",{\"a\":[\"]\"")]
    #[case::lists_of_strings_that_seem_not_to_end("[{\"t\":[\"x", "},{\",\",\"")]
    #[case::frames_of_strings_that_do_not_end("", "{\"events\":[{\"t\":\"C:\\\"},{\"n\":2}]}")]
    #[case::strings_that_do_not_end_before_the_lists_of_frames("", "{\"v\":\"C:\\\",\"events\":[{\"n\":2}]}")]
    #[case::names_of_events_without_quotes("{", "events  :  ")]
    #[case::control_bytes("[{}", "\0\0\0,")]
    #[case::byte_order_marks("x\n", "\u{feff}")]
    #[case::quotes("[{},", "\"")]
    #[case::backslashes("[{},\"", "\\")]
    #[case::bad_lines("{}\n", "x\n")]
    #[case::lines_that_are_cut_off("", "{\"a\":[\n")]
    #[case::lists_a_line("x\n", "[{},x]\n")]
    #[case::one_object_with_many_members("{\"a\":NaN", ",\"b\":1")]
    fn work_grows_with_the_body(#[case] head: &str, #[case] piece: &str) {
        check_that_work_grows_with(|bytes| format!("{head}{}", piece.repeat(bytes / piece.len())));
    }

    /// Where what stands first could be looked at again for each of what follows.
    #[rstest]
    #[case::long_name_before_objects("a", ":", "{}")]
    #[case::white_space_before_slashes(" ", "a", "/")]
    #[case::white_space_before_commas(" ", "", ",")]
    #[case::objects_that_are_not_closed_before_commas("{\"a\":", "", ",{")]
    #[case::brackets_that_are_not_closed_before_others("(", "", "}")]
    #[case::arrays_before_objects("[", "", "{}")]
    #[case::quotes_before_objects("\"", "", "},{")]
    #[case::commas_before_frames(",", "", "{\"events\":[}")]
    fn work_grows_with_both_halves_of_the_body(#[case] first: &str, #[case] between: &str, #[case] second: &str) {
        let half = |piece: &str, bytes: usize| piece.repeat(bytes / 2 / piece.len());
        check_that_work_grows_with(|bytes| format!("[{{}},{}{between}{}", half(first, bytes), half(second, bytes)));
    }

    /// White space behind a member that is parsed for each object in its strings.
    #[test]
    fn work_grows_with_white_space_behind_a_member() {
        check_that_work_grows_with(|bytes| {
            let member = r#"",{":1,":2},":3,"#.repeat((bytes / 4).isqrt());
            format!("[{{{member}}}{},NaN]", " ".repeat(bytes - member.len()))
        });
    }

    fn check_that_work_grows_with(body: impl Fn(usize) -> String) {
        for form in [BodyForm::Json, BodyForm::JsonLines] {
            let steps = [8_000, 16_000].map(|bytes| {
                let body = body(bytes);
                let steps = steps::steps_of(|| drop(split_as(body.as_bytes(), form)));
                assert!(steps <= 40 * body.len(), "{steps} for {}", body.len());
                steps
            });
            assert!(steps[1] <= steps[0] * 5 / 2, "{steps:?}");
        }
    }

    proptest! {
        #[test]
        fn every_object_is_one_event_however_it_is_sent(objects in prop::collection::vec(json_object(), 1..5)) {
            let landed = |object: &String| replace_lone_surrogates(&fold_line_breaks(object)).0.into_owned();
            let expected: Vec<_> = objects.iter().map(|object| Ok(landed(object))).collect();
            let array = format!("[{}]", objects.join(","));
            prop_assert_eq!(outcomes(array.as_bytes(), BodyForm::Json), Ok(expected.clone()));
            let member = format!("{{\"events\":{array}}}");
            prop_assert_eq!(outcomes(member.as_bytes(), BodyForm::Json), Ok(expected.clone()));
            let lines: String = expected.iter().flatten().map(|line| format!("{line}\n")).collect();
            prop_assert_eq!(outcomes(lines.as_bytes(), BodyForm::JsonLines), Ok(expected));
        }

        #[test]
        fn any_bytes_are_split_without_panic(
            body: Vec<u8>, form in prop::sample::select(vec![BodyForm::Json, BodyForm::JsonLines, BodyForm::Cmcd]),
        ) {
            let _items = split_as(&body, form);
        }

        #[test]
        fn no_line_is_skipped(lines in prop::collection::vec("[ -Z\\\\^-z|}~]{1,20}", 1..20)) {
            let expected = lines.iter().filter(|line| !line.trim().is_empty()).count();
            let body = lines.join("\n");
            for form in [BodyForm::JsonLines, BodyForm::Cmcd] {
                prop_assert_eq!(split_as(body.as_bytes(), form).map_or(0, |items| items.len()), expected);
            }
        }
    }
}
