//! Takes a text apart that is not valid JSON, so that each piece can be judged on its own: a bad token costs the member that it
//! stands in, and no other.
//!
//! Brackets and strings are all that is looked at, byte by byte. Members are separated by commas, and a member that is an
//! object also ends with its bracket: what stands between it and the next comma is a member of its own. Nothing is left out
//! but white space, commas, the brackets of lists and frames, and what stands around the list of a frame that is otherwise valid.

use serde_json::value::RawValue;
use shared::json::for_each_member;
use shared::limits::MAX_EVENTS_PER_REQUEST;
use shared::nesting::Nesting;

use crate::content::BYTE_ORDER_MARK;
use crate::work;

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
    let (mut pieces, mut rest) = (Vec::new(), text);
    while !rest.is_empty() && pieces.len() <= MAX_EVENTS_PER_REQUEST {
        rest = match rest[0] {
            b'[' => cut_list(rest, &mut pieces),
            b'{' => cut_object(rest, &mut pieces),
            _ => cut_line(rest, &mut pieces),
        }
        .trim_ascii_start();
        // Between values they separate or close nothing.
        while let [b',' | b']', behind @ ..] = rest {
            rest = behind.trim_ascii_start();
            work::count(1);
        }
    }
    pieces.truncate(MAX_EVENTS_PER_REQUEST + 1);
    (pieces != [Piece::Value(text)]).then_some(pieces)
}

/// Cuts an array into its members; what follows it.
fn cut_list<'a>(array: &'a [u8], pieces: &mut Vec<Piece<'a>>) -> &'a [u8] {
    let (members, rest) = Cutter::new(&array[1..]).cut();
    pieces.extend(members.into_iter().map(Piece::Member));
    rest
}

/// Cuts the list out of a frame, or takes an object as it is; what follows it.
fn cut_object<'a>(object: &'a [u8], pieces: &mut Vec<Piece<'a>>) -> &'a [u8] {
    let Some(list) = events_list(object) else {
        let (inside, behind) = split_behind_object(&object[1..]);
        pieces.push(Piece::Value(object[..=inside.len()].trim_ascii_end()));
        return behind;
    };
    let (members, rest) = Cutter::new(&list[1..]).cut();
    // Behind what the list took: what is read for one object is not read again for the next.
    let (tail, behind) = split_behind_object(rest);
    if !members.iter().any(|member| member.starts_with(b"{")) {
        pieces.push(Piece::Value(object[..object.len() - behind.len()].trim_ascii_end()));
        return behind;
    }
    let head = &object[..object.len() - list.len()];
    // What belongs to a valid frame is no event. Of a damaged one nobody can say what it was: it is kept.
    let is_kept = !is_frame(head, tail);
    let kept = |piece: &'a [u8]| {
        let is_content = !piece.is_empty() && piece != b"}";
        (is_kept && is_content).then_some(Piece::Value(piece))
    };
    pieces.extend(kept(head.trim_ascii()));
    pieces.extend(members.into_iter().map(Piece::Member));
    pieces.extend(kept(tail.trim_ascii()));
    behind
}

/// Takes what is neither a list nor an object, up to the end of its line; what follows it.
fn cut_line<'a>(text: &'a [u8], pieces: &mut Vec<Piece<'a>>) -> &'a [u8] {
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    work::count(end);
    pieces.push(Piece::Value(text[..end].trim_ascii_end()));
    &text[end..]
}

/// Whether what stands around a list of events is an object with that one list.
fn is_frame(head: &[u8], tail: &[u8]) -> bool {
    let end = if tail.ends_with(b"}") { &b""[..] } else { b"}" };
    let frame = [head, b"[]", tail, end].concat();
    work::count(frame.len());
    let mut lists = 0;
    let read = std::str::from_utf8(&frame)
        .is_ok_and(|frame| for_each_member(frame, |key, _| lists += usize::from(key == "\"events\"")).is_ok());
    read && lists == 1
}

/// Whether a body that is not one JSON value holds values a line. It does if its first line is a value, or if a later one is an
/// object or array that is no part of a larger value: no array is open, or no comma joins it to the line before.
pub(crate) fn holds_lines(body: &[u8]) -> bool {
    let mut lines = lines(body);
    let Some(first) = lines.next() else { return false };
    let (mut nesting, mut last) = (Nesting::default(), first.last().copied());
    work::count(first.len());
    first.iter().for_each(|byte| nesting.read(*byte));
    let mut is_value_line = |line: &[u8]| {
        let is_joined = matches!(last, Some(b',' | b'['));
        let may_be_apart =
            matches!(line, [b'{' | b'[', ..]) && (nesting.arrays() == 0 || !is_joined && !nesting.is_in_string());
        work::count(line.len());
        line.iter().for_each(|byte| nesting.read(*byte));
        last = line.last().copied();
        may_be_apart && is_json(line)
    };
    match lines.next() {
        None => false,
        Some(second) => is_json(first) || is_value_line(second) || lines.any(is_value_line),
    }
}

/// The lines that are not blank, without the white space around them and without a byte order mark.
pub(crate) fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == b'\n').map(without_marks).filter(|line| !line.is_empty())
}

/// A text without the white space around it and the byte order marks before it.
pub(crate) fn without_marks(text: &[u8]) -> &[u8] {
    let mut text = text.trim_ascii();
    while let Some(unmarked) = text.strip_prefix(BYTE_ORDER_MARK) {
        text = unmarked.trim_ascii_start();
    }
    text
}

fn is_json(text: &[u8]) -> bool {
    work::count(text.len());
    std::str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<&RawValue>(text).is_ok())
}

/// The list in an object's `events` member, from its bracket on.
fn events_list(object: &[u8]) -> Option<&[u8]> {
    let mut nesting = Nesting::default();
    let inside = object.strip_prefix(b"{")?;
    for at in 0..inside.len() {
        work::count(1);
        if nesting.is_outside() {
            if inside[at] == b'}' {
                return None;
            }
            if let Some(list) = list_named_events(&inside[at..]) {
                return Some(list);
            }
        }
        nesting.read(inside[at]);
    }
    None
}

fn list_named_events(member: &[u8]) -> Option<&[u8]> {
    let behind_name = member.strip_prefix(b"\"events\"")?.trim_ascii_start();
    work::count(member.len() - behind_name.len());
    let value = behind_name.strip_prefix(b":")?.trim_ascii_start();
    work::count(behind_name.len() - value.len());
    value.starts_with(b"[").then_some(value)
}

/// The rest of an object, with its bracket, and what follows it. All of it belongs to an object that is not closed.
fn split_behind_object(inside: &[u8]) -> (&[u8], &[u8]) {
    let mut nesting = Nesting::default();
    let close = inside.iter().position(|byte| {
        work::count(1);
        let closes = *byte == b'}' && nesting.is_outside();
        nesting.read(*byte);
        closes
    });
    inside.split_at(close.map_or(inside.len(), |close| close + 1))
}

struct Cutter<'a> {
    /// The list behind its bracket.
    text: &'a [u8],
    /// Where the member that is being read begins.
    start: usize,
    /// Whether more than white space was read of it.
    has_begun: bool,
    /// Whether it is a name with a value, whose object ends no member.
    is_named: bool,
    nesting: Nesting,
    members: Vec<&'a [u8]>,
}

impl<'a> Cutter<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, start: 0, has_begun: false, is_named: false, nesting: Nesting::default(), members: Vec::new() }
    }

    /// The members up to the end of the list, and what follows it.
    fn cut(mut self) -> (Vec<&'a [u8]>, &'a [u8]) {
        let mut at = 0;
        while at < self.text.len() && self.members.len() <= MAX_EVENTS_PER_REQUEST {
            work::count(1);
            if self.text[at] == b',' && !self.nesting.is_in_string() && starts_object(&self.text[at + 1..]) {
                // In an object a comma stands before a key. Where an object begins behind it, the objects around it were not
                // closed.
                self.nesting.close_objects();
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
            at += 1;
        }
        let rest = self.end_of_text();
        (self.members, rest)
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

    /// A comment before a member is one of its own, whatever it holds. Where it ends, or this place if there is none.
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
        work::count(behind - at);
        self.end_member(behind, behind);
        behind - 1
    }

    fn end_member(&mut self, end: usize, next: usize) {
        let member = self.text[self.start..end].trim_ascii();
        if !member.is_empty() {
            self.members.push(member);
        }
        self.start = next;
        (self.has_begun, self.is_named) = (false, false);
    }

    /// What is open at the end was cut off, or a string that should have ended did not: `"C:\"` does not. Then the members
    /// behind it are those that make the rest a whole list.
    fn end_of_text(&mut self) -> &'a [u8] {
        let last = &self.text[self.start..];
        let behind = if self.nesting.is_in_string() { list_in_string(last) } else { None };
        let end = self.start + behind.unwrap_or(last.len());
        self.end_member(end, end);
        if behind.is_none() {
            return &[];
        }
        let (members, rest) = Self::new(&self.text[end..]).cut();
        self.members.extend(members);
        rest
    }
}

/// Places that are tried at most: each may cost a look at all that follows.
const MAX_TRIES: usize = 8;

/// Where the members of a list begin behind a member whose string does not end.
fn list_in_string(text: &[u8]) -> Option<usize> {
    let commas = (1..text.len()).filter(|&at| {
        work::count(1);
        text[at] == b',' && text[..at].trim_ascii_end().ends_with(b"}")
    });
    let mut places = commas.filter(|&at| starts_object(&text[at + 1..])).take(MAX_TRIES);
    places.find(|&at| {
        let rest = &text[at + 1..];
        is_json(&[b"[", rest].concat()) || is_json(&[b"{\"events\":[", rest].concat())
    })
}

fn starts_object(text: &[u8]) -> bool {
    trimmed_start(text).starts_with(b"{")
}

fn trimmed_start(text: &[u8]) -> &[u8] {
    let trimmed = text.trim_ascii_start();
    work::count(text.len() - trimmed.len());
    trimmed
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[rstest]
    #[case::first_is_good("{\"a\":1}\n{\"b\":", true)]
    #[case::first_is_a_number("7\nx", true)]
    #[case::first_is_no_json("hello\n{\"a\":1}", true)]
    #[case::first_has_a_bad_token("{\"n\":NaN}\n{\"n\":2}", true)]
    #[case::first_two_are_bad("x\n{'a':1}\n{\"a\":1}", true)]
    #[case::first_is_cut_off("{\"a\":\n{\"b\":1}\n{\"c\":2}", true)]
    #[case::first_is_cut_off_in_a_string("{\"a\":\"x\n{\"b\":1}", true)]
    #[case::lists_a_line("x\n[{\"a\":1}]", true)]
    #[case::first_has_an_open_array("{\"t\":[\"a\"\n{\"n\":2}\n{\"n\":3}", true)]
    #[case::byte_order_marks("\u{feff}x\n \u{feff}{\"a\":1}", true)]
    #[case::one_line("{\"a\":NaN}\n\n", false)]
    #[case::nothing("\n", false)]
    #[case::no_value("hello\nworld\n1", false)]
    #[case::one_value_over_lines("{\n\"a\":1,\n\"b\":NaN\n}", false)]
    #[case::one_value_cut_off("{\"items\": [\n{\"a\": 1},\n{\"b\": 2}\n]", false)]
    #[case::array_over_lines("[\n{\"a\":NaN}\n,\n{\"b\":2}\n]", false)]
    #[case::array_with_a_line_break_in_a_string("[{\"a\":\"x\n{\"b\":1}\n\"},{}]", false)]
    fn values_a_line_differ_from_one_value_over_lines(#[case] body: &str, #[case] expected: bool) {
        assert_eq!(holds_lines(body.as_bytes()), expected);
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
