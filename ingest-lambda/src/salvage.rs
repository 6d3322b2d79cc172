//! Takes apart a text that is not valid JSON, so that each piece can be judged on its own: a bad token costs the member that
//! it stands in, and no other.
//!
//! Brackets and strings are read byte by byte. Members are separated by commas, and a member that is an object also ends with
//! its bracket: what stands between it and the next comma is a member of its own. Where a string takes the next member's
//! first quote for its end, as the string of `{"path":"C:\"}` does, the next member is found by parsing it. Nothing is left
//! out but white space, commas, the brackets of lists and frames, and what stands around the list of a frame that is
//! otherwise valid.

use serde::de::IgnoredAny;
use serde_json::Deserializer;
use shared::json::for_each_member;
use shared::limits::MAX_EVENTS_PER_REQUEST;
use shared::nesting::Nesting;

use crate::lines::{trimmed, trimmed_end, trimmed_start};
use crate::steps;

/// A piece of a damaged text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Piece<'a> {
    /// A member of a list: an event or nothing.
    Member(&'a [u8]),
    /// What stands in no list. It may be valid by itself, and then be a list or a frame.
    Value(&'a [u8]),
}

/// The pieces of a text in their order. `None` when there is only one, the text.
///
/// There are at most one more than [`MAX_EVENTS_PER_REQUEST`]: then there are too many.
pub(crate) fn pieces(text: &[u8]) -> Option<Vec<Piece<'_>>> {
    let mut cutting = Cutting { pieces: Vec::new(), parse_budget: PARSES_PER_BYTE * text.len() };
    let mut rest = text;
    while !rest.is_empty() && cutting.pieces.len() <= MAX_EVENTS_PER_REQUEST {
        rest = match rest[0] {
            b'[' => cutting.cut_list(rest),
            b'{' => cutting.cut_object(rest),
            _ => cutting.cut_line(rest),
        };
        // Between values they separate or close nothing.
        rest = trimmed_start(rest);
        while let [b',' | b']', behind @ ..] = rest {
            steps::count(1);
            rest = trimmed_start(behind);
        }
    }
    let mut pieces = cutting.pieces;
    pieces.truncate(MAX_EVENTS_PER_REQUEST + 1);
    (pieces != [Piece::Value(text)]).then_some(pieces)
}

/// How often each byte of a text is parsed at most, on average, to find members behind strings that do not end. A member and
/// what stands before it take one parse each; a text that makes more of them fail is cut by brackets and strings alone.
const PARSES_PER_BYTE: usize = 4;

struct Cutting<'a> {
    pieces: Vec<Piece<'a>>,
    /// Bytes that may still be parsed.
    parse_budget: usize,
}

impl<'a> Cutting<'a> {
    /// Cuts an array into its members; returns what follows it.
    fn cut_list(&mut self, array: &'a [u8]) -> &'a [u8] {
        let (members, rest) = Cutter::new(&array[1..], &mut self.parse_budget).cut();
        self.pieces.extend(members.into_iter().map(Piece::Member));
        rest
    }

    /// Cuts the list out of a frame, or takes an object as it is; returns what follows it.
    fn cut_object(&mut self, object: &'a [u8]) -> &'a [u8] {
        let Some(list) = self.events_list(object) else {
            let (inside, behind) = split_behind_object(&object[1..]);
            self.pieces.push(Piece::Value(trimmed_end(&object[..=inside.len()])));
            return behind;
        };
        let (members, rest) = Cutter::new(&list[1..], &mut self.parse_budget).cut();
        // Behind what the list took: what is read for one object is not read again for the next.
        let (tail, behind) = split_behind_object(rest);
        if !members.iter().any(|member| member.starts_with(b"{")) {
            self.pieces.push(Piece::Value(trimmed_end(&object[..object.len() - behind.len()])));
            return behind;
        }
        let head = &object[..object.len() - list.len()];
        // What belongs to a valid frame is no event. Of a damaged one nobody can say what it was: it is kept.
        let is_kept = !is_frame(head, tail);
        let kept = |piece: &'a [u8]| {
            let is_content = !piece.is_empty() && piece != b"}";
            (is_kept && is_content).then_some(Piece::Value(piece))
        };
        self.pieces.extend(kept(trimmed(head)));
        self.pieces.extend(members.into_iter().map(Piece::Member));
        self.pieces.extend(kept(trimmed(tail)));
        behind
    }

    /// The list in an object's `events` member, from its bracket on. In an object that does not close, a string before the list
    /// may not end; then strings are not told apart, and the name is one in quotes.
    fn events_list(&mut self, object: &'a [u8]) -> Option<&'a [u8]> {
        let list = find_events_list(object, true).or_else(|end| {
            if end < object.len() || self.parse_budget == 0 {
                return Err(end);
            }
            self.parse_budget = self.parse_budget.saturating_sub(end);
            find_events_list(object, false)
        });
        list.ok().map(|at| &object[at..])
    }

    /// Takes what is neither a list nor an object, up to the end of its line; returns what follows it.
    fn cut_line(&mut self, text: &'a [u8]) -> &'a [u8] {
        let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
        steps::count(end);
        self.pieces.push(Piece::Value(trimmed_end(&text[..end])));
        &text[end..]
    }
}

/// Whether what stands around a list of events is an object with that one list.
fn is_frame(head: &[u8], tail: &[u8]) -> bool {
    let end = if tail.ends_with(b"}") { &b""[..] } else { b"}" };
    let frame = [head, b"[]", tail, end].concat();
    steps::count(frame.len());
    let mut lists = 0;
    let read = std::str::from_utf8(&frame)
        .is_ok_and(|frame| for_each_member(frame, |key, _| lists += usize::from(key == "\"events\"")).is_ok());
    read && lists == 1
}

/// Where the list in an object's `events` member begins, or else where the object ends.
fn find_events_list(object: &[u8], reads_strings: bool) -> Result<usize, usize> {
    let mut nesting = Nesting::default();
    for at in 1..object.len() {
        steps::count(1);
        let is_quote = object[at] == b'"';
        if nesting.is_outside() {
            if object[at] == b'}' {
                return Err(at);
            }
            if (reads_strings || is_quote)
                && let Some(list) = list_named_events(object, at)
            {
                return Ok(object.len() - list.len());
            }
        }
        if reads_strings || !is_quote {
            nesting.read(object[at]);
        }
    }
    Err(object.len())
}

/// The list whose name begins here, in quotes, in those of JavaScript or in none.
fn list_named_events(object: &[u8], at: usize) -> Option<&[u8]> {
    let goes_on = |byte: u8| byte.is_ascii_alphanumeric() || b"_$-.'\"".contains(&byte);
    let behind_name = match &object[at..] {
        [b'"', rest @ ..] => rest.strip_prefix(b"events\"")?,
        [b'\'', rest @ ..] => rest.strip_prefix(b"events'")?,
        _ if goes_on(object[at - 1]) => return None,
        rest => rest.strip_prefix(b"events")?,
    };
    let list = trimmed_start(trimmed_start(behind_name).strip_prefix(b":")?);
    list.starts_with(b"[").then_some(list)
}

/// The rest of an object, with its bracket, and what follows it. All of it belongs to an object that is not closed.
fn split_behind_object(inside: &[u8]) -> (&[u8], &[u8]) {
    let mut nesting = Nesting::default();
    let close = inside.iter().position(|byte| {
        steps::count(1);
        let closes = *byte == b'}' && nesting.is_outside();
        nesting.read(*byte);
        closes
    });
    inside.split_at(close.map_or(inside.len(), |close| close + 1))
}

struct Cutter<'a, 'b> {
    /// The list behind its bracket.
    text: &'a [u8],
    /// Where the member that is being read begins.
    start: usize,
    /// Whether more than white space was read of it.
    has_begun: bool,
    /// Whether it is a name with a value, whose object ends no member.
    is_named: bool,
    /// What is open of it.
    nesting: Nesting,
    /// Which brackets would be open if no string were.
    brackets: Nesting,
    parse_budget: &'b mut usize,
    members: Vec<&'a [u8]>,
}

impl<'a, 'b> Cutter<'a, 'b> {
    fn new(text: &'a [u8], parse_budget: &'b mut usize) -> Self {
        let (nesting, brackets, members) = <_>::default();
        Self { text, start: 0, has_begun: false, is_named: false, nesting, brackets, parse_budget, members }
    }

    /// The members up to the end of the list, and what follows it.
    fn cut(mut self) -> (Vec<&'a [u8]>, &'a [u8]) {
        let mut at = 0;
        while at < self.text.len() && self.members.len() <= MAX_EVENTS_PER_REQUEST {
            steps::count(1);
            if self.text[at] == b',' && starts_object(&self.text[at + 1..]) {
                self.end_objects_before(at);
            }
            if !self.nesting.is_outside() {
                self.read_inside(at);
            } else {
                match self.text[at] {
                    b',' => self.end_member(at, at + 1),
                    b'{' => self.begin_object(at),
                    b']' => {
                        self.end_member(at, at + 1);
                        let rest = &self.text[at + 1..];
                        // A bracket too many: behind a list there is no comma, and in a frame a name follows it.
                        if !trimmed_start(rest).strip_prefix(b",").is_some_and(starts_object) {
                            return (self.members, rest);
                        }
                    }
                    b'/' => at = self.pass_comment(at),
                    byte => self.read_outside(byte),
                }
            }
            if self.text[at] != b'"' {
                self.brackets.read(self.text[at]);
            }
            at += 1;
        }
        // What is open was cut off.
        self.end_member(self.text.len(), self.text.len());
        (self.members, &[])
    }

    /// In an object a comma stands before a key. Where an object begins behind it, the objects around it were not closed, or
    /// they were, in a string that was not.
    fn end_objects_before(&mut self, comma: usize) {
        self.brackets.close_objects();
        if !self.nesting.is_in_string() {
            self.nesting.close_objects();
        } else if self.brackets.is_outside() && self.is_member(comma + 1) && *self.parse_budget > 0 && !self.is_whole()
        {
            self.nesting = Nesting::default();
        }
    }

    /// Whether what is being read begins with a whole object, or is another value: then the comma stands in a string of it.
    fn is_whole(&mut self) -> bool {
        let is_object = starts_object(&self.text[self.start..]);
        self.behind_value(self.start).is_some_and(|behind| is_object || ends_member(behind))
    }

    /// Whether an object stands here that is a member. An empty one may also stand in a string; in a string that ends where it
    /// should, no quote does.
    fn is_member(&mut self, from: usize) -> bool {
        let object = trimmed_start(&self.text[from..]).strip_prefix(b"{");
        object.is_some_and(|inside| trimmed_start(inside).starts_with(b"\""))
            && self.behind_value(from).is_some_and(ends_member)
    }

    /// What follows the value that stands here. All that is read is paid for, white space too.
    fn behind_value(&mut self, from: usize) -> Option<&'a [u8]> {
        if *self.parse_budget == 0 {
            return None;
        }
        let text = trimmed_start(&self.text[from..]);
        let mut values = Deserializer::from_slice(text).into_iter::<IgnoredAny>();
        let (is_value, parsed) = match values.next() {
            Some(Ok(IgnoredAny)) => (true, values.byte_offset()),
            Some(Err(error)) => (false, place_of(&error, text)),
            None => (false, 0),
        };
        steps::count(parsed);
        let behind = trimmed_start(&text[parsed..]);
        *self.parse_budget = self.parse_budget.saturating_sub(self.text.len() - from - behind.len());
        is_value.then_some(behind)
    }

    fn read_outside(&mut self, byte: u8) {
        self.has_begun |= !byte.is_ascii_whitespace();
        self.is_named |= byte == b':';
        self.nesting.read(byte);
    }

    fn read_inside(&mut self, at: usize) {
        self.nesting.read(self.text[at]);
        if self.text[at] == b'}' && self.nesting.is_outside() && !self.is_named {
            self.end_member(at + 1, at + 1);
        }
    }

    /// An object is a member of its own, unless it has a name.
    fn begin_object(&mut self, at: usize) {
        if !self.is_named {
            self.end_member(at, at);
        }
        self.nesting.read(b'{');
    }

    /// A comment before a member is one of its own, whatever it holds. Its last byte, or this place if there is none.
    fn pass_comment(&mut self, at: usize) -> usize {
        let end: &[u8] = match self.text[at..] {
            [_, b'*', ..] if !self.has_begun => b"*/",
            [_, b'/', ..] if !self.has_begun => b"\n",
            _ => {
                self.has_begun = true;
                return at;
            }
        };
        let length = self.text[at..].windows(end.len()).position(|window| window == end);
        let behind = length.map_or(self.text.len(), |length| at + length + end.len());
        steps::count(behind - at);
        self.end_member(behind, behind);
        behind - 1
    }

    fn end_member(&mut self, end: usize, next: usize) {
        let member = trimmed(&self.text[self.start..end]);
        if !member.is_empty() {
            self.members.push(member);
        }
        self.start = next;
        (self.has_begun, self.is_named) = (false, false);
        self.brackets = Nesting::default();
    }
}

/// The bytes that were parsed until this error.
fn place_of(error: &serde_json::Error, text: &[u8]) -> usize {
    let lines = text.split_inclusive(|byte| *byte == b'\n').take(error.line() - 1);
    (lines.map(<[u8]>::len).sum::<usize>() + error.column()).min(text.len())
}

fn ends_member(behind: &[u8]) -> bool {
    matches!(behind, [] | [b',' | b']', ..])
}

fn starts_object(text: &[u8]) -> bool {
    trimmed_start(text).starts_with(b"{")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::is_json;
    use generators::json::json_object;
    use proptest::prelude::*;
    use proptest::sample::select;
    use rstest::rstest;

    fn texts(pieces: Option<Vec<Piece<'_>>>) -> Vec<String> {
        let text = |piece: Piece<'_>| match piece {
            Piece::Member(text) | Piece::Value(text) => String::from_utf8_lossy(text).into_owned(),
        };
        pieces.into_iter().flatten().map(text).collect()
    }

    #[rstest]
    #[case::token(r#"[{"n":1},{"n":NaN},{"n":3}]"#, &[r#"{"n":1}"#, r#"{"n":NaN}"#, r#"{"n":3}"#])]
    #[case::white_space("[ {\"n\":1} ,\n\t undefined\r\n]", &[r#"{"n":1}"#, "undefined"])]
    #[case::comma_in_a_string(r#"[{"a":"},{"},x]"#, &[r#"{"a":"},{"}"#, "x"])]
    #[case::escaped_quote(r#"[{"a":"\\\"},{"},x]"#, &[r#"{"a":"\\\"},{"}"#, "x"])]
    #[case::nested("[[1,[{},{}]],{\"a\":[{},{}]},x]", &["[1,[{},{}]]", "{\"a\":[{},{}]}", "x"])]
    #[case::strings("[\"a,]b\",{}", &["\"a,]b\"", "{}"])]
    #[case::missing_comma("[{\"n\":1}{\"n\":2} {\"n\":3}]", &["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"])]
    #[case::two_commas("[{},,{}]", &["{}", "{}"])]
    #[case::comma_at_the_start("[,{}]", &["{}"])]
    #[case::comma_at_the_end("[{},]", &["{}"])]
    #[case::comma_alone("[,]", &[])]
    #[case::comments("[{}, /* a */ {}, // b\n{}]", &["{}", "/* a */", "{}", "// b", "{}"])]
    #[case::junk_behind_an_object("[{} x,{}]", &["{}", "x", "{}"])]
    #[case::one_bracket_too_many("[{}},{}]", &["{}", "}", "{}"])]
    #[case::array_not_closed("[{\"a\":[1},{}]", &["{\"a\":[1}", "{}"])]
    #[case::array_closed_but_not_open("[{\"a\":1]},{}]", &["{\"a\":1]}", "{}"])]
    #[case::object_not_closed("[{},{\"a\":{\"n\":1},{},{}]", &["{}", "{\"a\":{\"n\":1}", "{}", "{}"])]
    #[case::object_not_closed_in_an_array("[{\"a\":[{\"b\":1,{\"c\":2}]},{}]", &["{\"a\":[{\"b\":1,{\"c\":2}]}", "{}"])]
    #[case::last_object_not_closed("[{},{\"a\":1]", &["{}", "{\"a\":1]"])]
    #[case::cut_off_in_a_string("[{},{\"a\":\"x,", &["{}", "{\"a\":\"x,"])]
    #[case::cut_off_behind_a_member("[{},{}", &["{}", "{}"])]
    #[case::cut_off_behind_a_comma("[{},", &["{}"])]
    #[case::cut_off_at_once("[", &[])]
    #[case::more_behind_the_list("[{}] x, y", &["{}", "x, y"])]
    #[case::two_lists("[{}][{},x]{}", &["{}", "{}", "x", "{}"])]
    #[case::list_closed_too_early(r#"[{"n":1}],{"n":2},{"n":3}]"#, &[r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#])]
    #[case::list_not_opened(r#"{"n":1},{"n":2}]"#, &[r#"{"n":1}"#, r#"{"n":2}"#])]
    #[case::string_that_does_not_end(r#"[{"t":"C:\"},{"n":2},{"n":3}]"#, &[r#"{"t":"C:\"}"#, r#"{"n":2}"#, r#"{"n":3}"#])]
    #[case::cut_off_in_a_string_of_a_list_in_a_member(r#"[{},{"i":[{"a":1},{"b":2}],"q":"x"#, &["{}", r#"{"i":[{"a":1},{"b":2}],"q":"x"#])]
    #[case::members_in_a_string_of_a_whole_one(r#"[{"t":"x},{",":1},":0}{"n":2}]"#, &[r#"{"t":"x},{",":1},":0}"#, r#"{"n":2}"#])]
    #[case::members_in_a_string_when_all_has_been_parsed(
        r#"[{",{":1,":2},":3,",{":1,":2},":3,",{":1,":2},":3,",{":1,":2},":3,",{":1,":2},":3}    ,NaN]"#,
        &[r#"{",{":1,":2},":3,",{":1,":2},":3,",{":1,":2},":3,",{":1,":2},":3,",{":1,":2},":3}"#, "NaN"]
    )]
    #[case::events_of_a_member_that_is_whole(
        "{\"ad\":{\"err\":\"f() }\",\"events\":[{\"t\":1}]},\"id\":\"a\"}\0{\"n\":2}",
        &[r#"{"ad":{"err":"f() }","events":[{"t":1}]},"id":"a"}"#, r#"{"n":2}"#]
    )]
    #[case::events_of_a_member_that_is_damaged(r#"{"m":{"s":"}","events":[{"n":1}]},"v":NaN} x"#, &[r#"{"m":{"s":"}","events":[{"n":1}]},"v":NaN}"#, "x"])]
    #[case::call("[{},new Date({\"x\":1}),{}]", &["{}", "new Date({\"x\":1})", "{}"])]
    #[case::comment_with_an_object("[{} /* {},{} */,{}]", &["{}", "/* {},{} */", "{}"])]
    #[case::address("[http://a.example/,{}]", &["http://a.example/", "{}"])]
    #[case::name_outside_an_object("[{},\"c\":{\"d\":2},{}]", &["{}", "\"c\":{\"d\":2}", "{}"])]
    #[case::frame(r#"{"v":1,"events":[{"n":1},x],"z":[{}]}"#, &[r#"{"n":1}"#, "x"])]
    #[case::frame_that_is_damaged_before_its_list(r#"{"v":NaN,"events":[{"n":1}]}"#, &[r#"{"v":NaN,"events":"#, r#"{"n":1}"#])]
    #[case::frame_that_is_damaged_behind_its_list(r#"{"events":[{"n":1}],"v":NaN}"#, &["{\"events\":", r#"{"n":1}"#, ",\"v\":NaN}"])]
    #[case::frame_with_two_lists(r#"{"events":[{"n":1},x],"events":[{"n":2}]}"#, &["{\"events\":", r#"{"n":1}"#, "x", r#","events":[{"n":2}]}"#])]
    #[case::frame_whose_list_is_closed_too_early(r#"{"events":[{"n":1}],{"n":2}]}"#, &[r#"{"n":1}"#, r#"{"n":2}"#])]
    #[case::frames(r#"{"v":NaN,"events":[{"n":1}]}{"events":[{"n":2},x]}"#, &[r#"{"v":NaN,"events":"#, r#"{"n":1}"#, r#"{"n":2}"#, "x"])]
    #[case::frames_a_line("x\n{\"events\":[{},x]}\n{\"n\":3}", &["x", "{}", "x", "{\"n\":3}"])]
    #[case::frame_with_white_space("{\"events\" :\n [{}, x ] , \"z\":1} ", &["{}", "x"])]
    #[case::frame_cut_off(r#"{"m":{},"events":[{"n":1},{"n""#, &[r#"{"n":1}"#, r#"{"n""#])]
    #[case::frame_whose_list_is_not_closed("{\"events\":[{}}", &["{}", "}"])]
    #[case::more_behind_a_frame("{\"events\":[{}],\"z\":\"}\",\"y\":{}} {\"n\":1}", &["{}", "{\"n\":1}"])]
    #[case::inner_events_before_those_of_a_frame(r#"{"m":{"events":[{"n":0}]},"events":[{"n":1},x]}"#, &[r#"{"n":1}"#, "x"])]
    fn damaged_lists_are_cut_at_their_members(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(texts(pieces(text.as_bytes())), expected);
    }

    #[rstest]
    #[case("hello")]
    #[case("{\"a\":NaN}")]
    #[case("{\"events\":[1,NaN]}")]
    #[case("{\"events\":[]")]
    #[case("{\"events\":{\"a\":[{}]},x}")]
    #[case("{\"n\":1,\"t\":\"},{\"")]
    #[case("{\"a\":{\"events\":[{}]},x}")]
    #[case("{\"a\":\"\\\"events\\\":[{}]\",x}")]
    #[case("")]
    fn what_is_no_list_is_not_cut(#[case] text: &str) {
        assert_eq!(pieces(text.as_bytes()).unwrap_or_default(), []);
    }

    #[test]
    fn members_stop_at_one_more_than_there_may_be() {
        for (count, found) in [(9_999, 9_999), (10_000, 10_000), (10_001, 10_001), (20_000, 10_001)] {
            let text = format!("[{}", vec!["{}"; count].join(","));
            assert_eq!(pieces(text.as_bytes()).unwrap().len(), found);
        }
    }

    /// What harms the member that it stands in, and no other.
    fn bad_member() -> impl Strategy<Value = Vec<u8>> {
        let texts = select(vec![
            &b"NaN"[..],
            b"undefined",
            b"-Infinity",
            b"'a'",
            b"{'n':1}",
            b"{n:1}",
            b"{\"n\":NaN}",
            b"{\"n\":undefined,\"m\":[{},{}]}",
            b"{\"n\":1,}",
            b"{\"n\":[1,]}",
            b"{\"n\" 1}",
            b"{\"t\":\"a\tb\"}",
            b"{\"t\":\"a\nb\"}",
            b"{\"t\":\"\0\"}",
            b"{\"t\":\"\\x\"}",
            b"{\"t\":\"\\u12\"}",
            b"{\"t\":\"},{\\'\"}",
            b"{\"t\":\"\xff\"}",
            b"{\"\xc3\":1}",
            b"{\"a\":[1}",
            b"{\"a\":1]}",
            b"{\"a\":[[1,2}",
            b"{\"a\":{]}}",
            b"01",
            b"/* a */",
            b"",
        ]);
        texts.prop_map(<[u8]>::to_vec)
    }

    /// What ends in a string that takes the next member's first quote for its end.
    fn member_in_whose_string_the_next_begins() -> impl Strategy<Value = Vec<u8>> {
        let texts = select(vec![
            &br#"{"t":"C:\"}"#[..],
            br#"{"t":"x}"#,
            br#"{"t":x"}"#,
            br#"{"t":"C:\","u":[{"a":1},{"b":[{}]}],"v":{"w":"y"}}"#,
            br#"{"t":":-{ :-[ C:\"}"#,
            br#"{"t":"tru"#,
            br#""C:\""#,
            b"{\"t\":\"x\n}",
            b"{\"t\":\"\xff}",
        ]);
        texts.prop_map(<[u8]>::to_vec)
    }

    /// What stands around the list of a frame: nothing that is kept, or what is.
    fn around() -> impl Strategy<Value = (&'static str, &'static str, bool)> {
        select(vec![
            ("{\"m\":{},", "}", false),
            ("{", ",\"z\":[{}]}", false),
            ("{\"v\":NaN,", "}", true),
            ("{", ",\"v\":undefined}", true),
            ("{\"v\":1,{\"n\":0},", "}", true),
            ("{", ",\"events\":[{\"n\":2}]}", true),
        ])
    }

    proptest! {
        #[test]
        fn every_member_is_found_as_it_was_sent_whatever_stands_beside_it(
            members in prop::collection::vec(prop_oneof![json_object().prop_map(String::into_bytes), bad_member()], 1..12),
            cut_off: bool,
        ) {
            let list = [&b"["[..], &members.join(&b" ,\n"[..])[..], if cut_off { &b""[..] } else { b"]" }].concat();
            let members = members.iter().map(|member| member.trim_ascii()).filter(|member| !member.is_empty());
            prop_assert_eq!(pieces(&list).unwrap(), members.map(Piece::Member).collect::<Vec<_>>());
        }

        #[test]
        fn a_good_member_is_found_behind_any_number_of_strings_that_do_not_end(
            members in prop::collection::vec(prop_oneof![
                json_object().prop_filter("an empty one tells nothing", |object| object.contains('"')).prop_map(|object| [b"".to_vec(), object.into_bytes()]),
                (member_in_whose_string_the_next_begins(), Just(b"{\"n\":2}".to_vec())).prop_map(<[_; 2]>::from),
                bad_member().prop_map(|bad| [bad, b"{\"n\":3}".to_vec()]),
            ], 1..12),
            separator in select(vec![",", " , ", ",\n"]), end in select(vec!["]", "", ",{\"n", ",NaN]"]), in_frame: bool,
        ) {
            let members: Vec<Vec<u8>> = members.concat().into_iter().filter(|member| !member.is_empty()).collect();
            let head = if in_frame { "{\"v\":1,\"events\":[" } else { "[" };
            let text = [head.as_bytes(), &members.join(separator.as_bytes())[..], end.as_bytes()].concat();
            let found = pieces(&text).unwrap();
            let good = members.iter().filter(|member| is_json(member));
            for member in good {
                prop_assert!(found.contains(&Piece::Member(member.trim_ascii())), "{}", String::from_utf8_lossy(member));
            }
        }

        #[test]
        fn the_members_of_a_frame_are_found_and_what_is_damaged_around_them_is_kept(
            members in prop::collection::vec(prop_oneof![json_object().prop_map(String::into_bytes), bad_member()], 1..12),
            (head, tail, is_kept) in around(),
        ) {
            let members = [&[b"{}".to_vec()], &members[..]].concat();
            let head = format!("{head}\"events\":");
            let text = [head.as_bytes(), b"[", &members.join(&b","[..])[..], b"]", tail.as_bytes()].concat();
            let members = members.iter().map(|member| member.trim_ascii()).filter(|member| !member.is_empty());
            let mut expected: Vec<_> = members.map(Piece::Member).collect();
            if is_kept {
                expected.insert(0, Piece::Value(head.as_bytes()));
                expected.extend(Some(Piece::Value(tail.as_bytes())).filter(|_| tail != "}"));
            }
            prop_assert_eq!(pieces(&text).unwrap(), expected);
        }

        #[test]
        fn nothing_is_left_out_but_commas_white_space_and_brackets_of_lists(text in "[\\[\\]{}\",:1x \n\\\\]{0,60}") {
            let text = text.trim();
            let found = pieces(text.as_bytes());
            let found = if found.is_none() { vec![text.to_owned()] } else { texts(found) };
            let (mut rest, mut left_out) = (text, String::new());
            for piece in found {
                let (before, behind) = rest.split_once(&piece).unwrap();
                left_out.push_str(before);
                rest = behind;
            }
            left_out.push_str(rest);
            prop_assert_eq!(left_out.replace(['[', ']', ',', ' ', '\n'], ""), "");
        }
    }
}
